"""What a process that runs many flows keeps of Prefect's blocks, and for how long."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from blocks import SupabaseProject
from blocks.loading import BlockMissing, forget_block, load_block

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
