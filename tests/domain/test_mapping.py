"""What the mapping makes of a record, and what of a mapping cannot be meant."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kvitt.domain.integrations import Integration
from kvitt.domain.mapping import PLACEHOLDERS, Mapping, filled
from kvitt.domain.periods import Period, PeriodState
from kvitt.domain.records import Record, as_taken
from kvitt.domain.vouchers import Voucher, voucher_of
from kvitt.vendors import VENDORS
from tests.cast import AMIR, FJORDBY, NORDVEST, claim_for_travel, claim_from_abroad

if TYPE_CHECKING:
    from kvitt.domain.vouchers import VoucherLine

DUE = datetime(2026, 11, 24, 5, tzinfo=UTC)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
TRAVEL = claim_for_travel(NORDVEST.id, 1, NOON)
ABROAD = claim_from_abroad(NORDVEST.id, 2, NOON)
words = st.text(st.characters(categories=["L", "N", "P", "Zs"]), max_size=30)


def who(mapping: dict[str, Any]) -> Integration:
    return Integration.model_validate({**NORDVEST.model_dump(), "mapping": mapping})


def mapped(record: Record = TRAVEL, **mapping: Any) -> Voucher:
    own = who(mapping)
    return voucher_of(as_taken(record, own), own, due_at=DUE)


def first_line(record: Record = TRAVEL, **mapping: Any) -> VoucherLine:
    return mapped(record, **mapping).lines[0]


def record_of(line: dict[str, Any], **head: Any) -> Record:
    """Return a claim with one line that says something, and one that is owed."""
    lines = [{"account": "travel", "amount": "10", **line}, {"account": "owed", "amount": "-10"}]
    return Record.model_validate({**TRAVEL.model_dump(), "lines": lines, **head})


# -- texts -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{text}: {line_text}", "Claim 2: Line of 2"),
        ("{line_text} ({record})", "Line of 2 (2026-0002)"),
        ("{kind} {party}", f"expense-claim {AMIR}"),
        ("{voucher_date} {period}", "2026-11-20 2026-11-24"),
        ("{line_text} {amount} {currency}", "Line of 2 100.00 EUR"),
        ("Reise", "Reise"),
    ],
)
def test_a_text_is_made_from_what_the_record_says(template: str, text: str) -> None:
    assert first_line(ABROAD, text=template).text == text


def test_without_a_template_a_line_says_what_it_says_or_its_voucher() -> None:
    assert first_line(record_of({"text": "Tog"})).text == "Tog"
    assert first_line(record_of({})).text == "Claim 1"


def test_a_text_is_one_line_and_says_something_even_where_its_template_comes_to_nothing() -> None:
    record = record_of({"text": "Tog\nOslo -\tBergen "})
    assert first_line(record, text="{party}").text == "Tog Oslo - Bergen"
    assert first_line(record, comment="{party}").comment is None
    assert first_line(record, comment="{kind}").comment == "expense-claim"


def test_a_party_stands_for_all_lines_only_where_it_is_the_only_one() -> None:
    assert first_line(record_of({"party": "A"}), text="{party}").text == "A"
    lines = [
        {"account": "a", "amount": "2", "text": "both"},
        {"account": "b", "amount": "-1", "party": "A"},
        {"account": "b", "amount": "-1", "party": "B"},
    ]
    two = Record.model_validate({**TRAVEL.model_dump(), "lines": lines})
    assert [line.text for line in mapped(two, text="{party}").lines] == ["both", "A", "B"]


def test_what_a_record_says_is_no_template() -> None:
    assert first_line(record_of({"text": "{record}"})).text == "{record}"


@given(
    st.lists(st.sampled_from(PLACEHOLDERS), max_size=5),
    st.fixed_dictionaries(dict.fromkeys(PLACEHOLDERS, words)),
)
def test_a_template_is_what_it_names_in_order_and_on_one_line(
    names: list[str], said: dict[str, str]
) -> None:
    text = filled("|".join(f"{{{name}}}" for name in names), said)
    assert text == " ".join("|".join(said[name] for name in names).split())
    assert "\n" not in text


# -- words -----------------------------------------------------------------------------------------


def test_the_values_of_a_dimension_have_a_list_of_their_own() -> None:
    record = record_of({"dimensions": {"cost_centre": "30", "project": "30"}})
    mapping = {"dimensions": {"cost_centre": "glObject1"}, "values": {"cost_centre": {30: "0300"}}}
    assert first_line(record, **mapping).dimensions == {"glObject1": "0300", "project": "30"}


def test_a_default_is_what_the_app_might_have_said_and_the_account_is_asked_first() -> None:
    mapping = {
        "accounts": {"travel": "7140"},
        "taxes": {"low": "3"},
        "dimensions": {"cost_centre": "glObject1"},
        "values": {"cost_centre": {"10": "0100", "30": "0300"}},
        "defaults": {
            "dimensions": {"cost_centre": 10},
            "accounts": {
                "travel": {"tax": "low", "dimensions": {"cost_centre": 30}},
                "owed": {"dimensions": {"cost_centre": None}},
            },
        },
    }
    travel, owed = mapped(record_of({}), **mapping).lines
    assert (travel.tax, travel.dimensions) == ("3", {"glObject1": "0300"})
    assert (owed.tax, owed.dimensions) == (None, {})
    said = first_line(record_of({"tax": "0", "dimensions": {"cost_centre": "7"}}), **mapping)
    assert (said.tax, said.dimensions) == ("0", {"glObject1": "7"})
    other = first_line(record_of({"account": "meals"}), **mapping)
    assert (other.tax, other.dimensions) == (None, {"glObject1": "0100"})


@pytest.mark.parametrize(
    ("line", "mapping", "said"),
    [
        ({}, {"accounts": {"owed": "1"}, "strict": ["accounts"]}, "has the account 'travel'"),
        ({"party": "X"}, {"parties": {"A": "1"}, "strict": ["parties"]}, "has the party 'X'"),
        ({"tax": "X"}, {"taxes": {"A": "1"}, "strict": ["taxes"]}, "has the tax code 'X'"),
        (
            {"dimensions": {"X": "1"}},
            {"dimensions": {"A": "project"}, "strict": ["dimensions"]},
            "has the dimension 'X', which mapping.dimensions does not list, and it is strict",
        ),
        (
            {"dimensions": {"cost_centre": "99"}},
            {"values": {"cost_centre": {"30": "0300"}}, "strict": ["values"]},
            "has the cost_centre '99', which mapping.values.cost_centre does not list",
        ),
    ],
)
def test_a_word_that_a_strict_list_does_not_have_is_objected_to_by_name(
    line: dict[str, Any], mapping: dict[str, Any], said: str
) -> None:
    assert mapped(record_of(line), **mapping).objection is not None
    assert said in str(mapped(record_of(line), **mapping).objection)
    assert mapped(record_of(line), **{**mapping, "strict": []}).objection is None


def test_a_dimension_without_a_list_of_values_takes_any_value() -> None:
    record = record_of({"dimensions": {"project": "P-7"}})
    mapping = {"values": {"cost_centre": {"30": "0300"}}, "strict": ["values"]}
    assert mapped(record, **mapping).objection is None


def test_two_dimensions_of_a_line_that_become_one_are_objected_to() -> None:
    record = record_of({"dimensions": {"cost_centre": "30", "glObject1": "40"}})
    said = str(mapped(record, dimensions={"cost_centre": "glObject1"}).objection)
    assert "has both cost_centre and glObject1 on a line on account travel" in said


# -- dates -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "posted"),
    [
        ({}, date(2026, 11, 20)),
        ({"posting_date": "period"}, date(2026, 11, 24)),
        ({"closed_until": "2026-11-19"}, date(2026, 11, 20)),
        ({"closed_until": "2026-11-20"}, date(2026, 11, 24)),
    ],
)
def test_a_voucher_is_posted_on_its_own_day_unless_that_is_closed(
    mapping: dict[str, Any], posted: date
) -> None:
    assert mapped(**mapping).posting_date == posted
    assert mapped(**mapping).document_date == date(2026, 11, 20)
    assert mapped(**mapping).objection is None


def test_the_document_date_may_be_the_periods() -> None:
    assert mapped(document_date="period").document_date == date(2026, 11, 24)


def test_what_would_be_posted_in_closed_books_is_objected_to() -> None:
    said = str(mapped(closed_until="2026-11-30").objection)
    assert "would be posted on 2026-11-24" in said
    assert "closed until 2026-11-30" in said


@given(st.dates(date(2026, 1, 1), date(2026, 11, 24)), st.dates(date(2026, 1, 1)))
def test_nothing_that_goes_is_posted_in_closed_books(voucher_date: date, closed: date) -> None:
    voucher = mapped(record_of({}, voucher_date=voucher_date), closed_until=closed)
    assert voucher.objection is not None or voucher.posting_date > closed
    assert voucher.posting_date in (voucher_date, DUE.date())


# -- what cannot be meant --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mapping", "place", "said"),
    [
        ({"text": "{nmae}"}, "text", "there is no placeholder {nmae}; there are {text}, {line"),
        ({"text": "{text!r}"}, "text", "there is no placeholder {text!r}"),
        ({"text": "{amount:.2f}"}, "text", "there is no placeholder {amount:.2f}"),
        ({"text": "{}"}, "text", "there is no placeholder {}"),
        ({"text": "{text"}, "text", "a brace stands alone"),
        ({"text": " "}, "text", "at least 1 character"),
        ({"comment": "{tekst}"}, "comment", "there is no placeholder {tekst}"),
        ({"dimensions": {"a": "X", "b": "x"}}, "dimensions.b", "a becomes x already"),
        (
            {"posting_date": "period", "closed_until": "2026-10-31"},
            "closed_until",
            "all is posted on the period's day",
        ),
        ({"closed_until": "october"}, "closed_until", "valid date"),
        ({"strict": ["accounts"]}, "strict", "accounts lists nothing"),
        ({"strict": ["texts"]}, "strict.0", "'accounts', 'parties', 'taxes', 'dimensions' or"),
        ({"values": {"cost_centre": {"30": ""}}}, "values.cost_centre.30", "at least 1 character"),
        (
            {"accounts": {"a": "1"}, "strict": ["accounts"], "rounding": {"account": "7770"}},
            "rounding.account",
            "7770 is not listed in accounts, which is strict",
        ),
        (
            {
                "values": {"cost_centre": {"30": "0300"}},
                "strict": ["values"],
                "defaults": {"accounts": {"travel": {"dimensions": {"cost_centre": "40"}}}},
            },
            "defaults.accounts.travel.dimensions.cost_centre",
            "40 is not listed in values.cost_centre, which is strict",
        ),
        (
            {"defaults": {"accounts": {"a": {"texas": "1"}}}},
            "defaults.accounts.a.texas",
            "not perm",
        ),
        ({"rounding": {"to": "0.01"}}, "rounding.account", "Field required"),
    ],
)
def test_what_contradicts_itself_is_named_by_its_place(
    mapping: dict[str, Any], place: str, said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        who(mapping)
    error = refused.value.errors()[0]
    assert ".".join(map(str, error["loc"])) == f"mapping.{place}"
    assert said in error["msg"]


@pytest.mark.parametrize(
    ("vendor", "mapping", "place", "said"),
    [
        (
            "xledger",
            {"dimensions": {"a": "AVD"}},
            "dimensions.a",
            "no slot 'AVD'; it has glObject1",
        ),
        (
            "xledger",
            {"defaults": {"dimensions": {"a": "1"}}},
            "defaults.dimensions.a",
            "no slot 'a'",
        ),
        ("xledger", {"comment": "{kind}"}, "comment", "Xledger has one text a line"),
        ("business-central", {"accounts": {"a": "1" * 21}}, "accounts.a", "has 21 characters"),
        ("business-central", {"values": {"d": {"a": "1" * 21}}}, "values.d.a", "takes 20"),
        ("business-central", {"dimensions": {"d": "D" * 21}}, "dimensions.d", "takes 20"),
        (
            "business-central",
            {"defaults": {"accounts": {"a": {"tax": "X" * 21}}}},
            "defaults.accounts.a.tax",
            "takes 20",
        ),
        ("business-central", {"source": "KV"}, "source", "no transaction source"),
        ("business-central", {"document_date": "period"}, "document_date", "no document date"),
    ],
)
def test_what_a_vendor_cannot_take_is_named_by_its_place(
    vendor: str, mapping: dict[str, Any], place: str, said: str
) -> None:
    [(found, why), *_] = VENDORS[vendor].mapping_objections(Mapping.model_validate(mapping))
    assert ".".join(found) == place
    assert said in why


@pytest.mark.parametrize("integration", [NORDVEST, FJORDBY])
def test_the_casts_vendors_have_nothing_against_the_casts_mappings(
    integration: Integration,
) -> None:
    assert VENDORS[integration.vendor].mapping_objections(integration.mapping) == []


def test_the_mapping_that_a_period_keeps_stands_above_the_integrations() -> None:
    period = _period(mapping={"accounts": {"travel": "7999"}}, time_zone="America/New_York")
    kept = NORDVEST.as_of(period)
    assert kept.mapping.accounts == {"travel": "7999"}
    assert kept.local(DUE - timedelta(hours=2)).date() == date(2026, 11, 23)
    assert NORDVEST.as_of(_period()) == NORDVEST


def _period(**kept: Any) -> Period:
    return Period(
        integration_id=NORDVEST.id,
        key="k",
        opens_at=NOON,
        due_at=DUE,
        state=PeriodState.DUE,
        fence=0,
        **kept,
    )
