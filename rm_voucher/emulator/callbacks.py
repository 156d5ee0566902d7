"""Callbacks: signed requests to the merchant's URL when a voucher changes.

RM's overview page: up to five times, a minute apart, until the first 200. RM does not document
which changes are told, and whether a repeat is signed anew: see `Guesses`.
"""

from __future__ import annotations

import heapq
import itertools
import secrets
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import attrs
from yarl import URL

from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.virtual_clock import VirtualClock
from rm_voucher.exceptions import TransportError
from rm_voucher.jsontext import read_json, write_json
from rm_voucher.models import VoucherStatus
from rm_voucher.settings import Timeout
from rm_voucher.signing.rsa import RsaSigner
from rm_voucher.signing.signature import canonical_json, format_signature, string_to_sign
from rm_voucher.transport.base import Request, Transport

_ATTEMPTS = 5
_INTERVAL_S = 60.0
_OK = 200
_MOST_KEPT = 1_000


@attrs.frozen
class Attempt:
    """One attempt of a delivery: when it began, and the answer's status or what failed."""

    at: float
    status: int | None
    failure: str = ""


@attrs.define(eq=False)
class Delivery:
    """One event on its way. ``body`` is the voucher at the time of the change."""

    number: int
    body: bytes = attrs.field(repr=False)
    code: str = attrs.field(repr=False)
    status: VoucherStatus
    due: float | None
    """When the next attempt is, None when none is to come."""
    attempts: list[Attempt] = attrs.field(factory=list)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    @property
    def is_open(self) -> bool:
        """Whether it was neither taken by the merchant nor given up."""
        attempts = self.attempts
        return len(attempts) < _ATTEMPTS and not any(each.status == _OK for each in attempts)


def _is_usable(_: object, __: object, url: str) -> None:
    try:
        parts = URL(url, encoded=True)
        has_host = bool(parts.raw_host) and parts.explicit_port != 0
    except ValueError:
        has_host = False
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if not (is_plain and has_host and parts.scheme in ("http", "https") and not parts.raw_fragment):
        raise ValueError(f"{url!r} is no http or https URL")


