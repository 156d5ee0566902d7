"""What a client signed instead: each usual mistake is found by the digest of the signature."""

import base64
import hashlib

import pytest
from yarl import URL

from rm_voucher import Request
from rm_voucher.emulator.view.signed_text import differing_parts, signed_text
from rm_voucher.signing.signature import canonical_json, string_to_sign

BODY = b'{"usedAt": "2026-11-30T00:00:00Z", "storeId": "<1>", "reason": "\xc3\xa9"}'
VALUE = {"usedAt": "2026-11-30T00:00:00Z", "storeId": "<1>", "reason": "\u00e9"}
CANONICAL = canonical_json(VALUE)
URL_TEXT = "http://127.0.0.1:8000/v3/voucher/a%2Bb/void?x=1"
NONCE, TIMESTAMP = "NoNcE", "1796018637"


def question(body=BODY, timestamp=TIMESTAMP):
    headers = {"X-Nonce-Str": NONCE, "X-Timestamp": timestamp, "X-Signature": "sha256 x"}
    url = URL(URL_TEXT, encoded=True)
    return Request(operation="served", method="POST", url=url, headers=headers, body=body)


def expected(body=CANONICAL, timestamp=TIMESTAMP):
    return string_to_sign(method="POST", url=URL_TEXT, nonce=NONCE, timestamp=timestamp, body=body)


def explained(text, request=None, right=None):
    digest = hashlib.sha256(text.encode()).digest()
    return signed_text(request or question(), right or expected(), digest)


def data(text):
    return base64.b64encode(text).decode()


RIGHT = data(CANONICAL)


@pytest.mark.parametrize(
    ("wrong", "mistake"),
    [
        (lambda text: text.replace(RIGHT, data(BODY)), "as it was sent"),
        (
            lambda text: text.replace(
                RIGHT,
                data(
                    '{"reason":"\u00e9","storeId":"<1>","usedAt":"2026-11-30T00:00:00Z"}'.encode()
                ),
            ),
            "without escaping",
        ),
        (
            lambda text: text.replace(
                RIGHT,
                data(rb'{"reason":"\u00e9","storeId":"<1>","usedAt":"2026-11-30T00:00:00Z"}'),
            ),
            "all but ASCII",
        ),
        (lambda text: text.replace(f"data={RIGHT}", f"data={CANONICAL.decode()}"), "base64"),
        (lambda text: text.partition("&")[2], "body was left out"),
        (lambda text: text.replace("method=post", "method=POST"), "lower case"),
        (lambda text: text.replace("method=post", "method=get"), "was sent as POST"),
        (lambda text: text.replace("method=post&", ""), "method was left out"),
        (lambda text: text.replace("NoNcE", "nonce"), "nonce is in lower case"),
        (lambda text: text.replace("?x=1", ""), "query was left out"),
        (lambda text: text.replace("a%2Bb", "a+b"), "not percent-encoded"),
        (lambda text: text.replace("http:", "https:"), "https"),
        (lambda text: text.replace("127.0.0.1", "localhost"), "localhost"),
        (lambda text: text.replace("http://127.0.0.1:8000", ""), "only the path"),
        (lambda text: text.replace(f"&requestUrl={URL_TEXT}", ""), "URL was left out"),
        (lambda text: text.replace("sha256", "SHA256"), "signType"),
        (lambda text: text.replace("&signType=sha256", ""), "signType was left out"),
        (lambda text: text.replace(TIMESTAMP, str(int(TIMESTAMP) - 1)), "another timestamp"),
        (lambda text: text.replace(TIMESTAMP, f"{TIMESTAMP}000"), "in milliseconds"),
        (lambda text: text + "\n", "line break"),
    ],
)
def test_usual_mistakes(wrong, mistake):
    """Each is found, is the only one that is named, and its part is the one that is marked."""
    text = wrong(expected())
    assert text != expected()
    found = explained(text)
    assert found is not None
    assert found.text == text
    assert len(found.mistakes) == 1
    assert mistake in found.mistakes[0]
    assert differing_parts(expected(), text) or differing_parts(text, expected())


def test_numbers_as_others_write_them():
    """Keys, white space and escapes are right, and the server is no Go's."""
    right = expected(body=canonical_json({"n": [1.0, 1e16], "a": "<"}))
    text = expected(body=rb'{"a":"\u003c","n":[1.0,1e16]}')
    found = explained(text, question(body=b'{"n": [1.0, 1e16], "a": "<"}'), right)
    assert found is not None
    assert found.mistakes == ["the body was signed with other numbers than Go writes"]


def test_two_mistakes_at_once():
    text = expected().replace("method=post", "method=POST").replace("?x=1", "")
    found = explained(text)
    assert found is not None
    assert len(found.mistakes) == 2


def test_data_of_an_empty_body():
    """Where there is no body, clients sign one all the same."""
    right = expected(body=b"")
    found = explained(f"data=e30=&{right}", question(body=b""), right)
    assert found is not None
    assert found.mistakes == ["the base64 of {} was put in front"]


def test_body_that_is_no_json_and_one_that_is_large():
    for body in (b"<html>", b"x" * 100_000):
        found = explained(expected(body=b"").upper(), question(body=body), expected(body=b""))
        assert found is None


def test_milliseconds():
    sent = TIMESTAMP + "000"
    found = explained(expected(), question(timestamp=sent), expected(timestamp=sent))
    assert found is not None
    assert found.mistakes == ["the timestamp was sent in milliseconds"]


def test_timestamp_that_is_none():
    right = expected(timestamp="soon")
    found = explained(right.replace("POST", "post"), question(timestamp="soon"), right)
    assert found is not None
    assert found.mistakes == []


def test_what_nobody_would_sign_is_not_explained():
    assert explained("something else") is None


def test_differing_parts():
    assert differing_parts("a=1&b=2&c=3", "a=1&c=3") == [(4, 7)]
    assert differing_parts("a=1", "a=1") == []


def test_text_that_is_far_longer_than_any_of_rms():
    """Thousands of guesses at a long text would hold everything else up: there are none."""
    right = expected(body=canonical_json({"a": "x" * 5_000}))
    assert explained(right.replace("post", "POST"), question(body=b"{}"), right) is None
