"""A merchant: its credentials, its books, its faults, and where its callbacks go."""

from __future__ import annotations

import asyncio
import functools
import secrets
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from email.utils import formatdate
from random import Random
from typing import Any, Protocol, TypedDict, Unpack

import attrs

from rm_voucher.arguments import check_type
from rm_voucher.converters import structure
from rm_voucher.emulator.authenticator import Authenticator
from rm_voucher.emulator.callbacks import Callbacks
from rm_voucher.emulator.engine import Engine
from rm_voucher.emulator.faults import Fault, FaultPlan, Faults, RateLimit
from rm_voucher.emulator.guesses import Check, Guesses
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.emulator.records import Batch, Member, Record
from rm_voucher.emulator.reply import Reply
from rm_voucher.emulator.routes import OPERATIONS, Routes
from rm_voucher.emulator.site import IN_MEMORY, Site
from rm_voucher.emulator.state import VoucherState
from rm_voucher.emulator.stock import BatchOptions
from rm_voucher.emulator.virtual_clock import VirtualClock
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.models import Voucher, VoucherBatch
from rm_voucher.runtime import Runtime
from rm_voucher.service.client import ClientSettings, VoucherClient
from rm_voucher.settings import Credentials, Environment, plain_http_elsewhere
from rm_voucher.signing.rsa import RsaSigner, RsaVerifier
from rm_voucher.transport.base import Request, Response, Transport


class MerchantOptions(TypedDict, total=False):
    """The options of a merchant; `Merchant` says what they mean."""

    seed: int | None
    credentials: Credentials | None
    client_id: str | None
    client_secret: str | None
    public_key: bytes | None
    batches: Mapping[str, int] | None
    merchant_pin: str
    token_lifetime_s: int
    guesses: Guesses | None
    disabled_checks: Collection[Check | str]
    faults: FaultPlan | None
    rate_limit: float | None
    callback_url: str | None


class Script(Protocol):
    """What happens to a merchant by itself, such as a scenario."""

    def begin(self, merchant: Merchant) -> None:
        """Let it happen from the beginning on."""

    def go_on(self, merchant: Merchant, after: float) -> None:
        """Let happen what comes after a time, of what began when the merchant did."""


