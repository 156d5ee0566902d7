"""The emulator over HTTP. It listens on loopback unless told otherwise.

It is no part of `rm_voucher.emulator`'s face, so that an emulator in memory needs no aiohttp.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from itertools import chain

import attrs
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.callbacks import Callbacks
from rm_voucher.emulator.control.access import HOST, PREFIX, allowed_names, refuses
from rm_voucher.emulator.control.dispatch import control, problem_response
from rm_voucher.emulator.customer.front import Front
from rm_voucher.emulator.pages import Pages
from rm_voucher.emulator.reply import Ending, Reply
from rm_voucher.emulator.request_log import log_bad_request, log_reply
from rm_voucher.emulator.site import IN_MEMORY
from rm_voucher.settings import Environment, base_url
from rm_voucher.transport.base import Request, Response

_PIECES = 20
_MAX_IMPORT_BYTES = 128 * 2**20
_MAX_DELIVERIES = 16
_LONGEST_WAIT_S = 3600.0
_REOPEN_AFTER_S = 0.1
# To close a socket with this linger, which is of no time, sends a reset.
_RESET = struct.pack("ii", 1, 0)
_HTTP_LOGGER = logging.getLogger("rm_voucher.emulator.http")


def without_bad_requests(say: Callable[[str], None]) -> Callable[[logging.LogRecord], bool]:
    """Return a filter for aiohttp's log: ``say`` is told of a stranger's bad request instead.

    aiohttp logs it as an error, with a traceback that shows the codes and tokens in it.
    """

    def is_ours(record: logging.LogRecord) -> bool:
        exc = record.exc_info[1] if record.exc_info else None
        if not isinstance(exc, HttpProcessingError):
            return True
        say(type(exc).__name__)
        return False

    return is_ours


_HTTP_LOGGER.addFilter(without_bad_requests(log_bad_request))


@attrs.frozen
class Server:
    """An emulator that listens: its URL, and the settings of a client."""

    url: str
    variables: Mapping[str, str] = attrs.field(repr=False)
    """The ``RM_…`` variables that a client of the first merchant needs in another process."""

    @property
    def environment(self) -> Environment:
        """The environment for a client over HTTP."""
        return Environment(self.url, self.url, allow_plain_http=True)


@asynccontextmanager
async def serve(
    emulator: Emulator,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    latency_s: float = 0.0,
    allowed_hosts: Collection[str] = (),
    public_url: str | None = None,
) -> AsyncIterator[Server]:
    """Serve an emulator over HTTP until the block is left; the block is given a `Server`.

    It listens on loopback unless told otherwise; port 0 takes a free one.
    ``latency_s`` is added to every request.

    The control API at ``/_emulator`` answers this machine only. ``allowed_hosts`` are the names by
    which it answers others too, such as ``emulator`` (at any port) or ``emulator:8000`` (at this
    one). The first of them is the server's name in `Merchant.variables` and in vouchers' QR codes;
    ``public_url`` is another URL for these. Raises `OSError`, and `ConfigurationError` for a name
    or URL that is none.
    """
    allowed_hosts = allowed_names(allowed_hosts)
    if public_url is not None:
        public_url = base_url("The public URL", public_url, allow_plain_http=True)
    pages, front = Pages(emulator), Front(emulator, allowed_hosts)

    async def handle(http: web.BaseRequest) -> web.StreamResponse:
        try:
            return await answer(http)
        except ConnectionError:  # the client has gone; aiohttp would log that as a failure
            return web.Response(status=400)

    async def answer(http: web.BaseRequest) -> web.StreamResponse:
        url = _url(http)
        if url is None:
            return _bad_request("a request has one Host header, and a path")
        if http.headers.get("Expect", "").lower() == "100-continue":
            await http.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            http.writer.output_size = 0  # the answer has not begun
        try:
            body = await _read(http, allowed_hosts)
        except (web.RequestPayloadError, HttpProcessingError):
            return _bad_request("the body is not as long, or not in chunks, as its headers tell")
        shown = front.answer(http, body)
        if shown is not None:
            return shown
        if http.raw_path.startswith(f"{PREFIX}/"):
            return await _steer(emulator, pages, http, body, allowed_hosts)
        if http.raw_path == PREFIX:
            return web.Response(status=308, headers={"Location": f"{PREFIX}/"})
        request = Request(
            operation="served",
            method=http.method,
            url=url,
            headers=dict(http.headers),
            body=body,
        )
        if latency_s:
            await asyncio.sleep(latency_s)
        reply = emulator.reply(request)
        log_reply(http.method, http.raw_path, reply)
        return await _send(http, reply)

    server = web.Server(
        handle,
        access_log=None,
        logger=_HTTP_LOGGER,
        keepalive_timeout=emulator.guesses.idle_life_s,
        lingering_time=0,  # don't wait for the rest of a body that was refused for its size
        auto_decompress=False,  # half of a compressed body would pass for a whole one
        handler_cancellation=True,  # a client that has gone needs no answer
    )
    runner = web.ServerRunner(server, shutdown_timeout=0.1)
    await runner.setup()
    try:
        listener = _Listener(runner, host, port)
        await listener.open()
        bound_host, port = runner.addresses[0][:2]
        listener.port = port
        # A client may use plain HTTP on loopback only, and to listen everywhere includes that.
        bound_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound_host, bound_host)  # noqa: S104
        shown_host = f"[{bound_host}]" if ":" in bound_host else bound_host
        scheduler = asyncio.create_task(_run_schedule(emulator, listener))
        try:
            url = f"http://{shown_host}:{port}"
            site = emulator.site
            site.client_url = _url_at(allowed_hosts[0], port) if allowed_hosts else url
            site.url = public_url or site.client_url
            yield Server(url, emulator.variables)
        finally:
            emulator.site.url = emulator.site.client_url = IN_MEMORY
            scheduler.cancel()
            await asyncio.wait([scheduler])
    finally:
        await runner.cleanup()


def _url_at(host: str, port: int) -> str:
    """Return the URL of a host that may have a port of its own."""
    url = URL(f"http://{host}")
    return str(url if url.explicit_port else url.with_port(port)).rstrip("/")


@attrs.define(eq=False)
class _Listener:
    """The listening socket, which can be closed for a time and opened again at the same place."""

    _runner: web.ServerRunner
    _host: str
    port: int
    _site: web.TCPSite | None = None

    async def open(self) -> None:
        """Listen. Raises `OSError`."""
        if self._site is None:
            site = web.TCPSite(self._runner, self._host, self.port, reuse_address=True)
            await site.start()
            self._site = site

    async def close(self) -> None:
        """Stop listening, and break all connections."""
        if self._site is None:
            return
        site, self._site = self._site, None
        await site.stop()
        for connection in self._runner.server.connections if self._runner.server else ():
            connection.force_close()


async def _run_schedule(emulator: Emulator, listener: _Listener) -> None:
    """Do what is due: late work, callbacks, the listener's closing and opening."""
    loop = asyncio.get_running_loop()
    changed = asyncio.Event()

    def wake() -> None:
        loop.call_soon_threadsafe(changed.set)

    emulator.virtual_clock.watchers.append(wake)
    deliveries = defaultdict[Callbacks, set[asyncio.Task[None]]](set)
    try:
        while True:
            changed.clear()
            emulator.virtual_clock.run_due()
            is_closed, turn = emulator.closing_times()
            try:
                await (listener.close() if is_closed else listener.open())
            except OSError:  # another program took the port meanwhile; it may be free again soon
                turn = emulator.virtual_clock.now() + _REOPEN_AFTER_S
            times = [turn, emulator.virtual_clock.next_due()]
            present = [merchant.callbacks for merchant in emulator.merchants]
            for callbacks in deliveries.keys() - present:  # of merchants that were dropped
                if not deliveries[callbacks]:
                    del deliveries[callbacks]
                    await callbacks.aclose()
            for callbacks in present:
                under_way = deliveries[callbacks]
                while len(under_way) < _MAX_DELIVERIES:
                    delivery = callbacks.take_due()
                    if delivery is None:
                        break
                    task = loop.create_task(callbacks.attempt(delivery))
                    under_way.add(task)
                    task.add_done_callback(under_way.discard)
                    task.add_done_callback(lambda _: changed.set())
                if len(under_way) < _MAX_DELIVERIES:
                    times.append(callbacks.next_due())
            due = min((at for at in times if at is not None), default=float("inf"))
            wait_s = due - emulator.virtual_clock.now()
            try:
                async with asyncio.timeout(min(max(wait_s, 0.001), _LONGEST_WAIT_S)):
                    await changed.wait()
            except TimeoutError:
                pass
    finally:
        emulator.virtual_clock.watchers.remove(wake)
        tasks = list(chain.from_iterable(deliveries.values()))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for callbacks in deliveries:
            await callbacks.aclose()


