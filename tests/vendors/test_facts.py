"""The recording mode: what a tenant is asked, and that the record says which way it is there."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from graphql import build_schema, parse, validate

from kvitt.domain.integrations import Timeouts
from kvitt.ports import Uncounted
from kvitt.vendors import VENDORS
from kvitt.vendors.facts import EXAMINATIONS, Answer, Verdict, answers_to
from kvitt.vendors.facts import business_central as bc_questions
from kvitt.vendors.facts.xledger import DOCUMENTS
from sandbox.vendors import setup
from sandbox.vendors.xledger.schema import SDL
from tests.vendors.cast import SECRETS, Simulator, a_claim, a_period

T, F, U = Verdict.TRUE, Verdict.FALSE, Verdict.UNKNOWN


@pytest.fixture(params=sorted(EXAMINATIONS))
def simulator(run: Callable[[str], Simulator], request: pytest.FixtureRequest) -> Simulator:
    """Each vendor's of which something can be asked, in turn."""
    simulator = run(request.param)
    simulator.restore()
    return simulator


async def examine(
    simulator: Simulator, *, write: bool = True, **settings: Any
) -> dict[str, Answer]:
    examination = EXAMINATIONS[simulator.vendor]
    async with examination.open(
        simulator.settings(**settings), Timeouts(read=10), Uncounted()
    ) as client:
        answers = answers_to(examination.questions, client, write=write)
        return {answer.fact: answer async for answer in answers}


async def send_one(simulator: Simulator) -> None:
    async with simulator.open() as client:
        await client.send(a_period(), [a_claim(1)], begins=True, guard=lambda: None)


# Per fact: settings of the simulator under which it is true, and such under which it is not.
XLEDGER = {
    "xl-filter-by-ext-identifier": (
        {"filter_by_ext_identifier": True},
        {"filter_by_ext_identifier": False},
    ),
    "xl-errors-carry-ext-identifier": (
        {"errors_carry_ext_identifier": True},
        {"errors_carry_ext_identifier": False},
    ),
    "xl-token-error-status": ({"token_error_status": 200}, {"token_error_status": 401}),
    "xl-codes-checked-at-import": ({"unknown_codes": "import"}, {"unknown_codes": "posting"}),
    "xl-balance-checked-at-import": ({"balance": "import"}, {"balance": "never"}),
    "xl-one-bad-node-refuses-all": (
        {"one_bad_node": "refuses-all"},
        {"one_bad_node": "is-left-out-without-data"},
    ),
    "xl-refusal-names-its-node": ({"refusals_name": "path"}, {"refusals_name": "nobody"}),
    "xl-text-length": ({"text_length": 60}, {"text_length": 200}),
    "xl-reference-length": ({"reference_length": 25}, {"reference_length": 50}),
}
BUSINESS_CENTRAL = {
    "bc-head-answered": ({"answers_head": True}, {"answers_head": False}),
    "bc-codes-folded": ({"folds_codes": True}, {"folds_codes": False}),
    "bc-deep-insert-onto-existing": (
        {"deep_insert_on_existing": "append"},
        {"deep_insert_on_existing": "refuse"},
    ),
    "bc-same-key-status": ({"same_key_status": 400}, {"same_key_status": 409}),
    "bc-stale-etag-status": ({"stale_etag_status": 409}, {"stale_etag_status": 412}),
    "bc-vendor-lines-shown": (
        {"readable_account_types": ["G/L Account", "Vendor"]},
        {"readable_account_types": ["G/L Account", "Bank Account"]},
    ),
}


@pytest.mark.parametrize("fact", XLEDGER)
@pytest.mark.parametrize("verdict", [T, F])
async def test_an_xledger_tenant_says_which_way_it_is(
    xledger: Simulator, fact: str, verdict: Verdict
) -> None:
    await send_one(xledger)
    xledger.change(**XLEDGER[fact][0 if verdict is T else 1])
    answer = (await examine(xledger))[fact]
    assert (answer.verdict, answer.requests > 0) == (verdict, True), answer


@pytest.mark.parametrize("fact", BUSINESS_CENTRAL)
@pytest.mark.parametrize("verdict", [T, F])
async def test_a_company_in_business_central_says_which_way_it_is(
    business_central: Simulator, fact: str, verdict: Verdict
) -> None:
    business_central.change(**BUSINESS_CENTRAL[fact][0 if verdict is T else 1])
    answer = (await examine(business_central))[fact]
    assert (answer.verdict, answer.requests > 0) == (verdict, True), answer


def test_each_question_is_tried_both_ways_or_has_one_way_only() -> None:
    for vendor, tried in (("xledger", XLEDGER), ("business-central", BUSINESS_CENTRAL)):
        asked = {question.fact for question in EXAMINATIONS[vendor].questions}
        # No simulator has a schema that says lengths, or rolls back truthfully.
        assert asked - set(tried) <= {"xl-schema-says-lengths", "bc-rolled-back-shows-201"}


async def test_what_is_rolled_back_still_shows_201(business_central: Simulator) -> None:
    answer = (await examine(business_central))["bc-rolled-back-shows-201"]
    assert (answer.verdict, answer.seen) == (
        T,
        "the statuses are [201, 400], and 0 lines are there then",
    )


async def test_a_schema_that_says_no_lengths_is_seen(xledger: Simulator) -> None:
    answer = (await examine(xledger, write=False))["xl-schema-says-lengths"]
    assert answer.verdict is F


async def test_reading_writes_nothing_and_says_what_was_not_asked(simulator: Simulator) -> None:
    writes = {"addGLImportItems", "journals.create", "journals.delete", "batch", "post"}
    before = {name: simulator.operations().get(name, 0) for name in writes}
    answers = await examine(simulator, write=False)
    assert {name: simulator.operations().get(name, 0) for name in writes} == before
    skipped = {q.fact for q in EXAMINATIONS[simulator.vendor].questions if q.writes}
    assert skipped
    for fact in skipped:
        assert (answers[fact].verdict, answers[fact].requests, answers[fact].left) == (U, 0, [])
        assert answers[fact].seen.startswith("not asked, as it writes")


