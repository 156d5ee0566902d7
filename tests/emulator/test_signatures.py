"""Signatures, timestamps and nonces: what a request must show besides its token."""

import base64

import attrs
import orjson
import pytest
from support.answers import payload
from support.doubles import NoSigner
from support.raw_requests import (
    BATCHES,
    FIRST_TOKEN,
    GOOD,
    LATE,
    NO_NONCE,
    REPLAYED,
    UNKNOWN_TOKEN,
    UNSIGNED,
    access_token,
    prepared,
    send,
    signed,
    token_asking,
    with_header,
)
from support.rm_signature import expected_text
from yarl import URL

from rm_voucher.emulator import Guesses, authenticator
from rm_voucher.emulator.guesses import Check
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.signing import RsaSigner, format_signature

BODY = b'{"codes":["X"],"note":{"a":"<\xc3\xa9>","b":[1,2]}}'
CANONICAL = rb'{"codes":["X"],"note":{"a":"\u003c' + b"\xc3\xa9" + rb'\u003e","b":[1,2]}}'
REDEEM = ("POST", "/v3/vouchers/redeem?x=1", CANONICAL)


def redeem_request(emulator):
    emulator.add_batch("uploaded", codes=["X"])
    return prepared(emulator, *REDEEM)


@pytest.mark.parametrize(
    "change",
    [
        {"method": "PUT"},
        {"url": "https://emulator.invalid/v3/vouchers/redeem?x=2"},
        {"url": "https://emulator.invalid/v3/vouchers/redeem?x=1&"},
        {"url": "https://emulator.invalid/v3/vouchers/%72edeem?x=1"},
        {"url": "https://emulator.invalid:8443/v3/vouchers/redeem?x=1"},
        {"url": "http://emulator.invalid/v3/vouchers/redeem?x=1"},
        {"body": BODY.replace(b'"X"', b'"Y"')},
        {"body": BODY.replace(b"[1,2]", b"[2,1]")},
        {"body": b""},
        {"X-Nonce-Str": "another"},
        {"X-Timestamp": "1700000001"},
        {"X-Timestamp": "1700000000.0"},
        {"X-Signature": None},
        {"X-Signature": ""},
        {"X-Signature": "sha256 "},
        {"X-Signature": format_signature(b"x" * 256)},
    ],
)
def test_signature_covers_every_part(make, change):
    """Whatever of the request is changed after it was signed, the signature fits no more."""
    emulator = make(disabled_checks=[Check.METHOD])
    changed = redeem_request(emulator)
    for name, value in change.items():
        if name.startswith("X-"):
            changed = with_header(changed, name, value)
        else:
            changed = attrs.evolve(
                changed, **{name: URL(value, encoded=True) if name == "url" else value}
            )
    assert send(emulator, changed) == UNSIGNED
    assert emulator.voucher("X").status == "VALID"


@pytest.mark.parametrize(
    "body",
    [
        BODY,
        CANONICAL,
        b' {\n"note": {"b": [1, 2], "a": "\\u003c\\u00e9>"},\t"codes": ["X"]}\r\n',
    ],
)
def test_signature_is_of_the_canonical_body(emulator, body):
    """A body that is spaced, ordered or escaped in another way is the same JSON, and still good."""
    assert send(emulator, attrs.evolve(redeem_request(emulator), body=body)) == GOOD


@pytest.mark.parametrize(
    ("signed_body", "sent_body"), [(b"", b"{}"), (b"{}", b"null"), (b"null", b" { } ")]
)
def test_empty_bodies_are_not_signed(emulator, signed_body, sent_body):
    """No body, ``null`` and ``{}`` have no part in the signature."""
    emulator.add_batch("x", quantity=1, key="K")
    ready = prepared(emulator, "POST", "/v3/voucher-batch/K/issue", signed_body)
    assert send(emulator, attrs.evolve(ready, body=sent_body)) == GOOD


def of_parts(rewrite):
    """Return a change of the signature's base64."""
    return lambda value: "sha256 " + rewrite(value.removeprefix("sha256 "))


