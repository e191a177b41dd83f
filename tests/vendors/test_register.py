"""The register of facts, facts.yaml: each fact has its tests, and each uncertain one its switch."""

import ast
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from kvitt.vendors import VENDORS
from kvitt.vendors.facts import EXAMINATIONS
from sandbox.vendors.business_central.books import Settings as BusinessCentral
from sandbox.vendors.dataverse.books import Settings as Dataverse
from sandbox.vendors.simulators import SIMULATORS
from sandbox.vendors.xledger.books import Settings as Xledger

TESTS = Path(__file__).parents[1]
REGISTER: dict[str, Any] = yaml.safe_load((TESTS / "vendors" / "facts.yaml").read_text())
FILES: dict[str, str] = REGISTER.pop("files")
FACTS: list[dict[str, Any]] = [fact for facts in REGISTER.values() for fact in facts]
SWITCHES = {"business-central": BusinessCentral, "dataverse": Dataverse, "xledger": Xledger}
FIELDS = {"id", "grade", "says", "tests", "switch", "unasked"}


@cache
def names_in(file: str) -> frozenset[str]:
    """Return the tests of a file that are run: by their names, none that is skipped."""
    defined = ast.parse((TESTS / file).read_text()).body
    return frozenset(
        each.name
        for each in defined
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef)
        and each.name.startswith("test_")
        and not any(
            "mark.skip" in ast.unparse(d) or "mark.xfail" in ast.unparse(d)
            for d in each.decorator_list
        )
    )


def missing(fact: dict[str, Any]) -> list[str]:
    """Return those of a fact's tests that do not exist."""
    gone: list[str] = []
    for named in fact["tests"]:
        file, _, name = named.partition("::")
        path = FILES.get(file, file)
        if not (TESTS / path).is_file() or name not in names_in(path):
            gone.append(named)
    return gone


def asked(vendor: str) -> set[str]:
    """Return the facts that `kvitt facts` asks about; of a vendor without questions, none."""
    if vendor not in EXAMINATIONS:
        return set()
    return {question.fact for question in EXAMINATIONS[vendor].questions}


def uncertain(vendor: str) -> list[dict[str, Any]]:
    return [fact for fact in REGISTER[vendor] if fact["grade"] == "U"]


@pytest.mark.parametrize("fact", FACTS, ids=lambda fact: fact["id"])
def test_a_fact_is_graded_and_has_tests_that_exist(fact: dict[str, Any]) -> None:
    assert set(fact) <= FIELDS
    assert fact["grade"] in {"C", "U"}
    assert fact["says"]
    assert fact["tests"], f"{fact['id']} is held by no test"
    assert missing(fact) == []


def test_a_fact_without_a_test_or_with_one_that_is_gone_is_noticed() -> None:
    assert missing({"tests": ["sim-bc::test_that_nobody_wrote"]}) != []
    assert missing({"tests": ["nowhere.py::test_a_probe_is_counted_apart"]}) != []
    assert missing({"tests": ["both::test_a_probe_is_counted_apart"]}) == []


def test_each_fact_has_one_row() -> None:
    ids = [fact["id"] for fact in FACTS]
    assert sorted(set(ids)) == sorted(ids)


def test_each_vendor_with_a_simulator_has_its_facts() -> None:
    assert set(SWITCHES) == set(SIMULATORS)
    assert set(REGISTER) == set(VENDORS)


@pytest.mark.parametrize("vendor", SWITCHES)
def test_an_uncertain_fact_has_a_switch_in_the_simulator(vendor: str) -> None:
    known = set(SWITCHES[vendor].model_fields)
    for fact in uncertain(vendor):
        assert fact.get("switch") in known, fact["id"]


@pytest.mark.parametrize("vendor", SWITCHES)
def test_an_uncertain_fact_is_tried_at_the_simulator_or_the_client_and_asked_of_the_tenant(
    vendor: str,
) -> None:
    for fact in uncertain(vendor):
        assert (fact["id"] in asked(vendor)) is ("unasked" not in fact), fact["id"]


@pytest.mark.parametrize("vendor", SWITCHES)
def test_each_question_is_about_a_fact_of_the_register(vendor: str) -> None:
    facts = {fact["id"] for fact in REGISTER[vendor]}
    assert asked(vendor) <= facts
