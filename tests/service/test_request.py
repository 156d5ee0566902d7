"""`VoucherClient.request`: hostile paths, bodies and queries send nothing, a token request too."""

import dataclasses
import decimal
import enum
import math
import uuid
from datetime import date, datetime
from typing import Any

import pytest

from rm_voucher import InvalidRequestError, NotFoundError
from rm_voucher.calls.outcomes import Safety

PATHS_REFUSED = [
    "",
    "/",
    "//",
    "v3/x",
    "//evil",
    "//evil.example/v3/x",
    "@evil.example/v3/x",
    "https://evil.example/v3/x",
    "/v3/../x",
    "/v3/./x",
    "/v3/.../x",
    "/v3/%2e%2e/x",
    "/v3/.%2E/x",
    "/v3/%252e%252e",
    "/v3/%2F",
    "/v3/%5c/x",
    "/v3/..%2f",
    "/v3/..%5C/x",
    "/v3/x?y",
    "/v3/x#y",
    "/v3/ x",
    "/v3/x ",
    "/v3/x\n",
    "/v3/x\r\nHost: evil",
    "/v3//x",
    "/v3/x/",
    "/v3/é",
    "/v3/x\\y",
    "/v3/%",
    "/v3/%2",
    "/v3/%zz",
    "/v3/\ud800",
    None,
    5,
    b"/v3/x",
    ["/v3/x"],
]
PATHS_THAT_LEAVE = ["/v3/..%2Fx", "/v3/x/a%2F..%2F..%2Fy", "/v3/..;/x", "/v3/%EF%BC%8E%EF%BC%8E/x"]


@pytest.mark.parametrize("path", PATHS_REFUSED, ids=ascii)
async def test_path_refused_sends_nothing(buyer, recorder, path):
    """A path that could lead elsewhere, or is not as it goes on the wire, is refused."""
    for method in ("GET", "POST"):
        with pytest.raises(InvalidRequestError, match="path must be"):
            await buyer.request(method, path)
    assert recorder.requests == []


@pytest.mark.parametrize("path", PATHS_THAT_LEAVE)
async def test_path_that_a_server_may_resolve_is_refused(buyer, recorder, path):
    """A part that some servers read as the way up is refused, as it is in a voucher code."""
    with pytest.raises(InvalidRequestError, match="path must be"):
        await buyer.request("GET", path)
    assert recorder.requests == []


@pytest.mark.parametrize(
    "path", ["/v3/x", "/v3/a%20b/..a/a..", "/v3/x;v=1/(a)*!$&'+,=:@-._~", "/v3/%2525"]
)
async def test_path_is_sent_as_it_is(buyer, recorder, path):
    """Any other path is sent as it was written."""
    with pytest.raises(NotFoundError):
        await buyer.request("GET", path)
    assert str(recorder.requests[1].url) == "https://sb-open.revenuemonster.my" + path


@pytest.mark.parametrize("method", ["get", "HEAD", "CONNECT", "", "GET ", "POST\r\n", None, 5])
async def test_method_of_another_name_is_refused(buyer, recorder, method):
    """Only the methods of an API are sent."""
    with pytest.raises(InvalidRequestError, match="method must be"):
        await buyer.request(method, "/v3/x")
    assert recorder.requests == []


@pytest.mark.parametrize("safety", [Safety.RECONCILABLE, "read", None])
async def test_safety_that_needs_reading_back_is_refused(buyer, recorder, safety):
    """What nobody can read back can't be called reconcilable."""
    with pytest.raises(InvalidRequestError, match="safety must be"):
        await buyer.request("POST", "/v3/x", safety=safety)
    assert recorder.requests == []


@dataclasses.dataclass
class Canary:
    canary: str = "canary"


class Fraction(float, enum.Enum):
    HALF = 0.5


class Plain(enum.Enum):
    ONE = 1


