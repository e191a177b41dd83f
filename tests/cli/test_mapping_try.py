"""`kvitt mapping try`: before and after, for a person who thinks in accounts; nothing changes."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cli.files import read_integrations
from sandbox.processes import CHECKOUT
from tests.cast import (
    FJORDBY,
    HOUR,
    NORDVEST,
    another,
    claim_for_travel,
    claim_from_abroad,
    invoice_for_posters,
)
from tests.cli.test_cli import lines_of, plain, refused, written
from tests.ledger.stages import close, frozen, intend

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from kvitt.ledger import SupabaseLedger
    from tests.cast import Stage

    Kvitt = Callable[..., subprocess.CompletedProcess[str]]
    Enrol = Callable[..., Awaitable[Stage]]


def row(shown: str, *words: str) -> str:
    """Return the one row of a table that has all these words."""
    [found] = [line for line in shown.splitlines() if all(word in line for word in words)]
    return " ".join(re.split(r"[\s│]+", found)).strip()


def mapping_in(folder: Path, mapping: Any) -> Path:
    file = folder / "mapping.yaml"
    file.write_text(yaml.safe_dump(mapping, allow_unicode=True))
    return file


async def test_the_example_of_the_documentation_is_what_the_command_prints(
    kvitt: Kvitt, ledger: SupabaseLedger
) -> None:
    [theatre, _] = read_integrations(CHECKOUT / "examples" / "integrations.yaml")
    await ledger.save_integration(theatre)
    due = datetime(2026, 11, 24, 5, tzinfo=UTC)
    await ledger.plan_periods(theatre.id, opens_at=due - 24 * HOUR, due=[due])
    command = (
        "kvitt mapping try nordvest-xledger --mapping examples/mapping.yaml "
        "--file examples/records.jsonl --record 2026-0413"
    )
    done = kvitt(*command.split()[1:])
    assert done.returncode == 0, done.stderr
    page = (CHECKOUT / "docs" / "integrations.md").read_text()
    shown = "\n".join(line.rstrip() for line in done.stdout.splitlines())
    assert f"```console\n$ {command}\n{shown}\n```" in page, shown


async def test_a_record_is_shown_in_the_apps_words_in_the_books_and_as_it_is_sent(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(FJORDBY)
    await stage.ledger.add_records([invoice_for_posters(stage.id, 1, stage.due[0] - HOUR)])
    shown = kvitt("mapping", "try", stage.id).stdout
    assert "Record 2026-0001 (payout): Claim 1" in shown
    assert row(shown, "line 1", "debit") == "line 1 4000.00 NOK debit 4000.00 NOK debit"
    assert row(shown, "advertising", "7320") == "account advertising 7320"
    assert row(shown, "P-CUP", "project") == "project P-CUP PROSJEKT P-CUP"
    assert row(shown, "party", "LEV-201") == "party LEV-201 LEV-201 no entry: as it is"
    assert row(shown, "accountNumber") == "accountNumber 7320 2710 LEV-201"
    assert "parties: LEV-201 (1 x)" in shown
    assert shown.rstrip().endswith("Nothing was sent or changed.")


async def test_looking_changes_nothing(kvitt: Kvitt, enrol: Enrol, tmp_path: Path) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    before = _all(stage)
    file = lines_of(tmp_path, plain(claim_for_travel(stage.id, 2, stage.due[0])))
    new = mapping_in(tmp_path, {"text": "{record}"})
    assert kvitt("mapping", "try", stage.id).returncode == 0
    done = kvitt("mapping", "try", stage.id, "--file", file, "--mapping", new)
    assert done.returncode == 0, done.stderr
    assert _all(stage) == before


def _all(stage: Stage) -> list[Any]:
    tables = ("integrations", "periods", "records", "attempts", "chunks")
    return [
        stage.ask(
            f"select to_jsonb(t) from kvitt.{table} t"  # noqa: S608 - our own names
            f" where {'id' if table == 'integrations' else 'integration_id'} = %(id)s"
        )
        for table in tables
    ]


@pytest.mark.parametrize("whole", [True, False])
async def test_a_mapping_that_is_not_saved_is_tried_from_either_kind_of_file(
    kvitt: Kvitt,
    enrol: Enrol,
    tmp_path: Path,
    whole: bool,  # noqa: FBT001 - a column of the table above
) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    words = {"accounts": {"travel": 7199}, "dimensions": {"cost_centre": "project"}}
    if whole:
        told = {**stage.integration.model_dump(mode="json"), "mapping": words}
        new = written(tmp_path, told)
    else:
        new = mapping_in(tmp_path, words)
    shown = kvitt("mapping", "try", stage.id, "--mapping", new).stdout
    assert row(shown, "account", "7199", "travel") == "account travel 7199"
    assert row(shown, "node.project.code") == "node.project.code 20"
    assert "accounts: owed-to-staff (1 x)" in shown


@pytest.mark.parametrize(
    ("mapping", "said"),
    [
        ({"text": "{nmae}"}, "mapping.text: there is no placeholder {nmae}; there are {text}"),
        ({"dimensions": {"cost_centre": "AVD"}}, "mapping.dimensions.cost_centre: Xledger has no"),
        ({"closed_until": "2026-10-31", "posting_date": "period"}, "mapping.closed_until: with"),
        (["accounts"], "integration 1: Input should be a valid dictionary"),
        ("accounts", "mapping: Input should be a valid dictionary"),
    ],
)
async def test_a_mapping_that_cannot_be_is_refused_at_its_field(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path, mapping: Any, said: str
) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    new = mapping_in(tmp_path, mapping)
    words = refused(kvitt("mapping", "try", stage.id, "--mapping", new))
    assert str(new) in words
    assert said in words


async def test_the_same_is_refused_when_it_is_saved(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(FJORDBY)
    told = stage.integration.model_dump(mode="json")
    told["mapping"] = {"accounts": {"travel": "7" * 21}, "source": "KV"}
    said = refused(kvitt("integrations", "import", written(tmp_path, told)))
    assert f"({stage.id}): mapping.accounts.travel: '{'7' * 21}' has 21 characters" in said
    assert "mapping.source: Business Central has no transaction source" in said
    assert await stage.ledger.read_integration(stage.id) == stage.integration


async def test_a_code_with_leading_zeros_stays_as_it_was_written(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    await stage.approve(1)
    new = tmp_path / "mapping.yaml"
    new.write_text("dimensions: {cost_centre: glObject1}\nvalues: {cost_centre: {20: 0200}}\n")
    shown = kvitt("mapping", "try", stage.id, "--mapping", new).stdout
    assert row(shown, "cost_centre", "glObject1") == "cost_centre 20 glObject1 0200"


async def test_of_a_file_all_records_are_looked_at_and_a_few_are_shown(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    claims = [claim_for_travel(stage.id, n, stage.due[0] - HOUR) for n in range(1, 6)]
    odd = plain(claims[4])
    odd["lines"][0]["account"] = "hotel"
    file = lines_of(
        tmp_path, *map(plain, claims[:4]), odd, plain(claim_for_travel("else", 9, stage.due[0]))
    )
    mapping = {**NORDVEST.mapping.model_dump(mode="json"), "strict": ["accounts"]}
    new = mapping_in(tmp_path, {"mapping": mapping})
    shown = kvitt("mapping", "try", stage.id, "--file", file, "--mapping", new).stdout
    assert shown.count("Record 2026-") == 3
    assert "and 2 more: show one of them with --record" in shown
    assert "Would be set aside, and not sent:\n  record 2026-0005 has the account 'hotel'" in shown
    one = kvitt(
        "mapping", "try", stage.id, "--file", file, "--mapping", new, "--record", "2026-0005"
    ).stdout
    assert "not listed, and strict" in row(one, "│ account", "hotel")
    assert "as xledger is sent it" not in one


async def test_a_rule_for_rounding_is_tried_on_records_that_are_not_added(
    kvitt: Kvitt, enrol: Enrol, tmp_path: Path
) -> None:
    stage = await enrol(NORDVEST)
    record = plain(claim_from_abroad(stage.id, 1, stage.due[0] - HOUR))
    for line, booked in zip(record["lines"], ("1163.454", "233.854", "-1397.308"), strict=True):
        line["book_amount"] = booked
    file = lines_of(tmp_path, record)
    said = refused(kvitt("mapping", "try", stage.id, "--file", file))
    assert "(2026-0001): line 1 has 1163.454 NOK, finer than the currency is" in said
    new = mapping_in(tmp_path, {"rounding": {"account": 7770, "text": "Avrunding"}})
    shown = kvitt("mapping", "try", stage.id, "--file", file, "--mapping", new).stdout
    assert row(shown, "line 4", "NOK") == "line 4 0.00 EUR debit 0.01 NOK debit"
    assert "Avrunding" in shown


async def test_what_is_not_there_is_named(kvitt: Kvitt, enrol: Enrol, tmp_path: Path) -> None:
    stage = await enrol(NORDVEST)
    assert "has no record yet" in refused(kvitt("mapping", "try", stage.id))
    await stage.approve(1)
    assert "has no record X" in refused(kvitt("mapping", "try", stage.id, "--record", "X"))
    other = lines_of(tmp_path, plain(claim_for_travel("else", 1, stage.due[0])))
    said = refused(kvitt("mapping", "try", stage.id, "--file", other))
    assert f"{other} holds no such record of {stage.id}" in said
    new = written(tmp_path, {**NORDVEST.model_dump(mode="json"), "id": "else"})
    said = refused(kvitt("mapping", "try", stage.id, "--mapping", new))
    assert f"{new} does not name {stage.id}" in said


async def test_a_preview_says_what_would_be_set_aside_and_shows_the_rest(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    words = {**NORDVEST.mapping.model_dump(mode="json"), "strict": ["accounts"]}
    stage = await enrol(NORDVEST, mapping=words)
    odd = claim_for_travel(stage.id, 7, stage.due[0] - HOUR)
    lines = (odd.lines[0].model_copy(update={"account": "hotel"}), odd.lines[1])
    odd = odd.model_copy(update={"lines": lines})
    await stage.ledger.add_records([claim_for_travel(stage.id, 1, stage.due[0] - HOUR), odd])
    done = kvitt("preview", stage.id, "--json")
    assert [json.loads(line)["node"]["account"] for line in done.stdout.splitlines()] == [
        {"code": "7140"},
        {"code": "2910"},
    ]
    assert "set aside: voucher 2 (record 2026-0007) has the account 'hotel'" in done.stderr


async def test_a_preview_of_a_period_that_was_begun_shows_the_mapping_that_it_keeps(
    kvitt: Kvitt, enrol: Enrol
) -> None:
    stage = await enrol(NORDVEST)
    period = await frozen(stage, 1)
    await intend(stage, period, 1, 1)
    await stage.ledger.settle_chunk(period, 1, "uncertain")
    await stage.ledger.fail(period, "the books hold something else")
    await close(stage, "failed")
    changed = another(NORDVEST, id=stage.id, mapping={"accounts": {"travel": "7999"}})
    await stage.ledger.save_integration(changed)
    shown = kvitt("preview", stage.id, stage.due[0].isoformat()).stdout
    assert ("7140" in shown, "7999" in shown) == (True, False)
    mended = kvitt(
        "mend", stage.id, stage.due[0].isoformat(), "--reason", "looked into the books"
    ).stdout
    assert "It keeps the mapping that it has, since a part of it may be in the books" in mended
