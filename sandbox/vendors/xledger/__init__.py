"""Xledger's GraphQL API: the part that an exporter of journal lines meets.

Start:  python -m sandbox.vendors.xledger --books PATH [--port N] [--setup FILE.json]

    POST {url}/graphql      header `Authorization: token <token>`; the schema: schema.graphql

Rows come in through addGLImportItems and lie staged (glImportItems) until the posting job runs:
each `posting_interval_seconds`, or on POST /_sandbox/jobs, which waits until the job is done. A
voucher is posted whole (journalEntries, with new ids) or not at all; then the rows stay staged and
glImportItemErrors says why. For `transit_seconds` the rows that are posted are in neither table.

Set-up (`sandbox.vendors.setup.XLEDGER` is an example; posting one adds to what is there):

    {"settings": {…}, "entities": [{"id", "name", "token",
       "accounts": [{"code", "name", "blocked"}], "subledgers": [{"code", "name"}],
       "objects": [{"slot": 1, "code", "name"}]}],
     "items": [{"id", "by": "delete" | "copy" | "move"}]}     what others do with staged rows

Settings: `books.Settings`. Operations, for faults, are the root fields of a request, in its order
and joined by "+": addGLImportItems, glImportItems, "glImportItems+journalEntries", __typename.
Half of addGLImportItems is the first half of its nodes. A rate limit on order says `code`, or the
burst limit; with `retry_after` it carries extensions.resetAt. A status on order has no JSON body.

/_sandbox/books: {"vendor": "xledger", "posted": [line], "staged": [line], "refused": [{"id",
"message"}]}, and a line is {"company", "id", "state", "date", "document", "account", "party",
"amount", "text", "currency", "original" (amount in it), "reference", "invoice", "tax",
"dimensions": {"glObject1": code, …}, "project"}:
`company` the entity's id, `document` the trRegNumber as a string, `party` the subledger, `amount`
"-12.50" with debit as plus, `reference` the extIdentifier, `state` staged, moving or posted
(`moving` rows, listed under staged, are those in neither table).
"""
