"""The client: one method an operation.

`wire.operations` says what goes over the wire, `calls.caller` makes the call, the transport moves
it.
"""

from __future__ import annotations

import copy
import functools
import os
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Self, TypedDict, Unpack

import attrs

from rm_voucher.arguments import check_method, check_type
from rm_voucher.auth.store import TokenStore
from rm_voucher.calls.call import Call
from rm_voucher.calls.caller import Caller
from rm_voucher.calls.hooks import Hook, checked_hooks, tell_source
from rm_voucher.calls.outcomes import Safety
from rm_voucher.calls.recovery import Verdict, judge_reinstate, judge_void
from rm_voucher.calls.retry import Retries
from rm_voucher.calls.token_source import TokenSource
from rm_voucher.converters import prepare
from rm_voucher.exceptions import APIError, ConfigurationError, DecodeError, InvalidRequestError
from rm_voucher.models import ALL_OF_IT, IssuedVoucher, Page, Voucher, VoucherBatch
from rm_voucher.redaction import hide_locals
from rm_voucher.runtime import Runtime
from rm_voucher.service.member import Member
from rm_voucher.service.operation import operation
from rm_voucher.service.pager import Pager
from rm_voucher.service.redemption import Redemption
from rm_voucher.settings import (
    Credentials,
    Environment,
    FlowPolicy,
    Limits,
    RetryPolicy,
    Timeout,
    account_namespace,
)
from rm_voucher.signing.rsa import RsaSigner, Signer
from rm_voucher.transport.base import Request, Response, Transport
from rm_voucher.transport.proxy import Proxy
from rm_voucher.wire import operations
from rm_voucher.wire.error_codes import ERROR_CODES

if TYPE_CHECKING:
    from ssl import SSLContext

    from rm_voucher.calls.flow import FlowState
    from rm_voucher.calls.shared_flow import SharedFlow
    from rm_voucher.profile import Profile
    from rm_voucher.shared.store import SharedStore


class ClientSettings(TypedDict, total=False):
    """What `VoucherClient` takes beside who and where; the class explains each."""

    transport: Transport | None
    proxy: Proxy | None
    ssl_context: SSLContext | None
    retry: RetryPolicy | None
    timeout: Timeout | None
    limits: Limits | None
    flow: FlowPolicy | None
    shared: SharedStore | None
    token_source: TokenSource | None
    token_store: TokenStore | None
    signer: Signer | None
    hooks: Iterable[Hook]
    name: str | None
    runtime: Runtime | None


@attrs.define(eq=False)
class _Learnt:
    """What answers taught of the server: the client and those made of it go by it."""

    get_method: str = "POST"
    has_batch_path: bool = True


