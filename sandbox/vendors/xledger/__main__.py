"""Starts the simulator: `python -m sandbox.vendors.xledger --books PATH`."""

from sandbox.vendors import server
from sandbox.vendors.setup import XLEDGER
from sandbox.vendors.xledger.service import Xledger

if __name__ == "__main__":
    server.main(Xledger, XLEDGER)
