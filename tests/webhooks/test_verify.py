"""The verifier: which deliveries it accepts, when they are too old, and how it is made."""

import email.message
import json
import subprocess
import traceback
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from multidict import CIMultiDict, CIMultiDictProxy, MultiDict
from support.deliveries import NOW, PUBLIC_KEY, SIGNER, URL, Delivery, deliver, told, verifier
from support.doubles import FakeTime
from support.files import KEY_FILE, PUBLIC_KEY_FILE, TESTS

from rm_voucher import CallbackError, ConfigurationError, VoucherStatus
from rm_voucher.converters import parse_time
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.runtime import Runtime
from rm_voucher.signing import (
    RsaSigner,
    RsaVerifier,
    canonical_json,
    format_signature,
    string_to_sign,
)
from rm_voucher.testing import CallbackReceiver
from rm_voucher.webhooks import CallbackVerifier

MINUTE = 60


@pytest.fixture(scope="module")
def other_signer():
    return RsaSigner.from_pem(new_private_key())


@pytest.mark.parametrize("url", [URL, None], ids=["names the URL", "names none"])
def test_both_forms_are_accepted(url):
    """RM's example is accepted, whether its signature names the URL or leaves it out."""
    event = verifier().verify(*deliver(url=url))
    assert (event.code, event.status) == ("NAklEfbVdV", VoucherStatus.VOID)
    assert event.updated_at == parse_time("2018-09-28T17:19:44.686549Z")
    assert event.sent_at == datetime.fromtimestamp(NOW, UTC)


def test_example_is_accepted_as_it_stands():
    """RM's example payload, with the white space and order of its file, is the signed one."""
    body = (TESTS / "payloads" / "webhook-callback.json").read_bytes()
    assert b"\n  " in body
    assert verifier().authenticate(*deliver(body=body)) == told()


def test_without_a_url_only_the_form_without_is_accepted():
    """A verifier that knows no URL accepts the form without, and says why it refuses the other."""
    knows_none = verifier(url=None)
    assert knows_none.verify(*deliver(url=None)).code == "NAklEfbVdV"
    with pytest.raises(CallbackError, match="names a URL, and none is set here") as caught:
        knows_none.verify(*deliver())
    assert caught.value.step == "signature"


def test_another_url():
    """A signature that names another URL is refused, and the message says that it may be that."""
    with pytest.raises(CallbackError, match=r"or it names another URL than is set here$") as caught:
        verifier(url="https://merchant.invalid/elsewhere").verify(*deliver())
    assert caught.value.step == "signature"


def test_requires_url():
    """With requires_url the form without a URL is refused, and the message says so."""
    strict = verifier(requires_url=True)
    assert strict.verify(*deliver()).code == "NAklEfbVdV"
    with pytest.raises(
        CallbackError, match="names no URL or another one than is set here"
    ) as caught:
        strict.verify(*deliver(url=None))
    assert caught.value.step == "signature"


@pytest.mark.parametrize("url", [URL, None])
@pytest.mark.parametrize("turned", [False, True])
def test_two_keys_either_may_have_signed(other_signer, turned, url):
    """While RM changes keys, the old and the new one are accepted side by side, in any order."""
    keys = [PUBLIC_KEY, other_signer.public_key_pem()]
    both = verifier(keys[::-1] if turned else keys)
    for signer in (SIGNER, other_signer):
        assert both.verify(*deliver(url=url, signer=signer)).code == "NAklEfbVdV"


def test_one_key_of_two_is_not_enough_for_the_other(other_signer):
    """A key that is not given signs nothing, and the message does not blame the body."""
    with pytest.raises(CallbackError, match="by none of the public keys"):
        verifier().verify(*deliver(signer=other_signer))


# As Go's encoding/json writes a float64, by its documented rules.
NUMBERS = {
    "1.0": "1",
    "-0": "-0",
    "-0.0": "-0",
    "0.10": "0.1",
    "5E2": "500",
    "1e20": "100000000000000000000",
    "1e21": "1e+21",
    "1.5E+300": "1.5e+300",
    "0.000001": "0.000001",
    "0.0000001": "1e-7",
    "1e-10": "1e-10",
    "-2.50e-9": "-2.5e-9",
    "5e-324": "5e-324",
    "9007199254740993": "9007199254740992",
    "12345678901234567890": "12345678901234567000",
    "-9223372036854775809": "-9223372036854776000",
    "123456789012345678901234567890": "1.2345678901234568e+29",
}


