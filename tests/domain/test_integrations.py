"""A wrong setting is an error that names its field, and never a silence."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from kvitt.domain.integrations import Integration, Scheduler
from tests.cast import CAST, NORDVEST, TOUR


def told(**changes: Any) -> dict[str, Any]:
    return {**NORDVEST.model_dump(mode="json"), **changes}


@pytest.mark.parametrize("who", CAST, ids=lambda who: who.id)
def test_the_cast_is_valid_and_the_same_after_a_journey(who: Integration) -> None:
    assert Integration.model_validate_json(who.model_dump_json()) == who


@pytest.mark.parametrize(
    ("change", "field", "said"),
    [
        ({"id": "Teater Nordvest"}, ("id",), "should match pattern"),
        ({"id": "a" * 64}, ("id",), "at most 63"),
        ({"organisation": "  "}, ("organisation",), "at least 1 character"),
        ({"cron": "0 25 * * *"}, ("cron",), "no cron expression of five fields"),
        ({"time_zone": "Europe/Trondheim"}, ("time_zone",), "no time zone of the IANA list"),
        ({"time_zone": "localtime"}, ("time_zone",), "no time zone of the IANA list"),
        ({"time_zone": "posixrules"}, ("time_zone",), "no time zone of the IANA list"),
        ({"time_zone": "Factory"}, ("time_zone",), "no time zone of the IANA list"),
        ({"time_zone": "posix/Europe/Oslo"}, ("time_zone",), "no time zone of the IANA list"),
        ({"time_zone": ""}, ("time_zone",), "no time zone of the IANA list"),
        ({"time_zone": "../etc/passwd"}, ("time_zone",), "no time zone of the IANA list"),
        ({"first_period": "2026-11-24T06:00"}, ("first_period",), "timezone info"),
        ({"first_period": "1998-01-01T00:00Z"}, (), "outside of 2020 to 2099"),
        ({"book_currency": "nok"}, ("book_currency",), "should match pattern"),
        ({"mapping": {"acounts": {}}}, ("mapping", "acounts"), "not permitted"),
        ({"mapping": {"accounts": {"travel": ""}}}, ("mapping", "accounts", "travel"), "at least"),
        ({"mapping": {"posting_date": "today"}}, ("mapping", "posting_date"), "'voucher' or"),
        ({"limits": {"page_records": 0}}, ("limits", "page_records"), "greater than or equal"),
        ({"limits": {"chunk_lines": 1}}, ("limits", "chunk_lines"), "greater than or equal to 2"),
        ({"limits": {"setle": 1}}, ("limits", "setle"), "not permitted"),
        (
            {"limits": {"budget": {"requests": 0}}},
            ("limits", "budget", "requests"),
            "or equal to 1",
        ),
        ({"limits": {"budget": {"payed": True}}}, ("limits", "budget", "payed"), "not permitted"),
        ({"limits": {"first_wait": 0}}, ("limits", "first_wait"), "greater than 0"),
        ({"limits": {"page_records": True}}, ("limits", "page_records"), "a valid integer"),
        ({"limits": {"settle": True}}, ("limits", "settle"), "a valid number"),
        ({"limits": {"budget": {"requests": True}}}, ("limits", "budget", "requests"), "a valid"),
        ({"timeouts": {"read": True}}, ("timeouts", "read"), "a valid number"),
        ({"timeouts": {"read": 0}}, ("timeouts", "read"), "greater than 0"),
        ({"enabeld": False}, ("enabeld",), "not permitted"),
    ],
)
def test_what_is_wrong_is_named_by_its_field(
    change: dict[str, Any], field: tuple[str, ...], said: str
) -> None:
    with pytest.raises(ValidationError) as refused:
        Integration.model_validate(told(**change))
    [error] = refused.value.errors()
    assert error["loc"] == field
    assert said in error["msg"]


def test_account_numbers_may_come_without_quotes() -> None:
    mapping = {"accounts": {"travel": 7140}, "parties": {101: "ANS-101"}}
    read = Integration.model_validate(told(mapping=mapping)).mapping
    assert read.accounts == {"travel": "7140"}
    assert read.parties == {"101": "ANS-101"}


def test_prefect_starts_an_integration_unless_told_else() -> None:
    assert NORDVEST.scheduler is Scheduler.PREFECT
    assert Integration.model_validate(told(scheduler="both")).scheduler is Scheduler.BOTH
    with pytest.raises(ValidationError, match="'prefect', 'pg_cron' or 'both'"):
        Integration.model_validate(told(scheduler="cron"))


def test_a_setting_cannot_be_changed_in_passing() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        NORDVEST.enabled = False  # pyright: ignore[reportAttributeAccessIssue]


def test_people_see_moments_on_their_own_clocks() -> None:
    moment = datetime(2026, 11, 24, 5, tzinfo=UTC)
    assert f"{NORDVEST.local(moment):%H:%M}" == "06:00"
    assert f"{TOUR.local(moment):%H:%M}" == "00:00"


def test_an_integration_may_know_its_vendors_settle_time_better() -> None:
    usual = timedelta(minutes=18)
    own = Integration.model_validate(told(limits={"settle": 0}))
    assert NORDVEST.settle_time(usual) == usual
    assert own.settle_time(usual) == timedelta(0)
