"""Runs ``rm-voucher`` in a process that kills itself at the n-th pass of a named point.

``launcher.py POINT:N ARGUMENT…``.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
from kills.killer import Killer

from rm_voucher.calls.caller import Caller
from rm_voucher.cli import main
from rm_voucher.cli.results import ResultFile
from rm_voucher.cli.tables.write import CsvWriter
from rm_voucher.database.database import Database
from rm_voucher.ledger import reconcile
from rm_voucher.ledger.rules.records import AttemptState
from rm_voucher.ledger.sender import Sender
from rm_voucher.ledger.sql.store import SqlLedgerStore
from rm_voucher.transport.aiohttp import AiohttpTransport

_TURNS = 5  # of the event loop, for what was written to have left


def kinds_of(operations: Any) -> set[str]:
    """Name the kinds of operation in a transaction."""
    kinds = set()
    for transition, item in operations:
        is_unknown = getattr(item, "state", None) is AttemptState.AMBIGUOUS
        kinds.add("ambiguous" if is_unknown else transition.__name__)
    return kinds


def watch_commits(killer: Killer) -> None:
    """Points: ``KIND uncommitted`` and ``KIND committed``, for each kind of transaction."""
    kinds: set[str] = set()
    commit_all, write = SqlLedgerStore._commit_all, Database.write

    async def watched_commit_all(self: SqlLedgerStore, operations: Any) -> Any:
        kinds.update(kinds_of(operations))
        try:
            return await commit_all(self, operations)
        finally:
            kinds.clear()

    async def watched_write(self: Database, work: Callable[[Any], Any], **how: Any) -> Any:
        def then_pass(connection: Any) -> Any:
            result = work(connection)
            for kind in sorted(kinds):
                killer.passing(f"{kind} uncommitted")
            return result

        result = await write(self, then_pass, **how)
        for kind in sorted(kinds):
            killer.passing(f"{kind} committed")
        return result

    SqlLedgerStore._commit_all = watched_commit_all  # type: ignore[method-assign]
    Database.write = watched_write  # type: ignore[method-assign]


def watch_calls(killer: Killer) -> None:
    """Points: ``before post``, ``posted`` (and not answered), ``answered`` (and not kept)."""
    send, start, execute = AiohttpTransport.send, aiohttp.ClientResponse.start, Caller.execute

    async def watched_send(self: AiohttpTransport, request: Any) -> Any:
        if request.operation == "issue":
            killer.passing("before post")
        return await send(self, request)

    async def watched_start(self: aiohttp.ClientResponse, connection: Any) -> Any:
        if killer.point == "posted" and self.url.path.endswith("/issue"):
            for _ in range(_TURNS):
                await asyncio.sleep(0)
            killer.passing("posted")
        return await start(self, connection)

    async def watched_execute(self: Caller, call: Any) -> Any:
        answer = await execute(self, call)
        if call.request.operation == "issue":
            killer.passing("answered")
        return answer

    AiohttpTransport.send = watched_send  # type: ignore[method-assign]
    Caller.execute = watched_execute  # type: ignore[method-assign]
    aiohttp.ClientResponse.start = watched_start  # type: ignore[method-assign]


def watch(owner: Any, name: str, before: Callable[[], None], after: Callable[[], None]) -> None:
    """Call functions before and after a function that does not wait."""
    wrapped = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        before()
        result = wrapped(*args, **kwargs)
        after()
        return result

    setattr(owner, name, watched)


def watch_the_rest(killer: Killer) -> None:
    """Points of telling the caller, of reconciling, of finishing, and of the output file."""

    def at(point: str) -> Callable[[], None]:
        return lambda: killer.passing(point)

    watch(SqlLedgerStore, "notify", at("untold"), at("told"))
    watch(reconcile, "conclude", at("listed"), at("concluded"))
    watch(Sender, "issue", at("reissue"), lambda: None)
    watch(ResultFile, "_write", at("before row"), at("row"))
    watch(CsvWriter, "add", at("before whole row"), at("whole row"))
    watch(Path, "unlink", at("before unlink"), at("unlinked"))
    watch(Path, "replace", at("before replace"), at("replaced"))


if __name__ == "__main__":
    spec, *arguments = sys.argv[1:]
    killer = Killer(spec)
    watch_commits(killer)
    watch_calls(killer)
    watch_the_rest(killer)
    sys.argv = ["rm-voucher", *arguments]
    main()
