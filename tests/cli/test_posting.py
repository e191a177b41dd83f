"""What a person is shown of lines that wait at the vendor, and what they can say about them."""

from __future__ import annotations

import json
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from kvitt.ports import Place, Whereabouts
from tests.ledger.followed import NEITHER, REFUSED, Followed, settled_with_waiting_lines
from tests.ledger.stages import totals

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable

    from tests.cast import Stage

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]
    Settle = Callable[..., Awaitable[Followed]]
    Enrol = Callable[..., Awaitable[Stage]]


@pytest.fixture
def followed(enrol: Enrol) -> Callable[..., Awaitable[Followed]]:
    return partial(settled_with_waiting_lines, enrol)


async def test_a_receipt_says_what_was_posted_since_and_its_json_stays_as_it_is(
    kvitt: Kvitt, followed: Settle
) -> None:
    it = await followed()
    assert "  posting       not looked at yet; next look 20" in kvitt("receipt", it.stage.id).stdout
    kept = kvitt("receipt", it.stage.id, "--json").stdout
    await it.look(posted=it.sent)
    assert "  posted        all 4 lines, as seen 20" in kvitt("receipt", it.stage.id).stdout
    assert kvitt("receipt", it.stage.id, "--json").stdout == kept
    assert json.loads(kept) == it.stage.period("receipt")[0]
    assert "verified │ 2       │ posted 20" in kvitt("periods", it.stage.id).stdout


async def test_a_refused_voucher_is_shown_wherever_a_person_looks(
    kvitt: Kvitt, followed: Settle
) -> None:
    it = await followed()
    await it.look(posted=totals(it.records[1:], first=2), v1=REFUSED)
    words = f"voucher 1 (record {it.records[0].id}): Account 7140 is closed."
    receipt = kvitt("receipt", it.stage.id).stdout
    assert "  posting       2 of 4 lines are posted, as seen 20" in receipt
    assert f"  refused       {words}" in receipt
    assert f"refused: {words}" in kvitt("periods", it.stage.id).stdout
    assert f"sent, and not posted: {words}" in kvitt("set-aside", it.stage.id).stdout


async def test_a_refused_voucher_is_not_sent_again_before_it_is_said_and_seen_to_be_deleted(
    kvitt: Kvitt, followed: Settle
) -> None:
    it = await followed()
    await it.look(v1=REFUSED)
    record = it.records[0].id
    said = ("mend", it.stage.id, "--record", record, "--reason", "gone", "--by", "Liv")
    refused = kvitt(*said)
    assert refused.returncode == 1
    assert "a copy could be booked twice" in refused.stderr
    assert "two" not in refused.stdout

    assert "look twice, some minutes apart" in kvitt(*said, "--deleted").stdout
    rest = totals(it.records[1:], first=2)
    for _ in range(2):
        await it.look(held=rest, v1=NEITHER)
        it.stage.time_passes(timedelta(minutes=3))
    assert f"as {record}~2" in kvitt(*said, "--deleted").stdout
    assert f"  sent again    voucher 1 (record {record})" in kvitt("receipt", it.stage.id).stdout
    assert record not in kvitt("set-aside", it.stage.id).stdout


def test_deleted_is_said_of_a_record(kvitt: Kvitt) -> None:
    said = kvitt("mend", "any", "2026-11-24T05:00Z", "--deleted", "--reason", "gone")
    assert (said.returncode, "name it with --record" in said.stderr) == (1, True)


async def test_a_person_may_have_it_looked_at_soon(kvitt: Kvitt, followed: Settle) -> None:
    it = await followed()
    await it.look(v1=REFUSED)
    assert not await it.is_due()
    due_at = it.stage.due[0].isoformat()
    assert "with the next follow-up" in kvitt("look-again", it.stage.id, due_at).stdout
    seen = await it.look(posted=it.sent, v1=Whereabouts(place=Place.POSTED))
    assert seen.state == "posted"
