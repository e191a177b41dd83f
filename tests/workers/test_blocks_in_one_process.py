"""What a process that runs many flows keeps of Prefect's blocks, and for how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from uuid import uuid4

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import Dataverse, SupabaseProject, Xledger, probing
from blocks.loading import BlockMissing, forget_block, load_block
from kvitt.health import Prober
from kvitt.ports import Due

if TYPE_CHECKING:
    from collections.abc import Generator

    from sandbox.stack import Stack

NAME = "changed-in-the-ui"


@pytest.fixture(autouse=True)
def server(stack: Stack) -> Generator[None]:
    with temporary_settings({PREFECT_API_URL: f"{stack.prefect.url}/api"}):
        yield


async def save(key: str) -> None:
    block = SupabaseProject(url="https://example.supabase.co", secret_key=key)
    await block.asave(NAME, overwrite=True)


async def key_of(*, max_age: float) -> str:
    block = await load_block(SupabaseProject, NAME, max_age=max_age)
    return block.secret_key.get_secret_value()


async def test_a_changed_secret_holds_at_once_where_no_age_is_allowed() -> None:
    await save("old")
    assert await key_of(max_age=0) == "old"
    await save("new")
    assert await key_of(max_age=0) == "new"


async def test_a_changed_secret_holds_after_the_age_or_once_it_was_forgotten() -> None:
    forget_block(SupabaseProject, NAME)
    await save("old")
    assert await key_of(max_age=60) == "old"
    await save("new")
    assert await key_of(max_age=60) == "old"
    forget_block(SupabaseProject, NAME)
    assert await key_of(max_age=60) == "new"
    await save("newer")
    await asyncio.sleep(0.2)
    assert await key_of(max_age=0.1) == "newer"


async def test_many_at_once_ask_once() -> None:
    forget_block(SupabaseProject, NAME)
    await save("old")
    blocks = await asyncio.gather(
        *(load_block(SupabaseProject, NAME, max_age=60) for _ in range(20))
    )
    assert len({id(block) for block in blocks}) == 1


async def test_a_missing_one_is_not_remembered() -> None:
    with pytest.raises(BlockMissing, match="create it in the Prefect UI"):
        await load_block(SupabaseProject, "not-yet", max_age=60)
    await SupabaseProject(url="https://example.supabase.co", secret_key="s").asave("not-yet")
    assert await load_block(SupabaseProject, "not-yet", max_age=60)


def due(connection: str, vendor: str = "xledger") -> Due:
    grant = {"reserved": 1, "seconds": 1, "month": "2026-11-01", "allowance": None, "counted": 0}
    told = {"vendor": vendor, "connection": connection, "reservation": uuid4(), "trial": False}
    grant["warned"] = False
    return Due.model_validate({**told, "failures": 0, "cool_downs": 0, "grant": grant})


async def test_more_blocks_than_a_page_are_all_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "_PAGE", 2)
    names = [f"company-{number}" for number in range(5)]
    for name in names:
        await Xledger(token="token").asave(name, overwrite=True)
    async with asyncio.timeout(20):
        found = await probing.open_probers("many", [due(name) for name in names])
    assert [type(found[f"xledger/{name}"]) for name in names] == [Prober] * 5


async def test_a_type_of_blocks_that_nobody_registered_stops_no_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Dataverse, "_block_type_slug", "kvitt-nobody-has-this")
    await Xledger(token="token").asave("company-0", overwrite=True)
    found = await probing.open_probers("none", [due("company-0"), due("lost", "dataverse")])
    assert isinstance(found["xledger/company-0"], Prober)
    assert "there is no block kvitt-nobody-has-this/lost" in str(found["dataverse/lost"])
