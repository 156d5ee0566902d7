"""Scenarios in the package, one a file."""
