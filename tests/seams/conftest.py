"""What the modules of several kinds share."""

from support.command_runs import embedded, quick, rm, served, stopped  # noqa: F401 - fixtures
