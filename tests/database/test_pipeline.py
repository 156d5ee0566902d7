"""Statements that are sent together: what becomes of an error, and of a link that is lost."""

from __future__ import annotations

import os
import socket
from typing import Any

import psycopg
import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError
from support.doubles import FakeTime
from support.postgres import end_connections
from support.scratch_database import database

from rm_voucher.database.driven import Driven
from rm_voucher.database.pipeline import _first
from rm_voucher.exceptions import LedgerError

ONE = "SELECT %b::int"


def lose(connection: Connection) -> None:
    """End the link below the driver: its error has no SQLSTATE then."""
    driven: Any = connection.connection.driver_connection
    with socket.socket(fileno=os.dup(driven.pgconn.socket)) as link:
        link.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("step", ["before it is sent", "before its rows"])
async def test_link_that_is_lost_is_made_again(
    postgres_url: str, time: FakeTime, step: str
) -> None:
    """It is trouble that passes, wherever the driver finds it out."""
    tries = []

    def work(connection: Connection) -> list[tuple[Any, ...]]:
        tries.append(1)
        driven = Driven(connection)
        if len(tries) == 1 and step == "before it is sent":
            lose(connection)
        sent = driven.send(ONE, (1,))
        if len(tries) == 1:
            lose(connection)
        return driven.rows(sent)

    made = database(postgres_url, time)
    await made.open()
    assert await made.write(work, is_pipelined=True) == [(1,)]
    assert len(tries) == 2
    await made.close()


async def test_link_that_was_lost_since_the_last_transaction(
    postgres_url: str, time: FakeTime
) -> None:
    """The driver refuses to begin on it, and gives no SQLSTATE."""
    made = database(postgres_url, time)
    await made.open()
    assert await made.write(one, is_pipelined=True) == [(1,)]
    writer: Any = made.connections.writer
    writer.connection.driver_connection.pgconn.finish()
    assert await made.write(one, is_pipelined=True) == [(1,)]
    await made.close()


def one(connection: Connection) -> list[tuple[Any, ...]]:
    driven = Driven(connection)
    return driven.rows(driven.send(ONE, (1,)))


async def test_link_that_was_lost_since_the_last_reading(postgres_url: str, time: FakeTime) -> None:
    """A reading that goes to the driver itself finds it out, too, and makes another."""
    made = database(postgres_url, time)
    await made.open()
    assert await made.read(one) == [(1,)]
    await end_connections(postgres_url)
    assert await made.read(one) == [(1,)]
    await made.close()


async def test_statement_that_is_wrong_is_no_trouble_of_the_link(
    postgres_url: str, time: FakeTime
) -> None:
    """It is raised at once, and the connection is used on."""

    def work(connection: Connection) -> list[tuple[Any, ...]]:
        driven = Driven(connection)
        return driven.rows(driven.send("SELECT 1 / %b::int", (0,)))

    made = database(postgres_url, time)
    await made.open()
    with pytest.raises(LedgerError, match="division by zero"):
        await made.write(work, is_pipelined=True)
    assert await made.write(lambda connection: Driven(connection).send(ONE, (2,)) is not None)
    await made.close()


async def test_error_that_comes_with_the_commit(postgres_url: str, time: FakeTime) -> None:
    """It is told, and not that what followed it was skipped."""

    def work(connection: Connection) -> None:
        for divisor in (1, 0, 1):
            Driven(connection).send("SELECT 1 / %b::int", (divisor,))

    made = database(postgres_url, time)
    await made.open()
    for _ in range(20):
        with pytest.raises(LedgerError, match="division by zero"):
            await made.write(work, is_pipelined=True)
    await made.close()


def test_echo_of_an_error_is_replaced_by_it() -> None:
    """SQLAlchemy raises the one that its roll-back met; the first is its context."""
    first = DBAPIError("", None, psycopg.errors.DivisionByZero("first"))
    echo = DBAPIError("", None, psycopg.errors.PipelineAborted("pipeline aborted"))
    echo.__context__ = psycopg.errors.PipelineAborted("pipeline aborted")
    echo.__context__.__context__ = first
    assert _first(echo) is first
    assert _first(first) is first
    echo.__context__.__context__ = None
    assert _first(echo) is echo
