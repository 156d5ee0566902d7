"""`openssl` and `curl` judge what goes over the wire: what the client signs, a callback that a
shell signs, and one that the emulator signs. The texts to sign are put together by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
from support.answers import payload
from support.callback_receivers import NOW, PATH, Router, serving
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from support.http_servers import http, raw_server
from yarl import URL

from rm_voucher import Credentials, Environment, StaticToken, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.transport.base import Request, Response
from rm_voucher.transport.memory import MemoryTransport

pytestmark = pytest.mark.skipif(
    not (shutil.which("curl") and shutil.which("openssl")), reason="curl or openssl is missing"
)

AWKWARD = "<till> & \u2028 é 🎫"
# As Go writes it, in a text of JSON.
AWKWARD_IN_GO = r"\u003ctill\u003e \u0026 \u2028 é 🎫"


def openssl_verifies(public_key: Path, text: str, headers: Mapping[str, str], folder: Path) -> bool:
    """Return whether `openssl` finds the header's signature to be that of a text."""
    word, _, encoded = headers["x-signature"].partition(" ")
    assert word == "sha256"
    signature = folder / "signature"
    signature.write_bytes(base64.b64decode(encoded, validate=True))
    keys = ("-verify", str(public_key), "-signature", str(signature))
    done = subprocess.run(
        ["openssl", "dgst", "-sha256", *keys], input=text.encode(), capture_output=True, check=False
    )
    return done.returncode == 0 and done.stdout == b"Verified OK\n"


def text_to_sign(method: str, url: str | None, headers: Mapping[str, str], data: str) -> str:
    """Return the string to sign, its parts in the order of RM's page."""
    given = f"data={base64.b64encode(data.encode()).decode()}&" if data else ""
    named = f"&requestUrl={url}" if url else ""
    return (
        f"{given}method={method}&nonceStr={headers['x-nonce-str']}{named}"
        f"&signType=sha256&timestamp={headers['x-timestamp']}"
    )


async def test_openssl_verifies_what_the_client_sends(
    credentials: Credentials, tmp_path: Path
) -> None:
    """With no data, with a query, and with a body that Go escapes: `openssl` finds each signature
    good, and none for another text."""
    void, listing = payload("void-voucher"), payload("list-batch-vouchers")
    answers = [http(200, json.dumps(payload("issue-voucher")).encode())]
    answers += [http(200, json.dumps(listing).encode()), http(200, json.dumps(void).encode())]
    async with raw_server(*answers) as server:
        client = VoucherClient(
            credentials, environment=Environment.at(server.url), token_source=StaticToken("t")
        )
        async with client:
            await client.issue("A-b_1==")
            await anext(client.vouchers("TEA", cursor="a+b/=&").pages())
            await client.void(void["item"]["code"], store_id=AWKWARD)
    path = f"/v3/voucher/{void['item']['code']}/void"
    wanted = [
        ("post", "/v3/voucher-batch/A-b_1==/issue", ""),
        ("get", "/v3/voucher-batch/TEA/vouchers?cursor=a%2Bb%2F%3D%26", ""),
        ("post", path, f'{{"storeId":"{AWKWARD_IN_GO}"}}'),
    ]
    for received, (method, target, data) in zip(server.received, wanted, strict=True):
        assert received.body.decode() == (data or ("{}" if method == "post" else ""))
        text = text_to_sign(method, server.url + target, received.headers, data)
        assert openssl_verifies(PUBLIC_KEY_FILE, text, received.headers, tmp_path)
        assert not openssl_verifies(PUBLIC_KEY_FILE, text + " ", received.headers, tmp_path)


# All that RM does to send a callback.
DELIVER = r"""
url=$1 key=$2 timestamp=$3 canonical=$4 sent=$5
nonce=$(openssl rand -hex 16)
text="data=$(printf '%s' "$canonical" | openssl base64 -A)&method=post&nonceStr=$nonce"
text="$text&signType=sha256&timestamp=$timestamp"
signature=$(printf '%s' "$text" | openssl dgst -sha256 -sign "$key" | openssl base64 -A)
curl -sS --noproxy '*' -o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' \
  -H "X-Nonce-Str: $nonce" -H "X-Timestamp: $timestamp" -H "X-Signature: sha256 $signature" \
  --data-binary "$sent" "$url"
"""


async def deliver_by_shell(url: str, canonical: str, sent: str) -> str:
    """Return the status of the answer to a callback that `openssl` signs and `curl` sends."""
    arguments = [url, str(KEY_FILE), str(NOW), canonical, sent]
    process = await asyncio.create_subprocess_exec(
        "sh", "-euc", DELIVER, "sh", *arguments, stdout=asyncio.subprocess.PIPE
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out.decode()


async def test_callback_signed_by_openssl_is_handled() -> None:
    """Sent by `curl`, its body in another order and spelling than was signed, it is handled; one
    with another label than was signed is not."""
    item = {**payload("webhook-callback")["item"], "label": AWKWARD}
    sent = json.dumps({"item": item, "code": "SUCCESS"})  # neither sorted nor compact
    canonical = json.dumps(
        {"code": "SUCCESS", "item": item}, sort_keys=True, separators=(",", ":"), ensure_ascii=False
    ).replace(AWKWARD, AWKWARD_IN_GO)
    router = Router()
    async with serving("aiohttp", router) as line:
        url = str(line.url.with_path(PATH))
        assert await deliver_by_shell(url, canonical, sent.replace("till", "bill")) == "400"
        assert await router.has_nothing()
        assert await deliver_by_shell(url, canonical, sent) == "200"
    assert router.handled == [item["code"]]


async def test_openssl_verifies_a_callback_of_the_emulator(
    credentials: Credentials, tmp_path: Path
) -> None:
    """By the emulator's default `openssl` finds it good without the URL, and not with it; by the
    switch it is the other way round."""
    emulator = Emulator(credentials=credentials, batches={"TEA": 2})
    sent: list[Request] = []

    def take(request: Request) -> Response:
        sent.append(request)
        return Response(status=200, body=b"")

    callbacks = emulator.callbacks
    callbacks.url, callbacks.transport = (
        "https://shop.invalid/callback?a=1%2B1",
        MemoryTransport(take),
    )
    public_key = tmp_path / "rm.pem"
    public_key.write_bytes(callbacks.public_key_pem)
    for signs_url in (False, True):
        callbacks.signs_url = signs_url
        async with emulator.client() as client:
            await client.void((await client.issue("TEA")).code)
        await callbacks.deliver()
        delivery = sent.pop()
        assert delivery.url == URL(callbacks.url, encoded=True)
        headers = {name.lower(): value for name, value in delivery.headers.items()}
        data = json.dumps(
            json.loads(delivery.body), sort_keys=True, separators=(",", ":"), ensure_ascii=False
        )
        for url in (None, callbacks.url):
            text = text_to_sign("post", url, headers, data)
            verdict = openssl_verifies(public_key, text, headers, tmp_path)
            assert verdict == (signs_url == (url is not None))
