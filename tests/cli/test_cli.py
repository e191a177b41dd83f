"""What a person types, reads, and gets as an exit code."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from itertools import count
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from kvitt.domain.money import Totals
from sandbox.processes import free_port
from tests.cast import FJORDBY, HOUR, NORDVEST, TOUR, another, claim_for_travel, claim_from_abroad
from tests.ledger.stages import close, collect

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kvitt.domain.integrations import Integration
    from kvitt.domain.records import Record
    from kvitt.ledger import SupabaseLedger
    from sandbox.supabase import Supabase
    from tests.cast import Stage

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]
    Enrol = Callable[..., Awaitable[Stage]]

_names = count(1)


def written(folder: Path, *integrations: Integration | dict[str, Any]) -> Path:
    """Write integrations into a file, as an administrator would."""
    file = folder / "integrations.yaml"
    told = [one if isinstance(one, dict) else one.model_dump(mode="json") for one in integrations]
    file.write_text(yaml.safe_dump({"integrations": told}, allow_unicode=True))
    return file


def plain(record: Record, **changes: Any) -> dict[str, Any]:
    return {**record.model_dump(mode="json", exclude_none=True), **changes}


def lines_of(folder: Path, *records: dict[str, Any] | str) -> Path:
    """Write records into a file of JSON lines."""
    file = folder / "records.jsonl"
    told = [one if isinstance(one, str) else json.dumps(one) for one in records]
    file.write_text("\n".join(told) + "\n")
    return file


def refused(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of a command that failed, in which line breaks mean nothing."""
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("kvitt: ")
    return " ".join(done.stderr.split())


# -- migrate ---------------------------------------------------------------------------------------


def test_migrate_says_what_it_applied_and_then_that_all_is_up_to_date(
    kvitt: Kvitt, supabase: Supabase
) -> None:
    url = supabase.postgres.create_database(f"cli_{next(_names)}")
    first = kvitt("migrate", url)
    assert first.returncode == 0
    assert re.match(r"applied 20261124090000 tables\n", first.stdout)
    second = kvitt("migrate", DATABASE_URL=url)
    assert (second.returncode, second.stdout) == (0, "the schema is up to date\n")


def test_migrate_names_what_is_wrong_with_the_database(kvitt: Kvitt, supabase: Supabase) -> None:
    nowhere = f"postgresql://postgres:not-to-be-shown@127.0.0.1:{free_port()}/postgres"
    said = refused(kvitt("migrate", nowhere))
    assert "the database cannot be opened" in said
    assert "not-to-be-shown" not in said
    mistyped = supabase.database_url.replace("postgresql://", "postgresql:/")
    assert "no connection string" in refused(kvitt("migrate", mistyped))


def test_migrate_names_a_folder_without_migrations(
    kvitt: Kvitt, supabase: Supabase, tmp_path: Path
) -> None:
    done = kvitt("migrate", supabase.database_url, "--folder", tmp_path)
    assert f"there are no migrations in {tmp_path}" in refused(done)


# -- integrations ----------------------------------------------------------------------------------


async def test_integrations_are_created_then_as_they_were_then_changed(
    kvitt: Kvitt, ledger: SupabaseLedger, tmp_path: Path
) -> None:
    theatre, club = another(NORDVEST), another(FJORDBY)
    file = written(tmp_path, theatre, club)
    created = kvitt("integrations", "import", file)
    assert created.stdout.splitlines() == [
        f"+ {theatre.id} Teater Nordvest → xledger, `0 6 * * *`",
        f"+ {club.id} Fjordby Idrettslag → business-central, `30 6 * * 1-5`",
    ]
    assert await ledger.read_integration(club.id) == club
    calendar = await ledger.read_calendar(club.id)
    assert calendar.planned_until is not None

    again = kvitt("integrations", "import", file)
    assert again.stdout.splitlines() == [
        f"= {theatre.id} is as it was",
        f"= {club.id} is as it was",
    ]

    later = another(NORDVEST, id=theatre.id, cron="0 7 * * *", enabled=False)
    file = written(tmp_path, later)
    shown = [f"~ {theatre.id} cron: 0 6 * * * → 0 7 * * *", f"~ {theatre.id} enabled: True → False"]
    dry = kvitt("integrations", "import", file, "--dry-run")
    differs = [line for line in dry.stdout.splitlines() if line.startswith("~")]
    assert differs == shown
    assert re.search(r"periods that go:   [\d-]+ 06:00, [\d-]+ 06:00, Europe/Oslo\n", dry.stdout)
    assert re.search(r"periods that come: [\d-]+ 07:00, [\d-]+ 07:00, Europe/Oslo", dry.stdout)
    assert await ledger.read_integration(theatre.id) == theatre
    changed = kvitt("integrations", "import", file)
    assert changed.stdout == dry.stdout
    assert await ledger.read_integration(theatre.id) == later