def signed_as(spelling, body):
    """Return a delivery of a body whose signature is of another spelling of it."""
    text = string_to_sign(
        method="POST", url=None, nonce="n", timestamp=str(NOW), body=spelling.encode()
    )
    signature = format_signature(SIGNER.sign(text.encode()))
    return Delivery(signature, "n", str(NOW), body.encode())


@pytest.mark.parametrize(("sent", "signed"), NUMBERS.items())
def test_number_is_signed_as_a_float64(sent, signed):
    """RM's servers read every number as a float64 and sign it as Go writes it."""
    body = '{"b": [%s, true, null, "1.0"], "a": {"n": %s}}'
    spelling = '{"a":{"n":%s},"b":[%s,true,null,"1.0"]}'
    told = verifier().authenticate(*signed_as(spelling % (signed, signed), body % (sent, sent)))
    assert told["b"][1:] == [True, None, "1.0"]
    with pytest.raises(CallbackError, match="but of something else"):
        verifier().authenticate(*signed_as(spelling % ("2", "2"), body % (sent, sent)))


def test_number_of_a_voucher_does_not_spoil_its_callback():
    """A callback with such a number gives its event."""
    body = json.dumps(told(amount=1.0, big=2**63))
    assert '"amount": 1.0' in body
    spelling = canonical_json(told(amount=1, big=0)).decode()
    spelling = spelling.replace('"big":0', '"big":9223372036854776000')
    assert verifier().verify(*signed_as(spelling, body)).code == "NAklEfbVdV"


@pytest.mark.parametrize("number", ["1", "1.0"])
@pytest.mark.parametrize(("b", "f"), [(r"\b", r"\f"), (r"\u0008", r"\u000c")])
def test_control_characters_are_signed_in_either_way(b, f, number):
    """Versions of Go differ in a backspace and a form feed, and in nothing else."""
    body = rf'{{"z": "\u0008 \f \\b \\\f \n", "a": {number}}}'
    spelling = rf'{{"a":1,"z":"{b} {f} \\b \\{f} \n"}}'
    assert verifier().authenticate(*signed_as(spelling, body))["z"] == "\b \f \\b \\\f \n"


def test_long_body_is_tried_in_one_spelling():
    """The others would keep the event loop for too long. It is Go's, but for what it rounds."""
    text = "x" * 4_096
    spelling = f'{{"a":9007199254740992,"z":"{text}"}}'
    for number in ("9007199254740992", "9007199254740992.0", "9007199254740992e0"):
        sent = spelling.replace("9007199254740992", number)
        assert verifier().authenticate(*signed_as(spelling, sent))["a"] == 2**53
    with pytest.raises(CallbackError, match="but of something else"):
        verifier().authenticate(*signed_as(spelling, spelling.replace("992", "993")))


def pkcs1():
    command = ["openssl", "rsa", "-pubin", "-in", str(PUBLIC_KEY_FILE), "-RSAPublicKey_out"]
    return subprocess.run(command, check=True, capture_output=True).stdout


def bare():
    """Return the key as the merchant portal shows it."""
    return b"".join(PUBLIC_KEY.splitlines(keepends=True)[1:-1])


@pytest.mark.parametrize(
    "keys",
    [
        lambda: PUBLIC_KEY.decode(),
        lambda: PUBLIC_KEY,
        lambda: PUBLIC_KEY_FILE,
        lambda: [PUBLIC_KEY.decode(), PUBLIC_KEY, PUBLIC_KEY_FILE],
        lambda: iter((PUBLIC_KEY,)),
        lambda: PUBLIC_KEY.replace(b"\n", b"\r\n"),
        lambda: b"Revenue Monster's key\n" + PUBLIC_KEY,
        pkcs1,
        lambda: bare().decode(),
        lambda: bare().replace(b"\n", b""),
        lambda: b" " + bare().replace(b"\n", b"\r\n"),
    ],
    ids=[
        *("text", "bytes", "path", "list", "iterator", "CRLF", "words before", "PKCS#1"),
        *("bare base64", "bare base64, one line", "bare base64, CRLF"),
    ],
)
def test_keys_in_every_form(keys):
    """A key is taken as text, bytes, a path, or several, in either PEM form, again and again."""
    made = verifier(keys())
    for _ in range(2):
        assert made.verify(*deliver()).code == "NAklEfbVdV"


