"""The clients that probe are kept from run to run, as long as their blocks stay as they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pytest

from blocks.loading import BlockMissing
from blocks.probing import _Probers
from kvitt.domain.errors import BudgetSpent, TurnedAway
from kvitt.health import Prober
from kvitt.ports import Due
from sandbox.vendors.simulators import SIMULATORS

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from sandbox.processes import Process

NOTHING = {"seconds": 1, "month": "2026-11-01", "allowance": None, "counted": 0, "warned": False}


def due(vendor: str = "business-central") -> Due:
    return Due.model_validate(
        {
            "vendor": vendor,
            "connection": "fjordby",
            "trial": False,
            "failures": 0,
            "cool_downs": 0,
            "reservation": uuid4(),
            "grant": {"reserved": 3, **NOTHING},
        }
    )


@pytest.fixture
async def kept() -> AsyncGenerator[_Probers]:
    probers = _Probers()
    yield probers
    await probers.line.close()


def opened(kept: _Probers, document: Mapping[str, Any]) -> Prober:
    prober = kept.open(due(), document)
    assert isinstance(prober, Prober)
    return prober


@pytest.fixture
def company(vendor_bc: Process) -> dict[str, Any]:
    kind = SIMULATORS["business-central"]
    return dict(kind.connect(vendor_bc.url, kind.cast_company))


async def probe(prober: Prober) -> Mapping[str, int]:
    prober.purse.refill(3)
    await prober.vendor.probe()
    return prober.purse.spent


async def test_a_token_is_fetched_once_for_as_long_as_it_is_valid(
    kept: _Probers, company: dict[str, Any]
) -> None:
    spent = [await probe(opened(kept, dict(company))) for _ in range(3)]
    assert spent == [{"token": 1, "probe": 1}, {"probe": 1}, {"probe": 1}]


async def test_a_changed_secret_holds_at_once(kept: _Probers, company: dict[str, Any]) -> None:
    first = opened(kept, company)
    assert opened(kept, dict(company)) is first
    assert opened(kept, {**company, "client_secret": "another"}) is not first


async def test_a_prober_asks_once_and_spends_no_more_than_it_was_given(
    kept: _Probers, company: dict[str, Any], vendor_bc: Process
) -> None:
    prober = opened(kept, company)
    prober.purse.refill(1)
    with pytest.raises(BudgetSpent):
        await prober.vendor.probe()
    assert prober.purse.spent == {"token": 1}
    faults = f"{vendor_bc.url}/_sandbox/faults"
    order = {"on": "companies.list", "fault": "rate-limit", "times": 9}
    async with httpx.AsyncClient(trust_env=False) as http:
        (await http.post(faults, json=order)).raise_for_status()
        with pytest.raises(TurnedAway):
            await probe(prober)
        (await http.delete(faults)).raise_for_status()
    assert prober.purse.spent == {"probe": 1}


async def test_a_block_that_is_gone_or_cannot_be_used_is_told_without_its_secret(
    kept: _Probers, company: dict[str, Any]
) -> None:
    opened(kept, company)
    assert isinstance(kept.open(due(), None), BlockMissing)
    broken = kept.open(due(), {**company, "client_secret": "hush\nhush"})
    assert isinstance(broken, LookupError)
    assert "line breaks" in str(broken)
    assert "hush" not in str(broken)
