"""Microsoft.NAV.post: from a journal's lines to ledger entries, in one transaction."""

import json
from collections import defaultdict
from decimal import Decimal
from typing import Any
from uuid import uuid4

from sandbox.vendors.business_central.books import Books
from sandbox.vendors.business_central.errors import ApiError, line_named, misfilled, refused
from sandbox.vendors.business_central.journals import Writer, blocked, incremented

_VAT_ACCOUNT = "2710"


class Posting:
    """Posts journals, at once or from the job queue."""

    def __init__(self, books: Books) -> None:
        self._books = books

    def post(self, journal: str) -> None:
        """Post, or queue for posting: the caller can't tell from the reply. Raises ApiError."""
        if not self._lines(journal):
            raise refused("There is nothing to post.")
        settings = self._books.settings
        if settings.post_with_job_queue:
            due = self._books.now() + settings.job_queue_seconds
            self._books.write("INSERT OR REPLACE INTO posting_queue VALUES (?, ?)", journal, due)
            return
        self._post_now(journal)
        if settings.analysis_view_fails:
            # The ledger is committed; only the second commit, for analysis views, has failed [C].
            raise refused("The analysis view could not be updated.")

    def run_queue(self, *, all_of_it: bool) -> int:
        """Post what is due in the job queue; a batch that is refused leaves it unposted."""
        until = float("inf") if all_of_it else self._books.now()
        due = self._books.rows("SELECT journal FROM posting_queue WHERE due <= ?", until)
        for each in due:
            self._books.write("DELETE FROM posting_queue WHERE journal = ?", each["journal"])
            try:
                self._post_now(each["journal"])
            except ApiError as error:
                # BC marks the batch with an error that the API shows in the log only.
                self._log(each["journal"], "Error", error.message)
            else:
                self._log(each["journal"], "Success")
        return len(due)

    def _log(self, journal: str, status: str, error: str = "") -> None:
        batch = self._books.row("SELECT company FROM journals WHERE id = ?", journal)
        now = self._books.moment()
        said = {"started": now, "status": status, "error": error, "modified": now}
        company = batch["company"] if batch else ""
        self._books.insert("posting_log", {"id": str(uuid4()), "company": company, **said})

    def _post_now(self, journal: str) -> None:
        batch = self._books.row("SELECT * FROM journals WHERE id = ?", journal)
        lines = self._lines(journal)
        if batch is None or not lines:
            return  # deleted, or posted by somebody else, since it was queued
        with self._books.transaction():
            self._check(batch, lines)
            for line in self._numbered(lines):
                self._enter(batch, line)
            self._books.write("DELETE FROM lines WHERE journal = ?", journal)
            self._leave(batch)

    def _lines(self, journal: str) -> list[dict[str, Any]]:
        return self._books.rows(
            """SELECT lines.*, (SELECT json_group_object(d.code, d.value) FROM line_dimensions d
                 WHERE d.line = lines.id) AS dimensions
               FROM lines WHERE journal = ? AND account_number != '' ORDER BY line_number""",
            journal,
        )

    def _check(self, batch: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        for line in lines:
            if not line["document_number"]:
                raise misfilled(f"Document No. must have a value in line {line['line_number']}.")
            self._check_date(batch, line)
            try:
                self._check_account(batch, line)
            except ApiError as error:
                named = line_named(batch["code"], line["line_number"])
                raise error.about(named, naming=self._books.settings.refusals_name) from error
        if self._books.settings.number_series:
            self._check_number_series(lines)
        if self._books.settings.force_document_balance:
            self._check_balance(lines, "posting_date", "document_number")
        self._check_balance(lines, "posting_date")

    def _check_date(self, batch: dict[str, Any], line: dict[str, Any]) -> None:
        """Refuse a date outside of the window in which the company may post."""
        settings, date = self._books.settings, line["posting_date"]
        until = settings.allow_posting_to.replace("0001-01-01", "9999-12-31")
        if not settings.allow_posting_from <= date <= until:
            raise refused(
                "Posting Date is not within your range of allowed posting dates in "
                f"{line_named(batch['code'], line['line_number'])}."
            )

    def _check_account(self, batch: dict[str, Any], line: dict[str, Any]) -> None:
        account = self._account(line)
        if account["blocked"]:
            raise blocked(line["account_type"], line["account_number"])
        given = json.loads(line["dimensions"])
        for demanded in self._books.rows(
            "SELECT code FROM default_dimensions WHERE account = ? AND mandatory", account["id"]
        ):
            if demanded["code"] not in given:
                # In these words, with the line as the third of the names [C].
                named = f"{batch['template']}, {batch['code']}, {line['line_number']}"
                raise refused(
                    f"A dimension used in Gen. Journal Line {named} has caused an error. "
                    f"Select a Dimension Value Code for the Dimension Code {demanded['code']} for "
                    f"{line['account_type']} {line['account_number']}."
                )

    def _check_number_series(self, lines: list[dict[str, Any]]) -> None:
        expected = incremented(self._books.settings.number_series or "")
        for line in lines:
            if line["document_number"] != expected:
                raise refused(
                    "You have one or more documents that must be posted before you post document "
                    f"no. {line['document_number']} according to your company's No. Series setup."
                )

    def _check_balance(self, lines: list[dict[str, Any]], *keys: str) -> None:
        """Refuse a group that doesn't sum to zero; lines with a balancing account do so alone."""
        sums: defaultdict[tuple[str, ...], int] = defaultdict(int)
        for line in lines:
            if not line["balancing_account"]:
                sums[tuple(line[key] for key in keys)] += line["amount"]
        for group, total in sums.items():
            if total:
                raise refused(
                    f"{' '.join(group)} is out of balance by {Decimal(total).scaleb(-2)}. Please "
                    "check that Posting Date, Document No. and Amount are correct for each line."
                )

    def _numbered(self, lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Give each document its number from the posting series, where there is one."""
        settings = self._books.settings
        if not settings.posting_number_series:
            return lines
        numbers: dict[str, str] = {}
        last = settings.posting_number_series
        for line in lines:
            if line["document_number"] not in numbers:
                last = numbers[line["document_number"]] = incremented(last)
        self._books.change_settings({"posting_number_series": last})
        return [{**line, "document_number": numbers[line["document_number"]]} for line in lines]

    def _enter(self, batch: dict[str, Any], line: dict[str, Any]) -> None:
        """Add the line to the ledger, and its counterpart if it has a balancing account."""
        account = self._account(line)
        net, vat = self._split(account, line["amount"])
        ledger_account = account["ledger_account"] or account["number"]
        self._add_entry(batch, {**line, "amount": net}, ledger_account)
        if vat:
            self._add_entry(batch, {**line, "amount": vat}, _VAT_ACCOUNT)
        if balancing := line["balancing_account"]:
            other_side = {
                "account_type": "Balancing",
                "account_number": balancing,
                "amount": -line["amount"],
            }
            self._add_entry(batch, {**line, **other_side}, balancing)

    def _split(self, account: dict[str, Any], amount: int) -> tuple[int, int]:
        """Return which of an amount is net, and what the posting groups split off, in øre."""
        percent = account["vat_percent"]
        if not percent or not self._books.settings.copies_vat_setup:
            return amount, 0
        net = round(amount * 100 / (100 + percent))
        return net, amount - net

    def _add_entry(self, batch: dict[str, Any], line: dict[str, Any], ledger_account: str) -> None:
        copied = (
            "company",
            "posting_date",
            "document_number",
            "account_type",
            "account_number",
            "amount",
            "description",
            "external_document_number",
            "tax_code",
            "dimensions",
        )
        own = {
            "id": str(uuid4()),
            "journal_code": batch["code"],
            "ledger_account": ledger_account,
            "modified": self._books.moment(),
        }
        self._books.insert("entries", {**{name: line[name] for name in copied}, **own})

    def _leave(self, batch: dict[str, Any]) -> None:
        """Leave the batch as BC does: with one blank line, and perhaps under the next name [C]."""
        settings = self._books.settings
        if settings.number_series:
            self._books.change_settings({"number_series": incremented(settings.number_series)})
        else:
            Writer(self._books, batch["company"]).add_blank_line(batch["id"])
        code = incremented(batch["code"]) if settings.increment_batch_name else batch["code"]
        self._books.write(
            "UPDATE journals SET code = ?, version = version + 1, modified = ? WHERE id = ?",
            code,
            self._books.moment(),
            batch["id"],
        )

    def _account(self, line: dict[str, Any]) -> dict[str, Any]:
        account = self._books.row(
            "SELECT * FROM accounts WHERE company = ? AND kind = ? AND number = ?",
            line["company"],
            line["account_type"],
            line["account_number"],
        )
        if account is None:
            raise refused(f"{line['account_type']} {line['account_number']} does not exist.")
        return account