@pytest.mark.parametrize(
    "rewrite",
    [
        of_parts(lambda text: text.rstrip("=")),
        of_parts(lambda text: text + "="),
        of_parts(lambda text: text + "AAAA"),
        of_parts(lambda text: text + "\n"),
        of_parts(lambda text: " " + text),
        of_parts(lambda text: text[:-4]),
        of_parts(lambda text: base64.b64decode(text).hex()),
        of_parts(lambda text: "é" + text),
        of_parts(lambda text: "\udcff" + text),
        lambda value: value.removeprefix("sha256 "),
        lambda value: value.replace("sha256", "SHA256"),
        lambda value: value.replace("sha256", "rsa"),
        lambda value: value.replace(" ", ""),
    ],
)
def test_signature_forms(emulator, rewrite):
    """A signature is written in one way: the scheme, a space, standard base64 with its padding."""
    ready = prepared(emulator, *BATCHES)
    value = rewrite(ready.headers["X-Signature"])
    assert send(emulator, with_header(ready, "X-Signature", value)) == UNSIGNED


def test_signature_in_url_safe_base64_is_refused(emulator):
    """The URL-safe alphabet is another one."""
    for number in range(100):
        ready = prepared(emulator, *BATCHES, token="T", nonce=f"nonce-{number}")
        value = ready.headers["X-Signature"]
        if "+" in value or "/" in value:
            break
    ready = with_header(ready, "Authorization", f"Bearer {access_token(emulator)}")
    safe = with_header(ready, "X-Signature", value.replace("+", "-").replace("/", "_"))
    assert send(emulator, safe) == UNSIGNED
    assert send(emulator, ready) == GOOD


def test_refusal_has_the_text_to_sign(emulator):
    """A refused signature comes with what it should be of, for the log."""
    ready = prepared(emulator, *BATCHES, nonce="n", timestamp=1_700_000_000, signer=NoSigner())
    assert emulator.reply(ready).refused.expected == (
        "method=get&nonceStr=n&requestUrl=https://emulator.invalid/v3/voucher-batches"
        "&signType=sha256&timestamp=1700000000"
    )


def test_refusal_says_what_was_expected(emulator):
    """In the form of RM's page: a text at each step, and for each header whether it is valid."""
    request = with_header(redeem_request(emulator), "X-Signature", "sha256 eA==")
    headers = request.headers
    answer = orjson.loads(emulator.handle(request).body)
    assert forms(answer) == forms(payload("error-signature"))
    steps = [step.get("content") for step in answer["debug"]["preVerifyContent"].values()]
    data = base64.b64encode(CANONICAL).decode()
    text = expected_text(
        "POST", str(request.url), headers["X-Nonce-Str"], headers["X-Timestamp"], CANONICAL
    )
    assert steps == [CANONICAL.decode(), data, text, text, None]
    assert {
        name: (told["currentValue"], told["isValid"])
        for name, told in answer["debug"]["requestHeader"].items()
    } == {
        "X-Nonce-Str": (headers["X-Nonce-Str"], True),
        "X-Signature": ("sha256 eA==", False),
        "X-Timestamp": (headers["X-Timestamp"], True),
    }


def forms(value):
    """Return the types of JSON, whatever it says."""
    if isinstance(value, dict):
        return {name: forms(inner) for name, inner in value.items()}
    return type(value)


@pytest.mark.parametrize(
    ("disabled", "changes", "invalid"),
    [
        ([], {"nonce": "a b"}, {"X-Nonce-Str"}),
        ([], {"nonce": "used"}, {"X-Nonce-Str"}),
        ([], {"timestamp": 1}, {"X-Timestamp"}),
        ([Check.NONCE, Check.TIMESTAMP], {"nonce": "", "timestamp": 1}, set()),
    ],
)
def test_refusal_judges_each_header(make, disabled, changes, invalid):
    """What would be refused by itself is said too, unless it is not checked."""
    emulator = make(disabled_checks=disabled)
    assert signed(emulator, *BATCHES, nonce="used") == GOOD
    request = prepared(emulator, *BATCHES, signer=NoSigner(), **changes)
    debug = orjson.loads(emulator.handle(request).body)["debug"]
    judged = {name for name, told in debug["requestHeader"].items() if not told["isValid"]}
    assert judged == {"X-Signature", *invalid}
    assert [debug["preVerifyContent"][step]["content"] for step in ("step1", "step2")] == ["", ""]


def test_refusal_can_be_silent(make):
    """As RM's production, which says nothing but the code."""
    emulator = make(guesses=Guesses(signature_debug=False))
    request = prepared(emulator, *BATCHES, signer=NoSigner())
    assert orjson.loads(emulator.handle(request).body).keys() == {"error"}


