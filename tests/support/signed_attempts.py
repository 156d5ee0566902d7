"""One attempt of a request, signed as the client signs it."""

from __future__ import annotations

from rm_voucher import Request
from rm_voucher.signing import Signer
from rm_voucher.wire.requests import text_to_sign, with_signature


def signed_attempt(
    request: Request, *, signer: Signer, token: str, nonce: str, timestamp: int
) -> Request:
    now = str(timestamp)
    signature = signer.sign(text_to_sign(request, nonce=nonce, timestamp=now))
    return with_signature(
        request,
        token=token,
        nonce=nonce,
        timestamp=now,
        timeout=request.timeout,
        signature=signature,
    )
