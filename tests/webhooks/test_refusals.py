"""The verifier: what it refuses, at which step, and that no refusal shows what came."""

import base64
import json
import logging
import pickle
import re

import attrs
import pytest
from multidict import CIMultiDict
from support import canaries as leaks
from support.deliveries import NONCE, NOW, URL, Delivery, deliver, told, verifier

from rm_voucher import CallbackError
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.signing import RsaSigner
from rm_voucher.webhooks import CallbackStep

NAMES = ["X-Signature", "X-Nonce-Str", "X-Timestamp"]
MAX_BYTES = 64 * 1024


def refused(headers, body, *, check=None):
    """Return the error that a delivery is refused with."""
    with pytest.raises(CallbackError) as caught:
        (check or verifier()).verify(headers, body)
    return caught.value


def step_of(headers, body, *, check=None):
    return refused(headers, body, check=check).step


def nested(depth, opening="[", closing="]"):
    return b'{"a":' + (opening * depth + "1" + closing * depth).encode() + b"}"


@pytest.mark.parametrize("name", NAMES)
def test_header_that_is_missing(name):
    """Each of the three headers is needed, and the message names the one that is not there."""
    delivery = deliver()
    headers = {key: value for key, value in delivery.headers.items() if key != name}
    error = refused(headers, delivery.body)
    assert (error.step, str(error)) == ("headers", f"{name} is missing")


def test_no_headers_at_all():
    """A request that is no callback at all is refused like any other."""
    assert step_of({}, b"") == "headers"


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("again", [str, str.lower, str.upper], ids=["same", "lower", "upper"])
@pytest.mark.parametrize("value", [None, "", "other"], ids=["equal", "empty", "other"])
@pytest.mark.parametrize("first", [False, True])
def test_header_that_came_twice(name, again, value, first):
    """Each of the three may be there once, whatever the second says, however it is written."""
    delivery = deliver()
    pairs = list(delivery.headers.items())
    value = delivery.headers[name] if value is None else value
    pairs.insert(0 if first else len(pairs), (again(name), value))
    for headers in (pairs, iter(pairs), CIMultiDict(pairs)):
        error = refused(headers, delivery.body)
        assert (error.step, str(error)) == ("headers", f"{name} came twice")


@pytest.mark.parametrize("name", NAMES)
def test_headers_that_were_joined(name):
    """Two of a kind that a server joined with a comma are no header of RM's."""
    delivery = deliver()
    value = delivery.headers[name]
    for comma, nonce_step in ((", ", "headers"), (",", "signature")):
        steps = dict(zip(NAMES, ["signature", nonce_step, "timestamp"], strict=True))
        joined = {**delivery.headers, name: f"{value}{comma}{value}"}
        assert step_of(joined, delivery.body) == steps[name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [None, 1_700_000_000, b"x", ["x"]])
def test_header_that_is_no_text(name, value):
    """A header that a framework gives as something else is refused, and raises nothing else."""
    delivery = deliver()
    error = refused({**delivery.headers, name: value}, delivery.body)
    assert (error.step, str(error)) == ("headers", f"{name} must be text")


def test_header_names_that_are_no_text():
    """ASGI's pairs of bytes are not looked through in vain: the message says what is wrong."""
    delivery = deliver()
    pairs = [(name.encode(), value.encode()) for name, value in delivery.headers.items()]
    error = refused(pairs, delivery.body)
    assert (error.step, str(error)) == ("headers", "the headers' names must be text")


@pytest.mark.parametrize(
    "nonce",
    [
        *("", "n" * 129, "a&b", "&", "a b", " a", "a ", "\t", "a\n", "\n", "\r\n", "a\0", "\x7f"),
        *("é", "ｎ", "\u200b", "\udc80", "a\u2028"),
    ],
)
def test_nonce_that_is_not_plain(nonce):
    """A nonce that was signed but isn't plain text is refused: it may hold other parameters."""
    delivery = attrs.evolve(deliver(), nonce=nonce)
    if nonce.isascii():
        delivery = deliver(nonce=nonce)
    error = refused(*delivery)
    assert (error.step, "1 to 128 printable ASCII" in str(error)) == ("headers", True)


@pytest.mark.parametrize("nonce", ["0", "n" * 128, "".join(map(chr, {*range(33, 127)} - {38}))])
def test_nonce_that_is_plain(nonce):
    """Any other printable ASCII is a nonce, up to 128 characters."""
    assert verifier().authenticate(*deliver(nonce=nonce)) == told()


SPLICED = f"{NONCE}&requestUrl=https://other.invalid/callback"


