// An organisation's own collector that holds each page in memory: a megabyte a record.
let booted = true;

Deno.serve(async (request) => {
  const first = booted;
  booted = false;
  const body = await request.json();
  if (body.ping) {
    return Response.json({ booted: first, boot_ms: first ? 1 : null });
  }
  const held: Uint8Array[] = [];
  for (let record = 0; record < body.page; record++) {
    held.push(new Uint8Array(1024 * 1024).fill(1));
    await new Promise((go) => setTimeout(go, 0));
  }
  const key = request.headers.get("apikey") ?? "";
  return await fetch(`${Deno.env.get("SUPABASE_URL")}/rest/v1/rpc/collect_page`, {
    method: "POST",
    headers: { apikey: key, "content-type": "application/json", "content-profile": "kvitt" },
    body: JSON.stringify({
      p_integration: body.integration,
      p_due: body.due_at,
      p_fence: body.fence,
      p_limit: body.page,
    }),
  });
});
