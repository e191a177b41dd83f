"""The local Supabase, and vendors to break things against: real processes on loopback."""
