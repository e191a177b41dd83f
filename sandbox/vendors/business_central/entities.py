"""The entities of the API as data: their fields, and the rules that follow from a field's kind.

Lengths and the choice of fields: the page business-central.md, from Microsoft's reference.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from decimal import ROUND_HALF_UP, Decimal
from enum import StrEnum
from typing import Any
from uuid import UUID

from sandbox.vendors.business_central.errors import ApiError, bad_request

CENT = Decimal("0.01")
LARGEST = 10**15  # of amounts; beyond it BC overflows
LARGEST_WHOLE = 2**31
ACCOUNT_TYPES = (
    "G/L Account",
    "Customer",
    "Vendor",
    "Bank Account",
    "Fixed Asset",
    "IC Partner",
    "Employee",
)


class Kind(StrEnum):
    """How a field is written in JSON, and kept."""

    TEXT = "Edm.String"
    CODE = "Code"  # upper-cased and trimmed, if the setting says so
    CHOICE = "Choice"  # one of ACCOUNT_TYPES
    DATE = "Edm.Date"
    MOMENT = "Edm.DateTimeOffset"
    MONEY = "Edm.Decimal"  # a JSON number; kept in whole øre
    WHOLE = "Edm.Int32"
    GUID = "Edm.Guid"
    FLAG = "Edm.Boolean"


@dataclass(frozen=True, kw_only=True)
class Field:
    """One property: its name in JSON, and the SQL that reads it."""

    name: str
    column: str
    kind: Kind = Kind.TEXT
    length: int | None = None
    writable: bool = False


@dataclass(frozen=True, kw_only=True)
class Entity:
    """One entity set: where its rows are, what they belong to, and which rows are shown."""

    name: str  # as in the address
    type_name: str  # as in messages
    table: str
    owner: str  # the column with the id of what it lies under
    order: str
    fields: Mapping[str, Field]
    shown: str = "1"  # SQL; the rows that the API shows
    expands: tuple[str, ...] = ()
    tagged: bool = False  # has an ETag

    def field(self, name: str) -> Field:
        """Return the field of this name. Raises ApiError."""
        if name not in self.fields:
            raise bad_request(f"Could not find a property named '{name}' on type '{self.name}'.")
        return self.fields[name]


def _fields(*fields: Field) -> Mapping[str, Field]:
    return {each.name: each for each in fields}


def _id(column: str = "id") -> Field:
    return Field(name="id", column=column, kind=Kind.GUID)


def _code(name: str, column: str, length: int, *, writable: bool = False) -> Field:
    return Field(name=name, column=column, kind=Kind.CODE, length=length, writable=writable)


def _text(name: str, column: str, length: int, *, writable: bool = False) -> Field:
    return Field(name=name, column=column, length=length, writable=writable)


MODIFIED = Field(name="lastModifiedDateTime", column="modified", kind=Kind.MOMENT)
ACCOUNT_ID = """(SELECT a.id FROM accounts a WHERE a.company = lines.company
    AND a.kind = lines.account_type AND a.number = lines.account_number
    AND a.kind IN ('G/L Account', 'Bank Account'))"""  # resolves for these two only [C]
JOURNAL_NAME = "(SELECT j.display_name FROM journals j WHERE j.id = lines.journal)"

JOURNALS = Entity(
    name="journals",
    type_name="Gen. Journal Batch",
    table="journals",
    owner="company",
    order="code",
    expands=("journalLines",),
    tagged=True,
    fields=_fields(
        _id(),
        _code("code", "code", 10, writable=True),
        _text("displayName", "display_name", 100, writable=True),
        _code("templateDisplayName", "template", 10),
        MODIFIED,
        Field(
            name="balancingAccountId",
            column="""(SELECT a.id FROM accounts a WHERE a.company = journals.company
                AND a.kind = 'G/L Account' AND a.number = journals.balancing_account)""",
            kind=Kind.GUID,
        ),
        _code("balancingAccountNumber", "balancing_account", 20, writable=True),
    ),
)
LINES = Entity(
    name="journalLines",
    type_name="Gen. Journal Line",
    table="lines",
    owner="journal",
    order="line_number",
    expands=("dimensionSetLines",),
    tagged=True,
    fields=_fields(
        _id(),
        Field(name="journalId", column="journal", kind=Kind.GUID),
        _text("journalDisplayName", JOURNAL_NAME, 100),
        Field(name="lineNumber", column="line_number", kind=Kind.WHOLE, writable=True),
        Field(name="accountType", column="account_type", kind=Kind.CHOICE, writable=True),
        Field(name="accountId", column=ACCOUNT_ID, kind=Kind.GUID, writable=True),
        _code("accountNumber", "account_number", 20, writable=True),
        Field(name="postingDate", column="posting_date", kind=Kind.DATE, writable=True),
        _code("documentNumber", "document_number", 20, writable=True),
        _code("externalDocumentNumber", "external_document_number", 35, writable=True),
        Field(name="amount", column="amount", kind=Kind.MONEY, writable=True),
        _text("description", "description", 100, writable=True),
        _text("comment", "comment", 250, writable=True),
        _code("taxCode", "tax_code", 20, writable=True),
        Field(
            name="balanceAccountType",
            column="balance_account_type",
            kind=Kind.CHOICE,
            writable=True,
        ),
        _code("balancingAccountNumber", "balancing_account", 20, writable=True),
        MODIFIED,
    ),
)
DIMENSION_LINES = Entity(
    name="dimensionSetLines",
    type_name="Dimension Set Entry",
    table="line_dimensions",
    owner="line",
    order="code",
    tagged=True,
    fields=_fields(
        _id(),
        _code("code", "code", 20, writable=True),
        Field(name="parentId", column="line", kind=Kind.GUID),
        _code("valueCode", "value", 20, writable=True),
    ),
)
ACCOUNTS = Entity(
    name="accounts",
    type_name="G/L Account",
    table="accounts",
    owner="company",
    order="number",
    shown="kind = 'G/L Account'",
    fields=_fields(
        _id(),
        _code("number", "number", 20),
        _text("displayName", "ifnull(name, '')", 100),
        Field(name="blocked", column="blocked", kind=Kind.FLAG),
        MODIFIED,
    ),
)
VENDORS = Entity(
    name="vendors",
    type_name="Vendor",
    table="accounts",
    owner="company",
    order="number",
    shown="kind = 'Vendor'",
    fields=_fields(
        _id(),
        _code("number", "number", 20),
        _text("displayName", "ifnull(name, '')", 100),
        _text("blocked", "iif(blocked, 'All', ' ')", 10),  # for vendors it's a choice, not a flag
        MODIFIED,
    ),
)
DIMENSIONS = Entity(
    name="dimensions",
    type_name="Dimension",
    table="dimensions",
    owner="company",
    order="code",
    expands=("dimensionValues",),
    fields=_fields(_id(), _code("code", "code", 20), _text("displayName", "name", 30), MODIFIED),
)
DIMENSION_VALUES = Entity(
    name="dimensionValues",
    type_name="Dimension Value",
    table="dimension_values",
    owner="dimension",
    order="code",
    fields=_fields(
        _id(),
        _code("code", "code", 20),
        Field(name="dimensionId", column="dimension", kind=Kind.GUID),
        _text("displayName", "name", 50),
        MODIFIED,
    ),
)
# No externalDocumentNumber, no journal code: the API doesn't show them [C].
LEDGER_ENTRIES = Entity(
    name="generalLedgerEntries",
    type_name="G/L Entry",
    table="entries",
    owner="company",
    order="entry_number",
    fields=_fields(
        _id(),
        Field(name="entryNumber", column="entry_number", kind=Kind.WHOLE),
        Field(name="postingDate", column="posting_date", kind=Kind.DATE),
        _code("documentNumber", "document_number", 20),
        _text("documentType", "' '", 20),
        _code("accountNumber", "ledger_account", 20),
        _text("description", "description", 100),
        Field(name="debitAmount", column="max(amount, 0)", kind=Kind.MONEY),
        Field(name="creditAmount", column="max(-amount, 0)", kind=Kind.MONEY),
        MODIFIED,
    ),
)
COMPANIES = Entity(
    name="companies",
    type_name="Company",
    table="companies",
    owner="tenant",
    order="name",
    fields=_fields(
        _id(), _text("name", "name", 30), _text("displayName", "ifnull(name, '')", 250), MODIFIED
    ),
)
# From Microsoft's source of the API (pages 30087 and 30091), as far as an exporter reads them.
LEDGER_SETUP = Entity(
    name="generalLedgerSetup",
    type_name="General Ledger Setup",
    table="ledger_setup",
    owner="company",
    order="id",
    fields=_fields(
        _id(),
        Field(name="allowPostingFrom", column="allow_from", kind=Kind.DATE),
        Field(name="allowPostingTo", column="allow_to", kind=Kind.DATE),
        _code("localCurrencyCode", "currency", 10),
        MODIFIED,
    ),
)
JOB_QUEUE = Entity(
    name="jobQueueEntries",
    type_name="Job Queue Entry",
    table="job_queue",
    owner="company",
    order="id",
    fields=_fields(
        _id(),
        Field(name="objectIdToRun", column="object", kind=Kind.WHOLE),
        _text("status", "status", 20),
        MODIFIED,
    ),
)
JOB_QUEUE_LOG = Entity(
    name="jobQueueLogEntries",
    type_name="Job Queue Log Entry",
    table="job_queue_log",
    owner="company",
    order="id",
    fields=_fields(
        _id(),
        Field(name="objectIdToRun", column="object", kind=Kind.WHOLE),
        Field(name="startDateTime", column="started", kind=Kind.MOMENT),
        _text("status", "status", 20),
        _text("errorMessage", "error", 2048),
        MODIFIED,
    ),
)
ENTITIES = {
    each.name: each
    for each in (
        COMPANIES,
        JOURNALS,
        LINES,
        DIMENSION_LINES,
        ACCOUNTS,
        VENDORS,
        DIMENSIONS,
        DIMENSION_VALUES,
        LEDGER_ENTRIES,
        LEDGER_SETUP,
        JOB_QUEUE,
        JOB_QUEUE_LOG,
    )
}


def accept(entity: Entity, body: Mapping[str, Any], *, folds_codes: bool = True) -> dict[str, Any]:
    """Return what a request wants to write, by property, in the form in which it is kept.

    Raises ApiError for a property that doesn't exist (currency among them [C]), is read-only, has
    the wrong type or is too long.
    """
    return {
        name: _kept(entity, name, value, folds_codes=folds_codes) for name, value in body.items()
    }


def _kept(entity: Entity, name: str, value: Any, *, folds_codes: bool) -> Any:
    known = entity.fields.get(name)
    if known is None:
        raise bad_request(
            f"The property '{name}' does not exist on type 'Microsoft.NAV.{entity.name}'. Make "
            "sure to only use property names that are defined by the type."
        )
    if not known.writable:
        raise bad_request(f"The property '{name}' is read-only.")
    kept = _of_kind(known, value)
    if known.kind is Kind.CODE and folds_codes:
        kept = kept.strip().upper()
    if known.length is not None and len(kept) > known.length:
        raise ApiError(
            400,
            "Application_StringExceededLength",
            f"The length of the string is {len(kept)}, but it must be less than or equal to "
            f"{known.length} characters. Value: {kept}",
        )
    return kept


def _of_kind(known: Field, value: Any) -> Any:
    """Return a JSON value as it is kept. Raises ApiError."""
    match known.kind, value:
        case Kind.TEXT | Kind.CODE, str():
            return value
        case Kind.CHOICE, str() if value in ACCOUNT_TYPES:
            return value
        case Kind.DATE, str() if is_date(value):
            return value
        case Kind.GUID, str() if is_guid(value):
            return value.lower()
        case Kind.WHOLE, int() if not isinstance(value, bool) and abs(value) < LARGEST_WHOLE:
            return value
        case Kind.MONEY, int() | Decimal() if not isinstance(value, bool) and abs(value) < LARGEST:
            return in_cents(Decimal(value))
        case _:
            raise bad_request(
                f"Cannot convert the value of '{known.name}' to target type '{known.kind}'."
            )


def shown(known: Field, value: Any) -> Any:
    """Return a kept value as JSON shows it; money becomes an exact Decimal."""
    match known.kind:
        case Kind.MONEY:
            return Decimal(value).scaleb(-2)
        case Kind.FLAG:
            return bool(value)
        case Kind.GUID if value is None:
            return str(UUID(int=0))
        case _:
            return value


def in_cents(amount: Decimal) -> int:
    """Return whole øre; BC rounds a journal line's amount to the currency's precision."""
    return int(amount.quantize(CENT, ROUND_HALF_UP).scaleb(2))


def is_date(text: str) -> bool:
    """Say whether this is a day as YYYY-MM-DD."""
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def is_guid(text: str) -> bool:
    """Say whether this is a GUID in its usual form."""
    return re.fullmatch(r"(?i)[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text) is not None
