"""Answers a request to the control API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from urllib.parse import unquote

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.control.endpoint import Asked
from rm_voucher.emulator.control.endpoints import ENDPOINTS
from rm_voucher.emulator.control.fields import checked, of_query
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.reply import json_response
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.exceptions import ConfigurationError, DecodeError
from rm_voucher.jsontext import read_json
from rm_voucher.transport.base import Response

_ABSENT = ("NOT_FOUND", "BATCH_KEY_INVALID")  # the latter is a key that no batch can have
_PATHS = [(endpoint.path.split("/")[1:], endpoint) for endpoint in ENDPOINTS]


def control(emulator: Emulator, method: str, target: str, body: bytes) -> Response:
    """Answer a request to the control API; ``target`` is its path and query."""
    raw_path, _, query = target.partition("?")
    try:
        path = [unquote(part, errors="strict") for part in raw_path.split("/")[2:]]
        wire = read_json(body) if body else {}
    except ValueError:
        return problem_response(400, "the path or the body can't be read; the body is JSON")
    if not isinstance(wire, dict):
        return problem_response(400, "the body is a JSON object")
    merchant: Merchant | None = emulator
    is_one = path[:1] == ["merchants"] and len(path) > 2
    if is_one:
        merchant, path = emulator.find_merchant(path[1]), path[2:]
    found = {
        endpoint.method: (endpoint, names)
        for parts, endpoint in _PATHS
        if (names := _names(parts, path)) is not None and not (is_one and endpoint.is_shared)
    }
    if not found or merchant is None:
        return problem_response(
            404, "no such path of the control API; the documentation lists them"
        )
    if method not in found:
        return problem_response(405, f"the method is {' or '.join(sorted(found))}")
    endpoint, names = found[method]
    try:
        fields = endpoint.fields
        given = wire if fields is None else checked(wire, fields)
        given |= of_query(query, endpoint.query)
        if method != "GET":
            emulator.site.changes += 1
        asked = Asked(emulator, merchant, names, given, is_one=is_one)
        return json_response(200, endpoint.do(asked))
    except RefusedError as exc:
        return problem_response(404 if exc.code.endswith(_ABSENT) else 409, exc.code)
    except (ValueError, DecodeError, ConfigurationError) as exc:
        return problem_response(400, str(exc) or "a value can't be used")


def _names(parts: Sequence[str], path: Sequence[str]) -> Mapping[str, str] | None:
    """Return the names in a path, or None for a path of another form."""
    if len(parts) != len(path):
        return None
    names = {}
    for part, given in zip(parts, path, strict=True):
        if part.startswith("{"):
            names[part[1:-1]] = given
        elif part != given:
            return None
    return names


def problem_response(status: int, sentence: str) -> Response:
    """Return the control API's answer to a mistake."""
    return json_response(status, {"error": sentence})
