"""``rm-voucher emulator``: serve an emulated voucher API, and write the variables of a client."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import shlex
import webbrowser
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Annotated, cast

import attrs
import typer

from rm_voucher import ConfigurationError, Environment, InvalidRequestError
from rm_voucher.cli.common import examples
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.screen import logged_to_person, say
from rm_voucher.emulator import Check, Emulator, Fault, FaultPlan, Guesses
from rm_voucher.emulator.app import EmulatorOptions
from rm_voucher.emulator.merchant import Merchant, MerchantOptions
from rm_voucher.emulator.recorder import recording
from rm_voucher.emulator.request_log import LOGGER
from rm_voucher.emulator.scenario.apply import emulator_of
from rm_voucher.emulator.scenario.read import scenario_names
from rm_voucher.emulator.server import Server, serve
from rm_voucher.emulator.state_file import kept_in
from rm_voucher.files import replace_private
from rm_voucher.settings import read_pem
from rm_voucher.wire.operations import build_issue

_CALLBACK_INTERVAL_S = 60.0
_END = "Ctrl-C ends it."
_SINGLE_FAULTS = ", ".join(fault for fault in Fault if fault is not Fault.CLOSED)


@examples(
    "rm-voucher emulator --batch BREAKFAST=1000 --credentials-out emulator.env",
    "rm-voucher emulator --scenario first-steps --open",
    "rm-voucher emulator --port 8080 --batch BREAKFAST=1000 --fault-rate 0.2 --rate-limit 50",
)
def emulator(
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A name, like emulator or emulator:8000, by which other machines and containers "
            "may use the page and the control API. Clients reach it by the first one. Repeatable.",
        ),
    ] = None,
    public_url: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where customers' browsers reach it, for QR codes, if not where clients do.",
        ),
    ] = None,
    merchant: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Another merchant, with the same batches, faults, rate limit and URL of "
            "callbacks. Repeatable.",
        ),
    ] = None,
    batch: Annotated[
        list[str] | None, typer.Option(help="KEY=QUANTITY, a batch to begin with. Repeatable.")
    ] = None,
    client_id: Annotated[str | None, typer.Option(help="Generated when not given.")] = None,
    client_secret: Annotated[str | None, typer.Option(help="Generated when not given.")] = None,
    public_key: Annotated[
        Path | None, typer.Option(help="The client's public key, PEM; else a pair is generated.")
    ] = None,
    credentials_out: Annotated[
        Path | None,
        typer.Option(
            help="Write the RM_… variables that a client needs, for a shell to source; those of "
            "another merchant into a file beside it, like emulator-NAME.env."
        ),
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="The same seed gives the same codes and faults.")
    ] = None,
    fault_rate: Annotated[
        float, typer.Option(min=0, max=1, help="The share of requests that meet a fault.")
    ] = 0.0,
    fault_kinds: Annotated[
        str | None,
        typer.Option(
            help="The kinds of faults, with commas between; by default all that don't keep a "
            f"client waiting. They are {_SINGLE_FAULTS}."
        ),
    ] = None,
    rate_limit: Annotated[
        float | None, typer.Option(help="Requests a second that are not throttled.")
    ] = None,
    latency: Annotated[float, typer.Option(min=0, help="Seconds added to each request.")] = 0.0,
    callback_url: Annotated[
        str | None, typer.Option(help="Where to POST a callback when a voucher changes.")
    ] = None,
    callback_interval: Annotated[
        float, typer.Option(min=0, help="Seconds until a callback without a 200 is repeated.")
    ] = _CALLBACK_INTERVAL_S,
    callback_signs_url: Annotated[
        bool,
        typer.Option(
            "--callback-signs-url",
            help="Let the signature of callbacks cover their URL, which RM's pages leave out.",
        ),
    ] = False,
    disable_check: Annotated[
        list[str] | None,
        typer.Option(help=f"A check not to make. Repeatable. They are {', '.join(Check)}."),
    ] = None,
    scenario: Annotated[
        str | None,
        typer.Option(help="A TOML file, or one of " + ", ".join(scenario_names()) + "."),
    ] = None,
    state: Annotated[
        Path | None,
        typer.Option(help="A file to go on from, and to keep everything in across restarts."),
    ] = None,
    record: Annotated[
        Path | None,
        typer.Option(help="Append a line of JSON for each request, with codes masked."),
    ] = None,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Write no line for each request.")
    ] = False,
    opens_page: Annotated[
        bool, typer.Option("--open", help="Open the emulator's page in the browser.")
    ] = False,
) -> None:
    """Serve an emulated voucher API over HTTP until Ctrl-C. No real vouchers.

    While it runs it takes commands over HTTP, under /_emulator: see "The control API" on the
    documentation's page "The emulator".
    """
    pem = None if public_key is None else read_pem(public_key, "public")
    if rate_limit is not None and not 0 < rate_limit < math.inf:
        raise ConfigurationError("--rate-limit is more than 0; leave it out for none.")
    if not math.isfinite(latency):
        raise ConfigurationError("--latency is a number of seconds.")
    if not 0 < callback_interval < math.inf:
        raise ConfigurationError("--callback-interval is more than 0, in seconds.")
    faults = FaultPlan(rate=fault_rate)
    if fault_kinds is not None:
        faults = attrs.evolve(faults, kinds=_kinds(fault_kinds))
    told = {
        "--batch": batch,
        "--disable-check": disable_check,
        "--fault-rate": fault_rate,
        "--rate-limit": rate_limit,
        "--callback-url": callback_url,
        "--callback-interval": callback_interval != _CALLBACK_INTERVAL_S,
        "--callback-signs-url": callback_signs_url,
        "--merchant": merchant,
    }
    if scenario is not None and any(told.values()):
        named = ", ".join(name for name, value in told.items() if value)
        raise ConfigurationError(f"The scenario says what {named} would say: write it there.")
    options: MerchantOptions = {
        "client_id": client_id,
        "client_secret": client_secret,
        "public_key": pem,
        "seed": seed,
    }
    if scenario is not None:
        given = {name: value for name, value in options.items() if value is not None}
        engine = emulator_of(scenario, **cast("EmulatorOptions", given))
    else:
        options |= {
            "batches": _quantities(batch or []),
            "disabled_checks": [_check(text) for text in disable_check or []],
            "faults": faults,
            "rate_limit": rate_limit,
            "callback_url": callback_url,
            "guesses": Guesses(callback_signs_url=callback_signs_url),
        }
        try:
            engine = Emulator(**options)
        except ValueError as exc:  # the other options were checked before
            raise ConfigurationError(f"--callback-url {exc}.") from None
        _add_merchants(engine, merchant or [], options)
        for each in engine.merchants:
            each.callbacks.interval_s = callback_interval
    server = serve(
        engine,
        host=host,
        port=port,
        latency_s=latency,
        allowed_hosts=allow_host or [],
        public_url=public_url,
    )
    serving = _run(
        engine,
        server,
        f"{host}:{port}",
        credentials_out,
        opens_page=opens_page,
        state=state,
        record=record,
    )
    with contextlib.nullcontext() if quiet else logged_to_person(LOGGER, logging.INFO):
        run_until_interrupted(serving)


async def _run(
    engine: Emulator,
    serving: AbstractAsyncContextManager[Server],
    where: str,
    credentials_out: Path | None,
    *,
    opens_page: bool,
    state: Path | None,
    record: Path | None,
) -> None:
    """Serve until cancelled."""
    nothing = contextlib.nullcontext()
    keeping = nothing if state is None else kept_in(state, engine)
    writing = nothing if record is None else recording(record, engine, say)
    try:
        with writing:
            async with keeping, serving as server:
                if credentials_out is not None:
                    # The first merchant's last: a script may wait for that file alone.
                    for each in reversed(engine.merchants):
                        _write_variables(_file_of(each, credentials_out), each.variables)
                page = f"{server.url}/_emulator/"
                say(f"Emulator at {server.url} (no real vouchers), its page at {page}. {_END}")
                if opens_page:
                    await asyncio.to_thread(webbrowser.open, page)
                await asyncio.get_running_loop().create_future()
    except OSError as exc:
        raise ConfigurationError(f"The emulator can't listen on {where}: {exc}.") from exc


def _add_merchants(engine: Emulator, names: list[str], options: MerchantOptions) -> None:
    """Make further merchants, like the first but for the client's id and secret, and the codes."""
    shared = options.copy()
    del shared["client_id"], shared["client_secret"], shared["seed"]
    for name in names:
        if engine.find_merchant(name) is not None:
            raise ConfigurationError(f"--merchant {name!r}: there is one of that name already.")
        try:
            engine.merchant(name, **shared)
        except ValueError as exc:
            raise ConfigurationError(f"--merchant: {exc}.") from None