async def test_of_a_mapping_only_what_differs_is_shown(
    kvitt: Kvitt, ledger: SupabaseLedger, tmp_path: Path
) -> None:
    who = another(NORDVEST)
    await ledger.save_integration(who)
    mapping = who.mapping.model_dump(mode="json")
    accounts = {**mapping["accounts"], "travel": "7141", "gifts": "7420"}
    del accounts["meals"]
    changed = another(
        NORDVEST, id=who.id, mapping={**mapping, "accounts": accounts}, limits={"at_once": 2}
    )
    shown = kvitt("integrations", "import", written(tmp_path, changed), "--dry-run").stdout
    assert sorted(shown.splitlines()) == [
        f"~ {who.id} limits.at_once: None → 2",
        f"~ {who.id} mapping.accounts.gifts: nothing → 7420",
        f"~ {who.id} mapping.accounts.meals: 7150 → nothing",
        f"~ {who.id} mapping.accounts.travel: 7140 → 7141",
    ]


async def test_a_dry_run_creates_nothing(
    kvitt: Kvitt, ledger: SupabaseLedger, tmp_path: Path
) -> None:
    who = another(NORDVEST)
    assert (
        f"+ {who.id}" in kvitt("integrations", "import", written(tmp_path, who), "--dry-run").stdout
    )
    assert who.id not in [one.id for one in (await ledger.read_integrations()).valid]


async def test_voucher_numbers_that_would_meet_are_refused_before_anything_is_saved(
    kvitt: Kvitt, ledger: SupabaseLedger, tmp_path: Path
) -> None:
    theatre = another(NORDVEST)
    tour = another(TOUR, mapping=theatre.mapping, connection=theatre.connection)
    file = written(tmp_path, theatre, tour)
    for further in ([], ["--dry-run"]):
        said = refused(kvitt("integrations", "import", file, *further))
        assert f"({theatre.id}): mapping.source: {tour.id} writes into the same books" in said
    assert theatre.id not in [each.id for each in (await ledger.read_integrations()).valid]


async def test_integrations_are_listed_with_their_schedule(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, enabled=False)
    [row] = [line for line in kvitt("integrations", "list").stdout.splitlines() if stage.id in line]
    told = ("Teater Nordvest", "xledger", "nordvest", "0 6 * * * Europe/Oslo", "no")
    assert [word for word in told if word not in row] == []


async def test_a_wrong_setting_is_named_by_file_place_and_field_and_nothing_is_saved(
    kvitt: Kvitt, ledger: SupabaseLedger, tmp_path: Path
) -> None:
    good = another(NORDVEST)
    bad = {
        **another(FJORDBY).model_dump(mode="json"),
        "cron": "each morning",
        "limits": {"chunk_lnies": 3},
    }
    file = written(tmp_path, good, bad)
    said = refused(kvitt("integrations", "import", file))
    assert f"{file}, integration 2 ({bad['id']}): cron: 'each morning' is no cron" in said
    assert "limits.chunk_lnies: Extra inputs are not permitted" in said
    assert good.id not in [one.id for one in (await ledger.read_integrations()).valid]


def test_a_message_is_shown_to_its_last_bracket(kvitt: Kvitt, tmp_path: Path) -> None:
    bad = {**NORDVEST.model_dump(mode="json"), "id": "Teater [b]Nordvest[/b]"}
    said = refused(kvitt("integrations", "import", written(tmp_path, bad)))
    assert "(Teater [b]Nordvest[/b])" in said
    assert "'^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'" in said


def test_an_integration_that_is_named_twice_is_refused(kvitt: Kvitt, tmp_path: Path) -> None:
    who = another(NORDVEST)
    said = refused(kvitt("integrations", "import", written(tmp_path, who, who)))
    assert f"names {who.id} more than once" in said


