let calls = 0;

Deno.serve((request) => {
  calls += 1;
  const { pathname, search } = new URL(request.url);
  const key = request.headers.get("apikey");
  const url = Deno.env.get("SUPABASE_URL");
  return Response.json({ calls, cold: calls === 1, path: pathname + search, key, url });
});