async def _read(http: web.BaseRequest, allowed_hosts: Collection[str]) -> bytes:
    """Return a body: of a megabyte at most, but for an import by who may."""
    if http.raw_path != f"{PREFIX}/import" or _refusal(http, allowed_hosts) is not None:
        return await http.read()
    body = bytearray()
    async for chunk in http.content.iter_any():
        body += chunk
        if len(body) > _MAX_IMPORT_BYTES:
            raise web.HTTPRequestEntityTooLarge(_MAX_IMPORT_BYTES, len(body))
    return bytes(body)


def _bad_request(sentence: str) -> web.Response:
    log_bad_request(sentence)
    refused = web.Response(status=400, text=f"{sentence}\n")
    refused.force_close()
    return refused


def _url(http: web.BaseRequest) -> URL | None:
    """Return the URL as the client wrote and signed it, or None for a bad request.

    There must be one Host header, and the target must be a path: two hosts, or a target with a
    host of its own, could fool the control API.
    """
    hosts = http.headers.getall("Host", ())
    if len(hosts) != 1 or not HOST.fullmatch(hosts[0]):
        return None
    if not http.raw_path.startswith("/") or "#" in http.raw_path:
        return None
    try:
        url = URL(f"http://{hosts[0]}{http.raw_path}", encoded=True)
        str(url)  # it raises for a bad port
    except ValueError:
        return None
    return url