@pytest.mark.parametrize(
    ("timestamp", "sent_at"),
    [
        (str(NOW), NOW),
        (f"{NOW}.25", NOW + 0.25),
        (f"{NOW}.250000000", NOW + 0.25),
        (f"{NOW}250", NOW + 0.25),
    ],
)
def test_timestamp_in_seconds_fractions_and_milliseconds(timestamp, sent_at):
    """X-Timestamp is read as RM's page and its SDKs write it."""
    event = verifier().verify(*deliver(timestamp=timestamp))
    assert event.sent_at == datetime.fromtimestamp(sent_at, UTC)


def message_of(headers):
    message = email.message.Message()
    for name, value in headers.items():
        message[name] = value
    return message


@pytest.mark.parametrize("case", [str.lower, str.upper, str.title, str.swapcase])
@pytest.mark.parametrize(
    "kind",
    [
        dict,
        lambda headers: list(headers.items()),
        lambda headers: (pair for pair in headers.items()),
        CIMultiDict,
        MultiDict,
        lambda headers: CIMultiDictProxy(CIMultiDict(headers)),
        message_of,
    ],
    ids=["mapping", "pairs", "generator", "CIMultiDict", "MultiDict", "proxy", "http.server's"],
)
def test_headers_of_every_kind_in_any_case(kind, case):
    """Header names are found in any case, in what the usual servers hold headers in."""
    delivery = deliver()
    headers = {case(name): value for name, value in delivery.headers.items()}
    assert verifier().verify(kind(headers), delivery.body).code == "NAklEfbVdV"


def test_other_headers_may_come_twice_and_be_anything():
    """Only the three headers that are signed with have to be there once, and be text."""
    delivery = deliver()
    others: list[tuple[str, Any]] = [
        ("Accept", "a"),
        ("accept", "b"),
        ("Content-Length", 5),
        ("X-Signature-Old", "x"),
    ]
    assert verifier().authenticate([*others, *delivery.headers.items()], delivery.body) == told()


def reordered(value):
    if isinstance(value, dict):
        return {key: reordered(value[key]) for key in reversed(value)}
    return value


@pytest.mark.parametrize(
    "rewritten",
    [
        lambda value: json.dumps(reordered(value)),
        lambda value: json.dumps(value, indent="\t\r\n "),
        lambda value: f"\n {json.dumps(value, separators=(',', ':'))} \r\n",
        lambda value: json.dumps(value, ensure_ascii=False),
        lambda value: json.dumps(value, ensure_ascii=True),
        lambda value: json.dumps(value).replace("<", r"\u003C").replace("N", r"\u004e"),
        lambda value: json.dumps(value).replace("/", r"\/"),
    ],
    ids=["order", "white space", "around", "UTF-8", "escapes", "needless escapes", "slashes"],
)
def test_same_meaning_is_accepted(rewritten):
    """What is signed is the meaning: another order, white space or escapes give the same event."""
    value = told(label="<Töpfe & 🎫\u2028 Nägel>/", payload={"b": [1, {"d": None, "c": "é"}]})
    body = rewritten(value).encode()
    usual = verifier().verify(*deliver(value))
    event = verifier().verify(*deliver(value, body=body))
    assert event == usual
    assert event.voucher == usual.voucher
    assert verifier().authenticate(*deliver(value, body=body)) == value


def test_repeat_is_no_forgery():
    """The verifier keeps no state: the same delivery is accepted as often as it comes."""
    one, delivery = verifier(), deliver()
    assert one.verify(*delivery) == one.verify(*delivery)


@pytest.mark.parametrize("value", [{}, {"a": 1}, {"code": "FAILURE", "item": []}])
def test_authenticate_asks_for_no_event(value):
    """`authenticate` gives whatever object RM signed, an empty one too."""
    assert verifier().authenticate(*deliver(value)) == value


