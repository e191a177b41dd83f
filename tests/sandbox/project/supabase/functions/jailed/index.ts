const refused = async (attempt: () => unknown) => {
  try {
    await attempt();
    return "allowed";
  } catch (error) {
    return (error as Error).name;
  }
};

Deno.serve(async () =>
  Response.json({
    write: await refused(() => Deno.writeTextFile("/tmp/kvitt-jailed", "x")),
    run: await refused(() => new Deno.Command("true").output()),
    secrets: Object.keys(Deno.env.toObject()).filter((name) => name.startsWith("KVITT")),
  })
);
