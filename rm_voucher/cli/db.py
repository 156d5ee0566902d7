"""``rm-voucher db``: the tables, for the owner of a database."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from rm_voucher.cli.common import examples
from rm_voucher.cli.screen import write_out

db_app: typer.Typer = typer.Typer(
    name="db",
    add_completion=False,
    no_args_is_help=True,
    help="Write the SQL of the tables, for a database in which the application may make none.",
)


@db_app.callback()
def _group() -> None:
    """Be a group, also with one command."""


@db_app.command()
@examples(
    "rm-voucher db ddl",
    "rm-voucher db ddl --dialect sqlite",
)
def ddl(
    dialect: Annotated[
        Literal["postgresql", "sqlite"], typer.Option(help="For which database it is.")
    ] = "postgresql",
) -> None:
    """Print the SQL that makes all tables in a database that has none of them.

    They are those of the ledger, of callbacks, of what processes share, and of the outbox. Whoever
    opens the database afterwards makes none.
    """
    from rm_voucher import tables  # an extra, and slow to import

    write_out(tables.ddl(dialect))
