"""Merchants with an account each at RM, where the same codes, batch keys and ids may come up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import attrs
from support.doubles import FakeTime, NoSigner
from support.files import KEY_FILE
from support.ledger_rows import runtime_at

from rm_voucher import Credentials, Request, Response, RetryPolicy, Transport, VoucherClient
from rm_voucher.emulator import Check, Emulator
from rm_voucher.ledger import Ledger
from rm_voucher.models import VoucherStatus
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.webhooks import (
    CallbackPoller,
    CallbackVerifier,
    EventStore,
    VoucherEvent,
    WebhookRouter,
)

B = "B"
URL = "https://shop.example/callbacks"
KEY = KEY_FILE.read_bytes()
FINAL = (VoucherStatus.VOID, VoucherStatus.EXPIRED)


class Watched(Transport):
    """The way to a merchant's RM; it knows which vouchers were looked up, and can lose answers."""

    def __init__(self, emulator: Emulator) -> None:
        self._behind = emulator.transport()
        self.looked_up: list[str] = []

    async def send(self, request: Request) -> Response:
        if request.operation == "get":
            self.looked_up.append(request.url.path.rsplit("/", 1)[-1])
        return await self._behind.send(request)


@attrs.define(eq=False)
class Merchant:
    """A merchant: its RM, its client, and what its own code was told.

    All merchants' RMs draw the same codes, in the same order.
    """

    name: str
    time: FakeTime
    emulator: Emulator = attrs.field(init=False)
    client: VoucherClient = attrs.field(init=False)
    watched: Watched = attrs.field(init=False)
    handled: list[VoucherEvent] = attrs.field(init=False, factory=list)
    received: dict[str, str] = attrs.field(init=False, factory=dict)
    """What its customers have: a code by the request."""
    expected: set[str] = attrs.field(init=False, factory=set)
    answers: list[int] = attrs.field(init=False, factory=list)
    accepted: list[VoucherEvent] = attrs.field(init=False, factory=list)
    """The events of deliveries that were answered with 200."""
    fails: Callable[[], bool] = attrs.field(init=False, default=lambda: False)
    """Whether its handler fails at the next event."""
    router: WebhookRouter = attrs.field(init=False)
    poller: CallbackPoller = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.emulator = Emulator(
            seed=1,
            credentials=Credentials(self.name, "secret", KEY),
            callback_key=KEY,
            callback_url=URL,
            batches={B: 100_000},
            disabled_checks=[Check.SIGNATURE],
            clock=self.time.clock,
        )
        self.emulator.callbacks.transport = MemoryTransport(self._call_back)
        self.watched = Watched(self.emulator)
        self.client = self.emulator.client(
            transport=self.watched,
            signer=NoSigner(),
            runtime=self.time.runtime,
            retry=RetryPolicy(max_attempts=1),
        )

    @property
    def settings(self) -> dict[str, Any]:
        """What its ledger is made with."""
        return {"mode": "exclusive", "runtime": runtime_at(self.time), "settle_s": 30.0}

    def listen(self, store: EventStore) -> WebhookRouter:
        """Return its router on a store, which is to be entered; its poller goes with it."""
        verifier = CallbackVerifier(
            self.emulator.callbacks.public_key_pem, runtime=self.time.runtime
        )
        self.router = WebhookRouter(verifier, store=store)
        self.router.on()(self._handle)
        self.poller = CallbackPoller(
            self.client, self.router, final=FINAL, rate_per_s=1e9, runtime=self.time.runtime
        )
        return self.router

    async def issue(self, ledger: Ledger, request_id: str) -> str:
        """Issue to a customer, and wait for callbacks of the voucher."""
        voucher = await ledger.issue(self.client, B, request_id)
        self.received[request_id] = voucher.code
        return voucher.code

    async def expect(self, code: str) -> None:
        self.expected.add(code)
        await self.poller.expect(code)

    async def _handle(self, event: VoucherEvent) -> None:
        if self.fails():
            raise OSError("the shop's own trouble")
        self.handled.append(event)

    async def _call_back(self, request: Request) -> Response:
        self.answers.append(await self.router.receive(request.headers, request.body))
        if self.answers[-1] == 200:
            self.accepted.append(self.router.verifier.verify(request.headers, request.body))
        return Response(status=self.answers[-1])


async def pass_time(time: FakeTime, merchants: list[Merchant], seconds: float) -> None:
    """Let time go on, and each RM deliver what is due."""
    time.now += seconds
    for merchant in merchants:
        await merchant.emulator.callbacks.deliver()
        await asyncio.sleep(0)
