"""A year of a mid-sized organisation, exported to each vendor and audited to the øre."""
