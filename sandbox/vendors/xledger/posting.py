"""The posting job: from staged rows to journal entries, a voucher at a time."""

import asyncio
from collections import defaultdict
from decimal import Decimal
from typing import Any

from sandbox.vendors.xledger.books import Books
from sandbox.vendors.xledger.importing import Importing, out_of_balance


class Posting:
    """Takes every staged row, moves the good vouchers, and says what is wrong with the others."""

    def __init__(self, books: Books) -> None:
        self._books = books
        self._running = asyncio.Lock()

    async def run(self) -> int:
        """Run the job once, and return how many rows were posted.

        1. Each voucher is judged. The rows of a good one leave the staged ones.
        2. For a moment they are in neither table.
        3. They are journal entries. Rows that a killed run left in between come along.
        """
        async with self._running:
            with self._books.transaction():
                self._judge_all()
            await asyncio.sleep(self._books.settings.transit_seconds)
            with self._books.transaction():
                return self._arrive()

    def _judge_all(self) -> None:
        staged = self._books.rows("SELECT * FROM items WHERE state = 'staged' ORDER BY dbId")
        vouchers: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        for row in staged:
            vouchers[row["entity"], *self._books.voucher_of(row)].append(row)
        self._books.write("DELETE FROM errors")
        for _, voucher in sorted(vouchers.items()):
            self._judge(voucher)

    def _judge(self, voucher: list[dict[str, Any]]) -> None:
        check = Importing(self._books, voucher[0]["entity"])
        reasons = {row["dbId"]: reason for row in voucher if (reason := check.reason(row))}
        if not reasons and self._books.settings.balance == "posting":
            total = sum(Decimal(row["amount"]) for row in voucher)
            why = out_of_balance(voucher[0]["trRegNumber"], Decimal(total))
            reasons = {row["dbId"]: why for row in voucher if total}
        for row in voucher:
            if row["dbId"] in reasons:
                self._refuse(row, reasons[row["dbId"]])
            elif not reasons:
                self._books.write("UPDATE items SET state = 'moving' WHERE dbId = ?", row["dbId"])

    def _refuse(self, row: dict[str, Any], reason: str) -> None:
        error = {"dbId": self._books.new_id(), "entity": row["entity"], "item": row["dbId"]}
        said = {"extIdentifier": row["extIdentifier"], "message": reason}
        self._books.insert("errors", {**error, **said})

    def _arrive(self) -> int:
        moving = self._books.rows("SELECT * FROM items WHERE state = 'moving' ORDER BY dbId")
        now = self._books.moment()
        for row in moving:
            stamp = {"dbId": self._books.new_id(), "createdAt": now, "modifiedAt": now}
            self._books.insert("entries", {**row, **stamp, "state": "posted"})
        self._books.write("DELETE FROM items WHERE state = 'moving'")
        return len(moving)
