"""Processes of one account that share a token, in virtual time: each can stop, or die."""

from __future__ import annotations

import asyncio
import math
import random
from collections import Counter
from typing import Any

import orjson
from simulation.clock import VirtualClock
from support.doubles import NoSigner

from rm_voucher import Credentials, Request, Response, Runtime, Transport, VoucherClient
from rm_voucher.emulator import Check, Emulator, Guesses
from rm_voucher.exceptions import SharedStoreError
from rm_voucher.shared import MemorySharedStore, SharedStore, Snapshot

ME = Credentials("client-id", "client-secret", b"nobody signs here")
_LATENCY_S = 0.04
_STORE_S = 0.004


class Account:
    """An emulator that takes the latest token alone, and what its processes share."""

    def __init__(self, clock: VirtualClock, *, token_lifetime_s: int) -> None:
        self.clock = clock
        self.chance = random.Random(1)
        self.store = MemorySharedStore(runtime=Runtime(clock=clock.true_wall))
        self.store_is_away = False
        self.grant_s = 0.0
        """How long a token is waited for."""
        self.emulator = Emulator(
            seed=1,
            client_id=ME.client_id,
            client_secret=ME.client_secret,
            batches={"B": 100_000},
            disabled_checks=(Check.SIGNATURE, Check.TIMESTAMP),
            token_lifetime_s=token_lifetime_s,
            guesses=Guesses(new_token_ends_earlier=True),
            clock=clock.true_wall,
        )
        self.processes = [Process(self) for _ in range(8)]

    @property
    def token_requests(self) -> int:
        return self.emulator.requests["token"]

    async def saved_token(self, client: VoucherClient) -> str:
        found = await self.store.load(f"{client.account}/token")
        return str(orjson.loads(found.content or b"")["token"]["accessToken"])


class Process:
    """One process, its clock's steps, its way to the server and to the store."""

    def __init__(self, account: Account) -> None:
        self.account = account
        self.stopped_until = -math.inf
        self.is_dead = False
        self.stops_at: str | None = None
        """The step after which it stops: ``bought``, ``loaded``."""
        self.stops_for_s = math.inf
        self.refused = 0
        self.ended: Counter[str] = Counter()
        clock = account.clock
        runtime = Runtime(
            clock=clock.wall,
            monotonic=clock.monotonic,
            sleep=self._sleep,
            random=account.chance.random,
        )
        self.client = VoucherClient(
            ME,
            environment=account.emulator.environment,
            transport=_Way(self),
            signer=NoSigner(),
            shared=_Shared(self),
            runtime=runtime,
        )

    async def issue_for(self, seconds: float, *, every_s: float = 0.5) -> None:
        """Issue one voucher after the other."""
        until = self.account.clock.now + seconds
        while self.account.clock.now < until:
            await self.client.issue("B")
            self.ended["issued"] += 1
            await self._sleep(every_s)

    async def step(self, name: str = "") -> None:
        """Pass on, unless the process is stopped, or stops here."""
        clock = self.account.clock
        if name and name == self.stops_at:
            self.stops_at, self.stopped_until = None, clock.now + self.stops_for_s
        if self.is_dead:
            raise asyncio.CancelledError
        if self.stopped_until == math.inf:
            try:
                await asyncio.Future()
            finally:
                self.is_dead = True
        while clock.now < self.stopped_until:
            await asyncio.sleep(self.stopped_until - clock.now)

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        await self.step()


class _Way(Transport):
    def __init__(self, process: Process) -> None:
        self._process = process

    async def send(self, request: Request) -> Response:
        account = self._process.account
        await self._process.step()
        await asyncio.sleep(_LATENCY_S * account.chance.random())
        reply = account.emulator.reply(request)
        await asyncio.sleep(account.grant_s if request.operation == "token" else 0)
        await asyncio.sleep(_LATENCY_S * account.chance.random())
        await self._process.step("bought" if request.operation == "token" else "")
        self._process.refused += reply.response.status == 401
        return reply.for_client_in_memory(request)


class _Shared(SharedStore):
    def __init__(self, process: Process) -> None:
        self._process = process

    async def _load(self, key: str) -> Snapshot:
        await self._pass()
        found = await self._process.account.store._load(key)
        await self._process.step("loaded" if key.endswith("/token") else "")
        return found

    async def _swap(self, key: str, version: int, content: bytes) -> Snapshot | None:
        await self._pass()
        return await self._process.account.store._swap(key, version, content)

    async def _pass(self) -> None:
        await self._process.step()
        await asyncio.sleep(_STORE_S * self._process.account.chance.random())
        if self._process.account.store_is_away:
            raise SharedStoreError("the store is away")


def held_token(client: VoucherClient) -> str:
    """Return the token that a client has now."""
    source: Any = client.caller.tokens
    return str(source._held.token.access_token)
