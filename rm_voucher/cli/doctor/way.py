"""Checks of the way to the servers: proxy, names, connections, TLS. No request of ours is sent."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import attrs
from yarl import URL

from rm_voucher import ConfigurationError, Environment, Proxy
from rm_voucher.cli.doctor.patient import MISTAKE, TIMEOUT, Check, Fault, Patient, Unasked
from rm_voucher.settings import is_loopback
from rm_voucher.text import printable

_MAX_HEAD_BYTES = 16 * 1024
_PROXY_PAGE = "Ask who runs the proxy, or see HTTPS_PROXY and NO_PROXY."
# OpenSSL's numbers of what is wrong with a certificate.
_OF_TIME = frozenset({9, 10})
_OF_NAME = frozenset({62, 63, 64})


@attrs.frozen
class _Server:
    url: URL
    proxy: Proxy | None
    """The proxy that leads to it, if any."""

    @property
    def place(self) -> str:
        return f"{self.url.host}:{self.url.port}"


def _servers(patient: Patient) -> list[_Server]:
    """Return the API's server and that of tokens, or the one that is both."""
    environment: Environment = patient.known_environment()
    urls = dict.fromkeys(URL(url).origin() for url in (environment.api_url, environment.oauth_url))
    proxy = patient.proxy
    return [_Server(url, proxy if proxy and proxy.leads_to(url) else None) for url in urls]


def _on_the_way(check: Check) -> Check:
    """Return the check as one of several in a row: behind one that fails, none is made."""

    @functools.wraps(check)
    async def step(patient: Patient) -> str:
        if patient.is_blocked:
            raise Unasked("the way there ends before")
        try:
            return await check(patient)
        except Fault:
            patient.is_blocked = True
            raise

    return step


@_on_the_way
async def check_proxy(patient: Patient) -> str:
    """The proxy of ``HTTPS_PROXY``: it is there, and lets us through to each server."""
    try:
        proxy = patient.proxy = Proxy.from_env()
    except ConfigurationError as exc:
        raise Fault(
            str(exc), "Write http://host:port into HTTPS_PROXY.", exit_code=MISTAKE
        ) from None
    if proxy is None:
        raise Unasked("none is set in HTTPS_PROXY")
    servers = [server for server in _servers(patient) if server.proxy]
    if not servers:
        raise Unasked(f"{proxy.url} is set, and leads to none of these servers")
    for server in servers:
        async with _tunnel(server):
            pass
    return f"{proxy.url} lets us through to {', '.join(each.place for each in servers)}."


@_on_the_way
async def check_dns(patient: Patient) -> str:
    """Each server's name has an address."""
    found = []
    servers = [server for server in _servers(patient) if server.proxy is None]
    if not servers:
        raise Unasked("the proxy looks the names up")
    for server in servers:
        addresses = await _resolve(server.url)
        found.append(f"{server.url.host} is {', '.join(addresses[:3])}")
    return f"{'; '.join(found)}."


