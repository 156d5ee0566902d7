"""Doubles of what a client is given: tokens, a clock, a signer."""

from __future__ import annotations

import asyncio

from rm_voucher import Runtime, TokenSource


class Tokens(TokenSource):
    """Gives its tokens one after the other, each until it is refused; an error is raised."""

    def __init__(self, *tokens: str | Exception) -> None:
        self.tokens = list(tokens)
        self.refused: list[str] = []

    async def token(self) -> str:
        token = self.tokens[0]
        if isinstance(token, Exception):
            raise token
        return token

    def refuse(self, token: str) -> bool:
        self.refused.append(token)
        self.tokens.pop(0)
        return bool(self.tokens)


class FakeTime:
    """A clock that only `sleep` moves."""

    def __init__(self, now: float = 1_700_000_000.0) -> None:
        self.now = now
        self.slept: list[float] = []

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    @property
    def runtime(self) -> Runtime:
        """What a client of this time is given."""
        return Runtime(clock=self.clock, monotonic=self.clock, sleep=self.sleep, random=lambda: 0.0)


class NoSigner:
    """A signer for tests that are not about signing."""

    def sign(self, text: bytes) -> bytes:
        return b"signature"
