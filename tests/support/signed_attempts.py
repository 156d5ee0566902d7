"""One attempt of a request, signed as the client signs it."""

from __future__ import annotations

from rm_voucher import Request
from rm_voucher.signing import Signer, string_to_sign
from rm_voucher.wire.requests import with_signature


def signed_attempt(
    request: Request, *, signer: Signer, token: str, nonce: str, timestamp: int
) -> Request:
    now = str(timestamp)
    text = string_to_sign(
        method=request.method, url=str(request.url), nonce=nonce, timestamp=now, body=request.body
    )
    return with_signature(
        request,
        token=token,
        nonce=nonce,
        timestamp=now,
        timeout=request.timeout,
        signature=signer.sign(text.encode()),
    )
