"""The rm-voucher command."""

from __future__ import annotations

import sys

__all__ = ["main"]


def main() -> None:
    """Run the command; the entry point of the script ``rm-voucher``."""
    try:
        import rich  # noqa: F401 - only to see whether the extra is there
        import typer  # noqa: F401
    except ModuleNotFoundError:
        sys.exit("The command needs the extra 'cli': pip install 'rm-voucher[cli]'")
    from rm_voucher.cli.app import run

    run()
