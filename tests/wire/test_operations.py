"""The protocol: requests as the API page writes them, and answers of every kind."""

import base64
import functools
import json
from datetime import datetime, timedelta, timezone
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answers import finished, ok, payload, rm_error
from support.doubles import NoSigner
from support.signed_attempts import signed_attempt

from rm_voucher import (
    APIError,
    AuthenticationError,
    DecodeError,
    Environment,
    InvalidRequestError,
    IssuedVoucher,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    Response,
    ServerError,
    VoucherError,
)
from rm_voucher.wire import operations as p

SANDBOX = Environment.SANDBOX
BATCH = "EhQKCE1lcmNoYW50EJXVzd3wraqTORIYCgxWb3VjaGVyQmF0Y2gQ_4eJj7-n9MgW"
parse_get_x = functools.partial(p.parse_get, code="X")


def test_signing_adds_the_headers_of_an_attempt():
    """Signing adds the four headers and changes nothing else."""
    request = p.build_issue(SANDBOX, BATCH)
    signed = signed_attempt(request, signer=NoSigner(), token="t", nonce="n", timestamp=7)
    assert signed.headers == {
        "Content-Type": "application/json",
        "Authorization": "Bearer t",
        "X-Nonce-Str": "n",
        "X-Signature": "sha256 " + base64.b64encode(b"signature").decode(),
        "X-Timestamp": "7",
    }
    assert signed.url is request.url
    assert signed.body is request.body


def test_request_repr_hides_code_and_headers():
    """A request in a log shows what was asked, not of which voucher or with which token."""
    request = p.build_get(SANDBOX, "NAklEfbVdV")
    signed = signed_attempt(request, signer=NoSigner(), token="hush", nonce="n", timestamp=7)
    assert repr(signed) == "Request(operation='get', method='POST')"


@given(st.text(max_size=40))
def test_segment_any_text_is_refused_or_one_segment(code):
    """No text becomes another path, whatever it holds."""
    plain = p.build_void(SANDBOX, "X").url
    try:
        url = p.build_void(SANDBOX, code).url
    except InvalidRequestError:
        return
    assert url.raw_path.split("/")[:3] == plain.raw_path.split("/")[:3]
    assert url.raw_path.split("/")[4:] == ["void"]
    assert unquote(url.raw_path.split("/")[3]) == code
    assert (url.host, url.query_string, url.fragment) == (plain.host, "", "")


def test_void_used_at_outside_of_utc():
    """An instant before the first year of UTC can't be written."""
    east = timezone(timedelta(hours=8))
    with pytest.raises(InvalidRequestError, match="year of UTC"):
        p.build_void(SANDBOX, "X", used_at=datetime.min.replace(tzinfo=east))


@pytest.mark.parametrize(
    ("item", "where"),
    [
        ({}, "status"),
        ({"status": "ISSUED", "code": "X"}, "status"),
        ({"status": "NEW", "code": "X"}, "status"),
        ({"status": "VOID", "code": "Y"}, "code"),
        ({"status": "VOID"}, "code"),
    ],
)
def test_parse_void_believes_no_other_voucher(item, where):
    """An answer that shows no void voucher, or another one, is no success."""
    with pytest.raises(DecodeError, match=where):
        p.parse_void(ok({"item": item, "code": "SUCCESS"}), "X")
    shown = ok({"item": {"status": "VOID", "code": "x"}, "code": "SUCCESS"})
    assert p.parse_void(shown, "X").code == "x"


def test_parse_reinstate_believes_no_void_voucher():
    """An answer that shows the voucher still void is no success."""
    with pytest.raises(DecodeError, match="status"):
        p.parse_reinstate(ok({"item": {"status": "VOID", "code": "X"}, "code": "SUCCESS"}), "X")


