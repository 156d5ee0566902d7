"""Hostile arguments: refused before anything is sent, a token request too, or sent as data."""

import json
import re
from datetime import datetime
from urllib.parse import unquote

import attrs
import pytest
from yarl import URL

from rm_voucher import Environment, InvalidRequestError, NotFoundError, VoucherClient
from rm_voucher.emulator import Check, Emulator
from rm_voucher.transport.memory import MemoryTransport


async def items(pager):
    return [item async for item in pager]


def of_member(client):
    return client.member("60", "123456789")


# Where the code or key stands: what goes before and after it in the path.
IN_PATH = {
    "issue": (lambda c, x: c.issue(x), "/v3/voucher-batch/", "/issue"),
    "get": (lambda c, x: c.get(x), "/v3/voucher/", ""),
    "void": (lambda c, x: c.void(x), "/v3/voucher/", "/void"),
    "reinstate": (lambda c, x: c.reinstate(x, pin="1"), "/v3/voucher/", "/reinstate"),
    "batch": (lambda c, x: c.batch(x), "/v3/voucher-batch/", ""),
    "a page of vouchers": (lambda c, x: c.vouchers(x), "/v3/voucher-batch/", "/vouchers"),
    "all vouchers": (lambda c, x: items(c.vouchers(x)), "/v3/voucher-batch/", "/vouchers"),
    "member get": (lambda c, x: of_member(c).get(x), "/v3/loyalty/me/voucher/", ""),
    "member redeem": (lambda c, x: of_member(c).redeem(x), "/v3/loyalty/me/voucher/", "/redeem"),
}
CALLS = {name: call for name, (call, _, _) in IN_PATH.items()} | {
    "redeem": lambda c, x: c.redeem([x]),
    "redeem, the last": lambda c, x: c.redeem(["A", x]),
}
# bad-input: voucher codes and batch keys, all of which but `redeem`'s go into the path.
REFUSED = [
    "",
    ".",
    "..",
    "...",
    "../x",
    "..;/",
    "..;",
    ";x",
    "A;B",
    "A%3bB",
    "A%253BB",
    "A\u037eB",
    "..%2f",
    "..%2fx",
    "%2e%2e",
    "%252e",
    "a%00",
    "a%0d%0a",
    "a%252fb",
    "a/b",
    "a\\b",
    "/v3/x",
    "\x00",
    "a\x00",
    "a\r\nb",
    "a\n",
    "a\tb",
    "a\x7f",
    "a\x85b",
    " a",
    "a ",
    "\u00a0a",
    "a\u2028",
    "//evil.example",
    "https://evil.example",
    "\uff0e\uff0e",
    "\uff0e",
    "\u2025",
    "a\uff0fb",
    "a\uff3cb",
    "a\u202eb",
    "\u202e",
    "\ud800",
    "a\udfff",
    "x" * 513,
    "x" * 10_000,
    None,
    5,
    1.5,
    True,
    b"abc",
    bytearray(b"abc"),
    ["a"],
    {"a": "b"},
    object(),
]
SENT = {
    "rms@xR43u4bRhUU": "rms@xR43u4bRhUU",
    "A(1)": "A%281%29",
    "A+1": "A+1",
    "A#1": "A%231",
    "A%41": "A%2541",
    "a?b": "a%3Fb",
    "a#b": "a%23b",
    "@evil.example": "@evil.example",
    "a$b,c:d": "a$b,c:d",
    "a!b*(c)": "a%21b%2A%28c%29",
    "a%b?c": "a%25b%3Fc",
    "a b": "a%20b",
    "..a": "..a",
    "a\uff0e": "a%EF%BC%8E",
    "漢🎫": "%E6%BC%A2%F0%9F%8E%AB",
    "a&b=c,d": "a&b=c,d",
    "a'\"<>|^`{}": "a%27%22%3C%3E%7C%5E%60%7B%7D",
    "-_~.": "-_~.",
    "x" * 512: "x" * 512,
}


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("code", REFUSED, ids=lambda code: ascii(code)[:20])
async def test_code_refused_sends_nothing(buyer, recorder, operation, code):
    """What could become another path, or is no text, is refused before a token is asked for, and
    the error does not show it."""
    with pytest.raises(InvalidRequestError, match="refused before sending") as caught:
        await CALLS[operation](buyer, code)
    assert caught.value.http_status is None
    assert recorder.requests == []
    if isinstance(code, str) and len(code) > 3:
        assert code not in str(caught.value)


@pytest.mark.parametrize("operation", IN_PATH)
@pytest.mark.parametrize(("code", "segment"), SENT.items(), ids=lambda code: ascii(code)[:20])
async def test_code_is_one_segment(buyer, recorder, operation, code, segment):
    """Any other code is one encoded segment of one request to the API's own host."""
    call, before, after = IN_PATH[operation]
    with pytest.raises(NotFoundError):
        await call(buyer, code)
    _, request = recorder.requests
    target = str(request.url).removeprefix("https://sb-open.revenuemonster.my")
    assert target.partition("?")[0] == before + segment + after


@pytest.mark.parametrize("operation", IN_PATH)
async def test_code_is_escaped_where_the_environment_says_so(make_client, recorder, operation):
    """A server that signs the escaped text gets it, and the signature is over what is sent."""
    signed = []

    class Reader:
        def sign(self, text):
            signed.append(text.decode())
            return b""

    call, before, after = IN_PATH[operation]
    escaping = attrs.evolve(Environment.SANDBOX, escapes_paths=True)
    client = make_client(recorder, environment=escaping, signer=Reader())
    with pytest.raises(NotFoundError):
        await call(client, "a$&+,:=@b")
    (request,) = recorder.requests
    path = f"{before}a%24%26%2B%2C%3A%3D%40b{after}"
    assert request.url.raw_path == path
    assert f"&requestUrl={request.url}&" in signed[0]


