// Speaks another language than a collector: see docs/edge-function.md for the one that we ask for.
Deno.serve(() => Response.json({ hello: "world" }));
