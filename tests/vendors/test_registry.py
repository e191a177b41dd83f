"""A vendor is whole: it has a client, a simulator, a page, and an example that can be imported."""

from pathlib import Path

import pytest
import yaml

from cli.files import read_integrations
from kvitt.vendors import VENDORS
from sandbox.processes import CHECKOUT
from sandbox.vendors.simulators import SIMULATORS

EXAMPLES = sorted(
    path
    for path in (CHECKOUT / "examples").glob("*.yaml")
    if "integrations" in yaml.safe_load(path.read_text())
)


def test_each_vendor_has_a_simulator() -> None:
    assert set(SIMULATORS) == set(VENDORS)


@pytest.mark.parametrize("vendor", VENDORS)
def test_each_vendor_has_a_page_that_the_documentation_lists(vendor: str) -> None:
    assert (CHECKOUT / "docs" / "vendors" / f"{vendor}.md").is_file()
    assert f"(vendors/{vendor}.md)" in (CHECKOUT / "docs" / "README.md").read_text()


@pytest.mark.parametrize("vendor", VENDORS)
def test_what_a_simulator_says_to_connect_with_its_client_takes(vendor: str) -> None:
    kind = SIMULATORS[vendor]
    told = kind.connect("http://127.0.0.1:1", kind.cast_company)
    assert VENDORS[vendor].settings.model_validate(told)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.name)
def test_each_example_can_be_imported(example: Path) -> None:
    for integration in read_integrations(example):
        assert integration.vendor in VENDORS


def test_each_vendor_has_an_example() -> None:
    shown = {one.vendor for example in EXAMPLES for one in read_integrations(example)}
    assert shown == set(VENDORS)
