"""The rule: an argument of a wrong type is refused at the door, with a sentence that names it.

Not where it is used, which may be after the first voucher; with no error of Python's own, and with
no request. A value is not shown: it may be a secret.
"""

from __future__ import annotations

import asyncio
import inspect
import re
from pathlib import Path
from typing import Any

import pytest
from support.files import KEY_FILE

from rm_voucher import (
    ConfigurationError,
    Credentials,
    Environment,
    FlowPolicy,
    InvalidRequestError,
    Limits,
    Proxy,
    Request,
    Response,
    RetryPolicy,
    Runtime,
    StaticToken,
    Timeout,
    Transport,
    VoucherBatch,
    VoucherClient,
    VoucherError,
    bulk_issue,
)
from rm_voucher.emulator import Emulator
from rm_voucher.signing import RsaSigner
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.webhooks import (
    CallbackPoller,
    CallbackVerifier,
    MemoryEventStore,
    WebhookRouter,
    open_event_store,
)

KEY = KEY_FILE.read_bytes()
PUBLIC = RsaSigner.from_pem(KEY).public_key_pem()
ME = Credentials("client-id", "client-secret", KEY)


class Session:
    """As of aiohttp: it sends, but it is no transport."""

    async def get(self, url): ...
    async def close(self): ...


# What people pass by mistake.
WRONG: dict[str, Any] = {
    "a batch": VoucherBatch(key="K", label="Breakfast"),
    "an empty dict": {},
    "a dict": {"code": "X"},
    "None": None,
    "a number": 5,
    "a fraction": 1.5,
    "not a number": float("nan"),
    "True": True,
    "bytes": b"secret",
    "text": "secret",
    "no text": "",
    "a list": [5],
    "a list of None": [None],
    "a tuple": ("secret",),
    "a set": {5},
    "an object": object(),
    "a session": Session(),
    "a class": Transport,
    "a function": lambda: None,
    "a credential": ME,
}
NUMBERS = ["a number", "a fraction"]
TEXTS = ["text", "no text"]


def nothing_is_sent(request: Request) -> Response:
    raise AssertionError(f"{request.operation} was sent")


def client(**options: Any) -> VoucherClient:
    given = {"transport": MemoryTransport(nothing_is_sent), "token_source": StaticToken("t")}
    return VoucherClient(options.pop("credentials", ME), **{**given, **options})


def called(call):
    """Return a door that makes a call of a client's."""

    async def door(wrong):
        return await call(client(), wrong)

    return door


def run_of(name):
    async def door(wrong):
        given = {"client": client(), "batch_key": "K", "recipients": [1]}
        names = list(given)
        options = {"signers": 0, name: wrong} if name not in given else {"signers": 0}
        given.update({name: wrong} if name in given else {})
        async with bulk_issue(*(given[each] for each in names), **options) as run:  # type: ignore[arg-type]
            assert not [result async for result in run if result.attempts]

    return door


def verifier(**options):
    return CallbackVerifier(**{"public_keys": PUBLIC, **options})


def router(**options):
    given: dict[str, Any] = {"verifier": verifier(), "store": MemoryEventStore()}
    return WebhookRouter(**{**given, **options})


def poller(**options):
    return CallbackPoller(**{"client": client(), "router": router(), **options})


def emulator_method(name):
    return lambda wrong: getattr(Emulator(), name)(wrong)


def emulator_setter(name):
    return lambda wrong: setattr(Emulator(), name, wrong)


def of(make, **right):
    """Return a door for each argument of a function, with what is right for it."""
    return {
        f"{make.__qualname__.removesuffix('.__init__')}({name})": (
            lambda wrong, name=name: make(**{name: wrong}),
            allowed,
        )
        for name, allowed in right.items()
    }