class Another:
    """Signs with a key that is not the client's."""

    def sign(self, text: bytes) -> bytes:
        return RsaSigner.from_pem(new_private_key()).sign(text)


def test_refusal_says_what_is_wrong(emulator):
    """A missing header, another form, another key and another text are told apart."""
    good = prepared(emulator, *BATCHES)
    other = prepared(emulator, *BATCHES, signer=Another(), nonce="m")
    cases = {
        "missing": with_header(good, "X-Signature", None),
        "not the word sha256, a space, and base64": with_header(good, "X-Signature", "sha256 *"),
        "not by the client's key": other,
        "by the client's key, but of another text": with_header(good, "X-Nonce-Str", "else"),
    }
    for words, request in cases.items():
        assert emulator.reply(request).refused.reason == f"X-Signature is {words}"
    short = with_header(good, "X-Signature", "sha256 AAAA")
    assert "not by the client's key" in emulator.reply(short).refused.reason


def test_token_needs_no_signature(emulator):
    """The token endpoint is not signed, and uses no nonce or timestamp."""
    assert send(emulator, token_asking(FIRST_TOKEN)) == (200, "")


@pytest.mark.parametrize(
    ("off_s", "expected"),
    [(0, GOOD), (120, GOOD), (-120, GOOD), (120.001, LATE), (-120.001, LATE), (180, LATE)],
)
@pytest.mark.parametrize("spelling", ["seconds", "fraction", "milliseconds"])
def test_timestamp_window(make, clock, off_s, expected, spelling):
    """The window ends exactly at two minutes, on both sides, however the time is spelt."""
    emulator = make()
    token = access_token(emulator)
    at = 1_700_000_000
    clock.now = at - off_s
    text = {"seconds": f"{at}", "fraction": f"{at}.000", "milliseconds": f"{at}000"}[spelling]
    assert signed(emulator, *BATCHES, token=token, timestamp=text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1700000120.0", GOOD),
        ("1700000120.5", LATE),
        ("1699999879.9", LATE),
        ("1700000120.000000001", GOOD),  # a float of today holds no nanoseconds
        ("1700000119.99", GOOD),  # of 13 characters, yet no milliseconds
        ("1700000120.01", LATE),
        ("1700000120000", GOOD),
        ("1700000120001", LATE),
        ("1699999879999", LATE),
    ],
)
def test_timestamp_fractions_count(emulator, text, expected):
    """What stands behind the seconds is part of the time."""
    assert signed(emulator, *BATCHES, timestamp=text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "17000000000",
        "170000000",
        "1700000000.",
        "1700000000.0000000000",
        "1700000000000.0",
        "+1700000000",
        " 1700000000",
        "1700000000\n",
        "1_700_000_000",
        "1.7e9",
        "nan",
        "inf",
        "0x6553f100",
        "2023-11-14T22:13:20Z",
        "1700000000,0",
        "١٧٠٠٠٠٠٠٠٠",
        "1700000000000000",
    ],
)
def test_timestamp_garbage(emulator, text):
    """What is none of the three spellings is refused, even when the signature is good."""
    assert signed(emulator, *BATCHES, timestamp=text) == LATE


def test_timestamp_is_required(emulator):
    """A request without a timestamp is refused, even when that is what was signed."""
    ready = prepared(emulator, *BATCHES, timestamp="")
    assert send(emulator, with_header(ready, "X-Timestamp", None)) == LATE


def test_signature_is_looked_at_before_the_timestamp(emulator):
    """In RM's example of a request that fails by both, the signature is what it is refused for."""
    assert send(emulator, prepared(emulator, *BATCHES, timestamp=1, signer=Another())) == UNSIGNED


@pytest.mark.parametrize(("off_s", "words"), [(121, "121 s behind"), (-180, "180 s ahead")])
def test_timestamp_refusal_says_how_far(emulator, clock, off_s, words):
    """The refusal says how far the client's clock is off, and to which side."""
    ready = prepared(emulator, *BATCHES)
    clock.now += off_s
    assert emulator.reply(ready).refused.message == f"X-Timestamp is {words}"


def test_nonce_works_once(emulator):
    """A request that was sent before is refused, whole or with its nonce only."""
    ready = prepared(emulator, *BATCHES, nonce="once")
    assert send(emulator, ready) == GOOD
    assert send(emulator, ready) == REPLAYED
    assert signed(emulator, "GET", "/v3/voucher-batches?cursor=", nonce="once") == REPLAYED
    assert signed(emulator, *BATCHES, nonce="Once") == GOOD
    assert send(emulator, ready) == REPLAYED


