"""What is hidden of a request and its answer, and how strangers' text is made harmless."""

import json

import orjson
import pytest

from rm_voucher.emulator.masking import (
    mask_body,
    mask_headers,
    mask_path,
    mask_query,
    masked,
    plain,
    sendable,
)

CODE = "NAklEfbVdV"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (f"/v3/voucher/{CODE}/void?x=1", "/v3/voucher/NA…/void"),
        ("/v3/voucher-batch/TEA/issue", "/v3/voucher-batch/TEA/issue"),
        (f"/v3/loyalty/me/voucher/{CODE}", "/v3/loyalty/me/voucher/NA…"),
        (f"/v3/voucher%2F{CODE}", "/v3/vo…"),
        ("/\x1b[2J", "/\\x1b[2J"),
    ],
)
def test_path(path, shown):
    assert mask_path(path) == shown


def test_query():
    assert mask_query("countryCode=60&phoneNumber=123456789&cursor=&code=NAklEfbVdV") == {
        "countryCode": "60",
        "phoneNumber": "12…",
        "cursor": "",
        "code": "NA…",
    }


def test_headers():
    """Secrets are hidden whatever the case of their header's name; JSON can hold the rest."""
    shown = mask_headers(
        {
            "AUTHORIZATION": "Bearer 0123456789",
            "X-Signature": "sha256 abcdefghij",
            "Cookie": "a-very-long-one",
            "X-Nonce-Str": "abc\udc80",
        }
    )
    assert shown == {
        "AUTHORIZATION": "Bearer 01…",
        "X-Signature": "sha256 ab…",
        "Cookie": "a-…",
        "X-Nonce-Str": "abc?",
    }
    orjson.dumps(shown)


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        ({"codes": [CODE, 5]}, {"codes": ["NA…", "…"]}),
        ({"pin": 123456}, {"pin": "…"}),
        (
            {
                "item": {"code": CODE, "qrUrl": f"https://x/{CODE}", "label": "Tea"},
                "code": "SUCCESS",
            },
            {"item": {"code": "NA…", "qrUrl": "ht…", "label": "Tea"}, "code": "SUCCESS"},
        ),
        (
            {"error": {"code": "VOUCHER_NOT_FOUND", "debug": {"step1": CODE}}},
            {"error": {"code": "VOUCHER_NOT_FOUND", "debug": "…"}},
        ),
        (
            {"items": [{"code": CODE}], "code": "SUCCESS"},
            {"items": [{"code": "NA…"}], "code": "SUCCESS"},
        ),
        ([[1], "a long one"], [["…"], "a …"]),
        (
            {
                "item": {
                    "key": "Vm91Y2hlci9OQWtsRWZiVmRW",
                    "memberProfile": {"id": "NjAxMjM0NTY3ODk"},
                }
            },
            {"item": {"key": "Vm…", "memberProfile": {"id": "Nj…"}}},
        ),
    ],
)
def test_body(body, shown):
    assert mask_body(json.dumps(body).encode(), is_answer=True) == shown


def test_code_in_a_request():
    """RM's own codes come in answers; one in a request is a voucher's."""
    assert mask_body(b'{"code": "NAklEfbVdV"}', is_answer=False) == {"code": "NA…"}


@pytest.mark.parametrize(
    ("body", "shown"),
    [(b"", None), (b"<html>", "(6 bytes)"), (b"[" * 40 + b"]" * 40, "(80 bytes)")],
)
def test_body_that_is_no_json_of_rms(body, shown):
    assert mask_body(body, is_answer=False) == shown


def test_words():
    assert masked("") == ""
    assert masked("short") == "…"
    assert plain("a\nb\u202e") == "a\\nb\\u202e"
    assert sendable("\ud800x") == "?x"
