Deno.serve(async (request) => {
  const { seconds } = await request.json();
  await new Promise((go) => setTimeout(go, seconds * 1000));
  return Response.json({ seconds });
});
