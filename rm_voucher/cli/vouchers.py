"""``rm-voucher get``, ``void``, ``vouchers`` and ``batches``: one call each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Annotated, Any

import attrs
import typer

from rm_voucher import Pager, Voucher, VoucherClient
from rm_voucher.cli.common import examples
from rm_voucher.cli.connect import is_memory, make_client, make_memory_client
from rm_voucher.cli.issuing import run_until_interrupted
from rm_voucher.cli.options import EnvironmentOption, JsonOption, parse_instant
from rm_voucher.cli.output import csv_line, json_line, say, table_line, tell, write_out
from rm_voucher.converters import format_time, unstructure


@examples(
    "rm-voucher get CODE",
    "rm-voucher get CODE --json",
)
def get(
    code: Annotated[str, typer.Argument(help="The voucher's code.")],
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look a voucher up."""
    _show_one(environment, lambda client: client.get(code), as_json=as_json)


@examples(
    "rm-voucher void CODE",
    "rm-voucher void CODE --store-id 7 --used-at 2026-11-20T10:00:00.123456Z",
)
def void(
    code: Annotated[str, typer.Argument(help="The voucher's code.")],
    store_id: Annotated[str | None, typer.Option(help="The store that it is used at.")] = None,
    used_at: Annotated[
        str | None,
        typer.Option(
            help="When it was used, RFC 3339 with microseconds, unique to this till: it proves "
            "whose void it was when the answer is lost."
        ),
    ] = None,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Void a voucher, that is, use it up at a shop."""
    instant = None if used_at is None else parse_instant("--used-at", used_at)
    try:
        _show_one(
            environment,
            lambda client: client.void(code, store_id=store_id, used_at=instant),
            as_json=as_json,
        )
    except (KeyboardInterrupt, asyncio.CancelledError):
        say("Interrupted: whether the voucher was voided is unknown. Look it up.")
        raise typer.Exit(4) from None
    except OSError as exc:
        say(f"The voucher was voided, but standard output can't be written: {exc.strerror}.")


@examples(
    "rm-voucher vouchers BREAKFAST",
)
def vouchers(
    batch: Annotated[str, typer.Argument(help="The batch's key.")],
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the vouchers of a batch, as CSV or a line of JSON each."""
    columns = ("code", "status", "type", "amount_sen", "assigned_at", "redeemed_at", "used_at")
    _list(environment, lambda client: client.vouchers(batch), columns, as_json=as_json)


@examples(
    "rm-voucher batches",
)
def batches(environment: EnvironmentOption = None, as_json: JsonOption = False) -> None:
    """List the merchant's batches, as CSV or a line of JSON each."""
    columns = ("key", "label", "status", "type", "quantity", "balance_quantity", "used_quantity")
    _list(environment, lambda client: client.batches(), columns, as_json=as_json)


def _connect(environment: str | None) -> VoucherClient:
    if is_memory(environment):
        say("The environment is 'memory', an embedded emulator that begins empty.")
        return make_memory_client()
    return make_client(environment)


def _show_one(
    environment: str | None,
    ask: Callable[[VoucherClient], Awaitable[Voucher]],
    *,
    as_json: bool,
) -> None:
    async def show() -> None:
        async with client:
            voucher = await ask(client)
        if as_json:
            write_out(json_line(unstructure(voucher)))
            return
        for field in attrs.fields(Voucher):
            value = getattr(voucher, field.name)
            if field.name != "extra" and value is not None:
                tell(f"{field.name}: {_text(value)}")

    client = _connect(environment)
    run_until_interrupted(show())


def _list(
    environment: str | None,
    ask: Callable[[VoucherClient], Pager[Any]],
    columns: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    async def show() -> None:
        if not as_json:
            write_out(csv_line(columns))
        async with client:
            async for item in ask(client):
                row = {column: _text(getattr(item, column)) for column in columns}
                write_out(json_line(unstructure(item)) if as_json else table_line(row))

    client = _connect(environment)
    run_until_interrupted(show())


def _text(value: object) -> str:
    if isinstance(value, datetime):
        return format_time(value)
    if attrs.has(type(value)):
        return json_line(unstructure(value)).strip()
    return "" if value is None else str(value)