def test_parse_error_beside_an_item_is_no_refusal():
    """An answer with an error and an item claims both: it proves neither."""
    body = {"item": {"code": "X"}, "error": {"code": "VOUCHER_SOLD_OUT"}}
    with pytest.raises(DecodeError):
        p.parse_issue(ok(body))


def test_parse_issue_keeps_the_code_beside_a_bad_url():
    """A code that was issued is not lost for a QR URL of the wrong type."""
    body = {"item": {"code": "X", "qrUrl": 5}, "code": "SUCCESS"}
    assert p.parse_issue(ok(body)) == IssuedVoucher(code="X", extra={"qrUrl": {"misfit": 5}})


def test_parse_examples():
    """The example payloads are read by the operations that answer them."""
    assert p.parse_issue(ok(payload("issue-voucher"))).code == "NAklEfbVdV"
    assert p.parse_get(ok(payload("get-voucher")), "naklefbvdv").code == "NAklEfbVdV"
    assert p.parse_void(ok(payload("void-voucher")), "naklefbvdv").status == "VOID"
    page = finished(p.parse_vouchers(ok(payload("list-batch-vouchers"))))
    assert ([v.code for v in page.items], page.cursor, page.count) == (["UUEra22VSy2"], None, 1)
    batches = finished(p.parse_batches(ok(payload("list-batches"))))
    assert [b.label for b in batches.items] == ["Shell Voucher", "Wedding", "ALA10OFF"]
    assert p.parse_token(ok(payload("token-refresh"))).expires_in_s == 72591999


def test_parse_error_example():
    """RM's error body gives its typed error, with code, status, hint and the server's words."""
    with pytest.raises(NotFoundError) as caught:
        p.parse_issue(ok(payload("error"), 404))
    error = caught.value
    assert (error.code, error.message) == ("VOUCHER_BATCH_NOT_FOUND", "Voucher batch not found")
    assert error.http_status == 404
    assert "batch key" in error.hint


GOOD = b'{"item":{"code":"X"},"code":"SUCCESS"}'
# bad-input: answers. What is raised when the status is 200.
BAD_BODIES = [
    b"",
    b"<html>502</html>",
    b"{}",
    b"[]",
    b"null",
    b'"x"',
    b"true",
    b'{"code":"SUCCESS"}',
    b'{"code":"SUCCESS","item":null}',
    b'{"code":"SUCCESS","item":[]}',
    b'{"code":"SUCCESS","item":"X"}',
    b'{"code":"SUCCESS","item":{}}',
    b'{"code":"SUCCESS","item":{"code":""}}',
    b'{"item":{"code":"X"}}',
    b'{"item":{"code":"X"},"code":200}',
    b'{"item":{"code":"X"},"code":"success"}',
    b'{"item":{"code":"X"},"code":"FAILED"}',
    b'{"item":{"code":5},"code":"SUCCESS"}',
    b'{"code":"SUCCESS","error":{"code":"OVERLOAD"}}',
    b'{"item":{"code":"X"},"code":"SUCCESS","error":{"code":"SPAM"}}',
    b'{"item":{"code":"X"},"code":"SUCCESS","error":"x"}',
    b'{"error":{}}',
    b'{"error":{"code":5}}',
    b'{"error":{"code":"SPAM","message":5}}',
    b'{"error":[]}',
    GOOD[:-1],
    GOOD.replace(b"X", b"\xff"),
    GOOD.replace(b'"X"', b"NaN"),
    GOOD.replace(b'"X"', b'"X","n":1e999'),
    GOOD.replace(b'"X"', b'"X","n":' + b"9" * 5_000),
    GOOD.replace(b'"X"', b'"X","n":' + b"[" * 100_000),
    GOOD.replace(b'"X"', rb'"\ud800"'),
]


@pytest.mark.parametrize("body", BAD_BODIES, ids=lambda b: ascii(b[:40]))
def test_parse_bad_success_is_a_decode_error(body):
    """A 2xx that does not hold the documented result is a `DecodeError`."""
    with pytest.raises(DecodeError, match=r"@ \$"):
        p.parse_issue(Response(status=200, body=body))


