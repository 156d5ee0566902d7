"""The account that each namespace of a database belongs to.

A namespace is one account's from its first use with a client, and an account has one namespace. So
no client can come to another merchant's rows by a mistake, nor begin anew beside its own.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, MetaData, Table, Text, select

from rm_voucher.database.scope import Scope

tables: MetaData = MetaData()
_namespaces = Table(
    "rm_namespaces",
    tables,
    Column("namespace", Text, primary_key=True),
    Column("account", Text, nullable=False, unique=True),
)


def account_of(connection: Connection, namespace: str) -> str | None:
    """Return the account that a namespace belongs to, if it is anybody's yet."""
    account: str | None = connection.scalar(
        Scope(namespace).select(_namespaces, _namespaces.c.account)
    )
    return account


def namespaces(connection: Connection) -> dict[str, str]:
    """Return the namespaces that are somebody's, each with its account."""
    rows = connection.execute(select(_namespaces).order_by(_namespaces.c.namespace))
    return {row.namespace: row.account for row in rows}


def claim(
    connection: Connection, namespace: str, account: str, *, rebind: bool = False
) -> str | None:
    """Let a namespace be an account's, if it is nobody's; return why it can't be.

    ``rebind`` takes it from the account that it belongs to.
    """
    scope = Scope(namespace)
    add = scope.insert_or_ignore(_namespaces, connection.dialect.name)
    connection.execute(add, {"account": account})
    if rebind and account not in namespaces(connection).values():
        connection.execute(scope.update(_namespaces).values(account=account))
    if (owner := account_of(connection, namespace)) == account:
        return None
    held = {each: name for name, each in namespaces(connection).items()}
    return another_namespace(held[account]) if account in held else anothers(owner or "")


def another_namespace(namespace: str) -> str:
    """Return the sentence for a client whose account has another namespace."""
    return (
        f"this client's account has the namespace {namespace!r} in this database: open that one, "
        "or what was issued before would be unknown, and issued again"
    )


def anothers(account: str) -> str:
    """Return the sentence for a client of another account than a namespace's."""
    return (
        f"it belongs to another account ({account}) than this client's: give each merchant a "
        "namespace of its own, such as client.account; if the merchant is the same, with a new "
        "client id, say so with rebind"
    )
