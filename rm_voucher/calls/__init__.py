"""One call, from its request to its conclusion: sign, send, parse, and on an error conclude."""
