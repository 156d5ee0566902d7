"""The emulator: a voucher server in one object, and a client's ways into it in this process.

It knows no HTTP server: `rm_voucher.emulator.server` serves it.
"""

from __future__ import annotations

import base64
import contextlib
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Self, Unpack

import orjson

from rm_voucher.arguments import check_callable, check_type
from rm_voucher.emulator import saved, saved_form
from rm_voucher.emulator.authenticator import bearer_of, merchant_of
from rm_voucher.emulator.exchange import Journal
from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.merchant import Merchant, MerchantOptions, Script
from rm_voucher.emulator.reply import Reply
from rm_voucher.emulator.site import Site
from rm_voucher.emulator.state import VoucherState
from rm_voucher.emulator.virtual_clock import VirtualClock
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.profile import part_of, read_report
from rm_voucher.signing.rsa import RsaSigner
from rm_voucher.transport.base import Request, Response

MAIN = "main"
"""The name of the merchant that an emulator is itself."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,62}")  # for a path, a file's name, a key of TOML
_MOST_MERCHANTS = 1_000
_LAST_NUMBER = 10**9


class EmulatorOptions(MerchantOptions, total=False):
    """The options of an emulator; `Emulator` says what they mean."""

    clock: Callable[[], float]
    callback_key: bytes | None


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
        callback_key: PEM of the key that signs callbacks, of all merchants, by default a new one;
            `Callbacks.public_key_pem` is its other half.
        clock: unix seconds. `advance` sets the emulator ahead of it.

    Raises `ConfigurationError` for a key that can't be used, `ValueError` for a batch or a
    ``callback_url`` that can't.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.time,
        callback_key: bytes | None = None,
        **options: Unpack[MerchantOptions],
    ) -> None:
        check_callable("clock", clock)
        check_type("callback_key", callback_key, bytes, optional=True)
        site = Site(
            wire_clock=clock,
            clock=VirtualClock(clock),
            reply=self.reply,
            books_beside=self._books_beside,
            callback_signer=None if callback_key is None else RsaSigner.from_pem(callback_key),
        )
        super().__init__(site, MAIN, 1, **options)
        self._last_number = self.number
        self._by_name: dict[str, Merchant] = {MAIN: self}
        self._by_number: dict[int, Merchant] = {self.number: self}
        self._by_client_id: dict[str, Merchant] = {self.client_id: self}

    @classmethod
    def like(cls, report: str | os.PathLike[str], **options: Unpack[EmulatorOptions]) -> Self:
        """Return an emulator that does as a probe's report says that RM does.

        ``report`` is the file that ``rm-voucher probe --output`` wrote, and ``options`` are those
        of the class, and win. What the probe left open stays as it is by default. Raises
        `ConfigurationError`.
        """
        found = part_of(read_report(report), "emulator")
        try:
            options.setdefault("guesses", Guesses(**found["guesses"]))
            options.setdefault("disabled_checks", found["disabled_checks"])
            options.setdefault("rate_limit", found["rate_limit"])
            return cls(**options)
        except (KeyError, TypeError, ValueError) as exc:
            raise ConfigurationError(f"{report} fits no emulator of this version.") from exc

    def merchant(self, name: str, **options: Unpack[MerchantOptions]) -> Merchant:
        """Return the merchant of a name; at first it is made, with a new client id and secret.

        ``options`` are those of the class but ``clock`` and ``callback_key``, for a merchant that
        is made. What is not given is as by default, but ``guesses`` and ``disabled_checks`` are
        the emulator's, and so is the key pair, because a new one takes a tenth of a second: give
        ``credentials`` to find out whether the code under test mixes keys up. Where the emulator
        has a seed, so does the merchant: the next one. Raises `ValueError` for a name that is not
        of 1 to 63 letters, digits, ``-`` and ``_``, for options of a merchant that there is
        already, for a client id that another one has or with a colon, and for the 1,001st merchant;
        and what the class raises.
        """
        check_type("name", name, str)
        with self.virtual_clock.lock:
            found = self._by_name.get(name)
            if found is None:
                return self._make(name, options)
        if options:
            raise ValueError(f"there is a merchant {name!r} already; its options are settled")
        return found

    def _make(self, name: str, options: MerchantOptions) -> Merchant:
        if not _NAME.fullmatch(name):
            raise ValueError(f"{name!r} is no name of 1 to 63 letters, digits, - and _")
        if len(self._by_name) == _MOST_MERCHANTS:
            raise ValueError(f"there are {_MOST_MERCHANTS:,} merchants already")
        options.setdefault("guesses", self.guesses)
        options.setdefault("disabled_checks", self._disabled)
        number = self._last_number + 1
        if self._seed is not None:
            # Equal codes of two merchants would hide that an application mixes them up.
            options.setdefault("seed", self._seed + number - 1)
        made = Merchant(self.site, name, number, twin=self, **options)
        if made.client_id in self._by_client_id or ":" in made.client_id:
            made.forget()
            raise ValueError(f"{made.client_id!r} is another one's client id, or has a colon")
        self._last_number = made.number
        self._by_name[name] = self._by_number[made.number] = made
        self._by_client_id[made.client_id] = made
        return made

    def drop_merchant(self, name: str) -> None:
        """Forget a merchant with all that it has; its tokens are good no more.

        Raises `ValueError` for the first merchant, and for one that there is not.
        """
        check_type("name", name, str)
        with self.virtual_clock.lock:
            dropped = self._by_name.get(name)
            if dropped is None or dropped is self:
                raise ValueError(f"{name!r} is no merchant that was made beside the first")
            del self._by_name[name], self._by_number[dropped.number]
            del self._by_client_id[dropped.client_id]
            dropped.forget()
        self.virtual_clock.notify()

    def find_merchant(self, name: str) -> Merchant | None:
        """Return a merchant that there is, or None."""
        return self._by_name.get(name)

    def _books_beside(self, number: int) -> Sequence[VoucherState]:
        return [each.books for each in self.merchants if each.number != number]

    @property
    def merchants(self) -> Sequence[Merchant]:
        """All merchants, this one first."""
        return list(self._by_name.values())

    @property
    def journal(self) -> Journal:
        """The last requests, of all merchants."""
        return self.site.journal

    def reset(self) -> None:
        """Begin anew, as it was made: batches, faults, rate limit, callback URL, the clock's time.

        That holds for all merchants. Counts, late work and callbacks under way are forgotten.
        Tokens stay good, so that clients need not be told.
        """
        with self.virtual_clock.lock:
            self.virtual_clock.reset()
            self.journal.forget()
            for merchant in self.merchants:
                merchant.begin()

    def export(self) -> dict[str, Any]:
        """Return all that there is, credentials and tokens included, as JSON can hold it.

        Not in it are the journal, nonces, and work that a fault put off.
        """
        with self.virtual_clock.lock:
            document = saved.save(self.site, self.merchants)
            for merchant, each in zip(self.merchants, document["merchants"], strict=True):
                each["vouchers"] = saved.vouchers_of(merchant)
        exported: dict[str, Any] = orjson.loads(orjson.dumps(document))  # no part of what lives on
        return exported

    def restore(self, document: Mapping[str, Any]) -> None:
        """Be what was exported, and nothing else; a reset begins as this emulator was made.

        Raises `ConfigurationError` for what no emulator of this version exported, and then stays
        as it was.
        """
        check_type("document", document, Mapping)
        if document.get("version") != saved.VERSION:
            raise ConfigurationError("This is no export of this version of rm_voucher.")
        try:
            saved_form.check(document)
            trial = Emulator(public_key=self.public_key_pem)
            trial._restore(document)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as exc:
            raise ConfigurationError("The export is spoilt.") from exc
        with self.virtual_clock.lock:
            self._restore(document)

    @contextlib.contextmanager
    def snapshot(self) -> Iterator[None]:
        """Be again at the end of the block what it is at its beginning."""
        document = self.export()
        try:
            yield
        finally:
            self.restore(document)

    def _restore(self, document: Mapping[str, Any]) -> None:
        found = {each["name"]: each for each in document["merchants"]}
        if next(iter(found), None) != MAIN:
            raise ValueError("the first merchant is missing")
        numbers = {each["number"] for each in found.values()}
        if len(numbers) < len(document["merchants"]) or not all(
            1 <= number < _LAST_NUMBER for number in numbers
        ):
            raise ValueError("a merchant has another's name or number, or none of the numbers")
        if found[MAIN]["number"] != 1:
            raise ValueError("the first merchant has the number 1")
        site, scripts = self.site, {each.name: each.script for each in self.merchants}
        for merchant in self.merchants[1:]:
            if not _is(merchant, found.get(merchant.name)):
                self.drop_merchant(merchant.name)
        site.callback_signer = saved.callback_signer_of(document)
        site.clock.reset()
        site.clock.go_to(float(document["ahead_s"]))
        site.journal.forget()
        site.journal.number = int(document["requests"])
        site.changes += 1
        for name, each in found.items():
            known = self._by_name.get(name)
            if known is None:
                self._last_number = each["number"] - 1
                known = self._make(name, saved.options_of(each))
                known.script = scripts.get(name)
            elif not _is(known, each):
                self._be(saved.options_of(each))
            known.load(each)

    def _be(self, options: MerchantOptions) -> None:
        """Be another first merchant, which begins anew as before."""
        script, given = self.script, self._as_given
        transport = self.callbacks.transport
        Merchant.__init__(self, self.site, MAIN, 1, **options)
        self.script: Script | None = script
        self._as_given = given
        self.callbacks.transport = transport
        self._by_client_id[self.client_id] = self

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

        Its token, or the client's id where it asks for one, says whose request it is; if that is
        nobody, it is the first merchant's.
        """
        merchant = self if len(self._by_name) == 1 else self._addressee(request)
        return merchant.answer(request)

    def _addressee(self, request: Request) -> Merchant:
        authorization = next(
            (value for name, value in request.headers.items() if name.lower() == "authorization"),
            "",
        )
        scheme, _, identity = authorization.partition(" ")
        if scheme == "Basic":
            return self._by_client_id.get(_client_id(identity), self)
        return self._by_number.get(merchant_of(bearer_of(authorization)), self)


def _client_id(identity: str) -> str:
    """Return the client's id, or an empty text, of what a request for a token is authorised by."""
    try:
        return base64.b64decode(identity).decode().partition(":")[0]
    except ValueError:  # neither base64 nor text
        return ""


def _is(merchant: Merchant, document: Mapping[str, Any] | None) -> bool:
    """Return whether a merchant is the one that was saved, however it stands now."""
    if document is None or merchant.number != document["number"]:
        return False
    given: object = orjson.loads(orjson.dumps(saved.save_options(merchant)))
    return bool(given == document["options"])
