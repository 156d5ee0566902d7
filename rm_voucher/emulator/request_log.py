"""The request log: a line for each request, with codes masked.

For a refused signature it also has the whole text that should have been signed, to be compared
with the client's. It may hold codes, but those of an emulator are worth nothing.
"""

from __future__ import annotations

import logging
from urllib.parse import unquote

from rm_voucher.emulator.authenticator import SignatureRefusedError
from rm_voucher.emulator.reply import Ending, Reply
from rm_voucher.models import mask

LOGGER = logging.getLogger("rm_voucher.emulator")
# In a path, a code or one of the words follows one of these.
_CODE_FOLLOWS = frozenset({"voucher", "vouchers"})
_WORDS = frozenset({"", "expire", "issue", "redeem", "reinstate", "void", *_CODE_FOLLOWS})


def log_reply(method: str, raw_path: str, reply: Reply) -> None:
    """Write a line about a request and its outcome, at level INFO."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    LOGGER.info("%s %s %s", _plain(method), _masked(raw_path), _outcome(reply))
    if isinstance(reply.refused, SignatureRefusedError):
        LOGGER.info("  expected the signature of: %s", _plain(reply.refused.expected))


def log_bad_request(reason: str) -> None:
    """Write a line about bytes that are no HTTP request, at level INFO. It shows none of them."""
    LOGGER.info("400 %s", reason)


def _masked(raw_path: str) -> str:
    """Return a path with its codes masked."""
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
    """Return text in which what a terminal would obey is escaped."""
    return ascii(text)[1:-1]


def _outcome(reply: Reply) -> str:
    words = str(reply.response.status)
    if reply.ending is not Ending.WHOLE:
        words = f"({reply.ending.name.lower()})"
    elif reply.refused is not None:
        words += f" {reply.refused.code}"
        words += f" ({reply.refused.reason})" if reply.refused.reason else ""
    return words if reply.fault is None else f"{words}, fault {reply.fault}"
