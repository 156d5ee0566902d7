"""The page of the emulator over HTTP: its files, and the stream of what is new."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from importlib.resources import files

import attrs
from aiohttp import web

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.control.access import PREFIX
from rm_voucher.emulator.view.events import Watch
from rm_voucher.jsontext import write_json

SAFETY = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Headers of every page: it runs its own files only, and nobody puts it in a frame."""
_KINDS = {
    "css": "text/css",
    "html": "text/html",
    "js": "text/javascript",
    "svg": "image/svg+xml",
}
_SAMPLE_S = 0.25
_HEARTBEAT_S = 15.0
_MAX_OPEN = 16


def read_files(package: str, prefix: str) -> Mapping[str, tuple[bytes, str]]:
    """Return a package's files for a browser, by path: the bytes and their kind."""
    found = {}
    for file in files(package).iterdir():
        kind = _KINDS.get(file.name.rpartition(".")[2])
        if kind is not None:
            found[f"{prefix}/{file.name}"] = file.read_bytes(), kind
    return found


@attrs.define(eq=False)
class Pages:
    """Answers what a browser asks for beside the control API."""

    _emulator: Emulator
    _files: Mapping[str, tuple[bytes, str]] = attrs.field(init=False)
    _open: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        found = dict(read_files("rm_voucher.emulator.page", PREFIX))
        found[f"{PREFIX}/"] = found[f"{PREFIX}/index.html"]
        self._files = found

    async def answer(self, http: web.BaseRequest) -> web.StreamResponse | None:
        """Answer a request for a file or for the stream, None for another one."""
        path = http.raw_path.partition("?")[0]
        if http.method != "GET":
            return None
        if path == f"{PREFIX}/events":
            return await self._stream(http)
        file = self._files.get(path)
        return None if file is None else send_file(http, *file)

    async def _stream(self, http: web.BaseRequest) -> web.StreamResponse:
        """Tell a page what is new, a few times a second at most, until it is closed."""
        if self._open >= _MAX_OPEN:
            return web.Response(status=503, text="too many pages are open\n", headers=SAFETY)
        self._open += 1
        try:
            response = web.StreamResponse(
                headers={**SAFETY, "Content-Type": "text/event-stream", "X-Accel-Buffering": "no"}
            )
            await response.prepare(http)
            watch, quiet_s = Watch(self._emulator), 0.0
            await response.write(b"retry: 1000\n\n")
            while True:
                news = watch.news()
                if news is not None:
                    # A page that reads slowly is waited for here, and told of the newest then.
                    await response.write(b"data: " + write_json(news) + b"\n\n")
                    quiet_s = 0.0
                elif quiet_s >= _HEARTBEAT_S:
                    await response.write(b": still here\n\n")
                    quiet_s = 0.0
                await asyncio.sleep(_SAMPLE_S)  # so that much news is told as one
                quiet_s += _SAMPLE_S
        finally:
            self._open -= 1


def send_file(http: web.BaseRequest, body: bytes, kind: str) -> web.Response:
    """Answer with a file, or that the browser has it already."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {**SAFETY, "Cache-Control": "no-cache", "ETag": tag}
    if http.headers.get("If-None-Match") == tag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=body, headers={**headers, "Content-Type": f"{kind}; charset=utf-8"})