async def _resolve(url: URL) -> list[str]:
    host = url.host or ""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(TIMEOUT.connect_s):
            answers = await loop.getaddrinfo(host, url.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        why = "no answer in time" if isinstance(exc, TimeoutError) else getattr(exc, "strerror", "")
        raise Fault(
            f"The name {host} has no address ({why or 'it is no name'}).",
            "See whether this machine is online, and which DNS server it asks; behind a company's "
            "proxy set HTTPS_PROXY.",
        ) from None
    return list(dict.fromkeys(str(answer[4][0]) for answer in answers))


@_on_the_way
async def check_connection(patient: Patient) -> str:
    """Something listens at each server's port."""
    servers = [server for server in _servers(patient) if server.proxy is None]
    if not servers:
        raise Unasked("the proxy makes the connections")
    for server in servers:
        async with _connection(server.url):
            pass
    return f"{', '.join(each.place for each in servers)} can be reached."


@contextlib.asynccontextmanager
async def _connection(
    url: URL, what: str = ""
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a URL's host. Raises `Fault`."""
    place = f"{what}{url.host}:{url.port}"
    try:
        async with asyncio.timeout(TIMEOUT.connect_s):
            reader, writer = await asyncio.open_connection(
                url.host, url.port, limit=_MAX_HEAD_BYTES
            )
    except TimeoutError:
        raise Fault(
            f"{place} does not answer within {TIMEOUT.connect_s:.0f} s.",
            "A firewall may drop it: ask who runs the network, or set HTTPS_PROXY.",
        ) from None
    except ConnectionRefusedError:
        raise Fault(f"Nothing listens at {place}.", _remedy_of_closed(url, what)) from None
    except OSError as exc:
        raise Fault(
            f"{place} can't be reached ({exc.strerror or type(exc).__name__}).",
            "See whether this machine is online.",
        ) from None
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


def _remedy_of_closed(url: URL, what: str) -> str:
    if what:
        return _PROXY_PAGE
    if is_loopback(url.host or ""):
        return (
            "It is an address of this machine, as an emulator has: start that, or set "
            "RM_ENVIRONMENT to sandbox or production."
        )
    return "See whether the URL is right, and whether a firewall refuses."


@contextlib.asynccontextmanager
async def _tunnel(
    server: _Server,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Connect to a server, through the proxy where one leads to it. Raises `Fault`."""
    if server.proxy is None:
        async with _connection(server.url) as streams:
            yield streams
        return
    async with _connection(URL(server.proxy.url), "the proxy ") as (reader, writer):
        head = [f"CONNECT {server.place} HTTP/1.1", f"Host: {server.place}"]
        head += [f"{name}: {value}" for name, value in server.proxy.headers.items()]
        writer.write("\r\n".join([*head, "", ""]).encode())
        status = await _status(reader, server.proxy)
        if status == 407:
            raise Fault(
                f"The proxy {server.proxy.url} asks for a user and a password, or refuses them "
                "(HTTP 407).",
                "Write them into HTTPS_PROXY: http://user:password@host:port, percent-encoded.",
            )
        if status != 200:
            raise Fault(
                f"The proxy {server.proxy.url} refuses to connect to {server.place} "
                f"(HTTP {status}).",
                f"It must let {server.place} through. {_PROXY_PAGE}",
            )
        yield reader, writer


async def _status(reader: asyncio.StreamReader, proxy: Proxy) -> int:
    """Return the status of a proxy's answer. Raises `Fault`."""
    try:
        async with asyncio.timeout(TIMEOUT.connect_s):
            head = await reader.readuntil(b"\r\n\r\n")
        return int(head.split(None, 2)[1])
    except (OSError, EOFError, asyncio.LimitOverrunError, ValueError, IndexError) as exc:
        how = "says nothing" if isinstance(exc, TimeoutError) else "does not answer as a proxy does"
        raise Fault(f"The proxy {proxy.url} {how}.", _PROXY_PAGE) from None


@_on_the_way
async def check_tls(patient: Patient) -> str:
    """Each server proves who it is, by an authority that is trusted."""
    servers = [server for server in _servers(patient) if server.url.scheme == "https"]
    if not servers:
        patient.is_reached = True
        raise Unasked("it is plain http, which stays on this machine")
    _refuse_no_authorities()
    context = patient.tls or ssl.create_default_context()
    told = []
    for server in servers:
        async with _tunnel(server) as (_, writer):
            told.append(await _shake_hands(writer, context, server))
    patient.is_reached = True
    return f"{'; '.join(told)}."


async def _shake_hands(
    writer: asyncio.StreamWriter, context: ssl.SSLContext, server: _Server
) -> str:
    host = server.url.host or ""
    try:
        await writer.start_tls(
            context, server_hostname=host, ssl_handshake_timeout=TIMEOUT.connect_s
        )
    except ssl.SSLCertVerificationError as exc:
        raise _refused(exc, server.place) from None
    except (OSError, EOFError) as exc:
        why = getattr(exc, "reason", None) or type(exc).__name__
        raise Fault(
            f"{server.place} speaks no TLS with us ({printable(str(why))}).",
            "A proxy or a firewall may be in the way: see HTTPS_PROXY.",
        ) from None
    version = writer.get_extra_info("ssl_object").version()
    return f"{host} by {version}"


def _refused(exc: ssl.SSLCertVerificationError, place: str) -> Fault:
    """Return what is wrong with a certificate, and the remedy."""
    why = f"{place} has a certificate that is refused: {printable(exc.verify_message.rstrip('.'))}."
    if exc.verify_code in _OF_NAME:
        return Fault(why, "Another server answers in its place: a captive portal, or a proxy.")
    if exc.verify_code in _OF_TIME:
        return Fault(why, "See whether this machine's clock is right.")
    return Fault(
        why,
        "Its authority is not trusted. Where a company's proxy looks into TLS, write the proxy's "
        "authority into a PEM file and name that in SSL_CERT_FILE.",
    )


def _refuse_no_authorities() -> None:
    """Refuse a variable that names no authorities: TLS would trust nobody, and not say why."""
    named = os.environ.get("SSL_CERT_FILE")
    if not named:
        return
    remedy = "Name a PEM file with the authorities to trust, or unset SSL_CERT_FILE."
    try:
        ssl.create_default_context(cafile=str(Path(named)))
    except OSError as exc:  # of SSL, too
        why = exc.strerror if type(exc) is not ssl.SSLError else "it has no certificate"
        raise Fault(
            f"SSL_CERT_FILE is {named}, which can't be read: {why}.", remedy, exit_code=MISTAKE
        ) from None
