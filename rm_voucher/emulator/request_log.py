"""The request log: a line for each request, with codes masked.

For a refused signature it also has the whole text that should have been signed, to be compared
with the client's. It may hold codes, but those of an emulator are worth nothing.
"""

from __future__ import annotations

import logging

from rm_voucher.emulator.authenticator import SignatureRefusedError
from rm_voucher.emulator.masking import mask_path, plain
from rm_voucher.emulator.reply import Ending, Reply

LOGGER = logging.getLogger("rm_voucher.emulator")


def log_reply(method: str, raw_path: str, reply: Reply) -> None:
    """Write a line about a request and its outcome, at level INFO."""
    if not LOGGER.isEnabledFor(logging.INFO):
        return
    LOGGER.info("%s %s %s", plain(method), mask_path(raw_path), _outcome(reply))
    if isinstance(reply.refused, SignatureRefusedError):
        LOGGER.info("  expected the signature of: %s", plain(reply.refused.expected))


def log_bad_request(reason: str) -> None:
    """Write a line about bytes that are no HTTP request, at level INFO. It shows none of them."""
    LOGGER.info("400 %s", reason)


def _outcome(reply: Reply) -> str:
    words = str(reply.response.status)
    if reply.ending is not Ending.WHOLE:
        words = f"({reply.ending.name.lower()})"
    elif reply.refused is not None:
        words += f" {reply.refused.code}"
        words += f" ({reply.refused.reason})" if reply.refused.reason else ""
    return words if reply.fault is None else f"{words}, fault {reply.fault}"
