"""Starts the simulator: `python -m sandbox.vendors.business_central --books PATH`."""

from sandbox.vendors import server
from sandbox.vendors.business_central.service import BusinessCentral
from sandbox.vendors.setup import BUSINESS_CENTRAL

if __name__ == "__main__":
    server.main(BusinessCentral, BUSINESS_CENTRAL)
