"""What people hand in: an error names the file, the place in it, and what is wrong there."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from cli.files import FileError, keep_apart, read_integrations, read_records
from tests.cast import FJORDBY, NORDVEST, TOUR, claim_for_travel

if TYPE_CHECKING:
    from pathlib import Path

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
GOOD = claim_for_travel(NORDVEST.id, 1, NOON).model_dump(mode="json", exclude_none=True)
COST, OWED = GOOD["lines"]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "file"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("integrations: [", "is no YAML"),
        ("integrations: []", "holds no list of integrations"),
        ("other: 7", "holds no list of integrations"),
        ("just words", "holds no list of integrations"),
        ("", "holds no list of integrations"),
        ("- 7", "integration 1: Input should be a valid dictionary"),
        ("- {id: nordvest}", "integration 1 (nordvest): organisation: Field required"),
    ],
)
def test_a_file_that_holds_no_integrations_is_named(file: Path, content: str, said: str) -> None:
    file.write_text(content)
    with pytest.raises(FileError) as refused:
        read_integrations(file)
    assert str(file) in str(refused.value)
    assert said in str(refused.value)


def test_integrations_come_as_a_list_or_under_their_name(file: Path) -> None:
    told = [who.model_dump(mode="json") for who in (NORDVEST, FJORDBY)]
    for content in (told, {"integrations": told}):
        file.write_text(yaml.safe_dump(content, allow_unicode=True))
        assert read_integrations(file) == [NORDVEST, FJORDBY]


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        ('{"id": ', "line 3 is no JSON"),
        ("[]", "line 3: Input should be a valid dictionary"),
        ({**GOOD, "lines": [COST, {**OWED, "amount": "-1"}]}, "(2026-0001): its lines sum to"),
        ({**GOOD, "lines": [{**COST, "acount": 1}, OWED]}, "lines.1.acount: Extra inputs"),
        ({**GOOD, "lines": [{**COST, "amount": float("nan")}, OWED]}, "lines.1.amount: nan is not"),
        ({**GOOD, "lines": [COST, {**OWED, "amount": True}]}, "lines.2.amount: True is not exact"),
    ],
)
def test_a_broken_line_is_named_by_its_number(file: Path, broken: Any, said: str) -> None:
    told = broken if isinstance(broken, str) else json.dumps(broken)
    file.write_text(f"{json.dumps(GOOD)}\n\n{told}\n")
    records = read_records(file)
    assert next(records).id == "2026-0001"
    with pytest.raises(FileError) as refused:
        next(records)
    assert f"{file}, line 3" in str(refused.value)
    assert said in str(refused.value)


def test_json_numbers_are_exact(file: Path) -> None:
    file.write_text(json.dumps(GOOD).replace('"513.40"', "513.40").replace('"-513.40"', "-513.4"))
    [record] = read_records(file)
    assert [line.amount for line in record.lines] == [Decimal("513.40"), Decimal("-513.40")]


@pytest.mark.parametrize("read", [read_integrations, lambda file: list(read_records(file))])
def test_a_file_that_cannot_be_read_is_named(file: Path, read: Any) -> None:
    with pytest.raises(FileError, match=f"{file} cannot be read: No such file"):
        read(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(FileError, match=str(file)):
        read(file)


def test_a_byte_order_mark_is_passed_over(file: Path) -> None:
    file.write_text(json.dumps(GOOD) + "\n", encoding="utf-8-sig")
    assert [record.id for record in read_records(file)] == ["2026-0001"]
    told = [NORDVEST.model_dump(mode="json")]
    file.write_text(yaml.safe_dump(told, allow_unicode=True), encoding="utf-8-sig")
    assert read_integrations(file) == [NORDVEST]


def test_a_bad_amount_is_the_only_cause_that_is_named(file: Path) -> None:
    file.write_text(json.dumps({**GOOD, "lines": [{**COST, "amount": "much"}, OWED]}))
    with pytest.raises(FileError) as refused:
        list(read_records(file))
    assert str(refused.value).endswith("lines.1.amount: 'much' is no amount, like '12.50'")
    assert ";" not in str(refused.value)


@pytest.mark.parametrize(
    ("own", "others", "why"),
    [
        (None, "KV", f"{NORDVEST.id} has no source"),
        ("KV", "kv", "both have the source KV"),
        ("KV", "KW", None),
    ],
)
def test_voucher_numbers_that_would_meet_are_named_with_both_integrations_and_the_field(
    file: Path, own: str | None, others: str, why: str | None
) -> None:
    one, other = (
        who.model_copy(update={"mapping": who.mapping.model_copy(update={"source": source})})
        for who, source in ((NORDVEST, own), (TOUR, others))
    )
    off = other.model_copy(update={"enabled": False})
    keep_apart(file, [one, off, FJORDBY], [other])
    if why is None:
        keep_apart(file, [one], [other])
        return
    for wanted, there in (([one, other], []), ([one], [other])):
        with pytest.raises(FileError) as refused:
            keep_apart(file, wanted, there)
        assert f"{file} ({one.id}): mapping.source: {other.id} writes" in str(refused.value)
        assert why in str(refused.value)
