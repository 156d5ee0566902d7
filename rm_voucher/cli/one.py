"""``rm-voucher get``, ``void``, ``redeem`` and ``reinstate``, for one code or a file; ``batch``."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import attrs
import typer

from rm_voucher import ConfigurationError, Voucher, VoucherBatch, VoucherClient
from rm_voucher.cli.asking import ask
from rm_voucher.cli.codes.operations import (
    Operation,
    looking_up,
    redeeming,
    reinstating,
    voiding,
)
from rm_voucher.cli.common import examples
from rm_voucher.cli.connect import is_memory, make_client, make_memory_client
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.options import (
    ConcurrencyOption,
    EncodingOption,
    EnvironmentOption,
    ExcelOption,
    JsonOption,
    RateOption,
    SheetOption,
    YesOption,
    parse_instant,
)
from rm_voucher.cli.output import json_line
from rm_voucher.cli.screen import note, say, tell, write_out
from rm_voucher.cli.shown import fields_of

_NONE = "none"
_UNKNOWN = 4

CodeArgument = Annotated[
    str | None, typer.Argument(help="The voucher's code; or give --codes.", show_default=False)
]
CodesOption = Annotated[
    Path | None,
    typer.Option(
        help="Do it for each code of a spreadsheet, .csv or .xlsx, or of '-' for standard input: "
        "the output of 'issue', for example."
    ),
]
ColumnOption = Annotated[
    str | None,
    typer.Option(help="The column of the codes. By default the one that is called code."),
]
OutputOption = Annotated[
    Path | None,
    typer.Option(
        help="Write the file again, with our columns behind, to this file instead of standard "
        "output: .csv, .xlsx or .jsonl. The same command again goes on where it ended."
    ),
]


@examples(
    "rm-voucher get CODE",
    "rm-voucher get --codes vouchers.csv --output looked-up.csv",
)
def get(
    code: CodeArgument = None,
    codes: CodesOption = None,
    column: ColumnOption = None,
    output: OutputOption = None,
    encoding: EncodingOption = None,
    sheet: SheetOption = None,
    excel: ExcelOption = False,
    concurrency: ConcurrencyOption = 64,
    rate: RateOption = None,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Look a voucher up, or each of a file."""
    request = _Request(looking_up(), code, codes, environment, as_json=as_json)
    request.about_file(column, output, encoding, sheet, excel, concurrency, rate)
    request.run(lambda client, code: client.get(code))


