"""A refused signature is explained: what the server says it expected, against what was sent."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import attrs
import pytest
from support.answers import payload
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from yarl import URL

from rm_voucher import Credentials, Request, SignatureError
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.signing.signature import string_to_sign
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.wire.signature_debug import explain

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
CODE, PIN = "Canary@9", "PinCanary"
REFUSES_NONCE = "It refuses the nonce: a space is in it, or it came before within two minutes."
READ = "RM read otherwise than was sent: "


def url(change: Callable[[str], str]) -> Callable[[Request], Request]:
    return lambda sent: attrs.evolve(sent, url=URL(change(str(sent.url)), encoded=True))


def header(name: str, value: str) -> Callable[[Request], Request]:
    return lambda sent: attrs.evolve(sent, headers={**sent.headers, name: value})


def body(value: bytes) -> Callable[[Request], Request]:
    return lambda sent: attrs.evolve(sent, body=value)


# What a proxy makes of a request, what differs then, and how that is said.
CHANGES: dict[str, tuple[Callable[[Request], Request], tuple[str, ...], str]] = {
    "host": (
        url(lambda text: text.replace("https://emulator.invalid", "http://inner.invalid:8080")),
        ("url",),
        f"{READ}the URL (its scheme or host, http://inner.invalid:8080: is there a proxy?).",
    ),
    "odd host": (
        url(lambda text: text.replace("emulator", "Em_ulator")),
        ("url",),
        f"{READ}the URL (its scheme or host: is there a proxy?).",
    ),
    "escapes": (
        url(lambda text: text.replace("Canary", "%43anary")),
        ("url",),
        f"{READ}the URL (its path is percent-encoded otherwise).",
    ),
    "path": (
        url(lambda text: text.replace("nary", "nery")),
        ("url",),
        f"{READ}the URL (its path).",
    ),
    "query": (url(lambda text: text + "?x=1"), ("url",), f"{READ}the URL (its query)."),
    "nonce": (header("X-Nonce-Str", "other"), ("nonce",), f"{READ}the nonce."),
    "spaced nonce": (
        header("X-Nonce-Str", "o r"),
        ("nonce",),
        f"{READ}the nonce. {REFUSES_NONCE}",
    ),
    "timestamp": (header("X-Timestamp", "1700000001"), ("timestamp",), f"{READ}the timestamp."),
    "timestamp and nonce": (
        lambda sent: header("X-Nonce-Str", "o")(header("X-Timestamp", "1600000000")(sent)),
        ("nonce", "timestamp"),
        f"{READ}the nonce, the timestamp. By the answer's date the two clocks agree.",
    ),
    "signature": (header("X-Signature", "sha256 eA=="), ("signature",), f"{READ}the signature."),
    "no body": (body(b""), ("body",), f"{READ}the body (it saw none)."),
    "another body": (body(b'{"pin":"x"}'), ("body",), f"{READ}the body."),
}


@pytest.mark.parametrize("name", CHANGES)
async def test_what_differs_is_said(
    name: str, clock: Callable[[], float], caplog: pytest.LogCaptureFixture
) -> None:
    """Each part that something changes on the way is named, and nothing that is secret."""
    caplog.set_level(logging.DEBUG)
    change, differs, words = CHANGES[name]
    error = await refusal(clock, change)
    assert error.differs == differs
    assert str(error).endswith(f": The signature does not match. {words}")
    assert error.hint in str(error)
    for text in (str(error), repr(error), caplog.text, str(pickle.dumps(error))):
        assert not any(secret in text for secret in (CODE, "Canary", PIN, "data="))
    assert error.expected is not None
    assert PIN not in error.expected
    assert error.expected.startswith(
        "method=patch" if name == "no body" else "data=(the body)&method=patch"
    )


async def refusal(
    clock: Callable[[], float],
    change: Callable[[Request], Request],
    *,
    credentials: Credentials = ME,
    **guesses: Any,
) -> SignatureError:
    emulator = Emulator(
        credentials=ME,
        public_key=PUBLIC_KEY_FILE.read_bytes(),
        clock=clock,
        guesses=Guesses(**guesses),
    )

    def pass_on(request: Request) -> Any:
        return emulator.handle(request if request.operation == "token" else change(request))

    transport = MemoryTransport(pass_on)
    emulator.credentials = credentials
    async with emulator.client(transport=transport) as client:
        with pytest.raises(SignatureError) as caught:
            await client.reinstate(CODE, pin=PIN, reason="r")
    return caught.value


@pytest.fixture
def clock() -> Callable[[], float]:
    return lambda: 1_700_000_000.0


async def test_another_key(clock: Callable[[], float]) -> None:
    """Where the text is the very one, the key is another: the commonest mistake of all."""
    other = Credentials("client-id", "client-secret", new_private_key())
    error = await refusal(clock, lambda sent: sent, credentials=other)
    assert error.differs == ("key",)
    assert str(error).endswith(
        "not the pair of the public key in the portal. RM expected the very text "
        "that was signed, so it is the key that differs."
    )


async def test_server_that_does_not_say(clock: Callable[[], float]) -> None:
    """Production says nothing; nor does the error."""
    error = await refusal(clock, header("X-Nonce-Str", "other"), signature_debug=False)
    assert (error.differs, error.expected) == ((), None)
    assert str(error).endswith("in the portal.")


async def test_copies_have_no_code(clock: Callable[[], float]) -> None:
    """The expected text has a code in its URL, so that a copy and a pickle go without."""
    error = await refusal(clock, header("X-Nonce-Str", "other"))
    assert error.expected is not None
    assert "Canary" in error.expected
    for copied in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (copied.expected, copied.message) == (None, "")
        assert (copied.differs, str(copied)) == (error.differs, str(error))


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Yield the path of each value in JSON, the outer ones too."""
    yield path
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, (*path, name))


