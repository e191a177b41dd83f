"""Starts the simulator: `python -m sandbox.vendors.dataverse --books PATH`."""

from sandbox.vendors import server
from sandbox.vendors.dataverse.service import Dataverse
from sandbox.vendors.dataverse.simulator import SEED

if __name__ == "__main__":
    server.main(Dataverse, SEED)
