"""Where access tokens come from: given once, or bought with the client's credentials."""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable

import attrs

from rm_voucher.exceptions import APIError, ClosedError, ConfigurationError, DecodeError
from rm_voucher.models import Token
from rm_voucher.protocol import build_refresh, build_token, parse_token
from rm_voucher.retry import RetryPolicy, Safety, classify, may_repeat
from rm_voucher.settings import Credentials, Environment, Timeout
from rm_voucher.transport.base import Request, Transport

__all__ = ["ClientCredentialsToken", "StaticToken", "TokenSource"]

_log = logging.getLogger("rm_voucher")

# RM documents 30 days and always sends it; a token without a lifetime is renewed within the hour.
_DEFAULT_LIFETIME_S = 3600
_RENEW_AGAIN_AFTER_S = 60.0


class TokenSource(ABC):
    """Gives the access token that a request is sent with."""

    @abstractmethod
    async def token(self) -> str:
        """Return a token that should be accepted. Cancelling is safe."""

    @abstractmethod
    def refuse(self, token: str) -> bool:
        """Take note that the server refused ``token``; return whether another can be had."""

    async def aclose(self) -> None:  # noqa: B027 - many sources hold nothing
        """Release what the source holds. It may be called more than once."""


class StaticToken(TokenSource):
    """A token that somebody else looks after. Raises `ConfigurationError` if it fits no header."""

    def __init__(self, token: str) -> None:
        if not token.isascii() or not token.isprintable():
            raise ConfigurationError("A token is ASCII text without line breaks.")
        self._token = token

    async def token(self) -> str:
        """Return the token."""
        return self._token

    def refuse(self, token: str) -> bool:
        """Return False: there is no other."""
        return False


@attrs.define
class _Held:
    token: Token
    renew_at: float
    expires_at: float
    refresh_until: float
    refused: bool = False


class ClientCredentialsToken(TokenSource):
    """Buys tokens with client id and secret, and renews them early by refresh (RM's OAuth pages).

    All callers share one request, which cancelling one of them does not abort: a refresh spends
    the refresh token, so two at once must not happen. A refresh that is refused falls back to the
    credentials. While the present token lives, nobody waits for its renewal, and one that fails
    harms nobody: it is tried again a minute later.
    """

    def __init__(
        self,
        credentials: Credentials,
        environment: Environment,
        transport: Transport,
        *,
        retry: RetryPolicy,
        timeout: Timeout,
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        random: Callable[[], float],
        early_s: float = 3600.0,
    ) -> None:
        self._credentials = credentials
        self._environment = environment
        self._transport = transport
        self._retry = retry
        self._timeout = timeout
        self._clock = clock
        self._sleep = sleep
        self._random = random
        self._early_s = early_s
        self._held: _Held | None = None
        self._renewal: asyncio.Task[Token] | None = None

    async def token(self) -> str:
        """Return the present token, or a new one when it has ended or was refused.

        Raises the errors of the token request. An hour before the end, or at half of a life
        shorter than two hours, a renewal begins beside the calls.
        """
        held, now = self._held, self._clock()
        if held is None or held.refused or now >= held.expires_at:
            return (await self._renewed()).access_token
        if now >= held.renew_at:
            held.renew_at = now + _RENEW_AGAIN_AFTER_S
            self._begin_renewal()
        return held.token.access_token

    def refuse(self, token: str) -> bool:
        """Discard ``token`` if it is the present one; return True."""
        held = self._held
        if held is not None and held.token.access_token == token:
            held.refused = True
        return True

    async def aclose(self) -> None:
        """Abort a renewal in flight."""
        renewal, self._renewal = self._renewal, None
        if renewal is not None and renewal.get_loop() is asyncio.get_running_loop():
            renewal.cancel()
            await asyncio.wait([renewal])

    async def _renewed(self) -> Token:
        renewal = self._begin_renewal()
        try:
            return await asyncio.shield(renewal)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
        raise ClosedError("token: the client was closed")

    def _begin_renewal(self) -> asyncio.Task[Token]:
        renewal = self._renewal
        # A task of an event loop that has ended never will.
        if renewal is None or renewal.get_loop() is not asyncio.get_running_loop():
            renewal = asyncio.create_task(self._renew(), name="rm-voucher token")
            renewal.add_done_callback(self._renewal_done)
            self._renewal = renewal
        return renewal

    def _renewal_done(self, task: asyncio.Task[Token]) -> None:
        if self._renewal is task:
            self._renewal = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("token: the request failed (%s)", error)

    async def _renew(self) -> Token:
        held, now = self._held, self._clock()
        token = None
        if held and held.token.refresh_token and now < held.refresh_until:
            request = build_refresh(self._environment, self._credentials, held.token.refresh_token)
            try:
                token = await self._ask(request)
            except (APIError, DecodeError) as exc:
                _log.info("token: refresh refused (%s); asking with the credentials", exc)
        if token is None:
            token = await self._ask(build_token(self._environment, self._credentials))
        life_s = token.expires_in_s or _DEFAULT_LIFETIME_S
        self._held = _Held(
            token,
            renew_at=now + max(life_s - self._early_s, life_s / 2),
            expires_at=now + life_s,
            refresh_until=now + (token.refresh_expires_in_s or life_s),
        )
        return token

    async def _ask(self, request: Request) -> Token:
        request = attrs.evolve(request, timeout=self._timeout)

        async def attempt() -> Token:
            return parse_token(await self._transport.send(request))

        # Asking twice gives two tokens, which harms nobody.
        return await self._retry.run(
            attempt,
            repeat_after=lambda error: may_repeat(Safety.READ, classify(error)),
            sleep=self._sleep,
            random=self._random,
        )
