"""The request log: a line for each request, with codes masked.

For a signature that was refused it also has the string that the server expected to be signed,
whole, because comparing it with one's own is the way to find the difference; the codes of an
emulator are worth nothing.
"""

from __future__ import annotations

import logging
import re

from rm_voucher.emulator.gate import SignatureRefusedError
from rm_voucher.emulator.reply import Ending, Reply
from rm_voucher.models import mask

__all__ = ["LOGGER", "log_reply"]

LOGGER = logging.getLogger("rm_voucher.emulator")
_CODE_IN_PATH = re.compile(r"(?<=/voucher/)[^/?]+")


def log_reply(method: str, raw_path: str, reply: Reply) -> None:
    """Write a line about a request and what came of it, at level INFO."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    path = ascii(raw_path.partition("?")[0])[1:-1]  # without what a terminal would obey
    path = _CODE_IN_PATH.sub(lambda found: mask(found[0]).strip("'"), path)
    LOGGER.info("%s %s %s", method, path, _what(reply))
    if isinstance(reply.refused, SignatureRefusedError):
        LOGGER.info("  expected the signature of: %s", ascii(reply.refused.expected)[1:-1])


def _what(reply: Reply) -> str:
    if reply.ending is not Ending.WHOLE:
        return f"({reply.ending.name.lower()})"
    status = str(reply.response.status)
    if reply.refused is not None:
        return f"{status} {reply.refused.code}"
    return status
