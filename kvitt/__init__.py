"""kvitt carries approved records into accounting systems, exactly once, and proves it.

This package is the core: it knows nothing of Prefect. `sync` is the way of a period, over the
ports in `ports`; `ledger`, `edge` and `vendors` are what stands behind the ports; `domain` is pure.
"""
