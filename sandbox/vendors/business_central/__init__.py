"""Microsoft Dynamics 365 Business Central, API v2.0: the part that an exporter of journals meets.

Start:  python -m sandbox.vendors.business_central --books PATH [--port N] [--setup FILE.json]

    POST {url}/{tenant}/oauth2/v2.0/token      client_credentials → {"access_token", "expires_in"}
    GET  {url}/environments/v1.2               a probe without a company
    *    {url}/v2.0/{tenant}/{environment}/api/v2.0/companies({id})/journals…
    POST {url}/v2.0/{tenant}/{environment}/api/v2.0/$batch

Set-up (`sandbox.vendors.setup.BUSINESS_CENTRAL` is an example; posting one adds to what is there):

    {"tenant", "environment", "settings": {…},
     "clients": [{"id", "secret", "registered", "permitted"}],
     "companies": [{"id", "name",
       "accounts": [{"kind", "number", "name", "blocked", "ledger_account",
                     "default_dimensions": [{"code", "value", "mandatory"}]}],
       "dimensions": [{"code", "name", "values": [{"code", "name"}]}],
       "journals": [{"code", "template", "balancing_account"}]}]}

`kind` is "G/L Account" (the default), "Vendor", "Customer", "Bank Account" or "Employee"; a line
on one of the latter four is booked on `ledger_account`. Settings: `books.Settings`.

Operations, for faults: token, environments, companies.list, batch, post, and <entity>.<verb> with
the entity as in the address (journals, journalLines, dimensionSetLines, accounts, vendors,
dimensions, dimensionValues, generalLedgerEntries) and list, get, create, update or delete.
`batch` strikes the whole of it; half of it means half of its operations. Half of a deep insert is
the journal with half of its lines.

/_sandbox/books: {"vendor": "business-central", "posted": [line], "staged": [line]}, and a line is
{"company", "batch", "id", "date", "document", "account_type", "account", "ledger_account",
"amount", "text", "reference", "tax", "dimensions": {code: value}}: `id` the entry number or the
line number, `account` what the exporter named, `ledger_account` where the ledger has it (null while
staged), `amount` "-12.50" with debit as plus, `reference` the external document number. A row that
a balancing account added has `account_type` "Balancing". Blank lines are left out.
"""
