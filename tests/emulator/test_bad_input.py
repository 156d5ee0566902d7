"""Bad input to a server, in requests that are HTTP: the next good request is always answered."""

import base64
from urllib.parse import quote

import orjson
import pytest
from support.raw_connection import SIGNER, headers_of
from support.signed_attempts import signed_attempt
from yarl import URL

from rm_voucher import Request

DEEP = 20_000  # twenty times what Python takes

BODIES = {
    "deep lists": b"[" * DEEP + b"]" * DEEP,
    "deep objects": b'{"a":' * DEEP + b"1" + b"}" * DEEP,
    "as deep as can be read": b"[" * 1000 + b"]" * 1000,
    "deeper than can be written": b"[" + b",".join([b"[" * 240 + b"]" * 240] * 8) + b"]",
    "open lists": b"[" * DEEP,
    "NaN": b'{"storeId": NaN}',
    "infinity": b'{"a": 1e999}',
    "an integer of 5000 digits": b'{"a": ' + b"9" * 5000 + b"}",
    "beyond 64 bits": b'{"a": 18446744073709551616}',
    "not UTF-8": b'{"storeId": "\xff\xfe"}',
    "half a surrogate pair": b'{"storeId": "\\ud800"}',
    "BOM": b"\xef\xbb\xbf{}",
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "doubled keys": b'{"storeId": "a", "storeId": 5}',
    "NUL": b'{"storeId": "\\u0000"}\0',
    "cut": b'{"storeId": "a',
    "two values": b"{} {}",
    "a list": b"[]",
    "null": b"null",
    "text": b'"x"',
    "a number": b"-0",
    "white space": b" \r\n\t ",
    "XML": b"<a/>",
    "a form": b"a=b&c=d",
    "wrong types": b'{"storeId": {}, "usedAt": 5, "pin": [], "codes": {}, "grantType": 1}',
    "wrong values": b'{"usedAt": "20181231", "codes": [1], "pin": "0", "refreshToken": "x"}',
    "many codes": orjson.dumps({"codes": ["x"] * 20_000}),
    "many keys": orjson.dumps({str(number): number for number in range(10_000)}),
    "3 MB": b'{"a": "' + b"x" * 3_000_000 + b'"}',
}
NO_JSON = {"deep lists", "NaN", "not UTF-8", "BOM", "cut", "two values", "XML", "infinity"}
CODES = ["", ".", "..", "../x", "..%2f", "%2e%2e", "%252e", "..;/", "a/b", "a\\b", "a?b", "a%00"]
CODES += ["\0", "\r\n", "\t", " x", "x ", "@evil.example", "//evil.example", "\uff0e", "\u202e"]
CODES += ["x" * 10_000, "x" * 4_000, "rms@xR43u4bRhUU", "A(1)", "A+1", "A#1", "A%41", "%", "%zz"]
CODES += ["[", "]", "{}", "<a>", "'", '"', "|", "^"]
RAW_CODES = [b"\xff\xfe", b"%ff", b"%ed%a0%80", b"..%2f..", b"%00", b"%0d%0aX:%20y", b"a#b", b"a?b"]
RAW_CODES += [b"%", b"%zz", b"[", b"\\", b"\0", b"\x1b[31m", b"a\tb", b"\xc3\xbc", b"a;b", b"@evil"]
PATHS = [
    ("POST", "/v3/voucher-batch/{}/issue"),
    ("GET", "/v3/voucher-batch/{}/vouchers"),
    ("GET", "/v3/voucher-batch/{}"),
    ("POST", "/v3/voucher/{}"),
    ("POST", "/v3/voucher/{}/void"),
    ("PATCH", "/v3/voucher/{}/reinstate"),
    ("GET", "/v3/loyalty/me/voucher/{}?countryCode=60&phoneNumber=1"),
    ("POST", "/v3/loyalty/me/voucher/{}/redeem?countryCode=60&phoneNumber=1"),
    ("POST", "/_emulator/vouchers/{}/redeem"),
    ("POST", "/_emulator/vouchers/{}/void"),
    ("POST", "/_emulator/{}"),
]
TAKERS = [
    ("POST", "/v1/token"),
    ("POST", "/v3/voucher-batch/K/issue"),
    ("POST", "/v3/voucher/X/void"),
    ("PATCH", "/v3/voucher/X/reinstate"),
    ("POST", "/v3/vouchers/redeem"),
    ("POST", "/_emulator/batches"),
    ("PUT", "/_emulator/faults"),
    ("POST", "/_emulator/vouchers/X/redeem"),
    ("POST", "/_emulator/members"),
    ("POST", "/_emulator/clock"),
    ("PUT", "/_emulator/callbacks"),
]
CURSORS = ["x", "=", "ZnJvbSAx", "ZnJvbSAtMQ==", "\u0661", "a" * 5000]
CURSORS += [base64.b64encode(b"from " + b"9" * size).decode() for size in (30, 5000)]
LIMITS = ["0", "-1", "1e3", "\u0661", "9" * 5000, "", "\u00b2"]
FILTERS = ["{", "[]", "NaN", "[" * 2000, '{"status":[]}', '{"isStatic":{}}']
QUERIES = ["a=%ff&b=%ed%a0%80", "&&&===", "%", "a" * 7000]
QUERIES += ["&".join(f"a{number}=b" for number in range(200))]
QUERIES += [f"cursor={quote(cursor)}" for cursor in CURSORS]
QUERIES += [f"limit={quote(limit)}" for limit in LIMITS]
QUERIES += [f"filter={quote(wanted)}" for wanted in FILTERS]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_codes(line, method, path):
    """A code or key that is none is refused, whatever it is, and nothing of it is done."""
    before = line.emulator.state.issued("K")
    for code in CODES:
        target = path.format(quote(code, safe=""))
        status, answer = await line.signed(method, target)
        assert status in (400, 404, 405), (target[:80], answer[:200])
    for raw in RAW_CODES:
        status, answer = await line.send(method, path.encode().replace(b"{}", raw))
        assert status in (400, 401, 404, 405), (raw, answer[:200])
    assert line.emulator.state.issued("K") == before
    assert [batch.key for batch in line.emulator.state.stock.ours()] == ["K"]


