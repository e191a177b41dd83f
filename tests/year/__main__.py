"""`make year`, or `python -m tests.year [--vouchers N] [--seed S] [--vendor V]`.

Prints a table, then one line of JSON; status 1 if the audit finds anything.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from rich.console import Console
from rich.table import Table

from sandbox.ground import running
from sandbox.vendors.simulators import SIMULATORS
from tests.year.year import Outcome, play


def main() -> None:
    """Play the year at each vendor."""
    parser = argparse.ArgumentParser(prog="python -m tests.year", description=__doc__)
    parser.add_argument("--vouchers", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--vendor", choices=list(SIMULATORS))
    options = parser.parse_args()
    vendors = [options.vendor] if options.vendor else list(SIMULATORS)
    with running("year") as ground:
        outcomes = [
            asyncio.run(play(ground, vendor, options.vouchers, seed=options.seed, say=_say))
            for vendor in vendors
        ]
    Console(width=None if sys.stdout.isatty() else 140).print(_table(outcomes))
    wrong = {outcome.vendor: outcome.wrong for outcome in outcomes if outcome.wrong}
    print(json.dumps({"vouchers": sum(o.vouchers for o in outcomes), "wrong": wrong}))
    sys.exit(bool(wrong))


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("", *(outcome.vendor for outcome in outcomes), title="A year")
    rows = {
        "vouchers booked": [f"{o.vouchers:,}" for o in outcomes],
        "lines booked": [f"{o.lines:,}" for o in outcomes],
        "set aside": [f"{o.set_aside:,}" for o in outcomes],
        "mended": [f"{o.mended:,}" for o in outcomes],
        "debit in the books, NOK": [f"{o.booked:,.2f}" for o in outcomes],
        "debit on the receipts, NOK": [f"{o.receipts:,.2f}" for o in outcomes],
        "currencies read": [", ".join(sorted(o.originals)) or "not shown" for o in outcomes],
        "requests": [", ".join(f"{n:,} {k}" for k, n in o.requests.items()) for o in outcomes],
        "minutes": [f"{o.seconds / 60:.1f}" for o in outcomes],
        "wrong": [str(o.wrong or "nothing") for o in outcomes],
    }
    for name, values in rows.items():
        table.add_row(name, *values)
    return table


def _say(what: str) -> None:
    print(what, flush=True)


if __name__ == "__main__":
    main()
