Deno.serve(async (request) => {
  const { megabytes, where } = await request.json();
  const held: unknown[] = [];
  for (let i = 0; i < megabytes; i++) {
    held.push(where === "buffers" ? new Uint8Array(1024 * 1024).fill(1) : Array(128 * 1024).fill(i + 0.5));
    await new Promise((go) => setTimeout(go, 0));
  }
  return Response.json({ held: held.length });
});
