export default {
  fetch: () => Response.json({ modern: true }),
};