# Each door: a function of the argument, and what of the above it takes.
DOORS: dict[str, tuple[Any, list[str]]] = {
    **of(
        client,
        credentials=["a credential"],
        environment=TEXTS,
        transport=["None"],
        retry=["None"],
        timeout=["None"],
        limits=["None"],
        flow=["None"],
        token_source=["None"],
        token_store=["None"],
        signer=["None"],
        runtime=["None"],
    ),
    "hooks": (lambda wrong: client(hooks=wrong), []),
    "a hook": (lambda wrong: client(hooks=[wrong]), ["a function", "a class"]),
    "from_env": (lambda wrong: VoucherClient.from_env(environment=wrong), []),
    "client_id": (lambda wrong: Credentials(wrong, "s", KEY), ["text"]),
    "client_secret": (lambda wrong: Credentials("i", wrong, KEY), ["text"]),
    "private_key": (lambda wrong: Credentials("i", "s", wrong), [*TEXTS, "bytes"]),
    "Credentials.from_env": (Credentials.from_env, []),
    "api_url": (lambda wrong: Environment(wrong, "https://x.example"), []),
    "oauth_url": (lambda wrong: Environment("https://x.example", wrong), []),
    "Environment.at": (Environment.at, []),
    "Environment.named": (Environment.named, TEXTS),
    "Environment.from_env": (Environment.from_env, ["None", "an empty dict", "a dict"]),
    "plain": (
        lambda wrong: Environment.SANDBOX.__class__(
            "https://x.example", "https://x.example", allow_plain_http=wrong
        ),
        ["True"],
    ),
    "escapes_paths": (
        lambda wrong: Environment.SANDBOX.__class__(
            "https://x.example", "https://x.example", escapes_paths=wrong
        ),
        ["True"],
    ),
    "StaticToken": (StaticToken, ["text"]),
    **of(
        Timeout,
        **{key: [*NUMBERS, "None"] for key in ("connect_s", "attempt_s", "total_s", "change_s")},
    ),
    **of(AiohttpTransport, session=["None"], limits=["None"], ssl_context=["None"], proxy=["None"]),
    **of(client, proxy=["None"], ssl_context=["None"]),
    "Proxy": (Proxy, ["text"]),
    "no_proxy": (lambda wrong: Proxy("http://proxy.test", wrong), TEXTS),
    "Proxy.from_env": (Proxy.from_env, ["None", "an empty dict", "a dict"]),
    **of(RetryPolicy, max_attempts=["a number"]),
    **of(
        RetryPolicy,
        **dict.fromkeys(("initial_wait_s", "max_wait_s", "max_retry_after_s"), NUMBERS),
    ),
    **of(
        Limits,
        **{
            key: ["a number"]
            for key in ("max_connections", "max_response_bytes", "max_redeem_codes")
        },
    ),
    **of(FlowPolicy, rate_per_s=[*NUMBERS, "None"], adaptive=["True"], failure_threshold=[]),
    **of(FlowPolicy, probe_interval_s=NUMBERS, max_outage_wait_s=NUMBERS),
    **of(
        Runtime,
        **{
            key: ["a function", "a class"]
            for key in ("clock", "monotonic", "sleep", "random", "make_nonce")
        },
    ),
    "issue": (called(lambda c, wrong: c.issue(wrong)), ["text"]),
    "issue, timeout": (called(lambda c, wrong: c.issue("K", timeout=wrong)), ["None"]),
    "get": (called(lambda c, wrong: c.get(wrong)), ["text"]),
    "get, timeout": (called(lambda c, wrong: c.get("X", timeout=wrong)), ["None"]),
    "void": (called(lambda c, wrong: c.void(wrong)), ["text"]),
    "void, store": (called(lambda c, wrong: c.void("X", store_id=wrong)), ["text", "None"]),
    "void, used_at": (called(lambda c, wrong: c.void("X", used_at=wrong)), ["None"]),
    "void, timeout": (called(lambda c, wrong: c.void("X", timeout=wrong)), ["None"]),
    "reinstate": (called(lambda c, wrong: c.reinstate(wrong, pin="1")), ["text"]),
    "reinstate, pin": (called(lambda c, wrong: c.reinstate("X", pin=wrong)), ["text"]),
    "reinstate, reason": (
        called(lambda c, wrong: c.reinstate("X", pin="1", reason=wrong)),
        [*TEXTS, "None"],
    ),
    "redeem": (called(lambda c, wrong: c.redeem(wrong)), ["a tuple"]),
    "redeem, a code": (called(lambda c, wrong: c.redeem(["A", wrong])), ["text"]),
    "redeem, timeout": (called(lambda c, wrong: c.redeem(["A"], timeout=wrong)), ["None"]),
    "vouchers": (called(lambda c, wrong: c.vouchers(wrong)), ["text"]),
    "vouchers, cursor": (
        called(lambda c, wrong: c.vouchers("K", cursor=wrong)),
        [*TEXTS, "None"],
    ),
    "vouchers, timeout": (called(lambda c, wrong: c.vouchers("K", timeout=wrong)), ["None"]),
    "batches, status": (called(lambda c, wrong: c.batches(status=wrong)), [*TEXTS, "None"]),
    "batches, static": (called(lambda c, wrong: c.batches(is_static=wrong)), ["True", "None"]),
    "batches, cursor": (called(lambda c, wrong: c.batches(cursor=wrong)), [*TEXTS, "None"]),
    "member, country": (called(lambda c, wrong: c.member(wrong, "1").vouchers()), []),
    "member, phone": (called(lambda c, wrong: c.member("60", wrong).vouchers()), []),
    "member, limit": (
        called(lambda c, wrong: c.member("60", "1").vouchers(limit=wrong)),
        ["a number", "None"],
    ),
    "member.get": (called(lambda c, wrong: c.member("60", "1").get(wrong)), ["text"]),
    "member.redeem": (called(lambda c, wrong: c.member("60", "1").redeem(wrong)), ["text"]),
    "request, method": (called(lambda c, wrong: c.request(wrong, "/v3/x")), []),
    "request, path": (called(lambda c, wrong: c.request("GET", wrong)), []),
    "request, query": (
        called(lambda c, wrong: c.request("GET", "/x", query=wrong)),
        ["None", "an empty dict", "a dict"],
    ),
    "request, json": (
        called(lambda c, wrong: c.request("POST", "/x", json=wrong)),
        [
            *(*TEXTS, "None", "an empty dict", "a dict", "a number", "True"),
            *("a list", "a list of None", "a tuple"),
        ],
    ),
    "request, safety": (called(lambda c, wrong: c.request("GET", "/x", safety=wrong)), []),
    "run, client": (run_of("client"), []),
    "run, batch": (run_of("batch_key"), ["text"]),
    "run, recipients": (
        run_of("recipients"),
        ["an empty dict", "a dict", "a list", "a list of None", "a tuple", "a set"],
    ),
    "run, concurrency": (run_of("concurrency"), ["a number"]),
    "run, ledger": (run_of("ledger"), ["None"]),
    "run, request_id": (run_of("request_id"), ["None"]),
    "run, on_progress": (run_of("on_progress"), ["None", "a function", "a class"]),
    "run, signers": (run_of("signers"), ["None", "a number"]),
    **of(router, verifier=[], store=[], confirm=["None"], dispatch_stale=["True"]),
    **of(router, handler_timeout_s=NUMBERS, read_timeout_s=NUMBERS, max_in_flight=["a number"]),
    "a handler": (lambda wrong: router().on()(wrong), []),
    "a status": (lambda wrong: router().on(wrong), TEXTS),
    **of(verifier, public_keys=[], url=["None"], requires_url=[], runtime=["None"]),
    **of(
        verifier,
        tolerance_s=NUMBERS,
        delivery_s=NUMBERS,
        max_body_bytes=["a number"],
        min_key_bits=["a number"],
    ),
    **of(poller, client=[], router=[], rate_per_s=NUMBERS, interval_s=NUMBERS, runtime=["None"]),
    **of(poller, final=["an empty dict", "a dict", "a tuple"]),
    "a store's runtime": (lambda wrong: MemoryEventStore(runtime=wrong), ["None"]),
    "open_event_store": (open_event_store, []),
    **of(
        Emulator,
        seed=["None", "a number"],
        credentials=["None", "a credential"],
        client_id=["None", "text"],
        client_secret=["None", "text"],
        public_key=["None"],
        batches=["None", "an empty dict"],
        merchant_pin=TEXTS,
        token_lifetime_s=["a number"],
        guesses=["None"],
        disabled_checks=["an empty dict"],
        faults=["None"],
        rate_limit=[*NUMBERS, "None"],
        callback_url=["None"],
        callback_key=["None"],
        clock=["a function", "a class"],
    ),
    "advance": (emulator_method("advance"), NUMBERS),
    "faults": (emulator_setter("faults"), []),
    "rate_limit": (emulator_setter("rate_limit"), [*NUMBERS, "None"]),
    "fail_next": (lambda wrong: Emulator().fail_next(wrong, "truncated"), []),
    "fail_next, fault": (lambda wrong: Emulator().fail_next("issue", wrong), []),
}
# A batch of text, a check of text, and a URL of text are of the right type, and wrong otherwise.
VALUES = (ValueError,)


@pytest.mark.parametrize("door", DOORS)
def test_wrong_type_is_refused_at_the_door(door):
    enter, allowed = DOORS[door]
    for name, wrong in WRONG.items():
        if name in allowed:
            continue
        with pytest.raises((ConfigurationError, InvalidRequestError, *VALUES)) as caught:
            entered = enter(wrong)
            if inspect.isawaitable(entered):
                asyncio.run(entered)  # type: ignore[arg-type]
        error = caught.value
        assert isinstance(error, VoucherError) or type(error) is ValueError, (door, name)
        assert re.search(r"[a-z]{2,} .*[a-z]", str(error)), (door, name)
        if name in ("bytes", "a tuple", "text") and isinstance(error, VoucherError):
            assert "secret" not in str(error).replace("client_secret", ""), (door, name)


@pytest.mark.parametrize("path", [Path("key.pem")])
def test_right_types_stay_right(path):
    Credentials("i", "s", path)
    client(hooks=(hook for hook in [print]), token_store=None, timeout=Timeout(total_s=1))
    Emulator(disabled_checks={"nonce"}, batches={"K": 1}, rate_limit=5, token_lifetime_s=5)