@pytest.mark.parametrize("name", BODIES)
async def test_bodies(line, name):
    """A body that is none is refused with a 4xx, signed or not, by every path that takes one."""
    for method, path in TAKERS:
        status, answer = await line.signed(method, path, BODIES[name])
        assert status in (None, 200, 400, 401, 404, 413), (path, status, answer[:200])
        if name in NO_JSON:
            assert status in (400, 413), path
        if name == "3 MB":
            assert status in (None, 413), path
    line.emulator.reset()


@pytest.mark.parametrize("path", ["/v3/voucher-batches", "/v3/voucher-batch/K/vouchers",
                                  "/v3/loyalty/me/vouchers", "/_emulator/batches"])  # fmt: skip
async def test_queries(line, path):
    """A query that says nothing sensible is refused or overlooked."""
    for query in QUERIES:
        status, answer = await line.signed("GET", f"{path}?{query}")
        assert status in (200, 400), (query[:80], answer[:200])


HEADERS = {
    "1 MB": [b"X-A: " + b"a" * 1_000_000],
    "a token of 1 MB": [b"Authorization: Bearer " + b"a" * 1_000_000],
    "very many": [b"X-%d: a" % number for number in range(20_000)],
    "no value": [b"Authorization:", b"X-Signature:", b"X-Nonce-Str:", b"X-Timestamp:"],
    "no name": [b": x"],
    "no colon": [b"hello"],
    "a name with a space": [b"X A: b"],
    "folded": [b"X-A: a", b" b"],
    "NUL": [b"X-A: a\0b"],
    "a lone line feed": [b"X-A: a\nX-B: b"],
    "not UTF-8": [b"Authorization: Bearer \xff\xfe", b"X-Nonce-Str: \xff"],
    "garbage base64": [b"X-Signature: sha256 !!!!"],
    "URL-safe base64": [b"X-Signature: sha256 -_-_"],
    "wrong length": [b"X-Signature: sha256 AAAA"],
    "another scheme": [b"X-Signature: md5 AAAA"],
    "long time": [b"X-Timestamp: " + b"9" * 5000],
    "odd time": [b"X-Timestamp: \xd9\xa1700000000"],
    "not a time": [b"X-Timestamp: NaN"],
    "unknown expectation": [b"Expect: 200-maybe"],
    "unknown encoding": [b"Content-Encoding: br"],
    "upgrade": [b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: x"],
    "garbage cookie": [b"Cookie: \xff=;=;;"],
    "garbage range": [b"Range: bytes=9-1", b"If-Modified-Since: never", b"Accept: */*;q=x"],
    "another type": [b"Content-Type: multipart/form-data; boundary=\xff"],
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
async def test_headers(line, name):
    """A header that is none, too long or too much is refused."""
    for path in ("/v3/voucher-batch/K/issue", "/v1/token"):
        status, answer = await line.send("POST", path, b"{}", *HEADERS[name])
        assert status in (None, 400, 401), answer[:200]
    status, _ = await line.send("POST", "/_emulator/clock", b"{}", *HEADERS[name])
    assert status in (None, 200, 400)
    assert line.emulator.state.issued("K") == ()


@pytest.mark.parametrize("name", ["Authorization", "X-Signature", "X-Nonce-Str", "X-Timestamp"])
async def test_doubled_headers(line, name):
    """Of a doubled header the first one counts, or none: a bad one first is never good."""
    body = b'{"storeId":"S"}'
    path = "/v3/voucher/X/void"
    request = Request(operation="x", method="POST", url=line.url.join(URL(path)), body=body)
    now = int(line.emulator.virtual_clock.now())
    good = signed_attempt(request, signer=SIGNER, token=line.token, nonce="n", timestamp=now)
    status, _ = await line.send("POST", path, body, f"{name}: bad".encode(), *headers_of(good))
    assert status in (400, 401)
