"""``rm-voucher vouchers`` and ``batches``: RM's lists, to a screen, a pipe or a file."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Self

import attrs
import typer

from rm_voucher import (
    ConfigurationError,
    Pager,
    Voucher,
    VoucherBatch,
    VoucherClient,
    VoucherStatus,
)
from rm_voucher.cli.common import examples
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.one import connect
from rm_voucher.cli.options import EnvironmentOption, ExcelOption, JsonOption
from rm_voucher.cli.output import (
    OutputError,
    csv_line,
    json_line,
    refuse_no_file,
    table_line,
)
from rm_voucher.cli.screen import say, write_out
from rm_voucher.cli.shown import fields_of
from rm_voucher.cli.tables.model import Cell
from rm_voucher.cli.tables.write import TableWriter, open_writer

VOUCHER_COLUMNS = (
    "code",
    "status",
    "type",
    "amount_sen",
    "assigned_at",
    "redeemed_at",
    "used_at",
    "label",
    "expires_at",
    "qr_url",
)
BATCH_COLUMNS = (
    "key",
    "label",
    "status",
    "type",
    "quantity",
    "balance_quantity",
    "used_quantity",
    "expires_at",
    "expires_days",
    "is_static",
)
_DURATION = re.compile(r"(\d{1,5})\s*([hdw])", re.IGNORECASE)
_UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_OVER = (VoucherStatus.VOID, VoucherStatus.EXPIRED)

StatusOption = Annotated[
    list[str] | None,
    typer.Option(help="Only those with this status, such as ISSUED. Repeatable."),
]
ExpiringOption = Annotated[
    str | None,
    typer.Option(
        metavar="TIME",
        help="Only those that can still be used, and end within this time: 14d, 12h, 2w.",
    ),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(help="Write the list to this file, which only you can read: .csv, .xlsx, .jsonl."),
]

_Found = Voucher | VoucherBatch


@examples(
    "rm-voucher vouchers BATCH_KEY",
    "rm-voucher vouchers BATCH_KEY --status ISSUED --output issued.xlsx",
    "rm-voucher vouchers BATCH_KEY --expiring-in 14d",
)
def vouchers(
    batch: Annotated[str, typer.Argument(help="The batch's key.")],
    status: StatusOption = None,
    expiring_in: ExpiringOption = None,
    output: OutputOption = None,
    excel: ExcelOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the vouchers of a batch, as CSV or a line of JSON each."""
    list_all(
        environment,
        lambda client: client.vouchers(batch),
        VOUCHER_COLUMNS,
        Choice.of(status, expiring_in),
        Target(output, excel=excel, as_json=as_json),
    )


@examples("rm-voucher batches", "rm-voucher batches --expiring-in 4w --output ending.csv")
def batches(
    status: StatusOption = None,
    expiring_in: ExpiringOption = None,
    output: OutputOption = None,
    excel: ExcelOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the merchant's batches, as CSV or a line of JSON each."""
    list_all(
        environment,
        lambda client: client.batches(),
        BATCH_COLUMNS,
        Choice.of(status, expiring_in),
        Target(output, excel=excel, as_json=as_json),
    )


@attrs.frozen
class Choice:
    """Which things of a list are asked for."""

    statuses: frozenset[str]
    begin: datetime
    end: datetime | None

    @classmethod
    def of(cls, statuses: Sequence[str] | None, expiring_in: str | None) -> Self:
        """Make it of what the options say. Raises `ConfigurationError`."""
        begin = datetime.now(UTC)
        end = None if expiring_in is None else begin + _duration(expiring_in)
        return cls(frozenset(each.strip().upper() for each in statuses or ()), begin, end)

    def has(self, found: _Found) -> bool:
        """Return whether a thing is asked for."""
        status = (found.status or "").upper()
        if self.statuses and status not in self.statuses:
            return False
        if self.end is None:
            return True
        expires_at = found.expiry.expires_at if found.expiry else None
        is_near = expires_at is not None and self.begin <= expires_at <= self.end
        return is_near and status not in _OVER


@attrs.frozen
class Target:
    """Where a list goes. Raises `ConfigurationError`."""

    output: Path | None = None
    excel: bool = attrs.field(kw_only=True, default=False)
    as_json: bool = attrs.field(kw_only=True, default=False)

    def __attrs_post_init__(self) -> None:
        if self.output is None:
            if self.excel:
                raise ConfigurationError("--excel is about --output: give that too.")
            return
        refuse_no_file(self.output)
        if self.as_json:
            raise ConfigurationError(
                "--json is about standard output: for lines of JSON in a file, let its name end "
                "in .jsonl."
            )


def _duration(text: str) -> timedelta:
    found = _DURATION.fullmatch(text.strip())
    if found is None:
        raise ConfigurationError(
            f"--expiring-in {text!r} is no time: write 14d for days, 12h for hours, 2w for weeks."
        )
    return timedelta(**{_UNITS[found[2].lower()]: int(found[1])})


def list_all(
    environment: str | None,
    ask: Callable[[VoucherClient], Pager[Any]],
    columns: tuple[str, ...],
    choice: Choice,
    target: Target,
) -> None:
    """Write the things of a list that are asked for."""
    client = connect(environment)

    async def wanted() -> AsyncGenerator[_Found]:
        async with client:
            async for item in ask(client):
                if choice.has(item):
                    yield item

    if target.output is None:
        run_until_interrupted(_show(wanted(), columns, as_json=target.as_json))
        return
    count = _Count()
    try:
        with open_writer(
            target.output, columns, excel=target.excel, exact=("code", "key")
        ) as writer:
            run_until_interrupted(_write(wanted(), columns, writer, count))
    except OSError as exc:
        raise OutputError(f"{target.output} can't be written: {exc.strerror}.") from exc
    say(f"{count.number:,} listed → {target.output}")


class _Count:
    number = 0


async def _show(found: AsyncGenerator[_Found], columns: tuple[str, ...], *, as_json: bool) -> None:
    is_begun = as_json
    async with aclosing(found):
        async for item in found:
            if not is_begun:  # not before it is known that there is a list
                write_out(csv_line(columns))
                is_begun = True
            fields = fields_of(item)
            if as_json:
                write_out(json_line(fields))
            else:
                write_out(table_line({name: _text(fields.get(name)) for name in columns}))
    if not is_begun:
        write_out(csv_line(columns))


async def _write(
    found: AsyncIterator[_Found], columns: tuple[str, ...], writer: TableWriter, count: _Count
) -> None:
    async for item in found:
        fields = fields_of(item)
        writer.add([_cell(fields.get(name)) for name in columns])
        count.number += 1


def _cell(value: object) -> Cell:
    return value if isinstance(value, int | bool) or value is None else str(value)


def _text(value: object) -> str:
    return "" if value is None else str(value)
