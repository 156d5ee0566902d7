"""The messages: one that asks for a voucher, and one that hands a voucher on."""

from __future__ import annotations

from typing import Any

import attrs

from rm_voucher.exceptions import InvalidRequestError
from rm_voucher.jsontext import read_json, write_json
from rm_voucher.ledger.rules.commands import check_id
from rm_voucher.models import IssuedVoucher
from rm_voucher.signing.signature import is_too_deep

MAX_BYTES = 65_536
"""A longer message is no request for a voucher."""
_MAX_DEPTH = 254


@attrs.frozen
class VoucherRequest:
    """A message that asks for one voucher.

    Attributes:
        id: the id of the request. It has one code, however often it is delivered.
        content: what the voucher is for, any JSON. The same id with another content is refused.
        canonical: the content as a text, which is the same for the same content.
    """

    id: str
    content: Any = None
    canonical: str = ""


def parse_request(body: bytes) -> VoucherRequest:
    """Parse ``{"request_id": "order 1", "content": …}``.

    Raises `InvalidRequestError` for all else. It does not quote the message.
    """
    refused = InvalidRequestError.refused
    if len(body) > MAX_BYTES:
        raise refused(f"The message has {len(body):,} bytes, and {MAX_BYTES:,} are allowed.")
    try:
        message = read_json(body)
    except ValueError:
        message = None
    if not isinstance(message, dict):
        raise refused("The message is no JSON object.")
    content = message.get("content")
    canonical = ""
    if content is not None:
        # As deep as in the voucher's message, which must not fail when it is issued.
        if is_too_deep([content], _MAX_DEPTH):
            raise refused("The message's content is nested too deeply.")
        canonical = write_json(content, sort_keys=True).decode()
    return VoucherRequest(check_id(message.get("request_id", "")), content, canonical)


def voucher_message(request: VoucherRequest, voucher: IssuedVoucher) -> bytes:
    """Return the message that hands a voucher on. It has the code: never log it."""
    message = {"request_id": request.id, "code": voucher.code, "qr_url": voucher.qr_url or None}
    if request.content is not None:
        message["content"] = request.content
    return write_json(message)
