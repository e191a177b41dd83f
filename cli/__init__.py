"""The command line `kvitt`."""
