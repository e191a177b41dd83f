"""addGLImportItems: rows are checked, and staged. One bad node refuses all of them."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, cast

from sandbox.vendors.xledger.books import Books
from sandbox.vendors.xledger.errors import XledgerError, invalid

OBJECT_SLOTS = tuple(f"glObject{slot}" for slot in range(1, 6))
SHORT = ("extIdentifier", "invoiceNumber")


class Importing:
    """Stages rows for one entity."""

    def __init__(self, books: Books, entity: int) -> None:
        self._books = books
        self._entity = entity

    def add(self, inputs: Sequence[Mapping[str, Any]], *, half: bool) -> dict[str, Any]:
        """Stage the nodes and return the reply's edges. Raises XledgerError, and stages none."""
        limit = self._books.settings.nodes_per_mutation
        if len(inputs) > limit:
            raise XledgerError(f"A mutation takes at most {limit} nodes.", "BAD_REQUEST")
        inputs, rows, refusals = self._sorted_out(inputs)
        if self._books.settings.balance == "import":
            self._demand_balance(rows)
        wanted = list(zip(inputs, rows, strict=True))
        with self._books.transaction():
            edges = [
                {"clientId": given.get("clientId"), "node": self._stage(row)}
                for given, row in (wanted[: len(wanted) // 2] if half else wanted)
            ]
        return {"edges": edges, "refusals": refusals}

    def _sorted_out(
        self, inputs: Sequence[Mapping[str, Any]]
    ) -> tuple[list[Mapping[str, Any]], list[dict[str, Any]], list[XledgerError]]:
        """Return the inputs that are good, the rows that they become, and why others are not.

        Raises XledgerError for the first bad one, unless bad ones are left out [U].
        """
        good: list[Mapping[str, Any]] = []
        rows: list[dict[str, Any]] = []
        refusals: list[XledgerError] = []
        for place, given in enumerate(inputs):
            try:
                rows.append(self._named_row(place, given))
                good.append(given)
            except XledgerError as error:
                if self._books.settings.one_bad_node == "refuses-all":
                    raise
                refusals.append(error)
        return good, rows, refusals

    def _named_row(self, place: int, given: Mapping[str, Any]) -> dict[str, Any]:
        try:
            return self._row(given["node"])
        except XledgerError as error:
            naming = self._books.settings.refusals_name
            raise error.about(place, given.get("clientId"), naming=naming) from error

    def _row(self, node: Mapping[str, Any]) -> dict[str, Any]:
        row = {name: self._value(name, value) for name, value in node.items()}
        row.pop("jobLevel", None)  # taken, and of no consequence here
        if not row.get("account"):
            raise invalid("The field 'account' is required.")
        self._demand_lengths(row)
        if self._books.settings.unknown_codes == "import" and (reason := self.reason(row)):
            raise invalid(reason)
        return {**row, "amount": _amount(row)}

    def _value(self, name: str, value: Any) -> Any:
        """Return a scalar as it is, and the code that a reference means."""
        if not isinstance(value, dict) or name == "jobLevel":
            return value  # pyright: ignore[reportUnknownVariableType] - a scalar of the schema
        reference = cast("dict[str, Any]", value)
        if name == "account" and reference.get("dbId") is not None:
            return self._account_code(reference["dbId"])
        return reference.get("code")

    def _account_code(self, db_id: int) -> str:
        found = self._books.row(
            "SELECT code FROM accounts WHERE entity = ? AND dbId = ?", self._entity, db_id
        )
        if found is None:
            raise invalid(f"No account has the dbId {db_id}.")
        return found["code"]

    def _demand_lengths(self, row: Mapping[str, Any]) -> None:
        settings = self._books.settings
        limits = {**dict.fromkeys(SHORT, settings.reference_length), "text": settings.text_length}
        for name, limit in limits.items():
            if len(row.get(name) or "") > limit:
                raise invalid(f"The field '{name}' takes at most {limit} characters.")

    def reason(self, row: Mapping[str, Any]) -> str | None:
        """Return why this row can't be posted, or None."""
        account = self._books.row(
            "SELECT blocked FROM accounts WHERE entity = ? AND code = ?",
            self._entity,
            row["account"],
        )
        if account is None:
            return f"Account {row['account']} does not exist."
        if account["blocked"]:
            return f"Account {row['account']} is closed."
        if not row.get("postedDate"):
            return "The posted date is missing."
        return self._unknown_code(row)

    def _unknown_code(self, row: Mapping[str, Any]) -> str | None:
        party = row.get("subledger")
        if party and not self._known("subledgers", party):
            return f"Subledger {party} does not exist."
        for number, slot in enumerate(OBJECT_SLOTS, start=1):
            code = row.get(slot)
            if code and not self._known("objects", code, f"AND slot = {number}"):
                return f"Object {code} does not exist in slot {number}."
        return None

    def _known(self, table: str, code: str, further: str = "") -> bool:
        sql = f"SELECT 1 FROM {table} WHERE entity = ? AND code = ? {further}"  # noqa: S608 - our own names
        return self._books.row(sql, self._entity, code) is not None

    def _demand_balance(self, rows: Sequence[Mapping[str, Any]]) -> None:
        sums: defaultdict[tuple[str, int], Decimal] = defaultdict(Decimal)
        for row in rows:
            sums[self._books.voucher_of(row)] += Decimal(row["amount"])
        for (_, number), total in sums.items():
            if total:
                raise invalid(out_of_balance(number, total))

    def _stage(self, row: Mapping[str, Any]) -> dict[str, Any]:
        now = self._books.moment()
        stamp = {"dbId": self._books.new_id(), "createdAt": now, "modifiedAt": now}
        staged = {**stamp, "entity": self._entity, "state": "staged", **row}
        self._books.insert("items", staged)
        return as_node(staged)


def as_node(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a kept row as the schema shows it: codes become objects with a code."""
    coded = {"transactionSource", "account", "currency", "taxRule", "project", "subledger"}
    return {
        name: {"code": value} if name in {*coded, *OBJECT_SLOTS} and value is not None else value
        for name, value in row.items()
    }


def out_of_balance(number: int, total: Decimal) -> str:
    """Return what is said of a voucher whose lines do not sum to 0."""
    return f"Voucher {number} is out of balance by {total}."


def _amount(row: Mapping[str, Any]) -> str:
    """Return the amount in the entity's currency, from the transaction's where that is all."""
    if row.get("amount") is not None:
        return row["amount"]
    if row.get("invoiceAmount") is None:
        raise invalid("The field 'amount' is required.")
    rate = row.get("exchangeRate") or "1"
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", rate):
        raise invalid("The field 'exchangeRate' is not a decimal number.")
    return str((Decimal(row["invoiceAmount"]) * Decimal(rate)).quantize(Decimal("0.01")))