def test_a_file_that_is_not_there_is_named(kvitt: Kvitt, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert f"{missing} cannot be read: No such file" in refused(kvitt("records", "import", missing))


# -- records ---------------------------------------------------------------------------------------


async def test_records_are_added_once(kvitt: Kvitt, enrol: Enrol, tmp_path: Path) -> None:
    stage = await enrol(NORDVEST)
    at = stage.due[0] - HOUR / 2
    records = [plain(claim_for_travel(stage.id, n, at)) for n in range(3)]
    file = lines_of(tmp_path, *records, "", plain(claim_from_abroad(stage.id, 7, at)))
    assert kvitt("records", "import", file).stdout == "4 records added, 0 were there already\n"
    assert kvitt("records", "import", file).stdout == "0 records added, 4 were there already\n"


async def test_a_single_record_is_counted_as_one(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    file = lines_of(tmp_path, plain(claim_for_travel(stage.id, 1, stage.due[0] - HOUR / 2)))
    first = kvitt("records", "import", file)
    assert (first.stdout, first.stderr) == ("1 record added, 0 were there already\n", "")
    assert kvitt("records", "import", file).stdout == "0 records added, 1 was there already\n"


async def test_records_that_are_approved_in_the_future_are_added_and_told_of(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    later = datetime(2126, 11, 24, tzinfo=UTC)
    file = lines_of(tmp_path, plain(claim_for_travel(stage.id, 1, later)))
    done = kvitt("records", "import", file)
    assert (done.returncode, done.stdout) == (0, "1 record added, 0 were there already\n")
    [sentence] = done.stderr.splitlines()
    assert f"2026-0001 of {stage.id}, approved 2126-11-24" in sentence
    assert "the first period that is due after that time takes it" in sentence
    both = lines_of(
        tmp_path,
        *(plain(claim_for_travel(stage.id, n, later)) for n in (2, 3)),
        plain(claim_for_travel(stage.id, 4, datetime.now(UTC) + HOUR)),
    )
    told = kvitt("records", "import", both).stderr
    assert told.startswith("2 records are approved more than a day from now")


async def test_a_record_that_became_another_is_a_conflict_that_names_it(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    record = claim_for_travel(stage.id, 1, stage.due[0] - HOUR / 2)
    await stage.ledger.add_records([record])
    file = lines_of(tmp_path, plain(record, text="Another"))
    said = refused(kvitt("records", "import", file))
    assert f"{stage.id}, record 2026-0001: it is there already with other content" in said


async def test_a_broken_line_is_named_by_its_number(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    good = plain(claim_for_travel(stage.id, 1, stage.due[0] - HOUR / 2))
    file = lines_of(tmp_path, good, "", '{"id": ')
    assert f"{file}, line 3 is no JSON" in refused(kvitt("records", "import", file))
    count_of = "select count(*) from kvitt.records where integration_id = %(id)s"
    assert stage.ask(count_of) == [(0,)]


async def test_json_numbers_are_taken_to_the_last_digit(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    record = claim_for_travel(stage.id, 1, stage.due[0] - HOUR / 2, amount="90071992547409.93")
    line = json.dumps(plain(record)).replace('"90071992547409.93"', "90071992547409.93")
    assert kvitt("records", "import", lines_of(tmp_path, line)).returncode == 0
    amounts = "select amount::text from kvitt.record_lines where integration_id = %(id)s"
    assert ("90071992547409.93",) in stage.ask(amounts)


def test_records_of_nobody_are_refused(kvitt: Kvitt, tmp_path: Path) -> None:
    nobody = another(NORDVEST).id
    file = lines_of(tmp_path, plain(claim_for_travel(nobody, 1, NORDVEST.first_period)))
    assert f"there is no integration {nobody}" in refused(kvitt("records", "import", file))


# -- periods and receipts --------------------------------------------------------------------------


async def settled(stage: Stage) -> dict[str, Any]:
    """Settle a period without records."""
    period = await stage.claimed()
    await collect(stage, period)
    receipt = await stage.ledger.settle(period, Totals(), {})
    await close(stage, "settled")
    assert receipt is not None
    return receipt


async def test_periods_are_shown_with_where_they_stand_and_why(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=2)
    receipt = await settled(stage)
    await stage.ledger.fail(await stage.claimed(), "account [b]7140[/b] is blocked")
    rows = [line for line in kvitt("periods", stage.id).stdout.splitlines() if stage.id in line]
    assert len(rows) == 2
    assert "failed" in rows[0]
    assert "account [b]7140[/b] is blocked" in rows[0]
    assert receipt["key"] in rows[1]
    assert "verified" in rows[1]
    [latest] = [
        line
        for line in kvitt("periods", stage.id, "--limit", 1).stdout.splitlines()
        if stage.id in line
    ]
    assert "failed" in latest


async def test_a_list_of_nobodys_is_an_error_that_names_who_is_there(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST)
    for command in ("periods", "set-aside", "receipt", "preview"):
        said = refused(kvitt(command, "nobody"))
        assert re.search(rf"there is no integration nobody; there are .*\b{stage.id}\b", said)


async def test_a_list_of_nothing_says_so_in_words(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST, periods=0)
    assert kvitt("periods", stage.id).stdout == "no period has come due yet\n"
    assert kvitt("set-aside", stage.id).stdout == "nothing is set aside\n"


async def test_a_receipt_is_shown_for_people_and_for_programs(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    receipt = await settled(stage)
    shown = kvitt("receipt", stage.id).stdout
    assert f"Receipt {receipt['key']}" in shown
    assert "taken         0 vouchers, 0 lines, 0.00 NOK" in shown
    assert json.loads(kvitt("receipt", stage.id, "--json").stdout) == receipt
    by_key = receipt["key"].partition("@")[2]
    for due in (f"{stage.due[0]:%Y-%m-%dT%H:%M:%S}", by_key):
        assert kvitt("receipt", stage.id, due).stdout == shown


async def test_a_receipt_that_is_not_there_is_an_error_with_a_way_on(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST)
    said = refused(kvitt("receipt", stage.id))
    assert f"{stage.id} has no receipt there; see: kvitt periods {stage.id}" in said
    assert "has no period due at" in refused(kvitt("receipt", stage.id, "2026-01-01T00:00:00"))


# -- on time ---------------------------------------------------------------------------------------


async def test_what_is_wrong_is_shown_until_it_is_over(kvitt: Kvitt, enrol: Enrol) -> None:
    stage = await enrol(NORDVEST)
    await stage.ledger.fail(await stage.claimed(), "account [b]7140[/b] is blocked")
    await close(stage, "failed")
    await stage.ledger.note_incidents(stage.id)
    shown = " ".join(kvitt("incidents").stdout.split())
    assert "failed" in shown
    assert "[b]7140[/b]" in shown
    await stage.mend()
    await stage.ledger.note_incidents(stage.id)
    assert stage.id not in kvitt("incidents").stdout
    assert stage.id in kvitt("incidents", "--all").stdout


async def test_a_watcher_is_shown_and_forgotten(kvitt: Kvitt, ledger: SupabaseLedger) -> None:
    name = f"watcher-{next(_names)}"
    await ledger.beat(name, {})
    assert name in kvitt("watchers").stdout
    assert name not in kvitt("watchers", "--forget", name).stdout
    assert f"there is no watcher {name}" in refused(kvitt("watchers", "--forget", name))


async def test_past_periods_are_written_and_counted(
    kvitt: Kvitt, enrol: Enrol, ledger: SupabaseLedger
) -> None:
    stage = await enrol(TOUR, cron="0 * * * *")
    first = await ledger.first_period(stage.id)
    since = (first.opens_at - 3 * HOUR).isoformat()
    command = ("backfill", stage.id, "--from", since, "--pace", 600)
    done = kvitt(*command)
    assert re.match(r"\d periods were written into the past\n0 of \d periods settled", done.stdout)
    assert f"prefect deployment run sync/{stage.id}" in done.stdout
    assert kvitt(*command).stdout.startswith("0 periods were written into the past")
    early = (first.opens_at - 20 * HOUR).isoformat()
    said = refused(kvitt("backfill", stage.id, "--from", early, "--to", early))
    assert "has no gap: leave --to out" in said
    said = refused(kvitt("backfill", stage.id, "--from", "1999-01-01T00:00Z"))
    assert "periods have names from 2020-01-01T00:00Z on" in said
    assert "Nothing was written" in said
    said = refused(kvitt(*command[:-1], "1e300"))
    assert "a pace of 1e+300 seconds is none" in said


# -- the project -----------------------------------------------------------------------------------


def test_a_wrong_key_is_refused_and_not_shown(kvitt: Kvitt) -> None:
    said = refused(kvitt("periods", SUPABASE_SECRET_KEY="sb_secret_made_up_for_this"))
    assert "Invalid API key" in said


def test_a_publishable_key_is_not_enough(kvitt: Kvitt, supabase: Supabase) -> None:
    done = kvitt("periods", SUPABASE_SECRET_KEY=supabase.publishable_key)
    assert "permission denied" in refused(done)


def test_an_address_that_is_none_is_refused(kvitt: Kvitt) -> None:
    said = refused(kvitt("periods", SUPABASE_URL="my-project"))
    assert "'my-project' and its key open no Supabase project: Invalid URL" in said


@pytest.mark.parametrize(
    ("arguments", "code"), [(["--help"], 0), (["receipt"], 2), (["balance"], 2), (["records"], 2)]
)
def test_a_command_that_is_none_is_told_apart_from_one_that_failed(
    kvitt: Kvitt, arguments: list[str], code: int
) -> None:
    assert kvitt(*arguments).returncode == code