@pytest.mark.parametrize("ours", [None, "https://other.invalid/callback", URL])
def test_delivery_to_another_url_spliced_into_the_form_without(ours):
    """A delivery to another URL, which is moved into the nonce so that the signed text is one that
    names no URL, is refused: its signature is good, and only the nonce gives it away."""
    real = deliver(url="https://other.invalid/callback")
    same = deliver(url=None, nonce=SPLICED)
    assert same.signature == real.signature
    assert step_of(*attrs.evolve(real, nonce=SPLICED), check=verifier(url=ours)) == "headers"


@pytest.mark.parametrize(
    "timestamp",
    [
        *("1" * digits for digits in (9, 11, 12, 14, 16, 19, 400)),
        *("", " ", "-", "0", "-1700000000", "+1700000000"),
        *("soon", "2023-11-14T22:13:20Z", "1700000000.", ".1700000000"),
        *("1700000000.1234567890", "1700000000,5", "1.7e9", "1_700_000_000", "0x6553f100", "nan"),
        *("１７００００００００", "١٧٠٠٠٠٠٠٠٠", "1700000000\n", " 1700000000", "1700000000 "),
        *("1700000000&a=b", "1700000000\0", "inf", "1700000000.5.5", "1700000000000.5"),
    ],
)
def test_timestamp_that_is_none(timestamp):
    """A timestamp that was signed but isn't in unix seconds or milliseconds is refused."""
    error = refused(*deliver(timestamp=timestamp))
    assert (error.step, str(error)) == ("timestamp", "X-Timestamp is not in unix seconds")


@pytest.mark.parametrize("timestamp", ["0000000000", "9999999999", "0000000000000", "9" * 13])
def test_timestamp_of_another_century(timestamp):
    """The first and last times that can be written are a matter of the clock, and no defect."""
    assert step_of(*deliver(timestamp=timestamp)) == "clock"
    unhurried = verifier(tolerance_s=float("inf"))
    sent_at = unhurried.verify(*deliver(timestamp=timestamp)).sent_at
    assert sent_at is not None
    assert sent_at.year in (1970, 2286)


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"{", b"}", b"{}{}", b"{'a':1}", b'{"a":1,}', b"\xff\xfe{\0}\0", b"\0"),
        *(b'{"a":"\xff"}', b'{"a":"\xed\xa0\x80"}', b'{"a":"\\ud800"}', b'{"a":"\xc0\xaf"}'),
        *(b"\xef\xbb\xbf{}", b'{"a":NaN}', b'{"a":Infinity}', b'{"a":1e999}', b'{"a":01}', b"nul"),
        *(b'{"a":"\n"}', b"\x0b{}", "\u00a0{}".encode(), b"{}\0", b'{"a":' + b"9" * 400 + b"}"),
        *(b"null", b"[]", b"1", b'"SUCCESS"', b"true", b'[{"code":"SUCCESS"}]', b"[" * 60_000),
        *(nested(1025), nested(30_000), b'{"a":' * 1025 + b"1" + b"}" * 1025),
        *(nested(32), nested(254), nested(1000), nested(16, '[{"a":', "}]")),
    ],
    ids=lambda body: repr(body[:12]),
)
def test_body_that_is_no_json_object(body):
    """Only a JSON object is looked at further; nothing else is raised, at whatever depth."""
    assert step_of(*attrs.evolve(deliver(), body=body)) == "body"


def test_body_of_depth_100000():
    """Depth costs no recursion, where the size lets it through."""
    body = b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    assert (
        step_of(*attrs.evolve(deliver(), body=body), check=verifier(max_body_bytes=10**6)) == "body"
    )


def test_body_as_deep_as_can_be():
    """32 levels are read, signed and returned; the 33rd is refused above."""
    value = json.loads(nested(31))
    assert verifier().authenticate(*deliver(value)) == value


@pytest.mark.parametrize("kind", [bytes.decode, bytearray, memoryview, json.loads, lambda _: None])
def test_body_that_is_no_bytes(kind):
    """A body that was decoded or parsed before is refused, and the message says what is wanted."""
    delivery = deliver()
    error = refused(delivery.headers, kind(delivery.body))
    assert (error.step, str(error)) == ("body", "the body must be bytes, as it came")


def padded(size):
    delivery = deliver()
    return attrs.evolve(delivery, body=delivery.body.ljust(size))


@pytest.mark.parametrize("size", [MAX_BYTES + 1, 10 * 1024 * 1024])
def test_body_that_is_too_long(size):
    """One byte over the maximum is too much, however well it is signed."""
    error = refused(*padded(size))
    assert (error.step, str(error)) == ("size", "the body has more than 65536 bytes")


