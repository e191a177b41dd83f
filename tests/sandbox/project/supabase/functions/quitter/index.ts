Deno.serve(() => Deno.exit(7));
