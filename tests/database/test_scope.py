"""No statement leaves its namespace: each is made in one place, and each that runs is watched."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from sqlalchemy import Column, MetaData, Table, Text, func
from sqlalchemy.dialects import sqlite
from support.scoped_statements import forgets_namespace

import rm_voucher
from rm_voucher.database.scope import Scope, check_namespace, namespace_column
from rm_voucher.exceptions import ConfigurationError

_tables = MetaData()
things = Table(
    "things", _tables, namespace_column(primary_key=True), Column("code", Text, primary_key=True)
)
files = Table("files", _tables, Column("id", Text))
PACKAGE = Path(rm_voucher.__file__).parent
MAKERS = {"select", "insert", "update", "delete", "exists", "text"}


def text_of(statement: object) -> str:
    return " ".join(str(statement.compile(dialect=sqlite.dialect())).split())  # type: ignore[attr-defined]


def test_each_statement_has_the_namespace() -> None:
    """Whatever it does; the rows that it returns are without it."""
    scope = Scope("m1")
    assert text_of(scope.select(things)) == (
        "SELECT things.code FROM things WHERE things.namespace = ?"
    )
    assert text_of(scope.select(things, func.count())) == (
        "SELECT count(*) AS count_1 FROM things WHERE things.namespace = ?"
    )
    assert text_of(scope.update(things).values(code="B")) == (
        "UPDATE things SET code=? WHERE things.namespace = ?"
    )
    assert text_of(scope.delete(things)) == "DELETE FROM things WHERE things.namespace = ?"
    insert = scope.insert_or_ignore(things, "sqlite")
    insert = insert.values(code="B")
    assert text_of(insert) == (
        "INSERT INTO things (namespace, code) VALUES (?, ?) ON CONFLICT DO NOTHING"
    )
    assert insert.compile(dialect=sqlite.dialect()).params["namespace"] == "m1"


def test_what_is_about_the_file_has_none() -> None:
    """A table without namespaces, and a scope that is the whole database."""
    assert "namespace" not in text_of(Scope("m1").select(files))
    assert "namespace =" not in text_of(Scope(None).update(things).values(code="B"))


@pytest.mark.parametrize("bad", ["a\n", "\0", "n" * 201, "a\u200b\t"])
def test_namespace_that_is_none(bad: str) -> None:
    """It is refused before anything is kept under it."""
    with pytest.raises(ConfigurationError, match="A namespace is text of 200 printable"):
        check_namespace(bad)
    with pytest.raises(ConfigurationError, match="namespace must be text, not int"):
        check_namespace(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="Several share this database: give each its"):
        check_namespace(None, is_shared=True)
    assert check_namespace(None) == check_namespace("", is_shared=True) == ""
    assert check_namespace("kedai-teh") == "kedai-teh"


@pytest.mark.parametrize("wing", ["ledger/sql", "webhooks/sql"])
def test_statements_are_made_in_one_place(wing: str) -> None:
    """A store imports nothing of SQLAlchemy's that makes a statement without a namespace."""
    for path in (PACKAGE / wing).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("sqlalchemy"):
                names = {alias.name for alias in node.names}
                allowed = {"text"} if path.stem == "schema" else set()
                assert not names & (MAKERS - allowed), path
            assert not isinstance(node, ast.Import) or "sqlalchemy" not in ast.unparse(node), path


@pytest.mark.parametrize(
    ("statement", "forgets"),
    [
        ("SELECT code FROM rm_ledger_codes WHERE namespace = ? AND code = ?", False),
        ("SELECT code FROM rm_ledger_codes WHERE code = ?", True),
        ("SELECT key FROM rm_ledger_batches", True),
        ("INSERT INTO rm_ledger_codes (namespace, code) SELECT ?, value FROM json_each(?)", False),
        ("INSERT INTO rm_ledger_codes (code) VALUES (?)", True),
        ("UPDATE rm_webhook_events SET state=? WHERE rm_webhook_events.id = ?", True),
        ("DELETE FROM rm_webhook_expected WHERE rm_webhook_expected.namespace = %s", False),
        (
            "SELECT id FROM rm_webhook_events e WHERE e.namespace = ? AND EXISTS "  # noqa: ISC004
            "(SELECT code FROM rm_webhook_expected WHERE code = e.code)",
            True,
        ),
        ("CREATE INDEX i ON rm_ledger_codes (batch)", False),
        ("SELECT commits FROM rm_ledger_meta", False),
    ],
)
def test_watch_sees_what_is_forgotten(statement: str, *, forgets: bool) -> None:
    """The check of statements can fail."""
    assert forgets_namespace(statement) is forgets
