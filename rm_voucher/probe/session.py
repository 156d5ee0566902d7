"""One run of a probe: it sends requests through the budget, and keeps what they showed.

An answer is kept whatever it says. `Session.ask` repeats what proves nothing, as far as that is
harmless; `Session.once` sends one request, on purpose signed wrong if asked.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from typing import Any

import attrs

from rm_voucher.calls.caller import Caller
from rm_voucher.calls.flow import Flow
from rm_voucher.calls.outcomes import Outcome, Remedy, Safety, classify
from rm_voucher.calls.retry import Retries
from rm_voucher.calls.server_clock import ServerClock
from rm_voucher.calls.token_source import StaticToken, TokenSource
from rm_voucher.converters import structure
from rm_voucher.exceptions import (
    APIError,
    AuthenticationError,
    DecodeError,
    ExpiredError,
    OutcomeUnknownError,
    OutOfStockError,
    SignatureError,
    TransportError,
)
from rm_voucher.models import Token, Voucher, VoucherBatch
from rm_voucher.probe.budget import Budget, BudgetSpentError, MeteredTransport
from rm_voucher.probe.options import Options
from rm_voucher.runtime import Runtime
from rm_voucher.settings import Credentials, Environment, FlowPolicy, RetryPolicy, Timeout
from rm_voucher.signing.rsa import Signer
from rm_voucher.transport.base import Request, Response
from rm_voucher.wire import operations
from rm_voucher.wire.error_codes import ERROR_CODES
from rm_voucher.wire.responses import json_object, read_body

MAX_PAGES = 5
"""Of a listing that is read; it bounds the cost."""

_PACE_PER_S = 5.0
# Before an attempt: most of what proves nothing passes at once, and a look must not come late.
_WAITS_S = (0.0, 0.0, 1.0, 3.0)
_MOST_RETRY_AFTER_S = 60.0
# A refusal by a rule of RM's, and no trouble of its servers.
_OF_RULES = (Outcome.REFUSED, Outcome.TOKEN_REFUSED, Outcome.DUPLICATE)
_PAGES = frozenset({"vouchers", "batches", "member vouchers"})


class UnclearError(Exception):
    """An experiment does not decide, with the reason and the answer that it lies in, if any."""

    def __init__(self, why: str, answer: Answer | None = None) -> None:
        super().__init__(why)
        self.refuses_credentials: bool = answer is not None and (
            answer.outcome is Outcome.TOKEN_REFUSED
            or answer.is_error(AuthenticationError, SignatureError)
        )


class StopProbeError(Exception):
    """The probe ends here, with the reason."""


@attrs.frozen(kw_only=True)
class Answer:
    """What came of one request."""

    status: int = 0
    """0 where no answer came."""
    code: str = ""
    """RM's error code."""
    outcome: Outcome | None = None
    """What it proves; None for a success."""
    words: str = ""
    """What went wrong, after the operation's name."""
    body: Mapping[str, Any] = attrs.field(factory=dict, repr=False)
    headers: Mapping[str, str] = attrs.field(factory=dict, repr=False)
    retry_after_s: float = 0.0
    token: str = attrs.field(default="", repr=False)

    @property
    def succeeded(self) -> bool:
        """Whether RM did it."""
        return self.outcome is None

    @property
    def is_definite(self) -> bool:
        """Whether RM did it or refused it, for certain."""
        return self.succeeded or self.outcome is Outcome.REFUSED

    @property
    def item(self) -> Any:
        """The object of a success."""
        return self.body.get("item")

    def is_error(self, *kinds: type[APIError]) -> bool:
        """Return whether its error code is of one of these kinds."""
        info = ERROR_CODES.get(self.code)
        return info is not None and issubclass(info.error, kinds)

    @property
    def is_unknown_path(self) -> bool:
        """Whether the server has no such path, or not with this method."""
        return (
            self.outcome is not None
            and self.status > 0
            and operations.is_unknown_path(APIError(self.code, http_status=self.status))
        )


@attrs.frozen
class PageRead:
    """One page of a listing as it came, and when, by the monotonic clock."""

    items: list[Any] = attrs.field(repr=False)
    meta: Mapping[str, Any] = attrs.field(repr=False)
    at: float