def _file_of(merchant: Merchant, path: Path) -> Path:
    """Return the file for a merchant's variables: the path itself for the first one."""
    if isinstance(merchant, Emulator):
        return path
    return path.with_name(f"{path.stem}-{merchant.name}{path.suffix}")


def _quantities(batches: list[str]) -> dict[str, int]:
    quantities: dict[str, int] = {}
    for batch in batches:
        key, equals, quantity = batch.rpartition("=")
        if not (equals and key and _is_number(quantity)):
            raise ConfigurationError(f"--batch {batch!r}: write KEY=QUANTITY, like BREAKFAST=1000.")
        try:
            build_issue(Environment.SANDBOX, key)  # it refuses a key that can't be sent
        except InvalidRequestError as exc:
            raise ConfigurationError(f"--batch {batch!r}: {exc}") from None
        if key in quantities:
            raise ConfigurationError(
                f"--batch {batch!r}: there is a batch with the key {key!r} already."
            )
        quantities[key] = int(quantity)
    return quantities


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 19  # fits into 63 bits


def _check(text: str) -> Check:
    try:
        return Check(text)
    except ValueError:
        checks = ", ".join(Check)
        raise ConfigurationError(f"--disable-check {text!r}: the checks are {checks}.") from None


def _kinds(text: str) -> tuple[Fault, ...]:
    try:
        return FaultPlan(kinds=[part.strip() for part in text.split(",")]).kinds
    except ValueError:
        raise ConfigurationError(
            f"--fault-kinds {text!r}: the kinds are {_SINGLE_FAULTS}."
        ) from None


def _write_variables(path: Path, variables: Mapping[str, str]) -> None:
    """Write lines that a shell can source, readable by the owner only."""
    text = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
    try:
        replace_private(path, text.encode())  # it appears whole: a script may wait for it
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be written: {exc.strerror}.") from exc
