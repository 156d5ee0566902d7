"""What goes over a real socket is, byte for byte, what was signed."""

import json
import random
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest
from support.answers import payload
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from support.http_servers import http, raw_server
from support.rm_signature import canonical, expected_text, public_numbers, verifies
from support.signed_attempts import signed_attempt
from yarl import URL

from rm_voucher import Credentials, Environment, Request, StaticToken, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.server import serve
from rm_voucher.signing import canonical_json

CASES = 300
# Text that invites every mistake of quoting, and that a code may be.
PARTS = [*"@#%?+()&=:,~!$'*<>|^`{}[]\" éaZ漢🎫", "%41"]
VOUCHER = http(200, json.dumps(payload("get-voucher")).encode())


def shown(code):
    """Return a voucher of that code, void: an answer to *get* and to *void*."""
    item = {**payload("void-voucher")["item"], "code": code}
    return http(200, json.dumps({"item": item, "code": "SUCCESS"}).encode())


LISTING = http(200, json.dumps({"items": [], "code": "SUCCESS"}).encode())


def awkward(rng):
    return "x" + "".join(rng.choices(PARTS, k=rng.randint(1, 12))) + "9"


def awkward_json(rng, depth=3):
    kinds = ["text", "number", "constant", "list", "object"]
    match rng.choice(kinds if depth else kinds[:3]):
        case "text":
            return awkward(rng)
        case "number":
            return rng.randint(-(2**53), 2**53)
        case "constant":
            return rng.choice([None, True, False])
        case "list":
            return [awkward_json(rng, depth - 1) for _ in range(rng.randint(0, 3))]
        case "object":
            return {awkward(rng): awkward_json(rng, depth - 1) for _ in range(rng.randint(0, 4))}


def segment(text):
    return quote(text, safe="$&+,:=@")


def escaped(text):
    return quote(text, safe="")


def one_case(rng, client):
    """Return the target and body that must arrive, the call, and the answer it needs."""
    key, other = awkward(rng), awkward(rng)
    used_at = datetime(2026, 1, 1, 1, 1, 1, tzinfo=UTC) + timedelta(
        microseconds=rng.getrandbits(40)
    )
    match rng.choice(["issue", "get", "void", "vouchers", "batches", "body"]):
        case "issue":
            target = f"/v3/voucher-batch/{segment(key)}/issue"
            return target, b"{}", lambda: client.issue(key), VOUCHER
        case "get":
            return f"/v3/voucher/{segment(key)}", b"{}", lambda: client.get(key), shown(key)
        case "void":
            target = f"/v3/voucher/{segment(key)}/void"
            body = {"storeId": other, "usedAt": used_at.isoformat().replace("+00:00", "Z")}
            call = lambda: client.void(key, store_id=other, used_at=used_at)  # noqa: E731
            return target, canonical(body), call, shown(key)
        case "vouchers":
            target = f"/v3/voucher-batch/{segment(key)}/vouchers?cursor={escaped(other)}"
            return target, b"", lambda: anext(client.vouchers(key, cursor=other).pages()), LISTING
        case "batches":
            wanted = escaped(canonical({"status": key, "isStatic": True}).decode())
            target = f"/v3/voucher-batches?filter={wanted}&cursor={escaped(other)}"
            listing = client.batches(status=key, is_static=True, cursor=other)
            return target, b"", lambda: anext(listing.pages()), LISTING
        case "body":
            value = awkward_json(rng)
            target = f"/v3/vouchers/{segment(key)}"
            return target, canonical(value), lambda: send_body(client, target, value), VOUCHER


async def send_body(client, target, value):
    """Send any JSON through the layers below the operations, whose bodies are flat."""
    request = Request(
        operation="body",
        method="POST",
        url=URL(client.caller.environment.api_url + target, encoded=True),
        headers={"Content-Type": "application/json"},
        body=canonical_json(value),
    )
    signed = signed_attempt(
        request,
        signer=client.caller.signer,
        token="t",
        nonce=client.caller.runtime.make_nonce(),
        timestamp=1,
    )
    await client.caller.transport.send(signed)


async def test_wire_is_what_was_signed(credentials):
    """For 300 generated codes, keys, filters and bodies: the URL and the body that arrive are
    those that were signed, and the signature verifies with code that the package does not share."""
    rng = random.Random(20261120)
    numbers = public_numbers(PUBLIC_KEY_FILE)
    expected = []
    async with raw_server() as server:
        environment = Environment.at(server.url)
        tokens = StaticToken("t")
        async with VoucherClient(
            credentials, environment=environment, token_source=tokens
        ) as client:
            for _ in range(CASES):
                target, body, call, server.forever = one_case(rng, client)
                expected.append((target, body))
                await call()
    assert len(server.received) == CASES
    for received, (target, body) in zip(server.received, expected, strict=True):
        assert (received.target, received.body) == (target, body)
        text = expected_text(
            received.method,
            server.url + target,
            received.headers["x-nonce-str"],
            received.headers["x-timestamp"],
            body,
        )
        assert verifies(numbers, text, received.headers["x-signature"])
        assert received.headers["authorization"] == "Bearer t"


@pytest.mark.parametrize("code", ["rms@xR43u4bRhUU", "A(1)", "A+1", "A#1", "A%41"])
async def test_wire_legitimate_codes_arrive_as_themselves(code):
    """The codes that quoting breaks most often reach the emulator as themselves."""
    credentials = Credentials("id", "hush", KEY_FILE.read_bytes())
    emulator = Emulator(credentials=credentials)
    emulator.add_batch("label", quantity=1, key=code)
    async with (
        serve(emulator) as server,
        VoucherClient(credentials, environment=server.environment) as client,
    ):
        issued = await client.issue(code)
    assert emulator.state.issued(code) == (issued.code,)
