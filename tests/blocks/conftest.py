"""The vendors, running."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

from sandbox.processes import Home

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from sandbox.processes import Process


def serve(home: Home, vendor: str) -> Process:
    books = home.path / f"{vendor}.db"
    command = [sys.executable, "-m", f"sandbox.vendors.{vendor}", "--books", str(books)]
    return home.serve(vendor, command)


@pytest.fixture(scope="module")
def vendor_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder: Path = tmp_path_factory.mktemp("vendors")
    with Home(folder) as home:
        yield home


@pytest.fixture(scope="module")
def vendor_bc(vendor_home: Home) -> Process:
    return serve(vendor_home, "business_central")


@pytest.fixture(scope="module")
def vendor_dv(vendor_home: Home) -> Process:
    return serve(vendor_home, "dataverse")


@pytest.fixture(scope="module")
def vendor_xl(vendor_home: Home) -> Process:
    return serve(vendor_home, "xledger")
