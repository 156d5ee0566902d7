"""The emulator over HTTP. It listens on loopback unless told otherwise."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import attrs
from aiohttp import web
from yarl import URL

from rm_voucher.settings import Environment
from rm_voucher.transport.base import Request

if TYPE_CHECKING:
    from rm_voucher.emulator.app import Emulator

__all__ = ["Server", "serve"]


@attrs.frozen
class Server:
    """Where an emulator listens."""

    url: str

    @property
    def environment(self) -> Environment:
        """What a client over HTTP is given."""
        return Environment(self.url, self.url, allow_plain_http=True)


@asynccontextmanager
async def serve(emulator: Emulator, *, host: str, port: int) -> AsyncIterator[Server]:
    """Serve until the block is left. Port 0 takes a free one. Raises `OSError`."""

    async def handle(http: web.BaseRequest) -> web.Response:
        try:
            # As the client wrote it, because that is what it signed.
            url = URL(f"http://{http.host}{http.raw_path}", encoded=True)
        except ValueError:
            return web.Response(status=400)
        answer = emulator.handle(
            Request(
                operation="served",
                method=http.method,
                url=url,
                headers=dict(http.headers),
                body=await http.read(),
            )
        )
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)

    # A client that still sends a body that was refused for its size is not waited for.
    runner = web.ServerRunner(web.Server(handle, access_log=None, lingering_time=0))
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        bound_host, bound_port = runner.addresses[0][:2]
        # Listening everywhere includes loopback, which is where a client may go without TLS.
        bound_host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(bound_host, bound_host)  # noqa: S104
        shown_host = f"[{bound_host}]" if ":" in bound_host else bound_host
        yield Server(f"http://{shown_host}:{bound_port}")
    finally:
        await runner.cleanup()
