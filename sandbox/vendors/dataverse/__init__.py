"""Microsoft Dataverse's Web API, v9.2: the part that an exporter of journal lines meets.

Start:  python -m sandbox.vendors.dataverse --books PATH [--port N] [--setup FILE.json]

    POST {url}/{tenant}/oauth2/v2.0/token                  client_credentials → {"access_token", …}
    *    {url}/{environment}/api/data/v9.2/{set}[(key)]    rows, by id or by alternate key
    POST {url}/{environment}/api/data/v9.2/$batch          multipart/mixed, with change sets
    GET  {url}/{environment}/api/data/v9.2/EntityDefinitions(LogicalName='…')[/Attributes/…]
    GET  {url}/{environment}/api/data/v9.2/WhoAmI

An environment's address is {url}/{environment}, where Microsoft has a host for each. The scope of a
token is that address and /.default, and the token is good there only.

Set-up (`simulator.SEED` is an example; posting one adds to what is there):

    {"tenant", "clients": [{"id", "secret", "registered"}], "settings": {…},
     "environments": [{"id", "name", "accounts": [{"number", "name", "blocked"}],
       "tables": [{"logical", "entity_set",
         "columns": [{"name", "type", "length", "decimals"}],
         "keys": [{"name", "columns": [name], "status"}]}]}]}

A column's `type` is String, Decimal, Integer or DateTime (of the format Date only). `registered`:
the app is an application user of the environments. Each environment with accounts has a plug-in of
the organisation's, which refuses to create a row whose `kvitt_account` is not one of them, or is
blocked. Settings: `books.Settings`.

Operations, for faults: token, batch, metadata, whoami, rows.list, rows.get, rows.create,
rows.upsert and rows.delete. Half of a batch is the first half of its parts, each of them a request
or a whole change set: Dataverse cuts none.

/_sandbox/books: {"vendor": "dataverse", "posted": [line], "staged": []}, and a line is {"company",
"id", "date", "document", "account", "party", "amount", "text", "currency", "original", "reference",
"record", "tax", "dimensions": {column: code}}: `company` the environment, `document` the voucher's
name, `reference` the row's, `record` the claim's id, `amount` "-12.50" with debit as plus,
`original` the same in `currency`, `dimensions` whatever is in columns that are not kvitt's usual
ones.
"""