async def _steer(
    emulator: Emulator,
    pages: Pages,
    http: web.BaseRequest,
    body: bytes,
    allowed_hosts: Collection[str],
) -> web.StreamResponse:
    problem = _refusal(http, allowed_hosts)
    if problem is not None:
        return _plain(problem_response(403, problem))
    page = await pages.answer(http)
    if page is not None:
        return page
    return _plain(control(emulator, http.method, http.raw_path, body))


def _refusal(http: web.BaseRequest, allowed_hosts: Collection[str]) -> str | None:
    """Return why a request may not steer the emulator, or None where it may."""
    origins = http.headers.getall("Origin", ())
    origin = ", ".join(origins) if origins else None
    # A link on another site may lead here: it shows the answer to a person, not to that site.
    is_link = http.method == "GET" and http.headers.get("Sec-Fetch-Mode") == "navigate"
    return refuses(
        peer=http.remote,
        host=http.host,
        origin=origin,
        fetch_site=None if is_link else http.headers.get("Sec-Fetch-Site"),
        allowed_hosts=allowed_hosts,
    )


def _plain(answer: Response) -> web.Response:
    return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


async def _send(http: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """Send the answer inside the handler, which is cancelled when the client has gone."""
    answer = _plain(reply.response)
    try:
        match reply.ending:
            case Ending.WHOLE:
                await answer.prepare(http)
                await answer.write_eof()
                return answer
            case Ending.SLOW | Ending.CUT:
                return await _in_pieces(http, reply)
            case Ending.STALLED:
                await asyncio.sleep(reply.lasts_s)
            case _:
                pass
    except (asyncio.CancelledError, ConnectionError):
        reply.on_loss()
        raise
    if http.transport is not None:
        connection = http.transport.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        http.transport.abort()
    return answer


async def _in_pieces(http: web.BaseRequest, reply: Reply) -> web.StreamResponse:
    """Send the answer slowly, or the first half of it."""
    body = reply.response.body
    response = web.StreamResponse(status=reply.response.status, headers=reply.response.headers)
    response.content_length = len(body)
    await response.prepare(http)
    if reply.ending is Ending.CUT:
        await response.write(body[: len(body) // 2])
        http.protocol.force_close()
        return response
    size = max(1, -(-len(body) // _PIECES))
    starts = range(0, len(body), size)
    for start in starts:
        await asyncio.sleep(reply.lasts_s / len(starts))
        await response.write(body[start : start + size])
    await response.write_eof()
    return response
