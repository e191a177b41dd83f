"""All simulators, each by the description in its own folder (`<vendor>/simulator.py`).

Tests, the crash matrix and the auditors have no list of vendors of their own: whatever lies here is
found. See docs/vendors/adding.md.
"""

import importlib
import pkgutil
from collections.abc import Mapping

import sandbox.vendors
from sandbox.vendors.simulator import Simulator


def _found() -> dict[str, Simulator]:
    """Find each vendor's description in its folder."""
    folders = [each.name for each in pkgutil.iter_modules(sandbox.vendors.__path__) if each.ispkg]
    found = [
        importlib.import_module(f"sandbox.vendors.{folder}.simulator").SIMULATOR
        for folder in folders
    ]
    return {simulator.vendor: simulator for simulator in found}


SIMULATORS: Mapping[str, Simulator] = _found()