@examples(
    "rm-voucher void CODE --store-id 7",
    "rm-voucher void --codes used.xlsx --output void.xlsx",
)
def void(
    code: CodeArgument = None,
    codes: CodesOption = None,
    store_id: Annotated[str | None, typer.Option(help="The store that it is used at.")] = None,
    used_at: Annotated[
        str | None,
        typer.Option(
            help="When it was used, RFC 3339 with microseconds, unique to this till: it proves "
            "whose void it was when the answer is lost. By default now; 'none' sends none."
        ),
    ] = None,
    column: ColumnOption = None,
    output: OutputOption = None,
    encoding: EncodingOption = None,
    sheet: SheetOption = None,
    excel: ExcelOption = False,
    concurrency: ConcurrencyOption = 64,
    rate: RateOption = None,
    yes: YesOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Void a voucher, that is, use it up at a shop, or each of a file."""
    instant = _used_at(used_at)
    operation = voiding(store_id, sends_used_at=instant is not None)
    request = _Request(operation, code, codes, environment, as_json=as_json, used_at=instant)
    request.about_file(column, output, encoding, sheet, excel, concurrency, rate, yes=yes)
    request.run(lambda client, code: client.void(code, store_id=store_id, used_at=instant))


@examples(
    "rm-voucher redeem CODE",
    "rm-voucher redeem --codes vouchers.csv --output redeemed.csv",
)
def redeem(
    code: CodeArgument = None,
    codes: CodesOption = None,
    column: ColumnOption = None,
    output: OutputOption = None,
    encoding: EncodingOption = None,
    sheet: SheetOption = None,
    excel: ExcelOption = False,
    concurrency: ConcurrencyOption = 64,
    rate: RateOption = None,
    yes: YesOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Redeem a voucher, or each of a file."""
    operation = redeeming()
    request = _Request(operation, code, codes, environment, as_json=as_json)
    request.about_file(column, output, encoding, sheet, excel, concurrency, rate, yes=yes)
    request.run(lambda client, code: operation.call(client, code, None))


@examples(
    "rm-voucher reinstate CODE --pin env:SHOP_PIN",
    "rm-voucher reinstate --codes void.csv --output back.csv --pin env:SHOP_PIN",
)
def reinstate(
    code: CodeArgument = None,
    codes: CodesOption = None,
    pin: Annotated[
        str | None,
        typer.Option(
            metavar="env:NAME",
            help="The variable that has the PIN of a user of the merchant portal. By default it is "
            "asked for: other users of a machine can read a command's arguments.",
        ),
    ] = None,
    reason: Annotated[str | None, typer.Option(help="Why, for the merchant's records.")] = None,
    column: ColumnOption = None,
    output: OutputOption = None,
    encoding: EncodingOption = None,
    sheet: SheetOption = None,
    excel: ExcelOption = False,
    concurrency: ConcurrencyOption = 64,
    rate: RateOption = None,
    yes: YesOption = False,
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Make a void voucher usable again, or each of a file."""
    request = _Request(looking_up(), code, codes, environment, as_json=as_json)
    request.about_file(column, output, encoding, sheet, excel, concurrency, rate, yes=yes)
    request.operation = operation = reinstating(_pin(pin), reason)
    request.run(lambda client, code: operation.call(client, code, None))


@examples("rm-voucher batch BATCH_KEY")
def batch(
    key: Annotated[str, typer.Argument(metavar="BATCH", help="The batch's key.")],
    environment: EnvironmentOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show a batch: what its vouchers are, how many are left."""
    show_one(environment, lambda client: client.batch(key), as_json=as_json)


@attrs.define
class _Request:
    """What one of the commands was asked: for one code, or for those of a file."""

    operation: Operation
    code: str | None
    codes: Path | None
    environment: str | None
    as_json: bool = attrs.field(kw_only=True)
    used_at: datetime | None = attrs.field(kw_only=True, default=None)
    options: Any = attrs.field(init=False, default=None)

    def about_file(
        self,
        column: str | None,
        output: Path | None,
        encoding: str | None,
        sheet: str | None,
        excel: bool,  # noqa: FBT001 - as the commands have it
        concurrency: int,
        rate: float | None,
        *,
        yes: bool = False,
    ) -> None:
        """Take what is about a file. Raises `ConfigurationError`."""
        if (self.code is None) == (self.codes is None):
            raise ConfigurationError("Give a CODE, or --codes FILE.")
        if self.codes is None:
            if (column, output, encoding, sheet, rate) != (None,) * 5 or excel or yes:
                raise ConfigurationError(
                    "--column, --output, --encoding, --sheet, --excel, --rate and --yes are about "
                    "--codes: give that instead of a code."
                )
            return
        if excel and output is None:
            raise ConfigurationError("--excel is about --output: give that too.")
        from rm_voucher.cli.codes.report import FileOptions  # not needed for one code

        self.options = FileOptions(
            codes=self.codes,
            column=column,
            encoding=encoding,
            sheet=sheet,
            output=output,
            excel=excel,
            concurrency=concurrency,
            rate=rate,
            yes=yes,
            as_json=self.as_json,
        )

    def run(self, ask_one: Callable[[VoucherClient, str], Awaitable[Voucher]]) -> None:
        """Do it, and show how it ended."""
        if self.options is not None:
            from rm_voucher.cli.codes.report import run_codes

            run_codes(self.operation, self.options, self.environment, used_at=self.used_at)
        code, as_json = self.code or "", self.as_json
        if self.operation.judge is None:
            show_one(self.environment, lambda client: ask_one(client, code), as_json=as_json)
            return
        show_changed(
            self.environment,
            lambda client: ask_one(client, code),
            self.operation.done,
            as_json=as_json,
        )


def _used_at(text: str | None) -> datetime | None:
    """Return the instant of a void: now, unless another is given, or none."""
    if text is None:
        return datetime.now(UTC)
    return None if text.strip().lower() == _NONE else parse_instant("--used-at", text)


def _pin(named: str | None) -> str:
    """Return the PIN, of a variable or of a person. Raises `ConfigurationError`."""
    if named is None:
        return ask(
            "PIN of a user of the merchant portal",
            hidden=True,
            script="A script gives --pin env:NAME, with the PIN in that variable.",
            nothing="Nothing was reinstated.",
        )
    scheme, _, name = named.partition(":")
    if scheme != "env" or not name:
        raise ConfigurationError(
            "--pin is env:NAME, the name of a variable that has the PIN: other users of a machine "
            "can read a command's arguments."
        )
    pin = os.environ.get(name, "").strip()
    if not pin:
        raise ConfigurationError(f"The PIN is in the variable {name}, which is not set.")
    return pin


def connect(environment: str | None) -> VoucherClient:
    """Return the client of a command that asks for one thing."""
    if is_memory(environment):
        note("The environment is 'memory', an embedded emulator that begins empty.")
        return make_memory_client()
    return make_client(environment)


def show_one(
    environment: str | None,
    ask: Callable[[VoucherClient], Awaitable[Voucher | VoucherBatch]],
    *,
    as_json: bool,
) -> None:
    """Ask for a thing, and show it: a field a line, or as the API would."""

    async def show() -> None:
        async with client:
            found = await ask(client)
        if as_json:
            write_out(json_line(fields_of(found)))
            return
        for name, value in fields_of(found).items():
            if name != "extra":
                tell(f"{name}: {value}")

    client = connect(environment)
    run_until_interrupted(show())


def show_changed(
    environment: str | None,
    ask: Callable[[VoucherClient], Awaitable[Voucher]],
    done: str,
    *,
    as_json: bool,
) -> None:
    """Do something with a voucher, and show it; an end in between leaves the outcome unknown."""
    try:
        show_one(environment, ask, as_json=as_json)
    except (KeyboardInterrupt, asyncio.CancelledError):
        say(f"Interrupted: whether the voucher was {done} is unknown. Look it up.")
        raise typer.Exit(_UNKNOWN) from None
    except OSError as exc:
        say(f"The voucher was {done}, but standard output can't be written: {exc.strerror}.")
