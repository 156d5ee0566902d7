"""A line to a served emulator, for bytes that no HTTP client would send."""

import asyncio
import base64
import contextlib

import orjson
from support.files import KEY_FILE
from support.signed_attempts import signed_attempt
from yarl import URL

from rm_voucher import Credentials, Request
from rm_voucher.signing import RsaSigner, canonical_json

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
SIGNER = RsaSigner.from_pem(ME.private_key_pem())


class Line:
    """Sends bytes to a server, each time over a connection of their own, and reads the answer."""

    def __init__(self, emulator, url):
        self.emulator = emulator
        self.url = URL(url)
        self.host = f"Host: 127.0.0.1:{self.url.port}\r\n".encode()
        self.nonce = 0

    async def raw(self, *parts, ends=True):
        """Return all that comes back until the connection ends. A reset is an answer too."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.url.port)
        got = bytearray()
        try:
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(10):
                    for part in parts:
                        writer.write(part)
                        await writer.drain()
                    if ends:
                        writer.write_eof()
                    while chunk := await reader.read(1 << 16):
                        got += chunk
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        return bytes(got)

    async def send(self, method, path, body=b"", *headers):
        """Send one request that is HTTP; return the status, None for none, and the body."""
        path = path if isinstance(path, bytes) else path.encode()
        lines = [b"%s %s HTTP/1.1" % (method.encode(), path), self.host.rstrip(), *headers]
        lines += [b"Connection: close", b"Content-Length: %d" % len(body)]
        got = await self.raw(b"\r\n".join(lines) + b"\r\n\r\n", body, ends=False)
        head, _, answer = got.partition(b"\r\n\r\n")
        return (int(head.split(b" ")[1]) if head else None), answer

    async def signed(self, method, path, body=b""):
        """Send a request whose token, nonce, time and signature are good."""
        self.nonce += 1
        url = URL(f"{self.url.origin()}{path}", encoded=True)
        signed = signed_attempt(
            Request(operation="x", method=method, url=url, body=canonical(body)),
            signer=SIGNER,
            token=self.token,
            nonce=f"nonce-{self.nonce}",
            timestamp=int(self.emulator.virtual_clock.now()),
        )
        return await self.send(method, path, body, *headers_of(signed))

    async def is_good(self):
        """Return whether good requests are answered, one to the API and one to the control API."""
        basic = base64.b64encode(b"client-id:client-secret")
        body = b'{"grantType":"client_credentials"}'
        status, answer = await self.send(
            "POST", "/v1/token", body, b"Authorization: Basic " + basic
        )
        self.token = orjson.loads(answer)["accessToken"]
        status, _ = await self.signed("GET", "/v3/voucher-batches")
        control, _ = await self.send("GET", "/_emulator/batches")
        return (status, control) == (200, 200)


def canonical(body):
    """Return what is signed of a body, as far as it can be."""
    try:
        return canonical_json(orjson.loads(body)) if body else b""
    except (orjson.JSONDecodeError, TypeError):
        return b""


def headers_of(request):
    return [f"{name}: {value}".encode() for name, value in request.headers.items()]