@pytest.mark.parametrize("parse", [parse_get_x, p.parse_vouchers, p.parse_batches, p.parse_token])
@pytest.mark.parametrize("body", BAD_BODIES[:9], ids=lambda b: ascii(b[:40]))
def test_parse_bad_success_of_the_others(parse, body):
    """The other parsers refuse an answer without their result, too."""
    with pytest.raises(DecodeError):
        finished(parse(Response(status=200, body=body)))


def test_parse_get_of_another_voucher_is_no_answer():
    """A look-up shows the voucher that was asked for, in whatever case."""
    assert p.parse_get(Response(status=200, body=GOOD), "x").code == "X"
    with pytest.raises(DecodeError, match="that was asked for"):
        p.parse_get(Response(status=200, body=GOOD), "Y")


def test_parse_duplicate_keys_last_wins():
    """Duplicate keys: the last one counts, as in Go, which RM is written in."""
    body = b'{"item":{"code":"X","code":"Y"},"code":"SUCCESS"}'
    assert p.parse_issue(Response(status=200, body=body)).code == "Y"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (204, DecodeError),
        (301, APIError),
        (400, APIError),
        (401, AuthenticationError),
        (403, PermissionDeniedError),
        (404, APIError),
        (429, RateLimitError),
        (500, ServerError),
        (502, ServerError),
    ],
)
@pytest.mark.parametrize("body", [b"", b"<html>", b'{"error":{"code":"no code!"}}', b"[]"])
def test_parse_status_without_rm_body(status, error, body):
    """Without RM's own error body the status decides."""
    body = b"" if status == 204 else body  # it can't have one
    with pytest.raises(error) as caught:
        p.parse_issue(Response(status=status, body=body))
    if isinstance(caught.value, APIError):
        assert type(caught.value) is error
        assert (caught.value.code, caught.value.http_status) == ("", status)


@pytest.mark.parametrize(
    ("status", "error"), [(200, APIError), (418, APIError), (401, AuthenticationError)]
)
def test_parse_unlisted_code_is_kept(status, error):
    """A code that nobody listed is kept; its class is the status's."""
    with pytest.raises(error) as caught:
        p.parse_issue(rm_error("NEW_CODE", status, "words"))
    assert (caught.value.code, caught.value.message) == ("NEW_CODE", "words")


@pytest.mark.parametrize("code", ["x" * 65, "a b", "é", "NAME\n", ""])
def test_parse_hostile_code_is_not_rm(code):
    """What can't be a code of RM's is not taken for one, nor shown."""
    with pytest.raises(ServerError) as caught:
        p.parse_issue(rm_error(code, 500))
    assert caught.value.code == ""


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"retry-after": "7"}, 7.0),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after": "-3"}, 0.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT"}, None),
        (
            {
                "retry-after": "Fri, 20 Nov 2026 10:00:30 GMT",
                "date": "Fri, 20 Nov 2026 10:00:00 GMT",
            },
            30.0,
        ),
        (
            {
                "retry-after": "Fri, 20 Nov 2026 09:00:00 GMT",
                "date": "Fri, 20 Nov 2026 10:00:00 GMT",
            },
            0.0,
        ),
        (
            {
                "retry-after": "Fri, 20 Nov 2026 10:00:30 -0000",
                "date": "Fri, 20 Nov 2026 10:00:00 GMT",
            },
            None,
        ),
        ({"retry-after": "Fri, 20 Nov 2026 10:00:30 GMT", "date": "now"}, None),
        ({"retry-after": "Mon, 01 Jan 99999999999 00:00:00 GMT", "date": "now"}, None),
    ],
)
def test_parse_retry_after(headers, seconds):
    """Retry-After is seconds, or a date measured by the server's own clock."""
    for body in (b"", b'{"error":{"code":"OVERLOAD"}}'):
        with pytest.raises(APIError) as caught:
            p.parse_issue(Response(status=429, headers=headers, body=body))
        assert caught.value.retry_after_s == seconds