@pytest.mark.parametrize("code", ["rms@xR43u4bRhUU", "a$&+,:=@b", "a%2Bb", "a+b c#?"])
@pytest.mark.parametrize("escapes_paths", [False, True])
async def test_emulator_reads_the_code_and_verifies_either_way(code, escapes_paths):
    """A server that reads the path as it came finds the code, and the signature good."""
    emulator = Emulator()
    emulator.add_batch("own", key="own", codes=[code])
    async with VoucherClient(
        emulator.credentials,
        environment=attrs.evolve(emulator.environment, escapes_paths=escapes_paths),
        transport=emulator.transport(),
        runtime=emulator.runtime,
    ) as client:
        assert (await client.issue("own")).code == code
        assert (await client.void(code)).code == code


@pytest.mark.parametrize("operation", CALLS)
@pytest.mark.parametrize("escapes_paths", [False, True])
async def test_gateway_that_cuts_at_a_semicolon_changes_no_other_voucher(operation, escapes_paths):
    """Such a gateway, which may decode the path first, would take ``A;B`` for A: nothing is sent,
    and A stays as it is."""
    emulator = Emulator(disabled_checks=[Check.SIGNATURE])  # as where the gateway's URL is signed
    emulator.add_batch("own", key="A", codes=["A"])
    member = emulator.add_member("60", "123456789")
    emulator.state.issue("A")
    emulator.state.collect("A", member)
    before = emulator.voucher("A")

    def cut(request):
        path = re.sub(r";[^/]*", "", unquote(request.url.raw_path))
        target = path + (f"?{request.url.raw_query_string}" if request.url.raw_query_string else "")
        url = URL(f"{request.url.origin()}{target}", encoded=True)
        return emulator.handle(attrs.evolve(request, url=url))

    async with VoucherClient(
        emulator.credentials,
        environment=attrs.evolve(emulator.environment, escapes_paths=escapes_paths),
        transport=MemoryTransport(cut),
        runtime=emulator.runtime,
    ) as client:
        with pytest.raises(InvalidRequestError, match="semicolon"):
            await CALLS[operation](client, "A;B")
    assert emulator.voucher("A") == before
    assert len(emulator.issued("A")) == 1


@pytest.mark.parametrize("code", SENT, ids=lambda code: ascii(code)[:20])
async def test_code_is_data_of_a_redeem(buyer, recorder, code):
    """A bulk redeem carries its codes in the body, as they are."""
    with pytest.raises(NotFoundError):
        await buyer.redeem([code, "B"])
    _, request = recorder.requests
    assert str(request.url) == "https://sb-open.revenuemonster.my/v3/vouchers/redeem"
    assert json.loads(request.body) == {"codes": [code, "B"]}


OTHERS_REFUSED = {
    "no pin": lambda c: c.reinstate("X", pin=""),
    "pin None": lambda c: c.reinstate("X", pin=None),
    "pin 5": lambda c: c.reinstate("X", pin=5),
    "pin half": lambda c: c.reinstate("X", pin="\ud800"),
    "reason 5": lambda c: c.reinstate("X", pin="1", reason=5),
    "reason backspace": lambda c: c.reinstate("X", pin="1", reason="a\b"),
    "reason form feed": lambda c: c.reinstate("X", pin="1", reason="\\\f"),
    "pin backspace": lambda c: c.reinstate("X", pin="1\b"),
    "json form feed": lambda c: c.request("POST", "/v3/x", json={"\f": 1}),
    "reason half": lambda c: c.reinstate("X", pin="1", reason="\ud800"),
    "store 5": lambda c: c.void("X", store_id=5),
    "store bytes": lambda c: c.void("X", store_id=b"x"),
    "no store": lambda c: c.void("X", store_id=""),
    "store half": lambda c: c.void("X", store_id="\ud800"),
    "naive": lambda c: c.void("X", used_at=datetime(2026, 1, 1)),
    "time as text": lambda c: c.void("X", used_at="2026-01-01T00:00:00Z"),
    "time as number": lambda c: c.void("X", used_at=5),
    "limit 0": lambda c: of_member(c).vouchers(limit=0),
    "limit true": lambda c: of_member(c).vouchers(limit=True),
    "limit text": lambda c: of_member(c).vouchers(limit="2"),
    "cursor 5": lambda c: c.vouchers("K", cursor=5),
    "cursor half": lambda c: c.batches(cursor="\ud800"),
    "cursor object": lambda c: c.vouchers("K", cursor=object()),
    "status object": lambda c: c.batches(status=object()),
    "status half": lambda c: c.batches(status="\ud800"),
}
NUMBERS_REFUSED = ["", "+60", "6 0", " 60", "60\n", "٦٠", "6" * 16, "60&x=1", None, 60, b"60"]


@pytest.mark.parametrize("name", OTHERS_REFUSED)
async def test_other_argument_refused_sends_nothing(buyer, recorder, name):
    """PINs, reasons, stores, instants, limits, cursors and filters of a wrong kind are refused."""
    with pytest.raises(InvalidRequestError, match="refused before sending"):
        await OTHERS_REFUSED[name](buyer)
    assert recorder.requests == []


@pytest.mark.parametrize("number", NUMBERS_REFUSED, ids=ascii)
async def test_member_number_refused_sends_nothing(buyer, recorder, number):
    """A country code and a phone number are digits and nothing else."""
    for who in ((number, "123"), ("60", number)):
        member = buyer.member(*who)
        for call in (member.get("X"), member.redeem("X"), member.vouchers()):
            with pytest.raises(InvalidRequestError, match="must be digits"):
                await call
    assert recorder.requests == []