class ProbeTokens(TokenSource):
    """The token of a probe: it knows when each was bought, and waits until it is accepted."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.held: Token | None = None
        self.bought_at: float = 0.0
        self.delay_s: float = 0.0

    async def token(self) -> str:
        """Return the token, or buy another one."""
        if self.held is None:
            self.hold(await self._session.buy())
            await self._session.runtime.sleep(self.delay_s)
        assert self.held is not None  # noqa: S101 - for the type checker
        return self.held.access_token

    def hold(self, token: Token) -> None:
        """Take a token that was bought just now."""
        self.held, self.bought_at = token, self._session.runtime.monotonic()

    def refuse(self, token: str) -> bool:
        """Forget a token."""
        if self.held is not None and self.held.access_token == token:
            self.held = None
        return True


class _DeafClock(ServerClock):
    """Learns nothing from answers to a timestamp that is wrong on purpose."""

    def is_news(self, date: str) -> bool:
        return False


@attrs.frozen
class _WrongSigner:
    """Signs another text than it is given."""

    _signer: Signer

    def sign(self, message: bytes) -> bytes:
        return self._signer.sign(message + b"&probe=wrong")


class Session:
    """What the experiments share: a way to ask, the vouchers, and what was seen.

    ``notes`` has what was seen, without a code, key or name. ``secret`` has all that must not be
    in a report.
    """

    def __init__(
        self,
        credentials: Credentials,
        batch_key: str,
        *,
        environment: Environment,
        transport: MeteredTransport,
        budget: Budget,
        signer: Signer,
        options: Options,
        runtime: Runtime,
    ) -> None:
        self.batch_key = batch_key
        self.options = options
        self.runtime = runtime
        self.budget = budget
        self.notes: dict[str, Any] = {}
        self.statuses: dict[str, int] = {}
        self.header_names: set[str] = set()
        self.batch: VoucherBatch = VoucherBatch()
        self.tokens: ProbeTokens = ProbeTokens(self)
        self.vouchers: dict[str, str] = {}
        self._credentials = credentials
        self._signer = signer
        self._transport = transport
        self.clock: ServerClock = ServerClock()
        self.secret: set[str] = {batch_key, credentials.client_id, credentials.client_secret}
        self.secret |= {text for text in options.private() if text}
        self.caller: Caller = Caller(
            environment=environment,
            transport=transport,
            tokens=self.tokens,
            signer=signer,
            retries=Retries(RetryPolicy(max_attempts=1), runtime),
            timeout=Timeout(),
            flow=Flow(FlowPolicy(rate_per_s=_PACE_PER_S), runtime),
            hooks=(),
            runtime=runtime,
            server_clock=self.clock,
        )

    @property
    def environment(self) -> Environment:
        """Where it asks."""
        return self.caller.environment

    # One request.

    async def once(
        self,
        request: Request,
        *,
        token: str | None = None,
        nonce: str | None = None,
        skew_s: float = 0.0,
        signs_wrong: bool = False,
        unpaced: bool = False,
    ) -> Answer:
        """Send one request, once, and return what came of it. Raises `BudgetSpentError`."""
        caller = self.caller
        if token is not None:
            caller = attrs.evolve(caller, tokens=StaticToken(token))
        if nonce is not None:
            runtime = attrs.evolve(caller.runtime, make_nonce=lambda: nonce)
            caller = attrs.evolve(caller, runtime=runtime)
        if skew_s:
            clock = self.runtime.clock
            runtime = attrs.evolve(caller.runtime, clock=lambda: clock() + skew_s)
            caller = attrs.evolve(caller, runtime=runtime, server_clock=_DeafClock())
        if signs_wrong:
            caller = attrs.evolve(caller, signer=_WrongSigner(self._signer))
        if unpaced:
            caller = attrs.evolve(caller, flow=Flow(FlowPolicy(adaptive=False), self.runtime))
        # A read: what it must not repeat, the caller does not repeat either, by its policy.
        call = caller.call(request, self._read(request.operation), Safety.READ, None)
        try:
            answer = await caller.execute(call)
        except BudgetSpentError:
            raise
        except (TransportError, OutcomeUnknownError) as exc:
            return Answer(outcome=classify(exc), words=str(exc), token=call.token)
        if answer.outcome is Outcome.THROTTLED and not unpaced:
            now, flow = self.runtime.monotonic(), self.caller.flow
            flow.throttled(call.admitted_at, now)
            flow.pause_until(now + min(answer.retry_after_s, _MOST_RETRY_AFTER_S))
        return attrs.evolve(answer, token=call.token)

    def _read(self, operation: str) -> Callable[[Response], Answer]:
        def read(response: Response) -> Answer:
            answer = _answer(operation, response)
            self.header_names |= {name.lower() for name in response.headers}
            if answer.code and answer.outcome in _OF_RULES:
                self.statuses[answer.code] = answer.status
            return answer

        return read

    async def ask(
        self,
        request: Request,
        *,
        is_change: bool = False,
        takes: Outcome | None = None,
        **options: Any,
    ) -> Answer:
        """Send a request until it is done or refused. Raises `UnclearError` if it never is.

        A change is sent again only after proof that nothing was done. ``takes`` is another outcome
        that is an answer.
        """
        answer = Answer()
        for wait_s in _WAITS_S:
            await self.pause(wait_s)
            answer = await self.once(request, **options)
            outcome = answer.outcome
            if outcome in (None, Outcome.REFUSED, takes or Outcome.REFUSED):
                return answer
            if outcome.remedy is Remedy.TOKEN:
                if "token" in options:
                    return answer
                self.tokens.refuse(answer.token)
            if is_change and not outcome.nothing_done:
                break
        raise UnclearError(answer.words, answer)

    async def pause(self, seconds: float) -> None:
        """Wait."""
        if seconds > 0:
            await self.runtime.sleep(seconds)

    # Tokens.

    async def buy(self) -> Token:
        """Buy a token with the credentials. Raises `UnclearError`."""
        token = await self._token(operations.build_token(self.environment, self._credentials))
        if isinstance(token, Answer):
            raise UnclearError(f"no token: {words_of(token)}", token)
        return token

    async def refresh(self, refresh_token: str) -> Token | Answer:
        """Return the token that a refresh gives, or the refusal. Raises `UnclearError`."""
        return await self._token(
            operations.build_refresh(self.environment, self._credentials, refresh_token)
        )

    async def _token(self, request: Request) -> Token | Answer:
        request = attrs.evolve(request, timeout=self.caller.timeout)
        why = ""
        for wait_s in _WAITS_S:
            await self.pause(wait_s)
            try:
                await self.caller.flow.acquire(request.operation, latest=None, is_bulk=False)
                sent_at = self.runtime.clock()
                response = await self._transport.send(request)
            except BudgetSpentError:
                raise
            except TransportError as exc:
                why = str(exc)
                continue
            self.header_names |= {name.lower() for name in response.headers}
            if (date := response.headers.get("date")) is not None:
                self.clock.note(date, sent_at=sent_at, received_at=self.runtime.clock())
            try:
                token = operations.parse_token(response)
            except DecodeError as exc:
                why = f"token: an answer that is not as documented ({exc})"
            except APIError as exc:
                answer = Answer(status=response.status, code=exc.code, outcome=classify(exc))
                if answer.code and answer.outcome in _OF_RULES:
                    self.statuses[answer.code] = answer.status
                    return answer
                why = f"token: {exc}"
            else:
                self.secret |= {token.access_token, token.refresh_token or token.access_token}
                return token
        raise UnclearError(why)

    # Batches and listings.

    def some_read(self) -> Request:
        """Return a read that is documented, and whose answer is short."""
        return operations.build_batches(self.environment, status="NONE")

    async def read_batch(self, key: str | None = None) -> VoucherBatch:
        """Return the batch as it is now. Raises `UnclearError`."""
        key = key or self.batch_key
        if self.notes.get("batch.path", True):
            answer = await self.ask(operations.build_batch(self.environment, key))
            if answer.succeeded:
                self.notes.setdefault("batch.path", True)
                return structure(answer.item, VoucherBatch)
            if not answer.is_unknown_path:
                raise UnclearError(f"the batch can't be read: {words_of(answer)}", answer)
            self.notes["batch.path"] = False
        for page in (await self.read_pages(operations.build_batches, ()))[0]:
            for item in page.items:
                batch = structure(item, VoucherBatch)
                if batch.key == key:
                    return batch
        raise UnclearError(f"the batch is not among the first {MAX_PAGES} pages of batches")

    async def read_pages(
        self, build: Callable[..., Request], args: tuple[Any, ...]
    ) -> tuple[list[PageRead], bool]:
        """Return the first pages of a listing, and whether the last is among them."""
        pages: list[PageRead] = []
        cursor = None
        for _ in range(MAX_PAGES):
            answer = await self.ask(build(self.environment, *args, cursor=cursor))
            if not answer.succeeded:
                raise UnclearError(f"a listing is refused: {words_of(answer)}")
            meta = answer.body.get("meta")
            meta = meta if isinstance(meta, dict) else {}
            pages.append(PageRead(answer.body["items"], meta, self.runtime.monotonic()))
            cursor = meta.get("cursor")
            if not cursor or not isinstance(cursor, str):
                return pages, True
        return pages, False

    async def read_listing(self, key: str | None = None) -> tuple[list[PageRead], bool]:
        """Return the first pages of a batch's vouchers, and whether these are all."""
        pages, is_whole = await self.read_pages(operations.build_vouchers, (key or self.batch_key,))
        for page in pages:
            self.secret |= {
                str(item["code"])
                for item in page.items
                if isinstance(item, dict) and item.get("code")
            }
        return pages, is_whole

    # Vouchers.

    async def issue(self, key: str) -> Answer:
        """Issue one voucher; the budget counts it. Stops the probe if the outcome is unknown."""
        request = operations.build_issue(self.environment, key)
        for wait_s in _WAITS_S:
            await self.pause(wait_s)
            before = self.budget.used.vouchers
            answer = await self.once(request)
            was_counted = self.budget.used.vouchers > before  # not if it never left
            if was_counted and answer.outcome is not None and answer.outcome.nothing_done:
                self.budget.return_voucher()
            if answer.is_definite:
                break
            if answer.outcome is Outcome.TOKEN_REFUSED:
                self.tokens.refuse(answer.token)
            elif answer.outcome is None or not answer.outcome.nothing_done:
                raise StopProbeError(
                    f"an issue ended with an unknown outcome ({answer.words}), and another one "
                    "could cost more than was stated"
                )
        else:
            raise UnclearError(answer.words)
        if answer.succeeded:
            self.secret |= {str(value) for value in answer.item.values() if value}
        return answer

    async def issue_as(self, name: str) -> None:
        """Issue a voucher of the batch. Raises `UnclearError` if that is refused."""
        answer = await self.issue(self.batch_key)
        if answer.succeeded:
            self.vouchers[name] = answer.item["code"]
            return
        if answer.is_error(OutOfStockError):
            self.notes["sold_out.code"] = answer.code
        if answer.is_error(ExpiredError):
            self.notes["expired.code"] = answer.code
        raise UnclearError(f"the batch issues nothing: {words_of(answer)}")

    def voucher(self, name: str) -> str:
        """Return the code of a voucher that was issued. Raises `UnclearError`."""
        try:
            return self.vouchers[name]
        except KeyError:
            raise UnclearError(f"there is no {name} voucher to try it with") from None

    def forget(self, name: str) -> None:
        """Forget a voucher of which nobody knows any more how it stands."""
        self.vouchers.pop(name, None)

    async def change(self, request: Request, name: str) -> Answer:
        """Change a voucher. One of which the outcome is unknown is used no more."""
        try:
            return await self.ask(request, is_change=True)
        except UnclearError:
            self.forget(name)
            raise

    async def get(self, code: str) -> Answer:
        """Look a voucher up, by the method that the server takes."""
        methods = self.notes.get("get.methods") or ["POST"]
        return await self.ask(operations.build_get(self.environment, code, method=methods[0]))

    async def get_voucher(self, code: str) -> Voucher:
        """Return a voucher as it is now. Raises `UnclearError`."""
        answer = await self.get(code)
        if not answer.succeeded:
            raise UnclearError(f"the voucher can't be looked up: {words_of(answer)}")
        return structure(answer.item, Voucher)