@pytest.mark.parametrize(
    ("body", "where"),
    [
        ({"items": {}, "code": "SUCCESS"}, r"\$\.items"),
        ({"code": "SUCCESS"}, r"\$\.items"),
        ({"items": [], "meta": [1], "code": "SUCCESS"}, r"\$\.meta"),
        ({"items": [], "meta": {"cursor": 5}, "code": "SUCCESS"}, r"\$\.meta\.cursor"),
    ],
)
def test_parse_page_says_where(body, where):
    """A page that is not as documented says where."""
    with pytest.raises(DecodeError, match=where):
        finished(p.parse_vouchers(ok(body)))


@pytest.mark.parametrize(
    ("meta", "cursor", "count"),
    [
        (None, None, None),
        ({}, None, None),
        ({"cursor": None, "count": None}, None, None),
        ({"cursor": "", "count": "3"}, None, None),
        ({"cursor": "next", "count": 3}, "next", 3),
    ],
)
def test_parse_page_meta_is_optional(meta, cursor, count):
    """How the last page is marked is not documented: no cursor of any kind ends the listing."""
    page = finished(p.parse_batches(ok({"items": [], "meta": meta, "code": "SUCCESS"})))
    assert (page.items, page.cursor, page.count) == ((), cursor, count)


@pytest.mark.parametrize(
    "token",
    ["a\r\nb", "é", "\x00", "", " "],
)
def test_parse_token_fits_a_header(token):
    """A token that would break out of its header is refused."""
    with pytest.raises(DecodeError, match="accessToken"):
        p.parse_token(ok({"accessToken": token}))


@pytest.mark.parametrize(
    ("response", "expected"),
    [
        (Response(status=405), True),
        (Response(status=404, body=b"404 page not found"), True),
        (rm_error("INVALID_HTTP_METHOD"), True),
        (rm_error("METHOD_NOT_ALLOWED", 405), True),
        (rm_error("NO_METHOD"), True),
        (rm_error("API_ENDPOINT_NOT_FOUND", 404), True),
        (rm_error("PAGE_NOT_FOUND", 404), True),
        (rm_error("PageNotFound"), True),
        (rm_error("VOUCHER_NOT_FOUND", 404), False),
        (rm_error("NEW_CODE", 404), False),
        (rm_error("VOUCHER_NOT_FOUND", 405), False),
        (Response(status=400), False),
        (Response(status=500), False),
    ],
)
def test_is_unknown_path(response, expected):
    """The five codes, a 405, or a 404 that is not RM's own mean another method or path."""
    with pytest.raises(APIError) as caught:
        parse_get_x(response)
    assert p.is_unknown_path(caught.value) is expected


@given(st.binary(max_size=300) | st.text(max_size=300).map(str.encode), st.integers(100, 599))
def test_parse_any_bytes_raise_only_our_errors(body, status):
    """Whatever a server answers: a result or an error of our tree."""
    for parse in (p.parse_issue, parse_get_x, p.parse_vouchers, p.parse_batches, p.parse_token):
        try:
            finished(parse(Response(status=status, body=body)))
        except VoucherError:
            pass


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["item", "items", "code", "error", "meta", "cursor", "qrUrl"]),
                inner,
            )
        ),
        max_leaves=15,
    ),
    st.sampled_from([200, 400, 404, 429, 500]),
)
def test_parse_any_json_raises_only_our_errors(value, status):
    """Whatever JSON a server answers: a result or an error of our tree."""
    body = json.dumps(value).encode()
    for parse in (p.parse_issue, parse_get_x, p.parse_vouchers, p.parse_batches, p.parse_token):
        try:
            finished(parse(Response(status=status, body=body)))
        except VoucherError:
            pass