class VoucherClient:
    """Revenue Monster's voucher API for asyncio.

    Make one per application and share it: it keeps connections, a token and the parsed key. Use
    it as an async context manager or call `aclose`. Constructing it reads and parses the key and
    loads the transport, which takes tens of milliseconds; no call does.

    Every call raises a `VoucherError`: `APIError` (the server's error), `TransportError` (no
    answer to a read, or a request that was provably not sent), `DecodeError` (an answer that is
    not as documented), `OutcomeUnknownError` (a change that may or may not have happened) or
    `ConfigurationError` (it could not be signed). Each takes ``timeout``. Cancelling a read is
    safe.

    Args:
        credentials: the application's identity, needed only to sign and to buy tokens.
        environment: the servers' URLs, or the name ``"sandbox"`` or ``"production"``; the sandbox's
            by default.
        transport: an `AiohttpTransport` of the client's own by default. One that is passed in is
            not closed by the client.
        proxy: for the client's own transport; none by default, whatever the variables say.
        ssl_context: for the client's own transport: the authorities that it trusts.
        retry: how often and how patiently a call is attempted.
        timeout: for each attempt, and for the whole of a call.
        limits: how many connections, how large an answer, how many codes.
        flow: how fast all calls together are sent, and how long they wait in an outage. Token
            requests are not counted.
        shared: where the processes of this account share the rate, ``Retry-After``, outages and the
            token; see `open_shared_store`. It is not closed by the client. By default each client
            learns by itself, and buys a token of its own.
        token_source: buys tokens with the credentials by default. One that is passed in is not
            closed by the client.
        token_store: shares the token that the default source buys among processes; by default in
            ``shared``, if that is given.
        signer: signs with the credentials' key by default.
        hooks: each is called before and after every attempt; see `Hook`. An `Observer` among them
            is told of calls too.
        name: what logs, traces and metrics call this client where a process has several; its
            `account` by default.
        runtime: the clocks, the sleep, the chance and the nonces; replace them in tests.

    Raises `ConfigurationError` for a key or setting that can't be used.
    """

    def __init__(
        self,
        credentials: Credentials,
        *,
        environment: Environment | str = Environment.SANDBOX,
        transport: Transport | None = None,
        proxy: Proxy | None = None,
        ssl_context: SSLContext | None = None,
        retry: RetryPolicy | None = None,
        timeout: Timeout | None = None,
        limits: Limits | None = None,
        flow: FlowPolicy | None = None,
        shared: SharedStore | None = None,
        token_source: TokenSource | None = None,
        token_store: TokenStore | None = None,
        signer: Signer | None = None,
        hooks: Iterable[Hook] = (),
        name: str | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        # Imported here, so that importing the package stays quick.
        from rm_voucher.auth.client_credentials import ClientCredentialsToken
        from rm_voucher.calls.flow import Flow

        self._learnt = _Learnt()
        self.made_of: Self | None = None
        """The client that `with_options` made this of, for work that outlasts a call."""
        check_type("credentials", credentials, Credentials)
        environment = Environment.of(environment)
        for setting, given, kind in (
            ("transport", transport, Transport),
            ("retry", retry, RetryPolicy),
            ("timeout", timeout, Timeout),
            ("limits", limits, Limits),
            ("flow", flow, FlowPolicy),
            ("token_source", token_source, TokenSource),
            ("name", name, str),
            ("runtime", runtime, Runtime),
        ):
            check_type(setting, given, kind, optional=True)
        if token_store is not None:
            check_method("token_store", token_store, "load")
        if signer is not None:
            check_method("signer", signer, "sign")
        hooks = checked_hooks(hooks)
        retry, timeout, limits = retry or RetryPolicy(), timeout or Timeout(), limits or Limits()
        flow, runtime = flow or FlowPolicy(), runtime or Runtime()
        self._max_redeem_codes = limits.max_redeem_codes
        self.account: str = account_namespace(environment, credentials.client_id)
        """A short name of the account, without its client id: see `account_namespace`."""
        name = self.account if name is None else name
        prepare()
        self._owned: list[TokenSource | Transport | SharedFlow] = []  # in the order of closing
        pace = Flow(flow, runtime)
        if shared is not None:
            # Imported here: most clients share nothing.
            from rm_voucher.auth.shared_store import SharedTokenStore
            from rm_voucher.calls.shared_flow import SharedFlow
            from rm_voucher.shared.store import SharedStore

            check_type("shared", shared, SharedStore)
            pace = SharedFlow(flow, runtime, shared, f"{self.account}/rate")
            self._owned.append(pace)
            token_store = token_store or SharedTokenStore(shared, self.account, runtime=runtime)
        signer = signer or RsaSigner.from_pem(credentials.private_key_pem())
        if transport is None:
            # Imported here, so that a client with another transport never loads aiohttp.
            from rm_voucher.transport.aiohttp import AiohttpTransport

            transport = AiohttpTransport(limits=limits, proxy=proxy, ssl_context=ssl_context)
            self._owned.insert(0, transport)
        elif proxy is not None or ssl_context is not None:
            raise ConfigurationError("proxy and ssl_context are for the transport that is given.")
        if token_source is None:
            token_source = ClientCredentialsToken(
                credentials,
                environment,
                transport,
                retry=retry,
                timeout=timeout,
                hooks=hooks,
                store=token_store,
                name=name,
                runtime=runtime,
            )
            self._owned.insert(0, token_source)  # closed first: it uses the transport
        self.caller: Caller = Caller(
            environment=environment,
            transport=transport,
            tokens=token_source,
            signer=signer,
            retries=Retries(retry, runtime),
            timeout=timeout,
            flow=pace,
            hooks=hooks,
            runtime=runtime,
            name=name,
        )
        tell_source(self.caller.observers, name, pace)

    @classmethod
    @hide_locals
    def from_env(
        cls,
        *,
        credentials: Credentials | None = None,
        environment: Environment | str | None = None,
        profile: str | os.PathLike[str] | Profile | None = None,
        **settings: Unpack[ClientSettings],
    ) -> Self:
        """Return a client from the ``RM_…`` variables; see `rm_voucher.settings`.

        It does not read what ``rm-voucher login`` saved: those profiles are the command's alone.
        Whatever is given is used in place of a variable: ``credentials``, ``environment``, and all
        other settings of `VoucherClient`. Unless it is given a ``transport`` or ``proxy``, it goes
        through the proxy of ``HTTPS_PROXY``, but for ``NO_PROXY``; see `Proxy.from_env`.
        ``profile`` is what ``rm-voucher probe`` found out about the server: the file of its report,
        or a `Profile`. It holds no URL and no secret; ``limits`` and ``flow`` are used in place of
        its own. Raises `ConfigurationError`, one for all variables that are missing.
        """
        credentials = Credentials.from_env() if credentials is None else credentials
        environment = Environment.from_env() if environment is None else environment
        if settings.get("transport") is None:
            settings.setdefault("proxy", Proxy.from_env())
        if profile is None:
            return cls(credentials, environment=environment, **settings)
        from rm_voucher.profile import Profile

        if not isinstance(profile, Profile):
            profile = Profile.load(profile)
        if settings.get("limits") is None:
            settings["limits"] = Limits(max_redeem_codes=profile.max_redeem_codes)
        if settings.get("flow") is None:
            settings["flow"] = FlowPolicy(rate_per_s=profile.rate_per_s)
        environment = Environment.of(environment)
        if profile.escapes_paths:
            environment = attrs.evolve(environment, escapes_paths=True)
        client = cls(credentials, environment=environment, **settings)
        client._learnt = _Learnt(profile.get_method, profile.has_batch_path)
        return client

    def with_options(
        self, *, timeout: Timeout | None = None, retry: RetryPolicy | None = None
    ) -> Self:
        """Return a client with another time-out or retry policy, for some of the calls.

        It shares all else: connections, token, key, hooks, and the pace of all calls. It costs next
        to nothing and need not be closed; closing it closes nothing. Once the client that it was
        made of has closed a transport of its own, its calls raise `ClosedError`. Tokens are bought
        with that client's time-out and policy. Raises `ConfigurationError`.
        """
        check_type("timeout", timeout, Timeout, optional=True)
        check_type("retry", retry, RetryPolicy, optional=True)
        caller = self.caller
        made = copy.copy(self)
        made._owned = []  # noqa: SLF001 - of this very class
        made.made_of = self.made_of or self
        made.caller = attrs.evolve(
            caller,
            timeout=timeout or caller.timeout,
            retries=caller.retries if retry is None else Retries(retry, caller.runtime),
        )
        return made

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close what the client made itself. It may be called more than once."""
        for owned in self._owned:
            await owned.aclose()

    @property
    def name(self) -> str:
        """What logs, traces and metrics call this client."""
        return self.caller.name

    @property
    def flow(self) -> FlowState:
        """How fast the client sends at the moment, and why calls wait.

        Reading it sends nothing, and is cheap. Read it in the client's event loop.
        """
        return self.caller.flow.state

    @property
    def clock_offset_s(self) -> float | None:
        """By how many seconds RM's clock is ahead of this machine's, behind if negative.

        It is what the latest answer's ``Date`` proves: 0 where nothing proves a difference, None
        before the first answer that has one. Over 5 s are logged as a warning, once.
        """
        return self.caller.server_clock.offset_s

    @operation("issue")
    async def issue(self, batch_key: str, *, timeout: Timeout | None = None) -> IssuedVoucher:
        """Issue one voucher of a batch (RM's page "Issue Voucher").

        The API has no idempotency key: each call that succeeds issues another voucher. It is
        sent again only after an outcome that proves that nothing was done; otherwise it raises
        `OutcomeUnknownError`, and must not simply be repeated. Cancelling it after it was sent
        leaves its outcome unknown as well. When no access token can be had, it raises the token
        request's error, whose text begins with ``token``: then nothing was issued.

        Raises `OutOfStockError`, `ExpiredError` and `NotFoundError` for the batch.
        """
        return await self.caller.execute(issue_call(self.caller, batch_key, timeout))

    @operation("get")
    async def get(self, code: str, *, timeout: Timeout | None = None) -> Voucher:
        """Look up a voucher (RM's page "Get Voucher By Code"). A read: it may be repeated.

        The page says POST, RM's SDKs send GET. When the server refuses one method, the other is
        tried, and kept for the life of the client. Raises `NotFoundError`.
        """
        return await self._get(code, timeout)

    @operation("void")
    async def void(
        self,
        code: str,
        *,
        store_id: str | None = None,
        used_at: datetime | None = None,
        timeout: Timeout | None = None,
    ) -> Voucher:
        """Void a voucher: use it at a shop, or cancel it (RM's page "Void Voucher").

        Pass ``used_at``, an aware datetime with microseconds that is unique to this till. When the
        answer is lost, the voucher is read back, and only this instant proves that this call voided
        it. Without that proof a void voucher raises `OutcomeUnknownError`, with the voucher
        attached, because another till may have voided it. ``usedAt`` is sent only when given; RM's
        Go SDK sends it, no page documents it.

        Repeating it is harmless: a void voucher is refused with `VoucherStateError`. Cancelling
        it after it was sent leaves its outcome unknown; `get` shows it. Raises `NotFoundError`,
        `VoucherStateError` (with `ExpiredError`), `PermissionDeniedError` (another merchant's).
        """
        request = operations.build_void(
            self.caller.environment, code, store_id=store_id, used_at=used_at
        )
        judge = functools.partial(judge_void, used_at=used_at)
        return await self._change(code, request, operations.parse_void, judge, timeout)

    @operation("reinstate")
    async def reinstate(
        self,
        code: str,
        *,
        pin: str,
        reason: str | None = None,
        timeout: Timeout | None = None,
    ) -> Voucher:
        """Make a void voucher usable again (RM's page "Reinstate Voucher").

        ``pin`` is that of a user of the merchant portal, and ``reason`` may have no U+0008 and no
        U+000C. When the answer is lost, the voucher is read back. If it is still
        void, the call is sent again. If not, it raises `OutcomeUnknownError` with the voucher
        attached, because nothing on the voucher proves that this call reinstated it. Cancelling it
        after it was sent leaves its outcome unknown; `get` shows it. Raises `InvalidRequestError`
        (also for a wrong PIN), `NotFoundError`, `VoucherStateError`.
        """
        request = operations.build_reinstate(self.caller.environment, code, pin=pin, reason=reason)
        return await self._change(
            code, request, operations.parse_reinstate, judge_reinstate, timeout
        )

    @operation("redeem")
    async def redeem(
        self, codes: Iterable[str], *, timeout: Timeout | None = None
    ) -> list[Voucher]:
        """Redeem vouchers, all in one request (RM's page "Bulk Redeem Vouchers").

        Returns them in the order of ``codes``, at most `Limits.max_redeem_codes`. When the answer
        is lost, or does not show every voucher redeemed, the others are looked up, and only the
        unchanged ones are sent again. If the outcome of one stays unknown, it raises
        `OutcomeUnknownError`: ``codes`` are those of unknown outcome, ``vouchers`` as read back,
        and ``redeemed`` has those that this call redeemed for certain.

        RM does not document whether a refusal, say of one code, refuses all codes: look them up
        after one. Cancelling it after it was sent leaves its outcome unknown. Raises
        `NotFoundError`, `VoucherStateError`, `InvalidRequestError`.
        """
        return await Redemption(
            self.caller,
            codes,
            max_codes=self._max_redeem_codes,
            look_up=self._get,
            timeout=timeout,
        ).run()

    def vouchers(
        self, batch_key: str, *, cursor: str | None = None, timeout: Timeout | None = None
    ) -> Pager[Voucher]:
        """List the vouchers of a batch (RM's page "Get Voucher Batch By Key"). A read."""
        return Pager(functools.partial(self._vouchers_page, batch_key, timeout), cursor)

    @operation("vouchers")
    async def _vouchers_page(
        self, batch_key: str, timeout: Timeout | None, cursor: str | None
    ) -> Page[Voucher]:
        request = operations.build_vouchers(self.caller.environment, batch_key, cursor=cursor)
        parse = operations.parse_vouchers
        return await self.caller.execute(self.caller.call(request, parse, Safety.READ, timeout))

    @operation("batch")
    async def batch(self, batch_key: str, *, timeout: Timeout | None = None) -> VoucherBatch:
        """Look up a batch. A read: it may be repeated.

        RM's SDKs have it, its pages only their list of batches. Where the server does not know the
        path, the batch is looked for in that list, now and for the life of the client. Raises
        `NotFoundError`.
        """
        caller = self.caller
        request = operations.build_batch(caller.environment, batch_key)
        parse = functools.partial(operations.parse_batch, batch_key=batch_key)
        call = caller.call(request, parse, Safety.READ, timeout, batch_key=batch_key)
        if self._learnt.has_batch_path:
            try:
                return await caller.execute(call)
            except APIError as exc:
                if not operations.is_unknown_path(exc):
                    raise
        found, may_be_hidden = None, False
        async for batch in self._batches(timeout=timeout, deadline=call.deadline):
            if batch.key == batch_key:
                found = batch
                break
            may_be_hidden |= not batch.misfits.keys().isdisjoint(("key", ALL_OF_IT))
        self._learnt.has_batch_path = False
        if found is None and may_be_hidden:
            raise DecodeError("expected a batch with its key @ $.items")
        if found is None:
            info = ERROR_CODES["VOUCHER_BATCH_NOT_FOUND"]
            raise info.error(info.code, hint=info.hint)
        return found

    def batches(
        self,
        *,
        status: str | None = None,
        is_static: bool | None = None,
        cursor: str | None = None,
        timeout: Timeout | None = None,
    ) -> Pager[VoucherBatch]:
        """List the merchant's batches (RM's page "Get Voucher Batches"). A read."""
        return self._batches(status=status, is_static=is_static, cursor=cursor, timeout=timeout)

    def member(self, country_code: str, phone_number: str) -> Member:
        """Return a loyalty member's vouchers. Digits only: ``client.member("60", "123456789")``."""
        return Member(self.caller, country_code, phone_number)

    @operation("request")
    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        json: object | None = None,
        safety: Safety = Safety.ONCE,
        timeout: Timeout | None = None,
    ) -> Response:
        """Send a signed request that this client has no method for, and return the answer as it is.

        ``path``, such as ``/v3/stores``, is written as it goes on the wire: quote each part that is
        data with ``urllib.parse.quote(part, safe="")``. ``json`` may have no fraction and no
        integer beyond 2**53, because RM does not document how it signs those. RM's error, or a
        status that is not 2xx, is raised as it is for every other operation.

        With `Safety.ONCE` the request is sent again only after proof that nothing was done, and
        else raises `OutcomeUnknownError`. `Safety.READ` retries freely.
        """
        if safety not in (Safety.ONCE, Safety.READ):
            raise InvalidRequestError.refused("safety must be Safety.ONCE or Safety.READ.")
        request = operations.build_any(
            self.caller.environment, method, path, query=query, json=json
        )
        call = self.caller.call(request, operations.parse_any, safety, timeout)
        return await self.caller.execute(call)

    async def _change(
        self,
        code: str,
        request: Request,
        parse: Callable[[Response, str], Voucher],
        judge: Callable[[Voucher], Verdict],
        timeout: Timeout | None,
    ) -> Voucher:
        """Make a call that changes one voucher; a lost answer is settled by reading it back."""
        call = self.caller.call(
            request, lambda response: parse(response, code), Safety.RECONCILABLE, timeout, code=code
        )

        async def read_back() -> tuple[Verdict, Voucher]:
            voucher = await self._get(code, timeout, call.deadline)
            return judge(voucher), voucher

        call.read_back = read_back
        return await self.caller.execute(call)

    def _batches(
        self,
        *,
        status: str | None = None,
        is_static: bool | None = None,
        cursor: str | None = None,
        timeout: Timeout | None,
        deadline: float | None = None,
    ) -> Pager[VoucherBatch]:
        fetch = functools.partial(
            self._batches_page,
            status=status,
            is_static=is_static,
            timeout=timeout,
            deadline=deadline,
        )
        return Pager(fetch, cursor)

    @operation("batches")
    async def _batches_page(
        self,
        cursor: str | None,
        *,
        status: str | None,
        is_static: bool | None,
        timeout: Timeout | None,
        deadline: float | None,
    ) -> Page[VoucherBatch]:
        request = operations.build_batches(
            self.caller.environment, status=status, is_static=is_static, cursor=cursor
        )
        parse = operations.parse_batches
        return await self.caller.execute(
            self.caller.call(request, parse, Safety.READ, timeout, deadline=deadline)
        )

    async def _get(
        self, code: str, timeout: Timeout | None, deadline: float | None = None
    ) -> Voucher:
        parse = functools.partial(operations.parse_get, code=code)

        def call(method: str) -> Call[Voucher]:
            request = operations.build_get(self.caller.environment, code, method=method)
            return self.caller.call(
                request, parse, Safety.READ, timeout, deadline=deadline, code=code
            )

        method = self._learnt.get_method
        other = "GET" if method == "POST" else "POST"
        first = call(method)
        try:
            return await self.caller.execute(first)
        except APIError as exc:
            if not operations.is_unknown_path(exc):
                raise
        deadline = first.deadline  # of the whole call
        voucher = await self.caller.execute(call(other))
        self._learnt.get_method = other
        return voucher


def issue_call(
    caller: Caller,
    batch_key: str,
    timeout: Timeout | None = None,
    *,
    deadline: float | None = None,
) -> Call[IssuedVoucher]:
    """Return the call of an *issue*, for a bulk run or a ledger to watch."""
    request = operations.build_issue(caller.environment, batch_key)
    return caller.call(
        request,
        operations.parse_issue,
        Safety.ONCE,
        timeout,
        deadline=deadline,
        batch_key=batch_key,
    )