def test_body_of_the_greatest_length():
    """The maximum itself is accepted, and can be set."""
    assert verifier().authenticate(*padded(MAX_BYTES)) == told()
    assert step_of(*deliver(), check=verifier(max_body_bytes=100)) == "size"
    assert verifier(max_body_bytes=MAX_BYTES * 2).authenticate(*padded(MAX_BYTES + 1)) == told()


def resigned(change):
    """Return a delivery whose X-Signature is written in another way."""
    delivery = deliver()
    return attrs.evolve(delivery, signature=change(delivery.signature))


def plain(signature):
    return signature.removeprefix("sha256 ")


@pytest.mark.parametrize(
    "change",
    [
        lambda one: plain(one),
        lambda one: f"SHA256 {plain(one)}",
        lambda one: f"sha1 {plain(one)}",
        lambda one: f"sha256={plain(one)}",
        lambda one: f"sha256\t{plain(one)}",
        lambda one: f"sha256  {plain(one)}",
        lambda one: f" {one}",
        lambda one: f"{one}\n",
        lambda one: f"{one} ",
        lambda one: f"{one}=",
        lambda one: f"{one}AAAA",
        lambda one: one.rstrip("="),
        lambda one: one[:200] + "\n" + one[200:],
        lambda one: f"{one}é",
        lambda one: f"sha256 \udc80{plain(one)}",
        lambda _: "sha256 *",
        lambda _: "sha256",
        lambda _: "",
    ],
)
def test_signature_that_is_not_written_as_one(change):
    """Without the word, the space and standard base64 nothing is a signature."""
    error = refused(*resigned(change))
    wanted = "X-Signature is not the word sha256, a space, and base64"
    assert (error.step, str(error)) == ("signature", wanted)


def test_signature_in_the_base64_of_urls():
    """A signature that is good but for the alphabet of its base64 is refused."""
    delivery = next(
        one
        for number in range(100)
        if {"+", "/"} <= set((one := deliver(nonce=f"{number}")).signature)
    )
    urlsafe = base64.urlsafe_b64encode(base64.b64decode(plain(delivery.signature))).decode()
    assert step_of(*attrs.evolve(delivery, signature=f"sha256 {urlsafe}")) == "signature"
    assert verifier().authenticate(*delivery) == told()


@pytest.mark.parametrize("raw", [b"", b"\0", b"\0" * 256, b"\xff" * 256, b"\1" * 255, b"\1" * 257])
def test_signature_of_another_length_or_number(raw):
    """Bytes that no key ever made are refused, longer and shorter ones too."""
    signature = f"sha256 {base64.b64encode(raw).decode()}"
    error = refused(*attrs.evolve(deliver(), signature=signature))
    assert error.step == "signature"
    assert "by none of the public keys" in str(error)


def test_signature_by_another_key():
    """Whoever has another key can sign nothing, and the message says that the key is wrong."""
    error = refused(*deliver(signer=RsaSigner.from_pem(new_private_key())))
    assert (error.step, str(error)) == ("signature", "X-Signature is by none of the public keys")


@pytest.mark.parametrize(
    "delivery",
    [
        attrs.evolve(deliver(), nonce="another"),
        attrs.evolve(deliver(), timestamp=str(NOW + 1)),
        attrs.evolve(deliver(), timestamp=f"{NOW}.0"),
        attrs.evolve(deliver(), timestamp=f"{NOW}000"),
        deliver(url="https://other.invalid/"),
        deliver(url=URL + "/"),
        deliver(url=URL.upper()),
        deliver(url=""),
        *(deliver(method=method) for method in ("GET", "PUT", "")),
        *(deliver(body=json.dumps(told("OTHER")).encode()), deliver(body=b"{}")),
        deliver({}, body=deliver().body),
        deliver(body=json.dumps(told(status="ISSUED")).encode()),
        deliver(body=json.dumps(told(amount=1)).encode()),
        deliver(body=json.dumps({**told(), "more": None}).encode()),
    ],
)
def test_signature_of_something_else(delivery):
    """A signature is good for its own delivery only; the URL may hold a secret and is not told."""
    error = refused(*delivery)
    assert error.step == "signature"
    assert "by the server's key, but of something else" in str(error)
    assert URL not in str(error)


