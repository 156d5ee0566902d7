"""What a body that arrived holds: decompressed, and whole although its framing was not. No I/O."""

from __future__ import annotations

import asyncio
import codecs
import zlib

from rm_voucher.jsontext import read_json

_STEP = 64 * 1024  # bytes in and out, well under a millisecond

_MEMBER = b"\x1f\x8b"  # begins one of gzip's

_ZLIB, _GZIP, _RAW = zlib.MAX_WBITS, zlib.MAX_WBITS | 16, -zlib.MAX_WBITS


async def decompressed(body: bytes | bytearray, encoding: str, *, limit: int) -> bytearray | None:
    """Return what a ``Content-Encoding`` hides, or None where it can't be read.

    It may have several members. What stands behind its end is not read; without an end, it must be
    whole by its own words. At most one step more than ``limit`` is made of it, with turns of the
    event loop between the steps.
    """
    match encoding.strip().lower():
        case "gzip" | "x-gzip":
            bits = _GZIP
        case "deflate":  # which is zlib's format, but some servers leave its header out
            bits = _ZLIB if body[:1] and body[0] & 0x0F == zlib.DEFLATED else _RAW
        case _:
            return None
    decoder, plain = zlib.decompressobj(bits), bytearray()
    try:
        for begin in range(0, len(body), _STEP):
            rest = bytes(body[begin : begin + _STEP])
            while rest and len(plain) <= limit:
                if decoder.eof:
                    if not _MEMBER.startswith(rest[:2]):
                        return plain
                    decoder = zlib.decompressobj(bits)
                plain += decoder.decompress(rest, _STEP)
                rest = decoder.unused_data or decoder.unconsumed_tail
                await asyncio.sleep(0)
        plain += decoder.decompress(b"", _STEP)  # what it has read and not yet given
    except zlib.error:
        return None
    return plain if decoder.eof or len(plain) > limit or is_whole(plain) else None


def is_whole(body: bytearray) -> bool:
    """Return whether a body is whole by its own words: a JSON object says where it ends."""
    if not body.rstrip().endswith(b"}"):
        return False
    try:
        return isinstance(read_json(body.removeprefix(codecs.BOM_UTF8)), dict)
    except ValueError:
        return False