def no_such_code() -> str:
    """Return a code that no voucher has."""
    return f"RmProbe{secrets.token_hex(8)}"


def _answer(operation: str, response: Response) -> Answer:
    shown: dict[str, Any] = {"status": response.status, "headers": response.headers}
    body = json_object(response)
    try:
        read_body(response)
    except APIError as exc:
        return Answer(
            **shown,
            code=exc.code,
            outcome=classify(exc),
            words=f"{operation}: {exc}",
            body=body,
            retry_after_s=exc.retry_after_s or 0.0,
        )
    except DecodeError as exc:
        return Answer(**shown, outcome=Outcome.UNREADABLE, words=f"{operation}: {exc}")
    if not _fits(operation, body):
        words = f"{operation}: the answer is not as documented"
        return Answer(**shown, outcome=Outcome.UNREADABLE, words=words)
    return Answer(**shown, body=body)


def _fits(operation: str, body: Mapping[str, Any]) -> bool:
    """Return whether a success has what its operation answers."""
    if body.get("code") != "SUCCESS":
        return False
    if operation in _PAGES:
        return isinstance(body.get("items"), list)
    if operation == "request":
        return True
    item = body.get("item")
    if operation == "redeem":
        return isinstance(item, list)
    if not isinstance(item, dict):
        return False
    shown = item.get("key") if operation == "batch" else item.get("code")
    return isinstance(shown, str) and shown != ""


def words_of(answer: Answer) -> str:
    """Return a refusal in words."""
    info = ERROR_CODES.get(answer.code)
    return f"{answer.code or 'no error code'} (HTTP {answer.status})" + (
        f": {info.hint}" if info else ""
    )
