"""The messages: one that asks for a voucher, and one that hands a voucher on."""

from __future__ import annotations

from typing import Any

import attrs
import orjson

from rm_voucher.exceptions import InvalidRequestError
from rm_voucher.ledger.rules.commands import check_id
from rm_voucher.models import IssuedVoucher

MAX_BYTES = 65_536
"""A longer message is no request for a voucher."""


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
        message = orjson.loads(body)
    except orjson.JSONDecodeError:
        message = None
    if not isinstance(message, dict):
        raise refused("The message is no JSON object.")
    content = message.get("content")
    canonical = ""
    if content is not None:
        try:
            # As deep as in the voucher's message, which must not fail when it is issued.
            canonical = orjson.dumps([content], option=orjson.OPT_SORT_KEYS)[1:-1].decode()
        except orjson.JSONEncodeError:
            raise refused("The message's content is nested too deeply.") from None
    return VoucherRequest(check_id(message.get("request_id", "")), content, canonical)


def voucher_message(request: VoucherRequest, voucher: IssuedVoucher) -> bytes:
    """Return the message that hands a voucher on. It has the code: never log it."""
    message = {"request_id": request.id, "code": voucher.code, "qr_url": voucher.qr_url or None}
    if request.content is not None:
        message["content"] = request.content
    return orjson.dumps(message)
