// collect: freezes the next page of a period's approved records into its batch.
//
// The contract is docs/edge-function.md; an organisation may put its own function in this place.
// The work is one SQL function, so calling twice is harmless. No secret lives here: the caller's
// own key goes on to the database, and the database decides what it may do.

const started = performance.now();
let booted = true; // true for the first answer of this worker only
let bootMs = 0;

function answer(body: unknown, status = 200): Response {
  return Response.json(body, { status });
}

async function collect(
  request: Request,
  body: Record<string, unknown>,
  boot: Record<string, unknown>,
): Promise<Response> {
  const key = request.headers.get("apikey") ?? "";
  const bearer = request.headers.get("authorization") ?? `Bearer ${key}`;
  const reply = await fetch(`${Deno.env.get("SUPABASE_URL")}/rest/v1/rpc/collect_page`, {
    method: "POST",
    headers: {
      apikey: key,
      authorization: bearer,
      "content-type": "application/json",
      "content-profile": "kvitt",
    },
    body: JSON.stringify({
      p_integration: body.integration,
      p_due: body.due_at,
      p_fence: body.fence,
      p_limit: body.page,
    }),
  });
  if (reply.ok) {
    return answer({ ...(await reply.json()), ...boot });
  }
  // What the database says goes back as it is: {code, message}.
  return new Response(reply.body, {
    status: reply.status,
    headers: { "content-type": "application/json" },
  });
}

Deno.serve(async (request) => {
  const firstAnswer = booted;
  booted = false;
  const boot = { booted: firstAnswer, boot_ms: firstAnswer ? bootMs : null };
  const body = await request.json().catch(() => null);
  if (body?.ping) {
    return answer(boot);
  }
  if (typeof body?.key !== "string" || !(Number.isInteger(body.page) && body.page > 0)) {
    return answer({ code: "BAD_REQUEST", message: "expected {ping} or {key, integration, due_at, fence, page}" }, 400);
  }
  return await collect(request, body, boot);
});

bootMs = Math.round(performance.now() - started);
