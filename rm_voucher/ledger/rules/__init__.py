"""The ledger's rules: pure, without I/O or clock."""