@pytest.mark.parametrize("signs_again", [False, True])
@pytest.mark.parametrize("signs_url", [True, False])
async def test_delivery_of_the_emulator(signs_url, signs_again):
    """The emulator's deliveries, the first and a repeat four minutes later, give one event."""
    time = FakeTime()
    emulator = Emulator(
        seed=1,
        batches={"K": 1},
        clock=time.clock,
        guesses=Guesses(callback_signs_url=signs_url, callback_signs_again=signs_again),
    )
    shop = CallbackReceiver(emulator)
    shop.refuse_next(times=4)
    async with emulator.client() as client:
        voucher = await client.void((await client.issue("K")).code)
    assert await shop.deliver_all() == 5
    checker = CallbackVerifier(
        emulator.callbacks.public_key_pem,
        url=emulator.callbacks.url,
        requires_url=signs_url,
        runtime=Runtime(clock=emulator.virtual_clock.now),
    )
    events = {checker.verify(one.headers, one.body) for one in shop.requests}
    (event,) = events
    assert (event.code, event.status, event.voucher) == (voucher.code, "VOID", voucher)


@pytest.mark.parametrize(
    "late_s",
    [0, 4 * MINUTE, -4 * MINUTE, 5 * MINUTE, 9 * MINUTE, MINUTE, -300, 600],
    ids=[
        *("at once", "4 minutes behind", "4 minutes ahead", "the last of five attempts"),
        *("the last, by a slow clock", "the last, by a fast clock", "least", "most"),
    ],
)
def test_clock_that_is_somewhat_off(late_s):
    """Accepted is what a clock 5 minutes off and the 5 minutes of RM's attempts explain."""
    assert verifier(now=NOW + late_s).verify(*deliver()).code == "NAklEfbVdV"


@pytest.mark.parametrize(
    ("late_s", "words"),
    [
        (20 * MINUTE, "X-Timestamp is 1200 s behind this machine's clock"),
        (-20 * MINUTE, "X-Timestamp is 1200 s ahead of this machine's clock"),
        (600.01, "600 s behind"),
        (-300.01, "300 s ahead of"),
        (-NOW, "1700000000 s ahead of"),
    ],
)
def test_clock_that_is_far_off(late_s, words):
    """Refused is what is older or newer, with how far and which way, and who may be wrong."""
    with pytest.raises(CallbackError, match=words) as caught:
        verifier(now=NOW + late_s).verify(*deliver())
    assert caught.value.step == "clock"
    assert "the clock is wrong" in str(caught.value)


@pytest.mark.parametrize("late_s", [-10, 0, 13])
def test_clock_tolerance_of_ones_own(late_s):
    """tolerance_s goes both ways and delivery_s into the past only, each exactly."""
    options: dict[str, Any] = {"tolerance_s": 10, "delivery_s": 3}
    assert verifier(now=NOW + late_s, **options).authenticate(*deliver()) == told()
    outside = NOW + late_s + (0.5 if late_s > 0 else -10.5)
    with pytest.raises(CallbackError, match="clock"):
        verifier(now=outside, **options).authenticate(*deliver())


def test_clock_is_asked_after_the_signature():
    """Of a stranger's delivery nothing is said about the clock."""
    forged = attrs.evolve(deliver(), nonce="another")
    with pytest.raises(CallbackError) as caught:
        verifier(now=0).verify(*forged)
    assert caught.value.step == "signature"


def test_clock_is_the_machines_by_default():
    """Without a clock of one's own an old delivery is refused."""
    with pytest.raises(CallbackError, match="behind this machine's clock"):
        CallbackVerifier(PUBLIC_KEY).verify(*deliver(url=None))


EC_KEY = TESTS / "vectors" / "throwaway-ec.pem"


