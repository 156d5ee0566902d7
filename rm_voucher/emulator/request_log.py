"""The request log: a line for each request, with codes masked.

For a signature that was refused it also has the string that the server expected to be signed,
whole, because comparing it with one's own is the way to find the difference; the codes of an
emulator are worth nothing.
"""

from __future__ import annotations

import logging
from urllib.parse import unquote

from rm_voucher.emulator.gate import SignatureRefusedError
from rm_voucher.emulator.reply import Ending, Reply
from rm_voucher.models import mask

LOGGER = logging.getLogger("rm_voucher.emulator")
# After one of these, in a path, comes a code or one of the words.
_CODE_FOLLOWS = frozenset({"voucher", "vouchers"})
_WORDS = frozenset({"", "expire", "issue", "redeem", "reinstate", "void", *_CODE_FOLLOWS})


def log_reply(method: str, raw_path: str, reply: Reply) -> None:
    """Write a line about a request and what came of it, at level INFO."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    LOGGER.info("%s %s %s", _plain(method), _shown(raw_path), _what(reply))
    if isinstance(reply.refused, SignatureRefusedError):
        LOGGER.info("  expected the signature of: %s", _plain(reply.refused.expected))


def log_bad_request(reason: str) -> None:
    """Write a line about what is no request of HTTP's, at level INFO. It shows nothing of it."""
    LOGGER.info("400 %s", reason)


def _shown(raw_path: str) -> str:
    """Return a path with the codes in it masked."""
    shown = []
    is_code = False
    for part in raw_path.partition("?")[0].split("/"):
        word = unquote(part).lower()
        if "voucher/" in word or "vouchers/" in word or (is_code and word not in _WORDS):
            shown.append(mask(_plain(unquote(part))).strip("'"))
        else:
            shown.append(_plain(part))
        is_code = is_code or word in _CODE_FOLLOWS
    return "/".join(shown)


def _plain(text: str) -> str:
    """Return text without what a terminal would obey, which is nothing for a log."""
    return ascii(text)[1:-1]


def _what(reply: Reply) -> str:
    what = str(reply.response.status)
    if reply.ending is not Ending.WHOLE:
        what = f"({reply.ending.name.lower()})"
    elif reply.refused is not None:
        what = f"{what} {reply.refused.code}"
        what = f"{what} ({reply.refused.reason})" if reply.refused.reason else what
    return what if reply.fault is None else f"{what}, fault {reply.fault}"
