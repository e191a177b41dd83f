"""Accounting systems to break things against: real HTTP servers with books that outlive them."""
