import asyncio
from typing import Any

import httpx
import pytest
from supabase import AsyncClient, FunctionsHttpError

from sandbox.supabase import Supabase


async def call(
    supabase: Supabase, http: httpx.AsyncClient, name: str, **body: object
) -> httpx.Response:
    url = f"{supabase.url}/functions/v1/{name}"
    return await http.post(url, json=body, headers={"apikey": supabase.secret_key})


async def invoke(client: AsyncClient, name: str) -> dict[str, Any]:
    return await client.functions.invoke(name, {"responseType": "json"})


def refusal(answer: httpx.Response) -> tuple[int, str, str]:
    return answer.status_code, answer.headers["sb-error-code"], answer.json()["code"]


async def test_only_the_first_call_is_cold(supabase: Supabase, client: AsyncClient) -> None:
    before = supabase.functions.counts("counter")["boots"]
    answers = [await invoke(client, "counter") for _ in range(3)]
    assert [answer["cold"] for answer in answers] == [True, False, False]
    assert supabase.functions.counts("counter")["boots"] == before + 1


async def test_a_function_sees_its_path_the_callers_key_and_the_project(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    answer = await call(supabase, http, "counter/part%20one?a=1&b=%C3%A5")
    assert answer.json() == {
        "calls": 1,
        "cold": True,
        "path": "/counter/part%20one?a=1&b=%C3%A5",
        "key": supabase.secret_key,
        "url": supabase.url,
    }


async def test_no_header_tells_a_cold_start_but_a_new_execution_id_does(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    cold = await call(supabase, http, "counter")
    warm = await call(supabase, http, "counter")
    supabase.functions.end_workers()
    again = await call(supabase, http, "counter")
    assert {*cold.headers} == {*warm.headers}
    assert len({answer.headers["sb-request-id"] for answer in (cold, warm, again)}) == 3
    ids = [answer.headers["x-deno-execution-id"] for answer in (cold, warm, again)]
    assert ids[0] == ids[1] != ids[2]


async def test_an_idle_worker_is_ended(supabase: Supabase, client: AsyncClient) -> None:
    supabase.functions.change(idle_seconds=0.1)
    assert (await invoke(client, "counter"))["cold"]
    await asyncio.sleep(0.5)
    assert (await invoke(client, "counter"))["cold"]


async def test_each_of_several_workers_is_cold_once(
    supabase: Supabase, client: AsyncClient
) -> None:
    supabase.functions.change(spread=3)
    answers = [await invoke(client, "counter") for _ in range(9)]
    assert sorted(answer["calls"] for answer in answers) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


async def test_calls_at_the_same_time_have_a_worker_each_up_to_the_maximum(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    supabase.functions.change(max_workers=2)
    answers = await asyncio.gather(*(call(supabase, http, "slow", seconds=0.2) for _ in range(4)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.headers["x-deno-execution-id"] for answer in answers}) == 2


async def test_a_function_that_exports_fetch_is_served(client: AsyncClient) -> None:
    assert await invoke(client, "modern") == {"modern": True}


@pytest.mark.parametrize("where", ["buffers", "heap"])
async def test_too_much_memory_is_546(
    supabase: Supabase, http: httpx.AsyncClient, where: str
) -> None:
    supabase.functions.change(memory_mb=64)
    assert (await call(supabase, http, "hog", megabytes=20, where=where)).is_success
    answer = await call(supabase, http, "hog", megabytes=300, where=where)
    assert refusal(answer) == (546, "WORKER_RESOURCE_LIMIT", "WORKER_RESOURCE_LIMIT")


async def test_too_much_cpu_is_546(supabase: Supabase, http: httpx.AsyncClient) -> None:
    supabase.functions.change(cpu_seconds=0.5)
    assert (await call(supabase, http, "spin", seconds=0.1)).is_success
    answer = await call(supabase, http, "spin", seconds=5)
    assert refusal(answer) == (546, "WORKER_RESOURCE_LIMIT", "WORKER_RESOURCE_LIMIT")


async def test_a_worker_that_outlives_its_wall_clock_is_546(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    supabase.functions.change(wall_clock_seconds=0.3)
    answer = await call(supabase, http, "slow", seconds=5)
    assert refusal(answer) == (546, "WORKER_RESOURCE_LIMIT", "WORKER_RESOURCE_LIMIT")


async def test_a_large_response_arrives_compressed_or_not(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    answer = await call(supabase, http, f"counter?{'a' * 10_000}")
    assert answer.json()["path"] == f"/counter?{'a' * 10_000}"


async def test_waiting_costs_no_cpu(supabase: Supabase, http: httpx.AsyncClient) -> None:
    supabase.functions.change(cpu_seconds=0.4)
    assert (await call(supabase, http, "slow", seconds=0.6)).is_success


async def test_a_worker_that_used_half_of_a_resource_is_not_used_again(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    supabase.functions.change(cpu_seconds=1)
    answers = [await call(supabase, http, "spin", seconds=0.6) for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert len({answer.headers["x-deno-execution-id"] for answer in answers}) == 2


async def test_a_function_that_does_not_compile_is_a_boot_error(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    assert refusal(await call(supabase, http, "broken")) == (503, "BOOT_ERROR", "BOOT_ERROR")


async def test_boots_fail_on_order_and_then_succeed(
    supabase: Supabase, client: AsyncClient
) -> None:
    supabase.functions.change(failing_boots=1)
    with pytest.raises(FunctionsHttpError) as refused:
        await invoke(client, "counter")
    assert refused.value.status == 503
    assert (await invoke(client, "counter"))["cold"]


async def test_boots_are_slow_on_order(supabase: Supabase, http: httpx.AsyncClient) -> None:
    supabase.functions.change(boot_delay_seconds=0.5)
    cold = await call(supabase, http, "counter")
    warm = await call(supabase, http, "counter")
    assert warm.elapsed.total_seconds() < 0.5 < cold.elapsed.total_seconds()


async def test_no_response_in_time_is_504(supabase: Supabase, http: httpx.AsyncClient) -> None:
    supabase.functions.change(response_seconds=0.2)
    answer = await call(supabase, http, "slow", seconds=5)
    assert refusal(answer) == (504, "IDLE_TIMEOUT", "IDLE_TIMEOUT")


async def test_an_unknown_function_is_404(supabase: Supabase, http: httpx.AsyncClient) -> None:
    for name in ("nobody", "..%2Fmigrations"):
        assert refusal(await call(supabase, http, name)) == (404, "NOT_FOUND", "NOT_FOUND")


async def test_a_function_that_ends_itself_is_500(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    assert refusal(await call(supabase, http, "quitter")) == (500, "WORKER_ERROR", "WORKER_ERROR")


async def test_a_function_may_neither_write_nor_run_programs(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    answer = await call(supabase, http, "jailed")
    assert answer.json() == {"write": "NotCapable", "run": "NotCapable", "secrets": []}


@pytest.mark.parametrize(
    ("key", "status"), [("secret", 401), ("publishable", 401), ("jwt", 200), ("none", 401)]
)
async def test_verify_jwt_takes_a_jwt_and_no_opaque_key(
    supabase: Supabase, http: httpx.AsyncClient, key: str, status: int
) -> None:
    keys = supabase.keys
    tokens = {"secret": keys.secret, "publishable": keys.publishable, "jwt": keys.jwt_of("anon")}
    headers = {"authorization": f"Bearer {tokens[key]}"} if key in tokens else {}
    answer = await http.post(f"{supabase.url}/functions/v1/guarded", headers=headers)
    assert answer.status_code == status


async def test_invocations_are_counted_by_status(
    supabase: Supabase, http: httpx.AsyncClient
) -> None:
    before = supabase.functions.counts("modern")
    await call(supabase, http, "modern")
    after = supabase.functions.counts("modern")
    assert after["invocations"] == before["invocations"] + 1
    assert after["statuses"]["200"] == before["statuses"].get("200", 0) + 1