def ec_public():
    command = ["openssl", "pkey", "-pubout", "-in", str(EC_KEY)]
    return subprocess.run(command, check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        (list, "A public key of the server's is needed"),
        (lambda: b"", "can't be parsed"),
        (lambda: b"x", "can't be parsed: is it PEM"),
        (lambda: "\udcff", "can't be parsed"),
        (lambda: str(PUBLIC_KEY_FILE), r"pass pathlib.Path\(name\)"),
        (lambda: PUBLIC_KEY[:200], "can't be parsed"),
        (lambda: PUBLIC_KEY.replace(b"M", b"?", 9), "can't be parsed"),
        (lambda: [PUBLIC_KEY, b"x"], "can't be parsed"),
        (KEY_FILE.read_bytes, "This is a private key"),
        (lambda: KEY_FILE, "This is a private key"),
        (ec_public, "not an RSA key"),
        (lambda: TESTS / "no-such.pem", "no-such.pem can't be read: No such file"),
        (lambda: TESTS, "can't be read: Is a directory"),
        (lambda: TESTS / "a\0b", "can't be read: .*embedded null"),
        (lambda: None, "PEM text, PEM bytes or a pathlib.Path"),
        (lambda: 5, "PEM text, PEM bytes or a pathlib.Path"),
        (lambda: [None], "PEM text, PEM bytes or a pathlib.Path"),
        (lambda: [[PUBLIC_KEY]], "PEM text, PEM bytes or a pathlib.Path"),
        (lambda: bytearray(PUBLIC_KEY), "PEM text, PEM bytes or a pathlib.Path"),
    ],
)
def test_unusable_key_gets_a_sentence(keys, sentence):
    """Keys that can't be used are refused when the verifier is made, with what to do."""
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        verifier(keys())
    assert "MII" not in str(caught.value)


def test_least_size_of_a_key():
    """How many bits RM's key has is not documented: a setting says how many are enough."""
    assert verifier(PUBLIC_KEY, min_key_bits=1024).verify(*deliver())
    with pytest.raises(ConfigurationError, match="has 2048 bits; 4096 are the least"):
        verifier(PUBLIC_KEY, min_key_bits=4096)


@pytest.mark.parametrize(
    ("make", "key"),
    [
        *((CallbackVerifier, key) for key in (KEY_FILE.read_bytes(), KEY_FILE.read_text())),
        *((CallbackVerifier, KEY_FILE), (RsaVerifier.from_pem, KEY_FILE.read_bytes())),
    ],
)
def test_private_key_given_by_mistake_is_not_shown(make, key):
    """No frame of the error holds a private key that was taken for the public one."""
    with pytest.raises(ConfigurationError) as caught:
        make(key)
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    ours = [frame for frame in shown.stack if "rm_voucher" in frame.filename]
    assert "PRIVATE KEY" not in repr([frame.locals for frame in ours])


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"requires_url": True, "url": None}, "requires_url needs the url"),
        ({"tolerance_s": -1}, "seconds, 0 or more"),
        ({"delivery_s": -0.1}, "seconds, 0 or more"),
        ({"tolerance_s": float("nan")}, "seconds, 0 or more"),
        ({"delivery_s": float("nan")}, "seconds, 0 or more"),
        ({"tolerance_s": "300"}, "seconds, 0 or more"),
        ({"delivery_s": None}, "seconds, 0 or more"),
        ({"max_body_bytes": 0}, "max_body_bytes is more than 0"),
        ({"max_body_bytes": None}, "max_body_bytes is more than 0"),
        ({"max_body_bytes": 65536.0}, "max_body_bytes is more than 0, and whole"),
        ({"max_body_bytes": float("inf")}, "max_body_bytes is more than 0, and whole"),
        ({"url": ""}, "url is the public URL that RM calls"),
        ({"url": b"https://shop.invalid/"}, "url is the public URL that RM calls"),
        ({"url": "https://shop.invalid/\udcff"}, "url is the public URL that RM calls"),
        ({"url": "https://shop.invalid/\n"}, "url is the public URL that RM calls"),
    ],
)
def test_unusable_setting_gets_a_sentence(options, sentence):
    """Settings that can't be used are refused when the verifier is made, with what is wanted."""
    with pytest.raises(ConfigurationError, match=sentence):
        verifier(**options)


def test_zero_tolerance_is_a_setting():
    """No tolerance at all is unwise, but can be wanted in a test."""
    exact: dict[str, Any] = {"tolerance_s": 0, "delivery_s": 0}
    assert verifier(**exact).authenticate(*deliver()) == told()
    with pytest.raises(CallbackError, match="1 s behind"):
        verifier(now=NOW + 1, **exact).authenticate(*deliver())
