"""The ledger: Postgres functions, called through Supabase. See docs/ledger.md."""

from kvitt.ledger.rpc import SupabaseLedger

__all__ = ["SupabaseLedger"]
