"""What each kind of fault gives, written down once; and a stage to play it on, in memory or over
HTTP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import attrs
from support.doubles import FakeTime
from support.files import KEY_FILE
from support.runtimes import with_runtime

from rm_voucher import (
    ConnectError,
    Credentials,
    DecodeError,
    DuplicateRequestError,
    Environment,
    RateLimitError,
    ResponseLostError,
    ResponseTimeoutError,
    ServerError,
    Timeout,
    VoucherClient,
    VoucherError,
)
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Window
from rm_voucher.emulator.server import serve

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
WAYS = ("memory", "http")
OPERATIONS = ("issue", "get", "void", "vouchers", "redeem", "token")
WRITES = ("issue", "void", "redeem")


@attrs.frozen
class Meets:
    """What a fault gives one attempt: its error (None: success), its code, and whether the work
    was ``done``, now or ``late``."""

    error: type[VoucherError] | None
    code: str | None = None
    done: bool = False
    late: bool = False
    waits: bool = False
    """Whether the client's time-out ends it."""


THROTTLED, INTERNAL = "TOO_MANY_REQUEST_PER_SECOND", "INTERNAL_ERROR"
KINDS = {
    Fault.DROP_BEFORE_COMMIT: Meets(ResponseLostError),
    Fault.DROP_AFTER_COMMIT: Meets(ResponseLostError, done=True),
    Fault.LATE_COMMIT: Meets(ResponseLostError, late=True),
    Fault.TIMEOUT_BEFORE_COMMIT: Meets(ResponseTimeoutError, waits=True),
    Fault.TIMEOUT_AFTER_COMMIT: Meets(ResponseTimeoutError, done=True, waits=True),
    Fault.SLOW_BODY: Meets(ResponseTimeoutError, done=True, waits=True),
    Fault.THROTTLE: Meets(RateLimitError, THROTTLED),
    Fault.THROTTLE_NO_RETRY_AFTER: Meets(RateLimitError, THROTTLED),
    Fault.THROTTLE_NO_BODY: Meets(RateLimitError, ""),
    Fault.THROTTLE_BARE: Meets(RateLimitError, ""),
    Fault.ERROR_BEFORE_COMMIT: Meets(ServerError, INTERNAL),
    Fault.ERROR_AFTER_COMMIT: Meets(ServerError, INTERNAL, done=True),
    Fault.HTML_PAGE: Meets(ServerError, ""),
    Fault.TRUNCATED: Meets(ResponseLostError, done=True),
    Fault.MALFORMED_JSON: Meets(DecodeError, done=True),
    Fault.WRONG_TYPES: Meets(DecodeError, done=True),
    Fault.RESENT: Meets(DuplicateRequestError, "DUPLICATE_REQUEST", done=True),
    Fault.TOKEN_REVOKED: Meets(None, done=True),
    Fault.LISTING_DELAY: Meets(None, done=True),
    Fault.CLOSED: Meets(ConnectError),
}
# A time-out of the client's, where it is waited for; else no test depends on the machine's speed.
SHORT = Timeout(connect_s=0.15, attempt_s=0.2)


async def until(condition: Callable[[], Any]) -> None:
    """Let the server's side come to its end, for ten seconds at most."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.001)


def listens(url: str) -> bool:
    """Return whether something listens there, without connecting to it."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.socket() as mine:
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            mine.bind((host, int(port)))
        except OSError:
            return True
    return False


@attrs.define
class Stage:
    """An emulator with a batch B of 10, of which one voucher is issued, and its client."""

    way: str
    emulator: Emulator
    client: VoucherClient
    time: FakeTime
    code: str
    url: str | None

    async def call(self, operation: str) -> Any:
        """Make a call that sends a request of the operation."""
        match operation:
            case "issue":
                return await self.client.issue("B")
            case "void":
                return await self.client.void(self.code)
            case "vouchers":
                return await self.client.vouchers("B")
            case "redeem":
                return await self.client.redeem([self.code])
        return await self.client.get(self.code)

    async def has_token(self) -> None:
        """Let the client buy its token now, and begin the emulator's books after that."""
        await self.client.caller.tokens.token()
        self.emulator.requests.clear()

    async def close(self) -> None:
        """Let nothing listen from now on, for 60 s."""
        closed = Window(fault=Fault.CLOSED, start_s=0, length_s=60)
        self.emulator.faults = FaultPlan(windows=[closed])
        await self.until_closed()

    async def until_closed(self, *, closed: bool = True) -> None:
        """Wait until the listener did what it has to do."""
        if self.url is None:
            return
        url = self.url
        await until(lambda: listens(url) is not closed)
        for _ in range(10):  # in which the client hears of its connections' end
            await asyncio.sleep(0)

    def books(self) -> dict[str, Any]:
        """Return all that the emulator counts."""
        emulator = self.emulator
        batch = emulator.batch("B")
        return {
            "requests": dict(emulator.requests),
            "met": dict(emulator.faults_met),
            "issued": len(emulator.state.issued("B")),
            "undelivered": len(emulator.undelivered),
            "tokens": len(emulator.authenticator._tokens),
            "balance": batch.balance_quantity,
            "used": batch.used_quantity,
            "status": str(emulator.voucher(self.code).status),
        }


@asynccontextmanager
async def stage(way: str, *, plan: FaultPlan | None = None, **options: Any) -> AsyncIterator[Stage]:
    """Set the stage. ``options`` go to the client; its clock and the emulator's are the same."""
    time = FakeTime()
    emulator = Emulator(seed=1, credentials=ME, clock=time.clock, batches={"B": 10})
    emulator.faults = plan or FaultPlan(late_s=10)
    code = emulator.state.issue("B")[0]
    options = with_runtime({"runtime": time.runtime, **options})
    async with AsyncExitStack() as stack:
        url = None
        if way == "http":
            server = await stack.enter_async_context(serve(emulator))
            url = server.url
            client = VoucherClient(ME, environment=Environment.at(url), **options)
        else:
            client = emulator.client(**options)
        await stack.enter_async_context(client)
        yield Stage(way, emulator, client, time, code, url)
