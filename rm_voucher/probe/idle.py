"""The experiment that waits until the server closes an idle connection.

It has a connection of its own, because a pool shows nothing of its connections. It sends one
request, which carries neither a token nor a signature.
"""

from __future__ import annotations

import asyncio
import ssl

from yarl import URL

from rm_voucher.probe.budget import Cost
from rm_voucher.probe.experiment import Decision, Experiment
from rm_voucher.probe.findings import NotDecided
from rm_voucher.probe.session import Session, UnclearError
from rm_voucher.settings import is_in_memory
from rm_voucher.transport.proxy import Proxy

MAX_IDLE_S = 300.0
_ANSWER_S = 30.0
_MAX_HEAD_BYTES = 64 * 1024


async def _idle(session: Session) -> None:
    url, proxy = URL(session.environment.api_url), Proxy.from_env()
    host, port = url.host or "", url.port
    if is_in_memory(host):
        raise UnclearError("the emulator in memory has no connections")
    if proxy is not None and proxy.leads_to(url):
        raise UnclearError("a proxy is in between, and the connection would be the proxy's")
    context = ssl.create_default_context() if url.scheme == "https" else None
    session.budget.take(Cost(calls=1))
    try:
        async with asyncio.timeout(_ANSWER_S):
            reader, writer = await asyncio.open_connection(
                host, port, ssl=context, limit=_MAX_HEAD_BYTES
            )
    except OSError as exc:
        raise UnclearError(f"no connection ({type(exc).__name__})") from None
    try:
        # HEAD, so that no body follows.
        head = f"HEAD /v3/rm-voucher-probe HTTP/1.1\r\nHost: {url.authority}\r\n\r\n"
        writer.write(head.encode())
        async with asyncio.timeout(_ANSWER_S):
            await reader.readuntil(b"\r\n\r\n")
        begun_at = session.runtime.monotonic()
        session.notes["idle.life_s"] = await _life_s(session, reader, begun_at)
    except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as exc:
        raise UnclearError(f"no answer ({type(exc).__name__})") from None
    finally:
        writer.transport.abort()


async def _life_s(session: Session, reader: asyncio.StreamReader, begun_at: float) -> object:
    """Return when the connection is closed, in whole seconds, or `NotDecided`."""
    try:
        async with asyncio.timeout(MAX_IDLE_S):
            said = await reader.read(1)
    except TimeoutError:
        return NotDecided(f"an idle connection lives for more than {MAX_IDLE_S:.0f} s")
    except ConnectionError:  # it is closed by a reset
        said = b""
    if said:
        return NotDecided("the server speaks without being asked")
    return float(round(session.runtime.monotonic() - begun_at))


IDLE = Experiment(
    name="idle",
    asks="How long does an idle connection live?",
    observe=_idle,
    decides=(
        Decision(
            "idle_life_s",
            lambda notes: notes["idle.life_s"],
            "nothing: the transport looks at a connection before it uses it",
        ),
    ),
    cost=Cost(calls=1),
    needs="measure_idle",
)
