"""``rm-voucher webhook``: find the defect of a delivery, or listen for deliveries."""

from __future__ import annotations

import asyncio
import logging
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from aiohttp import web

from rm_voucher import CallbackError, ConfigurationError
from rm_voucher.cli.common import examples
from rm_voucher.cli.interrupts import INTERRUPTED, run_until_interrupted
from rm_voucher.cli.options import JsonOption, parse_instant
from rm_voucher.cli.output import json_line
from rm_voucher.cli.screen import logged_to_person, say, tell, write_out
from rm_voucher.converters import format_time
from rm_voucher.emulator.server import without_bad_requests
from rm_voucher.models import mask
from rm_voucher.runtime import Runtime
from rm_voucher.webhooks import (
    CallbackStep,
    CallbackVerifier,
    MemoryEventStore,
    VoucherEvent,
    WebhookRouter,
)
from rm_voucher.webhooks.aiohttp import webhook_routes

_REFUSED = 1
_MAX_FILE_BYTES = 1024 * 1024
_LOGGER = logging.getLogger("rm_voucher.webhooks")
_HTTP_LOGGER = logging.getLogger("rm_voucher.cli.http")

webhook_app: typer.Typer = typer.Typer(
    name="webhook",
    add_completion=False,
    no_args_is_help=True,
    help="Say what is wrong with a callback, or listen for callbacks.",
)

KeyOption = Annotated[
    list[Path],
    typer.Option(
        metavar="FILE",
        help="The server's public key from the merchant portal, PEM or base64. Repeatable: any may "
        "have signed.",
    ),
]
UrlOption = Annotated[
    str | None,
    typer.Option(help="The public URL that RM calls, if the signature may name it."),
]


@webhook_app.command()
@examples(
    "rm-voucher webhook verify --headers headers.txt --body body.json --public-key rm.pem",
)
def verify(
    headers: Annotated[
        Path, typer.Option(metavar="FILE", help="The delivery's headers, a 'Name: value' a line.")
    ],
    body: Annotated[
        Path, typer.Option(metavar="FILE", help="The delivery's body, byte for byte as it came.")
    ],
    public_key: KeyOption,
    url: UrlOption = None,
    at: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="When it came, RFC 3339. By default it comes now."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check a delivery that was kept in two files; say which step fails, and why.

    The exit code is 1 if it is refused.
    """
    instant = None if at is None else parse_instant("--at", at)
    verifier = _verifier(public_key, url, instant)
    pairs, content = _headers(headers), _read(body)
    try:
        event = verifier.verify(pairs, content)
    except CallbackError as exc:
        _show_refusal(exc, as_json=as_json)
        raise typer.Exit(_REFUSED) from None
    if not as_json:
        for step in CallbackStep:
            tell(f"{step}: ok")
    _show(event, as_json=as_json)


@webhook_app.command()
@examples(
    "rm-voucher webhook listen --public-key rm.pem --port 8080",
)
def listen(
    public_key: KeyOption,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    url: UrlOption = None,
    as_json: JsonOption = False,
) -> None:
    """Take callbacks at every path, show each event once, and answer 200, until Ctrl-C.

    For trying out: nothing is kept, and codes are shown masked. What is refused is said on standard
    error.
    """
    router = WebhookRouter(_verifier(public_key, url), store=MemoryEventStore())

    @router.on()
    async def show(event: VoucherEvent) -> None:
        _show(event, as_json=as_json)

    with logged_to_person(_LOGGER, logging.WARNING):
        try:
            run_until_interrupted(_listen(router, host, port))
        except asyncio.CancelledError:  # its usual end, and no error
            raise typer.Exit(INTERRUPTED) from None


_HTTP_LOGGER.addFilter(
    without_bad_requests(
        lambda name: _LOGGER.warning("a delivery was refused: it is not HTTP (%s)", name)
    )
)


async def _listen(router: WebhookRouter, host: str, port: int) -> None:
    """Listen until cancelled."""
    application = web.Application()
    application.add_routes(webhook_routes(router, "/{path:.*}"))
    runner = web.AppRunner(application, access_log=None, logger=_HTTP_LOGGER)
    async with router:
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            say(f"Listening at http://{host}:{runner.addresses[0][1]}. Ctrl-C ends it.")
            await asyncio.get_running_loop().create_future()
        except OSError as exc:
            raise ConfigurationError(f"Nobody can listen on {host}:{port}: {exc}.") from exc
        finally:
            await runner.cleanup()


def _verifier(
    public_keys: list[Path], url: str | None, at: datetime | None = None
) -> CallbackVerifier:
    runtime = None if at is None else Runtime(clock=at.timestamp)
    return CallbackVerifier(public_keys, url=url, runtime=runtime)


def _show(event: VoucherEvent, *, as_json: bool) -> None:
    sent_at = event.sent_at and format_time(event.sent_at)
    if as_json:
        told = {"id": event.id, "status": event.status, "code": mask(event.code).strip("'")}
        write_out(json_line({**told, "sent_at": sent_at}))
    else:
        tell(f"{event.status} of {mask(event.code)}, event {event.id}, sent {sent_at}")


def _show_refusal(error: CallbackError, *, as_json: bool) -> None:
    if as_json:
        write_out(json_line({"failed": error.step, "reason": str(error)}))
        return
    for step in CallbackStep:
        if step == error.step:
            tell(f"{step}: FAILED, {error}")
            return
        tell(f"{step}: ok")


def _headers(path: Path) -> list[tuple[str, str]]:
    """Return the headers that stand in a file; a request's first line may stand before them."""
    pairs = []
    for number, line in enumerate(_read(path).decode("latin-1").split("\n"), 1):
        name, colon, value = line.partition(":")
        if (number == 1 and " HTTP/" in line) or not line.strip():
            continue
        if not colon:
            raise ConfigurationError(f"{path}, line {number} is no header: write 'Name: value'.")
        pairs.append((name.strip(), value.strip(" \t\r")))
    return pairs


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
    except OSError as exc:
        raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc
    if len(content) > _MAX_FILE_BYTES:
        raise ConfigurationError(f"{path} is too large for a callback.")
    return content