EXAMPLE = payload("error-signature")
SENT = Request(
    operation="reinstate",
    method="PATCH",
    url=URL("https://sb-open.revenuemonster.my/v3/voucher/NAklEfbVdV/reinstate", encoded=True),
    headers={
        "X-Nonce-Str": "XAYZRZNLGCKSTURRFKBIGYALUKLCLJOG",
        "X-Timestamp": "1599467903",
        "X-Signature": "sha256 eA==",
    },
    body=rb'{"pin":"123456","reason":"\u003cx\u003e"}',
)


def explained(answer: Any, sent: Request = SENT, offset_s: float | None = None) -> SignatureError:
    error = SignatureError("INVALID_REQUEST_SIGNATURE", "", 401, "Hint.")
    explain(error, answer, sent, clock_offset_s=offset_s)
    return error


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [
        (None, ""),
        (0.0, " By the answer's date the two clocks agree."),
        (130.0, " By the answer's date this machine's clock is 130 s behind RM's."),
        (-3600.4, " By the answer's date this machine's clock is 3600 s ahead of RM's."),
    ],
)
def test_example_of_the_page(offset_s: float | None, words: str) -> None:
    """RM's example: the very text, and a timestamp that is too old."""
    error = explained(EXAMPLE, offset_s=offset_s)
    assert error.differs == ("key", "timestamp")
    assert str(error).endswith(f"it is the key that differs.{words}")


def test_signature_that_is_valid_blames_no_key() -> None:
    """A server that takes the signature, and not the timestamp, does not mean the key."""
    answer = copy.deepcopy(EXAMPLE)
    answer["debug"]["requestHeader"]["X-Signature"]["isValid"] = True
    assert explained(answer).differs == ("timestamp",)


@pytest.mark.parametrize("path", sorted(leaves(EXAMPLE)), ids=".".join)
@pytest.mark.parametrize("junk", [None, 0, "", "x", [], {}, "data=&method=&nonceStr=", "=" * 99])
def test_debug_of_a_stranger(path: tuple[str, ...], junk: Any) -> None:
    """Whatever stands in its place, the error is the same but for what it tells."""
    answer: Any = copy.deepcopy(EXAMPLE)
    at = answer
    for name in path[:-1]:
        at = at[name]
    if path:
        at[path[-1]] = junk
    else:
        answer = {}
    error = explained(answer)
    others = set(error.differs) - {"key", "timestamp"}
    told = "The signature does not match. " if others else "Hint."
    assert str(error).startswith(f"INVALID_REQUEST_SIGNATURE (HTTP 401): {told}")


@pytest.mark.parametrize("where", ["debug", "error"])
def test_debug_as_text(where: str) -> None:
    """It may also be the text alone, and stand under the error."""
    text = EXAMPLE["debug"]["preVerifyContent"]["step3"]["content"]
    answer = {"debug": text} if where == "debug" else {"error": {"code": "X", "debug": text}}
    assert explained(answer).differs == ("key",)


@pytest.mark.parametrize(
    ("told", "sent", "words"),
    [
        (b'{ "a": 1 }', b'{"a":1}', "the body (the same JSON, written otherwise)"),
        (b"{", b'{"a":1}', "the body"),
        (b"[" * 1000 + b"]" * 1000, b"[" * 999 + b"]" * 999, "the body"),
        (b'{"a":1}', b"", "the body (none was sent)"),
    ],
)
def test_bodies_that_differ(told: bytes, sent: bytes, words: str) -> None:
    """The body is compared as what it says, however it is written."""
    request = attrs.evolve(SENT, body=sent)
    assert f"{READ}{words}." in str(explained({"debug": expected_of(body=told)}, request))


@pytest.mark.parametrize(
    ("parts", "differs", "words"),
    [
        ({"method": "POST"}, ("method",), "the method (post)"),
        ({"method": "CODE"}, ("method",), "the method"),
        ({"url": None}, ("url",), "the URL (its scheme or host: is there a proxy?)"),
        ({"url": "https://["}, ("url",), "the URL"),
        (
            {"url": "https://x/a&signType=b"},
            ("url",),
            "the URL (its scheme or host, https://x: is ",
        ),
    ],
)
def test_parts_that_differ(parts: dict[str, Any], differs: tuple[str, ...], words: str) -> None:
    """Nothing of the server's is repeated that may be a code."""
    error = explained({"debug": expected_of(**parts)})
    assert error.differs == differs
    assert f"{READ}{words}" in str(error)


def test_body_that_is_no_base64() -> None:
    """It only differs."""
    text = expected_of().replace("data=", "data=é")
    assert f"{READ}the body." in str(explained({"debug": text}))


def expected_of(**parts: Any) -> str:
    same = {
        "method": SENT.method,
        "url": str(SENT.url),
        "nonce": SENT.headers["X-Nonce-Str"],
        "timestamp": SENT.headers["X-Timestamp"],
        "body": SENT.body,
    }
    return string_to_sign(**{**same, **parts})