async def test_business_central_is_left_as_it_was_and_nothing_is_posted(
    business_central: Simulator,
) -> None:
    posts = business_central.operations().get("post", 0)
    answers = await examine(business_central)
    assert [answer.left for answer in answers.values() if answer.left] == []
    assert all(answer.verdict is not U for answer in answers.values())
    assert business_central.operations().get("post", 0) == posts
    assert await journals_of_kvitt(business_central) == []


async def test_a_journal_that_cannot_be_deleted_is_named_and_deleted_the_next_time(
    business_central: Simulator,
) -> None:
    business_central.fault("journals.delete", "status", status=503, times=99)
    answers = await examine(business_central)
    named = {thing for answer in answers.values() for thing in answer.left}
    assert named == {"journal KVITTFACTS", "journal KVITTFAC"}
    business_central.reset()
    await examine(business_central)
    assert await journals_of_kvitt(business_central) == []


async def test_what_xledger_keeps_is_named_and_is_never_posted(xledger: Simulator) -> None:
    answers = await examine(xledger)
    named = {thing for answer in answers.values() for thing in answer.left}
    staged = {
        row["reference"]
        for row in books(xledger, "staged")
        if (row["reference"] or "").startswith("KVITT-") and row["reference"] in named
    }
    assert staged == named
    assert staged
    xledger.run_jobs()
    assert named <= {row["reference"] for row in books(xledger, "staged")}


async def test_where_codes_are_checked_at_the_import_nothing_is_left(xledger: Simulator) -> None:
    xledger.change(unknown_codes="import")
    answers = await examine(xledger)
    assert [answer.left for answer in answers.values() if answer.left] == []
    assert answers["xl-one-bad-node-refuses-all"].verdict is U


async def test_a_vendor_that_does_not_answer_is_unknown_not_false(simulator: Simulator) -> None:
    simulator.fault("*", "status", status=503, times=999)
    answers = await examine(simulator)
    assert {answer.verdict for answer in answers.values()} == {U}
    assert all("503" in answer.seen for answer in answers.values())


async def test_who_may_not_look_is_told_nothing(simulator: Simulator) -> None:
    wrong = {"token": "nobodys"} if simulator.vendor == "xledger" else {"client_secret": "wrong"}
    answers = await examine(simulator, **wrong)
    # That a wrong token is answered at all, a wrong token finds out as well.
    answers.pop("xl-token-error-status", None)
    assert {answer.verdict for answer in answers.values()} == {U}
    assert [answer.left for answer in answers.values() if answer.left] == []


async def test_a_write_without_a_reply_names_what_may_be_there(xledger: Simulator) -> None:
    xledger.fault("addGLImportItems", "reply-lost", times=99)
    answer = (await examine(xledger))["xl-codes-checked-at-import"]
    assert (answer.verdict, len(answer.left)) == (U, 2)


@pytest.mark.parametrize("fault", ["status", "malformed", "token-expired"])
async def test_no_secret_is_in_the_answers(simulator: Simulator, fault: str) -> None:
    simulator.fault("*", fault, status=500, times=999)
    told = json.dumps([answer.model_dump() for answer in (await examine(simulator)).values()])
    simulator.reset()
    told += json.dumps([answer.model_dump() for answer in (await examine(simulator)).values()])
    assert [secret for secret in SECRETS if secret in told] == []


def test_only_a_demo_or_this_machine_is_harmless() -> None:
    xledger, bc = EXAMINATIONS["xledger"], EXAMINATIONS["business-central"]
    settings = VENDORS["xledger"].settings
    told = {"token": "x"}
    assert xledger.harmless(
        settings.model_validate({**told, "api_url": "https://demo.xledger.net/graphql"})
    )
    assert xledger.harmless(
        settings.model_validate({**told, "api_url": "http://127.0.0.1:9/graphql"})
    )
    assert not xledger.harmless(settings.model_validate(told))
    assert not xledger.harmless(
        settings.model_validate({**told, "api_url": "https://demo.xledger.net.example.com/"})
    )
    company = {
        "tenant_id": "t",
        "environment": "sandbox",
        "company_id": setup.CLUB,
        "client_id": "c",
        "client_secret": "s",
    }
    settings = VENDORS["business-central"].settings
    assert not bc.harmless(settings.model_validate(company))
    assert bc.harmless(settings.model_validate({**company, "api_url": "http://localhost:9"}))


@pytest.mark.parametrize("document", DOCUMENTS)
def test_each_question_to_xledger_is_valid_by_the_schema(document: str) -> None:
    assert validate(build_schema(SDL), parse(document)) == []


def test_the_journals_of_questions_are_no_periods() -> None:
    for code in (bc_questions._CODE, bc_questions._SMALL_CODE.strip().upper()):
        assert len(code) <= 10
        assert not code.endswith("K")
        assert not code[-1].isdigit()


def books(simulator: Simulator, where: str) -> list[dict[str, Any]]:
    return simulator.http.get(f"{simulator.url}/_sandbox/books").json()[where]


async def journals_of_kvitt(simulator: Simulator) -> list[str]:
    """Return what is there under the names of questions."""
    examination = EXAMINATIONS[simulator.vendor]
    async with examination.open(simulator.settings(), Timeouts(read=10), Uncounted()) as client:
        _, reply = await client.exchange("GET", f"{client.company}/journals?$select=code")
    return [each["code"] for each in reply["value"] if each["code"].startswith("KVITTFAC")]