@attrs.define(eq=False, repr=False)
class Callbacks:
    """The deliveries to the merchant's URL.

    ``url`` is the target, None for none; ``transport`` carries them, by default over HTTP.
    ``interval_s`` is RM's minute and can be made shorter. ``signs_url`` is as in the guesses until
    it is set. `deliver` makes the attempts that are due on the emulator's clock; a server over HTTP
    makes them by itself.
    """

    _clock: VirtualClock
    _guesses: Guesses
    _wire_clock: Callable[[], float]
    _signer: Callable[[], RsaSigner]
    url: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(_is_usable), kw_only=True
    )
    """The target. Setting it raises `ValueError` for a URL that no request can go to."""
    interval_s: float = attrs.field(default=_INTERVAL_S, init=False)
    signs_url: bool = attrs.field(default=False, init=False)
    transport: Transport | None = attrs.field(default=None, init=False)
    delivered: int = attrs.field(default=0, init=False)
    """The number of deliveries that ended with a 200."""
    given_up: int = attrs.field(default=0, init=False)
    """The number of deliveries without a 200 in five attempts."""
    _owned: Transport | None = attrs.field(default=None, init=False)
    _number: Iterator[int] = attrs.field(factory=lambda: itertools.count(1), init=False)
    _order: Iterator[int] = attrs.field(factory=itertools.count, init=False)
    _waiting: list[tuple[float, int, Delivery]] = attrs.field(factory=list, init=False)
    _told: deque[Delivery] = attrs.field(factory=lambda: deque(maxlen=_MOST_KEPT), init=False)

    def reset(self) -> None:
        """Forget all deliveries and counts."""
        self._waiting = []
        self._told.clear()
        self.delivered = self.given_up = 0
        self.signs_url = self._guesses.callback_signs_url

    @property
    def public_key_pem(self) -> bytes:
        """The server's public key, which a receiver verifies with."""
        return self._signer().public_key_pem()

    def wants(self, status: VoucherStatus) -> bool:
        """Return whether a change to a status causes a callback."""
        return self.url is not None and status in self._guesses.callback_statuses

    def tell(self, wire: Mapping[str, Any]) -> None:
        """Begin to deliver the change of a voucher."""
        body = write_json({"item": wire, "code": "SUCCESS"})
        number = next(self._number)
        now = self._clock.now()
        delivery = Delivery(number, body, wire["code"], wire["status"], now)
        self._told.append(delivery)
        self._wait(delivery, now)
        self._clock.notify()

    def dump(self) -> dict[str, Any]:
        """Return what is to be delivered, and how, as it is saved."""
        return {
            "url": self.url,
            "interval_s": self.interval_s,
            "signs_url": self.signs_url,
            "delivered": self.delivered,
            "given_up": self.given_up,
            "deliveries": [
                {
                    "body": each.body.decode(),
                    "due": each.due,
                    "headers": dict(each.headers),
                    "attempts": [attrs.astuple(attempt) for attempt in each.attempts],
                }
                for each in self._told
            ],
        }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Put back what was saved. An attempt that was under way is made again."""
        self.reset()
        self.url = saved["url"]
        for name in ("interval_s", "signs_url", "delivered", "given_up"):
            setattr(self, name, saved[name])
        for each in saved["deliveries"]:
            item = read_json(each["body"])["item"]
            delivery = Delivery(
                next(self._number),
                each["body"].encode(),
                item["code"],
                VoucherStatus(item["status"]),
                None,
                [Attempt(*attempt) for attempt in each["attempts"]],
                each["headers"],
            )
            self._told.append(delivery)
            if each["due"] is not None:
                self._wait(delivery, each["due"])
            elif delivery.is_open:
                self._wait(delivery, self._clock.now())

    @property
    def waiting(self) -> int:
        """The number of deliveries whose next attempt is to come."""
        return len(self._waiting)

    def newest(self) -> list[Delivery]:
        """Return the last thousand deliveries, the newest first."""
        return list(reversed(self._told))

    def resend(self, number: int) -> Delivery:
        """Let a delivery of the last thousand be attempted now, whatever became of it.

        Raises `KeyError` where there is none, and `ValueError` while it waits anyway.
        """
        delivery = next((each for each in self._told if each.number == number), None)
        if delivery is None:
            raise KeyError(number)
        if delivery.due is not None:
            raise ValueError("its next attempt is to come anyway")
        self._wait(delivery, self._clock.now())
        self._clock.notify()
        return delivery

    def next_due(self) -> float | None:
        """Return the time of the next attempt."""
        return self._waiting[0][0] if self._waiting else None

    def take_due(self) -> Delivery | None:
        """Return a delivery whose attempt is due now; `attempt` it, or it is lost."""
        if self._waiting and self._waiting[0][0] <= self._clock.now():
            delivery = heapq.heappop(self._waiting)[2]
            delivery.due = None
            return delivery
        return None

    async def deliver(self) -> int:
        """Make all attempts that are due, one after the other; return how many."""
        self._clock.run_due()
        made = 0
        while (delivery := self.take_due()) is not None:
            await self.attempt(delivery)
            made += 1
        return made

    async def attempt(self, delivery: Delivery) -> None:
        """Deliver once. Without a 200 it is due again a minute later, five times in all."""
        if self.url is None:  # it was taken away meanwhile
            return
        waiting, begun = self._waiting, self._clock.now()
        request = self._request(self.url, delivery)
        status, failure = None, ""
        try:
            status = (await (self.transport or self._over_http()).send(request)).status
        except TransportError as exc:
            failure = type(exc).__name__
        delivery.attempts.append(Attempt(begun, status, failure))
        if self._waiting is not waiting:  # `reset` forgot it meanwhile
            return
        if status == _OK:
            self.delivered += 1
        elif len(delivery.attempts) < _ATTEMPTS:
            self._wait(delivery, begun + self.interval_s)
            self._clock.notify()
        else:
            self.given_up += 1

    async def aclose(self) -> None:
        """Close its own connections."""
        owned, self._owned = self._owned, None
        if owned is not None:
            await owned.aclose()

    def _over_http(self) -> Transport:
        if self._owned is None:
            from rm_voucher.transport.aiohttp import AiohttpTransport

            self._owned = AiohttpTransport()
        return self._owned

    def _wait(self, delivery: Delivery, due: float) -> None:
        delivery.due = due
        heapq.heappush(self._waiting, (due, next(self._order), delivery))

    def _request(self, url: str, delivery: Delivery) -> Request:
        timeout_s = self._guesses.callback_timeout_s
        target = URL(url, encoded=True)
        if not delivery.headers or self._guesses.callback_signs_again:
            delivery.headers = self._headers(target, delivery.body)
        return Request(
            operation="callback",
            method="POST",
            url=target,
            headers=delivery.headers,
            body=delivery.body,
            timeout=Timeout(connect_s=timeout_s / 2, attempt_s=timeout_s),
        )

    def _headers(self, url: URL, body: bytes) -> dict[str, str]:
        nonce, timestamp = secrets.token_hex(16), str(int(self._wire_clock()))
        text = string_to_sign(
            method="POST",
            url=str(url) if self.signs_url else None,
            nonce=nonce,
            timestamp=timestamp,
            body=canonical_json(read_json(body)),
        )
        return {
            "Content-Type": "application/json",
            "X-Nonce-Str": nonce,
            "X-Timestamp": timestamp,
            "X-Signature": format_signature(self._signer().sign(text.encode())),
        }
