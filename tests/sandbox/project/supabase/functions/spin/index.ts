import process from "node:process";

Deno.serve(async (request) => {
  const { seconds } = await request.json();
  const before = process.cpuUsage();
  let used = 0;
  while (used < seconds * 1e6) {
    const { user, system } = process.cpuUsage(before);
    used = user + system;
  }
  return Response.json({ seconds });
});
