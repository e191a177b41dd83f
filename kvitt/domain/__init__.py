"""Periods, records, vouchers, money and errors: values and arithmetic, no clock and no I/O."""
