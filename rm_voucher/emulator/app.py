"""The emulator: a voucher server in one object, and a client's ways into it in this process.

It knows no HTTP server: `rm_voucher.emulator.server` serves it.
"""

from __future__ import annotations

import base64
import binascii
import os
import time
from collections.abc import Callable, Sequence
from typing import Any, Self, Unpack

from rm_voucher.arguments import check_callable, check_type
from rm_voucher.emulator.authenticator import bearer_of
from rm_voucher.emulator.exchange import Journal
from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.merchant import Merchant, MerchantOptions
from rm_voucher.emulator.reply import Reply
from rm_voucher.emulator.site import Site
from rm_voucher.emulator.virtual_clock import VirtualClock
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.profile import part_of, read_report
from rm_voucher.transport.base import Request, Response

MAIN = "main"
"""The name of the merchant that an emulator is itself."""


class Emulator(Merchant):
    """A voucher server with one merchant or more, for tests and development without an account.

    Make one, give its `client` to the code under test, and look at its state afterwards. For HTTP
    see `rm_voucher.emulator.server.serve`. Without ``credentials`` and ``public_key`` it makes a
    key pair, in `credentials`. It is itself its first merchant; `merchant` makes others, which
    have credentials, batches, faults and callbacks of their own.

    Args:
        seed: equal seeds give equal codes and, if the plan has no seed, equal faults; tokens and
            keys are always random.
        credentials: the client's credentials, by default new ones.
        client_id, client_secret: for a client of which only the public key is given.
        public_key: PEM of a client whose private key the emulator never sees.
        batches: quantities by key, made at the start and again at each `reset`.
        merchant_pin: the PIN for reinstating.
        token_lifetime_s: the life of an access token; a refresh token lives for fifty years.
        guesses: the answers to what RM does not document.
        disabled_checks: the checks that are not made.
        faults: the plan of faults, none by default.
        rate_limit: requests a second that are not throttled, None for any number.
        callback_url: the target of callbacks, None for none; `Callbacks` says when and how.
        callback_key: PEM of the key that signs callbacks, by default a new one;
            `Callbacks.public_key_pem` is its other half.
        clock: unix seconds. `advance` sets the emulator ahead of it.

    Raises `ConfigurationError` for a key that can't be used, `ValueError` for a batch or a
    ``callback_url`` that can't.
    """

    def __init__(
        self, *, clock: Callable[[], float] = time.time, **options: Unpack[MerchantOptions]
    ) -> None:
        check_callable("clock", clock)
        site = Site(wire_clock=clock, clock=VirtualClock(clock), reply=self.reply)
        super().__init__(site, MAIN, 1, **options)
        self._merchants: dict[str, Merchant] = {MAIN: self}

    @classmethod
    def like(cls, report: str | os.PathLike[str], **options: Any) -> Self:
        """Return an emulator that does as a probe's report says that RM does.

        ``report`` is the file that ``rm-voucher probe --output`` wrote, and ``options`` are those
        of the class. What the probe left open stays as it is by default. Raises
        `ConfigurationError`.
        """
        found = part_of(read_report(report), "emulator")
        try:
            guesses = Guesses(**found["guesses"])
            return cls(
                guesses=guesses,
                disabled_checks=found["disabled_checks"],
                rate_limit=found["rate_limit"],
                **options,
            )
        except (KeyError, TypeError, ValueError) as exc:
            raise ConfigurationError(f"{report} fits no emulator of this version.") from exc

    def merchant(self, name: str, **options: Unpack[MerchantOptions]) -> Merchant:
        """Return the merchant of a name; at first it is made, with new credentials.

        ``options`` are those of the class but ``clock``, for a merchant that is made. What is not
        given is as by default, and ``guesses`` are the emulator's. Raises `ValueError` for options
        of a merchant that there is already, and what the class raises.
        """
        check_type("name", name, str)
        made = self._merchants.get(name)
        if made is None:
            options.setdefault("guesses", self.guesses)
            options.setdefault("disabled_checks", self._disabled)
            made = Merchant(self.site, name, len(self._merchants) + 1, **options)
            self._merchants[name] = made
        elif options:
            raise ValueError(f"there is a merchant {name!r} already; its options are settled")
        return made

    def find_merchant(self, name: str) -> Merchant | None:
        """Return a merchant that there is, or None."""
        return self._merchants.get(name)

    @property
    def merchants(self) -> Sequence[Merchant]:
        """All merchants, this one first."""
        return list(self._merchants.values())

    @property
    def journal(self) -> Journal:
        """The last requests, of all merchants."""
        return self.site.journal

    def reset(self) -> None:
        """Begin anew, as it was made: batches, faults, rate limit, callback URL, the clock's time.

        That holds for all merchants. Counts, late work and callbacks under way are forgotten.
        Tokens stay good, so that clients need not be told.
        """
        self.virtual_clock.reset()
        self.journal.forget()
        for merchant in self.merchants:
            merchant.begin()

    def advance(self, seconds: float) -> None:
        """Set the emulator's clock ahead: vouchers and tokens expire, callbacks fall due."""
        check_type("seconds", seconds, float)
        self.virtual_clock.advance(seconds)

    def handle(self, request: Request) -> Response:
        """Answer one request. Raises the `TransportError` that a client over HTTP would get.

        Nothing takes time here: a time-out is raised at once, and so it is for an answer that
        would take longer than the request's time.
        """
        return self.reply(request).for_client_in_memory(request)

    def reply(self, request: Request) -> Reply:
        """Return the server's reaction to one request, faults included.

        Its token, or the client's id where it asks for one, says whose request it is.
        """
        if len(self._merchants) == 1:
            return self.answer(request)
        authorization = next(
            (value for name, value in request.headers.items() if name.lower() == "authorization"),
            "",
        )
        token, client_id = bearer_of(authorization), _client_id(authorization)
        for merchant in self._merchants.values():
            if merchant.client_id == client_id or merchant.authenticator.knows(token):
                return merchant.answer(request)
        return self.answer(request)


def _client_id(authorization: str) -> str | None:
    """Return the client's id of an ``Authorization`` header of a request for a token."""
    scheme, _, identity = authorization.partition(" ")
    try:
        return base64.b64decode(identity).decode().partition(":")[0] if scheme == "Basic" else None
    except (binascii.Error, UnicodeDecodeError):
        return None