def without(name):
    value = told()
    del value["item"][name]
    return value


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ({}, r"expected an object @ \$.item"),
        ({**told(), "code": "FAILURE"}, "does not say SUCCESS"),
        ({**told(), "code": None}, "does not say SUCCESS"),
        ({**told(), "code": "success"}, "does not say SUCCESS"),
        ({**told(), "code": ["SUCCESS"]}, "does not say SUCCESS"),
        ({"error": {"code": "X", "message": "NAklEfbVdV"}}, r"an object @ \$.item"),
        ({"code": "SUCCESS"}, r"an object @ \$.item"),
        ({"code": "SUCCESS", "item": None}, r"an object @ \$.item"),
        ({"code": "SUCCESS", "item": [told()["item"]]}, r"an object @ \$.item"),
        ({"code": "SUCCESS", "item": "NAklEfbVdV"}, r"an object @ \$.item"),
        ({"code": "SUCCESS", "item": {}}, r"missing @ \$.item.code"),
        (without("code"), r"missing @ \$.item.code"),
        (told(""), r"missing @ \$.item.code"),
        (told(None), r"missing @ \$.item.code"),
        (told(12345678), r"expected text @ \$.item.code"),
        (told(["NAklEfbVdV"]), r"expected text @ \$.item.code"),
        (without("status"), r"missing @ \$.item.status"),
        (told(status=""), r"missing @ \$.item.status"),
        (told(status=None), r"missing @ \$.item.status"),
        (told(status=1), r"expected text @ \$.item.status"),
        (told("NAkl\0VdV"), "no NUL"),
        (told(status="VOID\0"), "no NUL"),
        (told(updatedAt="2018-09-28T17:19:44"), r"an RFC 3339 time @ \$.item.updated_at"),
        (told(updatedAt="2018-02-30T17:19:44Z"), r"that exists @ \$.item.updated_at"),
        (told(updatedAt=1538155184), r"expected text @ \$.item.updated_at"),
    ],
)
def test_signed_body_that_is_no_event(value, words):
    """What RM signed but shows no voucher with code and status is refused at the last step."""
    error = refused(*deliver(value))
    assert error.step == "event"
    assert re.search(words, str(error))
    assert "NAkl" not in str(error)


def test_body_without_a_code_of_its_own():
    """RM's word is asked for where there is one; a body with no code is an event all the same."""
    value = told()
    del value["code"]
    assert verifier().verify(*deliver(value)).code == "NAklEfbVdV"


GOOD = deliver(told(leaks.CODE), nonce="n0nce-Canary-55a1")
SECRETIVE: list[tuple[CallbackStep, Delivery]] = [
    (CallbackStep.SIZE, attrs.evolve(GOOD, body=GOOD.body.ljust(MAX_BYTES + 1))),
    (CallbackStep.HEADERS, attrs.evolve(GOOD, nonce=f"{GOOD.nonce}&")),
    (CallbackStep.TIMESTAMP, attrs.evolve(GOOD, timestamp="soon")),
    (CallbackStep.BODY, attrs.evolve(GOOD, body=GOOD.body + b"}")),
    (CallbackStep.SIGNATURE, attrs.evolve(GOOD, body=GOOD.body.replace(b"VOID", b"VOIX"))),
    (CallbackStep.CLOCK, deliver(told(leaks.CODE), nonce=GOOD.nonce, timestamp=NOW - 9999)),
    (CallbackStep.EVENT, deliver(told(leaks.CODE, updatedAt=leaks.CODE), nonce=GOOD.nonce)),
]


def test_steps_are_all_here():
    """A new step has its row above."""
    assert [step for step, _ in SECRETIVE] == list(CallbackStep)


@pytest.mark.parametrize(
    ("check", "step", "delivery"),
    [("verify", *row) for row in SECRETIVE] + [("authenticate", *row) for row in SECRETIVE[:-1]],
)
def test_refusal_shows_nothing(monkeypatch, caplog, check, step, delivery):
    """Neither text, repr, pickle, frames nor causes of a refusal show code, signature or nonce; and
    the pickle keeps the step."""
    caplog.set_level(logging.DEBUG)
    shown = {"code": leaks.CODE, "nonce": GOOD.nonce, "signature": plain(delivery.signature)}
    monkeypatch.setattr(leaks, "_FORMS", {name: leaks._forms(one) for name, one in shown.items()})
    with pytest.raises(CallbackError) as caught:
        getattr(verifier(), check)(*delivery)
    assert caught.value.step == step
    assert leaks.in_error(caught.value) == []
    assert caplog.text == ""
    assert len(leaks.tree(caught.value)) == 1
    again = pickle.loads(pickle.dumps(caught.value))
    assert (again.step, str(again)) == (step, str(caught.value))