def test_replayed_issue_issues_once(emulator):
    """A replayed issue leaves the stock alone."""
    emulator.add_batch("x", quantity=2, key="K")
    ready = prepared(emulator, "POST", "/v3/voucher-batch/K/issue", b"{}")
    assert [send(emulator, ready) for _ in range(2)] == [GOOD, REPLAYED]
    assert len(emulator.state.issued("K")) == 1


def test_refused_work_uses_up_the_nonce(emulator):
    """A request that may pass uses up its nonce, also when its work is refused."""
    ready = prepared(emulator, "POST", "/v3/voucher/none")
    assert send(emulator, ready) == (404, "VOUCHER_NOT_FOUND")
    assert send(emulator, ready) == REPLAYED


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("X-Signature", "sha256 eA==", UNSIGNED),
        ("X-Timestamp", "1600000000", UNSIGNED),
        ("Authorization", "Bearer forged", UNKNOWN_TOKEN),
    ],
)
def test_forgery_uses_up_no_nonce(emulator, name, value, expected):
    """Who can't sign can't spoil the nonce of one who can."""
    ready = prepared(emulator, *BATCHES)
    assert send(emulator, with_header(ready, name, value)) == expected
    assert send(emulator, ready) == GOOD


def test_wrong_method_uses_up_no_nonce(emulator):
    """A request that no path takes is refused before it is looked at."""
    ready = prepared(emulator, "PUT", "/v3/voucher-batches")
    assert [send(emulator, ready) for _ in range(2)] == [(405, "METHOD_NOT_ALLOWED")] * 2


@pytest.mark.parametrize(
    ("nonce", "expected"),
    [
        ("", NO_NONCE),
        ("x", GOOD),
        ("x" * 32, GOOD),
        ("x" * 128, GOOD),
        ("x" * 129, NO_NONCE),
        ("x x", NO_NONCE),
        (" ", NO_NONCE),
    ],
)
def test_nonce_form(emulator, nonce, expected):
    """A nonce is there, of a length that can be remembered, and has no space."""
    assert signed(emulator, *BATCHES, nonce=nonce) == expected


def test_nonce_header_is_required(emulator):
    """A header that is left out is an empty nonce, even when that is what was signed."""
    ready = prepared(emulator, *BATCHES, nonce="")
    assert send(emulator, with_header(ready, "X-Nonce-Str", None)) == NO_NONCE


def test_nonce_is_forgotten_after_two_minutes(make, clock):
    """For 120 s it is refused when it comes again; after them it is as new."""
    emulator = make()
    token = access_token(emulator)
    used_at = clock.now
    for wait_s, expected in [(0, GOOD), (60, REPLAYED), (120, REPLAYED), (121, GOOD)]:
        clock.now = used_at + wait_s
        outcome = signed(
            emulator, *BATCHES, nonce="a", token=token, timestamp=int(used_at + wait_s)
        )
        assert outcome == expected
    signed(emulator, *BATCHES, nonce="b", token=token, timestamp=int(clock.now))
    assert len(emulator.authenticator._nonces) == 2
    clock.now += 121
    signed(emulator, *BATCHES, nonce="c", token=token, timestamp=int(clock.now))
    assert list(emulator.authenticator._nonces) == ["c"]


def test_nonces_are_bounded(make, monkeypatch):
    """Where the clock stands still, the oldest is forgotten once there are too many."""
    monkeypatch.setattr(authenticator, "_MAX_NONCES", 2)
    emulator = make()
    token = access_token(emulator)
    outcomes = [
        signed(emulator, *BATCHES, nonce=nonce, token=token) for nonce in ("a", "b", "a", "c", "a")
    ]
    assert outcomes == [GOOD, GOOD, REPLAYED, GOOD, GOOD]
    assert len(emulator.authenticator._nonces) == 2


def test_reset_keeps_the_gate(emulator):
    """Beginning anew ends no token and forgets no nonce."""
    token = access_token(emulator)
    ready = prepared(emulator, *BATCHES, token=token)
    assert send(emulator, ready) == GOOD
    emulator.reset()
    assert send(emulator, ready) == REPLAYED
    assert signed(emulator, *BATCHES, token=token) == GOOD