CYCLE: list[Any] = ["canary"]
CYCLE.append(CYCLE)
WIDE_CYCLE: list[Any] = ["canary"]
WIDE_CYCLE.extend([WIDE_CYCLE, WIDE_CYCLE])
DEEP: list[Any] = []
for _ in range(400):
    DEEP = [DEEP]
DEEP_LISTS: list[Any] = ["canary"]
DEEP_TUPLES: tuple[Any, ...] = ("canary",)
for _ in range(32):
    DEEP_LISTS, DEEP_TUPLES = [DEEP_LISTS], (DEEP_TUPLES,)
JSON_REFUSED = {
    "a fraction": 1.5,
    "a whole fraction": 1.0,
    "nan": math.nan,
    "infinity": math.inf,
    "an enum of fractions": Fraction.HALF,
    "an enum": Plain.ONE,
    "beyond 2**53": 2**53 + 1,
    "below -2**53": -(2**53) - 1,
    "beyond 2**64": 2**64,
    "a googol": 10**100,
    "a cycle": CYCLE,
    "a wide cycle": WIDE_CYCLE,
    "400 levels": DEEP,
    "33 levels": DEEP_LISTS,
    "33 levels of tuples": DEEP_TUPLES,
    "bytes": b"canary",
    "a datetime": datetime(2026, 1, 1),
    "a date": date(2026, 1, 1),
    "a uuid": uuid.UUID(int=5),
    "a decimal": decimal.Decimal("1.5"),
    "a dataclass": Canary(),
    "a set": {"canary"},
    "an object": object(),
    "number keys": {5: "canary"},
    "no keys": {None: "canary"},
    "byte keys": {b"canary": 1},
    "half a surrogate pair": "canary\ud800",
    "half a key": {"canary\udfff": 1},
}


@pytest.mark.parametrize("wrap", [lambda v: v, lambda v: [1, v], lambda v: {"a": ({"b": v},)}])
@pytest.mark.parametrize("name", JSON_REFUSED)
async def test_json_refused_sends_nothing(buyer, recorder, name, wrap):
    """What has no documented form, at any depth, is refused, and the error does not show it."""
    with pytest.raises(InvalidRequestError, match="refused before sending") as caught:
        await buyer.request("POST", "/v3/x", json=wrap(JSON_REFUSED[name]))
    assert recorder.requests == []
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("value", "body"),
    [
        (None, b""),
        ({}, b"{}"),
        (0, b"0"),
        (False, b"false"),
        ("", b'""'),
        ([2**53, -(2**53), True, None], b"[9007199254740992,-9007199254740992,true,null]"),
        ({"b": "\u2028<", "a": ("é", {})}, b'{"a":["\xc3\xa9",{}],"b":"\\u2028\\u003c"}'),
    ],
)
async def test_json_is_sent_in_its_signed_form(buyer, recorder, value, body):
    """Any other value is sent as the bytes that are signed; None is no body."""
    with pytest.raises(NotFoundError):
        await buyer.request("POST", "/v3/x", json=value)
    assert recorder.requests[1].body == body


async def test_json_of_a_get_is_refused(buyer, recorder):
    """A GET carries no body."""
    with pytest.raises(InvalidRequestError, match="GET"):
        await buyer.request("GET", "/v3/x", json={})
    assert recorder.requests == []


QUERY_REFUSED = [
    {"a": 5},
    {"a": True},
    {"a": 1.5},
    {"a": ["x"]},
    {"a": "\ud800"},
    {"\ud800": "a"},
    {5: "a"},
    {None: "a"},
    "a=b",
    ["a"],
    [("a", "b")],
    5,
]


@pytest.mark.parametrize(
    "query",
    [
        *QUERY_REFUSED,
        {"a": b"x"},
        {b"a": "x"},
    ],
    ids=ascii,
)
async def test_query_refused_sends_nothing(buyer, recorder, query):
    """Names and values of a query are text; nothing else is guessed at."""
    with pytest.raises(InvalidRequestError):
        await buyer.request("GET", "/v3/x", query=query)
    assert recorder.requests == []
