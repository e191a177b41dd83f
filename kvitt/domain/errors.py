"""What can go wrong, sorted by what it asks of the caller.

KvittError
├── LeaseLost              stop at once and write nothing: somebody else works on the period
├── LedgerUnavailable      the ledger does not answer: end the attempt, the next one goes on
├── LedgerRefused          the ledger says no: a mistake of the caller, or of what was given to it
├── FunctionFailed         the Edge Function did not do its work (`kind` says how)
├── VendorError            one call to a vendor that did not succeed
│   ├── Unsent             known not to have been executed: safe to send again later
│   │   ├── TurnedAway     the vendor is there, and a limit of its own says not now
│   │   └── BudgetSpent    it was not even asked, since the month's requests are spent
│   ├── Uncertain          may have been executed: read back before anything else
│   └── Refused            the vendor will not have it: never again before a person has mended it
└── PeriodStopped          the period goes no further for now, and the ledger knows why
    ├── PeriodUncertain    it waits for the vendor's settle time, then goes on by itself
    ├── PeriodPostponed    it waits for who is away, or for its budget, then goes on by itself
    └── PeriodFailed       a person must mend something, then start it again

A message says what happened, to which integration and period where it knows them, and what to do
next. None of them carries a secret: a request's headers and a token's reply never get into one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta


class KvittError(Exception):
    """The root of all that kvitt raises on purpose."""


class LeaseLost(KvittError):
    """The lease on the period ran out or was taken over."""


class LedgerUnavailable(KvittError):
    """The ledger did not answer, also when asked again."""


class LedgerRefused(KvittError):
    """The ledger answered no; `code` is the SQLSTATE (KV002 conflict, KV003 invalid, …)."""

    def __init__(self, message: str, *, code: str) -> None:
        super().__init__(message)
        self.code = code


class FunctionFailed(KvittError):
    """An invocation of the Edge Function failed.

    `kind` is one of `ColdStartKind` where booting or a platform limit was the cause, else None.
    """

    def __init__(self, message: str, *, kind: str | None = None) -> None:
        super().__init__(message)
        self.kind = kind


class VendorError(KvittError):
    """A call to a vendor did not succeed; the class below says what that means."""


class Unsent(VendorError):
    """The vendor did not execute the call: refused before execution, or never reached.

    `retry_after` is how long the vendor asked to be left alone, where it said so.
    """

    def __init__(self, message: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class TurnedAway(Unsent):
    """A limit of the vendor's turned the call away before it was executed: too many, too often."""


class BudgetSpent(Unsent):
    """The budget of the connection has nothing left for the call, so it was not made.

    `retry_after` is how long the month lasts; more may be allowed before that.
    """


class Uncertain(VendorError):
    """The call may have been executed: the reply is missing, or says nothing.

    `refusal`: the vendor said what it will not have, and may have taken the rest of the call.
    `retry_after` is how long the vendor asked to be left alone, where it said so.
    """

    def __init__(
        self,
        message: str,
        *,
        refusal: Refused | None = None,
        retry_after: timedelta | None = None,
    ) -> None:
        super().__init__(message)
        self.refusal = refusal
        self.retry_after = retry_after


class Refused(VendorError):
    """The vendor refused the call for good; the message has its own words.

    `culprits` says which vouchers it blames, by their place in the batch, and in what words.
    `of_content` says that it refuses what the vouchers hold, and would take others: the one that is
    to blame may then be looked for. Otherwise (rights, set-up, a closed company) none of them is.
    """

    def __init__(
        self,
        message: str,
        *,
        culprits: Mapping[int, str] | None = None,
        of_content: bool = False,
    ) -> None:
        super().__init__(message)
        self.culprits = dict(culprits or {})
        self.of_content = of_content or bool(self.culprits)


class PeriodStopped(KvittError):
    """The period goes no further for now."""


class PeriodUncertain(PeriodStopped):
    """A reply is missing; the period may be looked at again from `not_before` on (UTC)."""

    def __init__(self, message: str, *, not_before: datetime) -> None:
        super().__init__(message)
        self.not_before = not_before


class PeriodPostponed(PeriodStopped):
    """Somebody is away, or the budget is spent; it goes on by itself from `not_before` on (UTC)."""

    def __init__(self, message: str, *, not_before: datetime) -> None:
        super().__init__(message)
        self.not_before = not_before


class PeriodFailed(PeriodStopped):
    """A person must mend what the message says, then start the period again."""
