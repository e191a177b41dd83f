"""Follow-ups: what became of a settled period whose lines waited for the vendor's own posting.

The receipt says what was sent and read back, and stays as it is. This says what came later: posted,
still waiting, or refused vouchers with the vendor's words. It is read from the ledger
(`kvitt.as_shown` in the schema); nothing is computed here, only shown.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

from pydantic import AwareDatetime, BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime


class FollowUpState(StrEnum):
    """How a follow-up stands; the transitions are in the ledger's schema."""

    WAITING = "waiting"
    REFUSED = "refused"
    DIFFERS = "differs"
    ABANDONED = "abandoned"
    POSTED = "posted"


class UnpostedVoucher(BaseModel):
    """A voucher that was sent, and is not posted with the rest, or was not at first."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    sequence: int
    record: str
    voucher_number: int
    place: str
    reason: str | None
    absences: int
    deleted_by: str | None
    goes_again: bool
    closed: bool
    mended_as: str | None
    untold: bool

    @property
    def open(self) -> bool:
        """Whether somebody may have to do something about it."""
        return self.place != "posted" and not self.closed

    @property
    def words(self) -> str:
        """Say which voucher it is, and what is known of it."""
        return f"voucher {self.voucher_number} (record {self.record}): {self._what()}"

    def _what(self) -> str:
        if self.closed:
            again = f"; it goes again as {self.mended_as}" if self.mended_as else ""
            return f"its rows were deleted there by {self.deleted_by}{again}"
        if self.place == "posted":
            return f"posted since; refused at first for this: {self.reason or 'it was missing'}"
        if self.deleted_by is not None:
            return f"{self.deleted_by} said that its rows were deleted; {self._deletion()}"
        if self.place == "neither":
            return "neither staged nor posted there any more"
        if self.place == "staged":
            return f"waits again; refused before for this: {self.reason}"
        return str(self.reason)

    def _deletion(self) -> str:
        if self.place == "neither":
            return "that is looked at twice" + " before a copy is sent" * self.goes_again
        return "they are still there, and may be posted"


class FollowUp(BaseModel):
    """How it stands. `lines` are to be posted, `posted` are, `held` are staged or posted."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    integration: str
    due_at: AwareDatetime
    key: str
    vendor: str
    time_zone: str
    state: FollowUpState
    told: FollowUpState | None
    looks: int
    looked_at: AwareDatetime | None
    next_look_at: AwareDatetime | None
    posted_at: AwareDatetime | None
    note: str | None
    lines: int
    posted: int
    held: int
    vouchers: tuple[UnpostedVoucher, ...]

    @property
    def news(self) -> tuple[UnpostedVoucher, ...]:
        """The vouchers of which no event was raised yet."""
        return tuple(voucher for voucher in self.vouchers if voucher.untold)

    @property
    def is_news(self) -> bool:
        """Whether an event is to be raised: it has come to something, or to more than before."""
        of_state = self.state not in (self.told, FollowUpState.WAITING)
        return of_state or bool(self.news)


def in_words(it: FollowUp) -> str:
    """Say how it stands, in a line; the vouchers apart."""
    match it.state:
        case FollowUpState.POSTED:
            return f"all {it.lines} lines, as seen {_local(it, it.posted_at)}"
        case FollowUpState.ABANDONED:
            return (
                f"{it.posted} of {it.lines} lines are posted, as last seen "
                f"{_local(it, it.looked_at)}; nobody looks any more, until somebody asks for it"
            )
        case FollowUpState.DIFFERS:
            return (
                f"{it.lines} lines are to be there, and {it.held} are, seen twice, the last time "
                f"{_local(it, it.looked_at)}: look there{_next(it)}"
            )
        case FollowUpState.WAITING | FollowUpState.REFUSED:
            if it.looked_at is None:
                return f"not looked at yet{_next(it)}"
            return (
                f"{it.posted} of {it.lines} lines are posted, as seen "
                f"{_local(it, it.looked_at)}{_next(it)}"
            )


def as_rows(it: FollowUp) -> Iterator[tuple[str, str]]:
    """Yield it as a receipt's rows: a name and a sentence."""
    yield ("posted" if it.state is FollowUpState.POSTED else "posting"), in_words(it)
    for voucher in it.vouchers:
        yield _name_of(voucher), voucher.words
    if it.note is not None:
        yield "note", it.note


def in_brief(it: FollowUp) -> str:
    """Say it in a cell of a table: the state, and the vouchers that somebody must look at."""
    told = [voucher.words for voucher in it.vouchers if voucher.open]
    if it.state is FollowUpState.POSTED:
        return f"posted {_local(it, it.posted_at)}"
    return f"{it.state}: {'; '.join(told) or in_words(it)}"


# What a person does about it; the rest of an alert says what happened.
_TO_DO = {
    FollowUpState.REFUSED: "Mend it there; or delete its rows there and say so: kvitt mend "
    "{integration} --record RECORD --deleted",
    FollowUpState.DIFFERS: "Compare the books there with the receipt",
    FollowUpState.ABANDONED: "Look there; to have it looked at again: kvitt look-again {period}",
}


def as_alert(it: FollowUp) -> str:
    """Say what became of it, to whom and what to do, to somebody who is told of it elsewhere."""
    told = [voucher.words for voucher in it.vouchers if voucher.open]
    happened = f"{it.vendor}: period {it.key} is {it.state}: {'; '.join([in_words(it), *told])}"
    if it.state not in _TO_DO:
        return happened
    period = it.key.replace("@", " ")
    to_do = _TO_DO[it.state].format(integration=it.integration, period=period)
    return f"{happened.rstrip('.')}. {to_do}. The receipt: kvitt receipt {period}"


def _name_of(voucher: UnpostedVoucher) -> str:
    if voucher.closed:
        return "sent again" if voucher.goes_again else "deleted"
    return "missing" if voucher.place == "neither" else "refused"


def _next(it: FollowUp) -> str:
    return f"; next look {_local(it, it.next_look_at)}" if it.next_look_at else ""


def _local(it: FollowUp, moment: datetime | None) -> str:
    return f"{moment.astimezone(ZoneInfo(it.time_zone)):%Y-%m-%d %H:%M}" if moment else "never"