class Merchant:
    """One merchant of an emulator. `Emulator.merchant` makes it; an `Emulator` is one itself.

    Args:
        name: what people call it.
        number: what its vouchers' QR codes call it.
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
        twin: the merchant whose key pair it has if it is given none.

    Raises `ConfigurationError` for a key that can't be used, `ValueError` for a batch or a
    ``callback_url`` that can't.
    """

    def __init__(
        self,
        site: Site,
        name: str,
        number: int,
        *,
        seed: int | None = None,
        credentials: Credentials | None = None,
        client_id: str | None = None,
        client_secret: str | None = None,
        public_key: bytes | None = None,
        batches: Mapping[str, int] | None = None,
        merchant_pin: str = "123456",
        token_lifetime_s: int = 2_591_999,
        guesses: Guesses | None = None,
        disabled_checks: Collection[Check | str] = (),
        faults: FaultPlan | None = None,
        rate_limit: float | None = None,
        callback_url: str | None = None,
        twin: Merchant | None = None,
    ) -> None:
        self.site = site
        self.name = name
        self.number = number
        self.environment: Environment = Environment.at(IN_MEMORY)
        """The URLs for a client in this process; over HTTP it is `Server.environment`."""
        for name, given, kind in (
            ("seed", seed, int),
            ("credentials", credentials, Credentials),
            ("client_id", client_id, str),
            ("client_secret", client_secret, str),
            ("public_key", public_key, bytes),
            ("batches", batches, Mapping),
            ("guesses", guesses, Guesses),
            ("faults", faults, FaultPlan),
            ("callback_url", callback_url, str),
        ):
            check_type(name, given, kind, optional=True)
        check_type("merchant_pin", merchant_pin, str)
        check_type("token_lifetime_s", token_lifetime_s, int)
        if isinstance(disabled_checks, str) or not isinstance(disabled_checks, Collection):
            raise ConfigurationError("disabled_checks must be several checks, such as a list.")
        if "" in (client_id, client_secret):
            raise ConfigurationError("client_id and client_secret are not empty.")
        client_id = client_id or f"emulator-{secrets.token_hex(6)}"
        client_secret = client_secret or secrets.token_urlsafe(24)
        if twin is not None and public_key is None and credentials is None:
            public_key = twin.public_key_pem
            if twin.known_credentials is not None:
                key = twin.known_credentials.private_key
                credentials = Credentials(client_id, client_secret, key)
        if public_key is None:
            credentials = credentials or Credentials(client_id, client_secret, new_private_key())
            public_key = RsaSigner.from_pem(credentials.private_key_pem()).public_key_pem()
        if credentials is not None:
            client_id, client_secret = credentials.client_id, credentials.client_secret
        self.known_credentials: Credentials | None = credentials
        """Its `credentials`, or None when only a public key was given."""
        self.client_id = client_id
        self.client_secret = client_secret
        verifier = RsaVerifier.from_pem(public_key)
        self.public_key_pem: bytes = verifier.public_key_pem()
        """The other half of its client's private key."""
        self.guesses: Guesses = guesses or Guesses()
        self._disabled = frozenset(Check(check) for check in disabled_checks)
        self.runtime: Runtime = Runtime(clock=site.wire_clock)
        """What its clients get: its clock, as it is before `advance`, and real waits."""
        self._seed = seed
        self._batches = dict(batches or {})
        self._pin = merchant_pin
        self.virtual_clock: VirtualClock = site.clock
        self.callbacks: Callbacks = Callbacks(
            site.clock,
            self.guesses,
            site.wire_clock,
            site.signer,
            url=callback_url,
        )
        """The deliveries to the merchant."""
        self.authenticator: Authenticator = Authenticator(
            merchant=number,
            client_id=client_id,
            client_secret=client_secret,
            verifier=verifier,
            token_lifetime_s=token_lifetime_s,
            guesses=self.guesses,
            disabled=self._disabled,
            clock=site.clock.now,
            wire_clock=site.wire_clock,
        )
        self.begun: int = 0
        """The number of its last beginning; no two of an emulator's merchants are alike."""
        self.begun_at: float = 0.0
        """When it did so last, by the emulator's clock."""
        self.script: Script | None = None
        """What happens whenever it begins anew, beside what it was made with."""
        self._as_given = faults or FaultPlan(), rate_limit, callback_url
        self.begin()

    @property
    def options(self) -> dict[str, Any]:
        """The options that it was made with, beside its credentials and guesses, for `saved`."""
        return {
            "seed": None if self._seed is None else str(self._seed),  # JSON's numbers are bounded
            "batches": self._batches,
            "merchant_pin": self._pin,
            "token_lifetime_s": self.authenticator.token_lifetime_s,
            "disabled_checks": sorted(self._disabled),
        }

    def dump(self) -> dict[str, Any]:
        """Return how it stands now, but for its vouchers, as it is saved."""
        with self.virtual_clock.lock:
            return {
                "books": self._state.dump(),
                "tokens": self.authenticator.dump(),
                "callbacks": self.callbacks.dump(),
                "faults": self._engine.faults.dump(),
                "rate_limit": self._rate_limit,
                "requests": dict(self._engine.requests),
                "undelivered": self._engine.undelivered,
                "begun_at": self.begun_at,
                "now": self.virtual_clock.now(),
            }

    def load(self, saved: Mapping[str, Any]) -> None:
        """Stand as it was saved, with its vouchers. Raises as `VoucherState.load`."""
        self._open_books()
        self._state.load(saved["books"], saved["vouchers"])
        self.authenticator.load(saved["tokens"])
        self.callbacks.load(saved["callbacks"])
        self._engine.faults.load(saved["faults"])
        self.rate_limit = saved["rate_limit"]
        self._engine.requests.update(saved["requests"])
        self._engine.undelivered.extend(saved["undelivered"])
        self.begun_at = float(saved["begun_at"])
        if self.script is not None:
            self.script.go_on(self, float(saved["now"]))
        self.site.clock.notify()

    def begin(self) -> None:
        """Begin this merchant's books anew, as they were made: batches, faults, rate limit, URL.

        Counts, late work and callbacks under way are forgotten. Tokens stay good, so that clients
        need not be told. The clock and the other merchants stay as they are.
        """
        with self.virtual_clock.lock:  # nobody sees books that are half filled
            self._open_books()
            self.faults, self.rate_limit, self.callbacks.url = self._as_given
            for key, quantity in self._batches.items():
                self.add_batch(key, key=key, quantity=quantity)
            self.begun_at = self.virtual_clock.now()
            if self.script is not None:
                self.script.begin(self)
        self.site.clock.notify()  # a listener that a window closed opens again

    def _open_books(self) -> None:
        """Have new books, with nothing in them."""
        site = self.site
        self.forget()
        self.begun = next(site.beginnings)
        self._state = VoucherState(
            clock=site.clock.now,
            rng=Random(self._seed),  # noqa: S311 - these codes are worth nothing
            qr_base=lambda: f"{site.url}/qr/{self.number}",
            guesses=self.guesses,
            on_change=self._changed,
            cause=lambda: site.journal.cause,
            others=lambda: site.books_beside(self.number),
        )
        self._engine = Engine(
            clock=site.clock,
            authenticator=self.authenticator,
            routes=Routes(self._state, self.guesses, self._disabled, self._pin),
            guesses=self.guesses,
            disabled=self._disabled,
            faults=Faults(seed=secrets.randbits(32) if self._seed is None else self._seed),
            journal=site.journal,
            merchant=self.name,
        )
        self._state.on_touch = self._touched
        self._rate_limit: float | None = None

    def _touched(self, record: Record) -> None:
        if self.site.on_touch is not None:
            self.site.on_touch(self, record)

    def forget(self) -> None:
        """Forget its requests, its late work and its callbacks under way."""
        self.site.clock.forget(self.name)
        self.site.journal.forget(self.name)
        self.callbacks.reset()

    # Setting up, and looking on.

    @property
    def books(self) -> VoucherState:
        """All batches and vouchers, also in the middle of work that is due."""
        return self._state

    @property
    def state(self) -> VoucherState:
        """All batches and vouchers, after all work that is due was done."""
        self.virtual_clock.run_due()
        return self._state

    def add_batch(
        self, label: str, *, quantity: int | None = None, **options: Unpack[BatchOptions]
    ) -> VoucherBatch:
        """Make a batch; see `Stock.add_batch` for the options. Raises `ValueError`."""
        with self.virtual_clock.lock:
            batch = self._state.stock.add_batch(label, quantity=quantity, **options)
            return self._model(batch)

    def add_member(self, country_code: str, phone_number: str, **options: Any) -> Member:
        """Make a loyalty member; see `VoucherState.add_member`."""
        return self._state.add_member(country_code, phone_number, **options)

    def batch(self, key: str) -> VoucherBatch:
        """Return a batch as it is now. Raises `RefusedError` where there is none."""
        return self._model(self.state.stock.batch(key))

    def voucher(self, code: str) -> Voucher:
        """Return a voucher as it is now. Raises `RefusedError` where there is none."""
        state = self.state
        return structure(state.wire(state.get(code)), Voucher)

    def issued(self, batch_key: str) -> Sequence[str]:
        """Return the codes that left a batch's stock, in the order of the batch's listing."""
        return self.state.issued(batch_key)

    def revoke_tokens(self) -> None:
        """Stop accepting every access token handed out so far. Refresh tokens live on."""
        self.authenticator.revoke()

    @property
    def requests(self) -> Counter[str]:
        """The number of requests of each operation, faults included."""
        return self._engine.requests

    @property
    def undelivered(self) -> list[str]:
        """The codes that were issued and whose answer a fault withheld or spoilt."""
        self.virtual_clock.run_due()
        return self._engine.undelivered

    # Faults.

    @property
    def faults(self) -> FaultPlan:
        """The plan of faults. A new plan begins when it is set: its windows, and its seed.

        Setting it raises `ValueError` for an operation that does not exist.
        """
        return self._engine.faults.plan

    @faults.setter
    def faults(self, plan: FaultPlan) -> None:
        check_type("faults", plan, FaultPlan)
        for operation in plan.operations or ():
            _check_operation(operation)
        self._engine.faults.set(plan, now=self.virtual_clock.now())
        self.virtual_clock.notify()

    @property
    def faults_met(self) -> Counter[tuple[str, Fault | str]]:
        """The number of times that an operation met a fault or, from `fail_next`, an error code."""
        return self._engine.faults.met

    def fail_next(self, operation: str, fault: Fault | str, *, times: int = 1) -> None:
        """Let the next requests of an operation fail.

        Args:
            operation: ``issue``, ``get``, ``void``, ``vouchers``, ``batch``, ``batches``,
                ``reinstate``, ``redeem``, ``member vouchers``, ``member get``, ``member redeem``
                or ``token``.
            fault: a `Fault`, or an error code of RM's that refuses the request.
            times: the number of requests.

        Raises `ValueError`.
        """
        _check_operation(operation)
        check_type("fault", fault, str)
        self._engine.faults.fail_next(operation, fault, times=times)

    @property
    def rate_limit(self) -> float | None:
        """Requests a second that are not throttled, None for any number; more than 0."""
        return self._rate_limit

    @rate_limit.setter
    def rate_limit(self, per_s: float | None) -> None:
        check_type("rate_limit", per_s, float, optional=True)
        now, burst_s = self.virtual_clock.now(), self.guesses.rate_burst_s
        self._engine.limit = None if per_s is None else RateLimit(per_s, burst_s=burst_s, now=now)
        self._rate_limit = per_s

    # Ways in.

    @property
    def variables(self) -> dict[str, str]:
        """The ``RM_…`` variables that a client in another process needs, while it is served."""
        url = self.site.client_url
        variables = {
            "RM_ENVIRONMENT": url,
            "RM_CLIENT_ID": self.client_id,
            "RM_CLIENT_SECRET": self.client_secret,
        }
        if (host := plain_http_elsewhere(url)) is not None:
            variables["RM_ALLOW_PLAIN_HTTP"] = host
        if self.known_credentials is not None:
            # One line, as every reader of such files understands; the client reads \n as a break.
            pem = self.known_credentials.private_key_pem().decode()
            variables["RM_PRIVATE_KEY"] = pem.strip().replace("\n", "\\n")
        return variables

    @property
    def credentials(self) -> Credentials:
        """The client's credentials. Raises `ConfigurationError` if only a public key was given."""
        if self.known_credentials is None:
            raise ConfigurationError("The emulator has only the client's public key.")
        return self.known_credentials

    @credentials.setter
    def credentials(self, credentials: Credentials) -> None:
        self.known_credentials = credentials

    def client(
        self,
        *,
        environment: Environment | str | None = None,
        **settings: Unpack[ClientSettings],
    ) -> VoucherClient:
        """Return a client of this merchant, in this process; the settings are `VoucherClient`'s."""
        settings.setdefault("runtime", self.runtime)
        settings.setdefault("transport", self.transport())
        place = self.environment if environment is None else environment
        return VoucherClient(self.credentials, environment=place, **settings)

    def transport(self) -> Transport:
        """Return a transport to the emulator, in this process; faults are transport errors.

        Whose request it is shows in the request, so one transport serves all merchants.
        """
        return _InProcess(self.site)

    def answer(self, request: Request) -> Reply:
        """Return the server's reaction to one request of this merchant's, faults included."""
        with self.virtual_clock.frozen():
            reply = self._engine.reply(request)
        # Without its check, the clock is compared with nobody's.
        if Check.TIMESTAMP in self._disabled or not self.guesses.sends_date:
            return reply
        given = reply.response
        headers = {**given.headers, "date": _date(int(self.runtime.clock()))}
        response = Response(status=given.status, headers=headers, body=given.body)
        return attrs.evolve(reply, response=response)

    def closing_times(self) -> tuple[bool, float | None]:
        """Return whether nothing listens now, and when that changes."""
        now = self.virtual_clock.now()
        return self._engine.faults.is_closed(now), self._engine.faults.next_turn(now)

    def _changed(self, record: Record) -> None:
        if self.callbacks.wants(record.kept):
            self.callbacks.tell(self._state.wire(record))

    def _model(self, batch: Batch) -> VoucherBatch:
        return structure(self._state.batch_wire(batch), VoucherBatch)


@attrs.frozen
class _InProcess(Transport):
    """Calls the emulator as a function."""

    _site: Site

    async def send(self, request: Request) -> Response:
        """Answer, after other tasks had a turn, as with a socket. Raises `TransportError`."""
        reply = self._site.reply(request)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            reply.on_loss()  # the work is done, and its answer reaches nobody
            raise
        return reply.for_client_in_memory(request)


@functools.lru_cache(maxsize=1)  # a second has many requests
def _date(at_s: int) -> str:
    return formatdate(at_s, usegmt=True)


def _check_operation(operation: str) -> None:
    check_type("operation", operation, str)
    if operation not in OPERATIONS:
        raise ValueError(f"{operation!r} is no operation; they are {', '.join(OPERATIONS)}")
