"""The rm-voucher command."""

from __future__ import annotations

from rm_voucher.extras import extra

__all__ = ["main"]


def main() -> None:
    """Run the command; the entry point of the script ``rm-voucher``."""
    with extra("cli", "The command", SystemExit):
        import rich  # noqa: F401 - only to see whether the extra is there
        import typer  # noqa: F401
    from rm_voucher.cli.app import run

    run()
