"""The blocks pass Prefect's own tests, and say in words whether they can connect."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from prefect.testing.standard_test_suites import BlockStandardTestSuite

import blocks
from blocks import BusinessCentral, Dataverse, SupabaseProject, TaskResults, Xledger
from blocks.vendors import CONNECTIONS
from kvitt.domain.errors import LedgerRefused, LedgerUnavailable, VendorError
from kvitt.vendors import VENDORS
from sandbox.processes import free_port
from sandbox.vendors import setup
from sandbox.vendors.simulators import SIMULATORS

if TYPE_CHECKING:
    from prefect.blocks.core import Block

    from sandbox.processes import Process
    from sandbox.supabase import Supabase

SECRET = "not-the-right-secret"


class TestPrefectsOwnTests(BlockStandardTestSuite):
    # Prefect's UI loads a logo from a public address; we own none.
    test_has_a_valid_image = None

    @pytest.fixture(params=[SupabaseProject, TaskResults, *CONNECTIONS.values()])
    def block(self, request: pytest.FixtureRequest) -> type[Block]:
        return request.param


def business_central(url: str, secret: str = setup.CLIENT_SECRET) -> BusinessCentral:
    return BusinessCentral(
        tenant_id=setup.TENANT,
        environment=setup.ENVIRONMENT,
        company_id=setup.CLUB,
        client_id=setup.CLIENT_ID,
        client_secret=secret,
        api_url=url,
        login_url=url,
    )


def dataverse(url: str, secret: str = setup.CLIENT_SECRET) -> Dataverse:
    told = SIMULATORS["dataverse"].connect(url, "fjordby")
    return Dataverse(**{**told, "client_secret": secret})


def test_each_vendor_has_a_block_that_can_be_registered_with_the_others() -> None:
    assert set(CONNECTIONS) == set(VENDORS)
    assert set(CONNECTIONS.values()) <= {getattr(blocks, name) for name in blocks.__all__}


async def test_a_supabase_project_says_that_it_answers(supabase: Supabase) -> None:
    block = SupabaseProject(url=supabase.url, secret_key=supabase.secret_key)
    assert "answers; its ledger has" in await block.check()


async def test_a_supabase_project_with_a_wrong_key_is_refused(supabase: Supabase) -> None:
    block = SupabaseProject(url=supabase.url, secret_key=SECRET)
    with pytest.raises(LedgerRefused) as refused:
        await block.check()
    assert SECRET not in str(refused.value)


async def test_a_publishable_key_is_not_enough(supabase: Supabase) -> None:
    block = SupabaseProject(url=supabase.url, secret_key=supabase.publishable_key)
    with pytest.raises(LedgerRefused, match="permission denied"):
        await block.check()


async def test_a_supabase_project_that_is_away_says_so() -> None:
    block = SupabaseProject(url=f"http://127.0.0.1:{free_port()}", secret_key=SECRET)
    with pytest.raises(LedgerUnavailable, match="did not answer"):
        await block.check()


async def test_business_central_says_that_the_company_answers(vendor_bc: Process) -> None:
    assert "answers" in await business_central(vendor_bc.url).check()


async def test_business_central_with_a_wrong_secret_is_refused(vendor_bc: Process) -> None:
    with pytest.raises(VendorError) as refused:
        await business_central(vendor_bc.url, SECRET).check()
    assert SECRET not in str(refused.value)


async def test_dataverse_says_that_the_table_answers(vendor_dv: Process) -> None:
    said = await dataverse(vendor_dv.url).check()
    assert said == f"table kvitt_journalline in {vendor_dv.url}/fjordby answers"


async def test_dataverse_with_another_table_says_that_it_is_not_there(vendor_dv: Process) -> None:
    block = dataverse(vendor_dv.url)
    block.entity_set = "contoso_lines"
    with pytest.raises(VendorError, match="contoso_lines"):
        await block.check()


async def test_dataverse_with_a_wrong_secret_is_refused(vendor_dv: Process) -> None:
    with pytest.raises(VendorError) as refused:
        await dataverse(vendor_dv.url, SECRET).check()
    assert SECRET not in str(refused.value)


async def test_xledger_says_that_it_answers(vendor_xl: Process) -> None:
    block = Xledger(token=setup.THEATRE_TOKEN, api_url=f"{vendor_xl.url}/graphql")
    assert "answers" in await block.check()


async def test_xledger_with_a_wrong_token_is_refused(vendor_xl: Process) -> None:
    block = Xledger(token=SECRET, api_url=f"{vendor_xl.url}/graphql")
    with pytest.raises(VendorError) as refused:
        await block.check()
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize("kind", [BusinessCentral, Dataverse, SupabaseProject, Xledger])
def test_secrets_do_not_show_in_a_block(kind: type[Block]) -> None:
    secret = {
        BusinessCentral: {
            "tenant_id": "t",
            "company_id": "c",
            "client_id": "i",
            "client_secret": SECRET,
        },
        Dataverse: {
            "tenant_id": "t",
            "api_url": "https://contoso.crm4.dynamics.com",
            "client_id": "i",
            "client_secret": SECRET,
        },
        SupabaseProject: {"url": "https://abc.supabase.co", "secret_key": SECRET},
        Xledger: {"token": SECRET},
    }[kind]
    block = kind(**secret)
    assert SECRET not in repr(block)
    assert SECRET not in str(block.model_dump())


def test_endpoints_are_the_vendors_public_ones_unless_told_otherwise() -> None:
    assert Xledger(token=SECRET).api_url == "https://www.xledger.net/graphql"
    fields = BusinessCentral.model_fields
    assert fields["api_url"].default == "https://api.businesscentral.dynamics.com"
    assert fields["login_url"].default == "https://login.microsoftonline.com"


async def test_all_who_have_a_project_open_share_one_client(supabase: Supabase) -> None:
    block = SupabaseProject(url=supabase.url, secret_key=supabase.secret_key)
    same = SupabaseProject(url=supabase.url, secret_key=supabase.secret_key)
    results = TaskResults(project=same)
    async with block.open() as first, same.open() as second:
        assert first is second
        await results.awrite_path("shared/client", b"{}")
        assert await results.aread_path("shared/client") == b"{}"
    async with block.open() as later:
        assert later is not first
        assert len((await later.table("integrations").select("id").execute()).data) >= 0


async def test_another_key_is_another_client(supabase: Supabase) -> None:
    block = SupabaseProject(url=supabase.url, secret_key=supabase.secret_key)
    other = SupabaseProject(url=supabase.url, secret_key=supabase.publishable_key)
    async with block.open() as first, other.open() as second:
        assert first is not second


async def test_a_project_that_cannot_be_opened_is_tried_again(supabase: Supabase) -> None:
    block = SupabaseProject(url=supabase.url, secret_key="")
    for _ in range(2):
        with pytest.raises(LedgerRefused):
            async with block.open():
                pass
