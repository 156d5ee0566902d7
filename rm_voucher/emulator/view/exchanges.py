"""Requests and their answers as a person reads them: codes and secrets are masked unless asked."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rm_voucher.emulator.authenticator import SignatureRefusedError
from rm_voucher.emulator.exchange import Exchange
from rm_voucher.emulator.masking import (
    mask_body,
    mask_headers,
    mask_path,
    mask_query,
    sendable,
)
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.reply import Ending
from rm_voucher.emulator.view.signed_text import differing_parts, signed_text
from rm_voucher.jsontext import read_json
from rm_voucher.signing.signature import is_too_deep

_MAX_TEXT_CHARS = 16_384
_FAILURE = 400


def short(exchange: Exchange, *, reveals: bool) -> dict[str, Any]:
    """Return a line about an exchange."""
    request, reply = exchange.request, exchange.reply
    return {
        "number": exchange.number,
        "at": exchange.at,
        "merchant": exchange.merchant,
        "operation": exchange.operation,
        "method": sendable(request.method),
        "path": sendable(request.url.raw_path) if reveals else mask_path(request.url.raw_path),
        "status": reply.response.status if reply.ending is not Ending.RESET else None,
        "ending": reply.ending.name.lower(),
        "code": reply.code,
        "reason": None if reply.refused is None else reply.refused.reason,
        "fault": None if reply.fault is None else str(reply.fault),
    }


def is_failure(exchange: Exchange) -> bool:
    """Return whether a client was not answered as it wished."""
    reply = exchange.reply
    return (
        reply.refused is not None
        or reply.fault is not None
        or reply.response.status >= _FAILURE
        or reply.ending is not Ending.WHOLE
    )


def newest(
    exchanges: Iterable[Exchange],
    *,
    most: int,
    reveals: bool,
    operation: str = "",
    only_failures: bool = False,
) -> list[dict[str, Any]]:
    """Return lines about the newest exchanges that fit, the newest first."""
    fitting = [
        exchange
        for exchange in exchanges
        if operation in ("", exchange.operation) and (is_failure(exchange) or not only_failures)
    ]
    return [short(exchange, reveals=reveals) for exchange in fitting[: -most - 1 : -1]]


def whole(exchange: Exchange, merchant: Merchant, *, reveals: bool) -> dict[str, Any]:
    """Return all that there is to see of an exchange."""
    request, answer = exchange.request, exchange.reply.response
    return {
        **short(exchange, reveals=reveals),
        "query": _query(exchange, reveals=reveals),
        "headers": mask_headers(request.headers),
        "body": _body(request.body, reveals=reveals, is_answer=False),
        "answer_headers": mask_headers(answer.headers),
        "answer": _body(answer.body, reveals=reveals, is_answer=True),
        "signature": _signature(exchange, merchant, reveals=reveals),
    }


def recorded(exchange: Exchange) -> dict[str, Any]:
    """Return an exchange as it is recorded: always masked, and of a bounded size."""
    request, answer = exchange.request, exchange.reply.response
    return {
        **short(exchange, reveals=False),
        "query": mask_query(request.url.raw_query_string),
        "headers": mask_headers(request.headers),
        "body": mask_body(request.body, is_answer=False),
        "answer": mask_body(answer.body, is_answer=True),
    }


def _query(exchange: Exchange, *, reveals: bool) -> object:
    query = exchange.request.url.raw_query_string
    return sendable(query) if reveals else mask_query(query)


def _body(body: bytes, *, reveals: bool, is_answer: bool) -> object:
    if not reveals:
        return mask_body(body, is_answer=is_answer)
    text = body[:_MAX_TEXT_CHARS]
    try:
        value: object = read_json(text) if text else None
    except ValueError:
        return text.decode(errors="replace")
    return text.decode() if is_too_deep(value) else value


def _signature(exchange: Exchange, merchant: Merchant, *, reveals: bool) -> object:
    """Return what was expected to be signed and what was, for a signature that was refused.

    Both texts hold the body and the URL, codes and all: they are shown whole where they are asked
    for, else the mistakes alone.
    """
    refused = exchange.reply.refused
    if not isinstance(refused, SignatureRefusedError):
        return None
    sent = next(
        (v for name, v in exchange.request.headers.items() if name.lower() == "x-signature"), ""
    )
    digest = merchant.authenticator.signed_digest(sent)
    found = None if digest is None else signed_text(exchange.request, refused.expected, digest)
    shown: dict[str, Any] = {
        "by_this_key": digest is not None,
        "mistakes": [] if found is None else found.mistakes,
    }
    if reveals:
        expected = sendable(refused.expected)
        signed = None if found is None else sendable(found.text)
        shown["expected"] = expected
        shown["signed"] = signed
        shown["expected_differs"] = [] if signed is None else differing_parts(expected, signed)
        shown["signed_differs"] = [] if signed is None else differing_parts(signed, expected)
    return shown
