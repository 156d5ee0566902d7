"""The description of both APIs in OpenAPI 3.1, made from the tables that answer by them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any

from rm_voucher._version import __version__
from rm_voucher.emulator.control.access import PREFIX
from rm_voucher.emulator.control.endpoint import Endpoint
from rm_voucher.emulator.control.forms import FORMS
from rm_voucher.emulator.examples import examples
from rm_voucher.emulator.guesses import Guesses
from rm_voucher.emulator.paths import TOKEN, Operation, codes_of, operations
from rm_voucher.emulator.reply import usual_status
from rm_voucher.emulator.schema import Field, Schema, by_name, object_of, ref, text
from rm_voucher.emulator.wire_forms import WIRE_FORMS

VOUCHERS = "Revenue Monster's voucher API, as emulated"
CONTROL = "The control API"
_ABOUT = """\
What rm_voucher's emulator answers. **This is the emulator's own description and not Revenue \
Monster's**: their documentation is the authority on their API, and what it leaves open is guessed.

Where a fault is on, or `fail-next` asked for it, the emulator answers with other codes or \
statuses, spoilt JSON or nothing at all. A path with another method than its own answers 405. \
Beside what is here are pages for people: `/_emulator/`, which follows the stream \
`/_emulator/events`, and `/qr/…`, where a voucher's QR code leads."""
_SIGNED_ABOUT = """\
`sha256`, a space, and the base64 of an RSA signature (PKCS #1 v1.5, SHA-256) of \
`data=…&method=…&nonceStr=…&requestUrl=…&signType=sha256&timestamp=…`, where `data` is the base64 \
of the body as JSON with sorted keys and is left out where there is none. `X-Nonce-Str` and \
`X-Timestamp` go with it."""
_NAMES = {
    "action": Field(str, words=("redeem", "void", "expire")),
    "code": Field(str, "A voucher's code."),
    "key": Field(str, "A batch's key."),
    "merchant": Field(str, "A merchant's name."),
    "name": Field(str, "A merchant's name."),
    "number": Field(str, "The number that the list shows."),
    "place": Field(str, "The voucher's place that the list shows."),
}
_SIGNED: list[dict[str, list[str]]] = [{"token": [], "signature": [], "nonce": [], "timestamp": []}]


def describe(endpoints: Sequence[Endpoint], guesses: Guesses) -> dict[str, Any]:
    """Return the document, as a server with these guesses answers."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "The emulator of rm_voucher",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/", "description": "The emulator that serves this description."}],
        "tags": [
            {"name": VOUCHERS, "description": "Signed requests, as an application sends them."},
            {
                "name": CONTROL,
                "description": "Steers the emulator, from this machine only. Without a signature.",
            },
        ],
        "paths": {**_voucher_paths(guesses), **_control_paths(endpoints)},
        "components": {
            "schemas": {**WIRE_FORMS, **FORMS},
            "securitySchemes": {
                "client": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The client's id and secret, for a token.",
                },
                "token": {"type": "http", "scheme": "bearer"},
                "signature": _header("X-Signature", _SIGNED_ABOUT),
                "nonce": _header("X-Nonce-Str", "Unique for 120 seconds, 128 characters at most."),
                "timestamp": _header("X-Timestamp", "Unix seconds, at most 120 off."),
            },
        },
    }


def _header(name: str, about: str) -> Schema:
    return {"type": "apiKey", "in": "header", "name": name, "description": about}


# RM's API.


def _voucher_paths(guesses: Guesses) -> dict[str, Any]:
    shown = examples(guesses)
    return {
        each.path: {
            method.lower(): _voucher_operation(each, method, guesses, shown)
            for method in sorted(each.methods)
        }
        for each in operations(guesses)
    }


def _voucher_operation(
    operation: Operation, method: str, guesses: Guesses, shown: Mapping[str, Any]
) -> dict[str, Any]:
    is_token = operation.name == TOKEN
    name = _camel(operation.name)
    content: Schema = {"schema": ref(operation.answer)}
    if operation.name in shown:
        content["example"] = shown[operation.name]
    return {
        "operationId": name if len(operation.methods) == 1 else f"{name}By{method.title()}",
        "tags": [VOUCHERS],
        "summary": operation.summary,
        "security": [{"client": []}] if is_token else _SIGNED,
        **_parameters(operation.path, operation.query),
        **_body(operation.body, is_open=True),
        "responses": {
            "200": {"description": "It was done.", "content": {"application/json": content}},
            **dict(_refusals(operation, guesses)),
        },
    }


def _refusals(operation: Operation, guesses: Guesses) -> Iterator[tuple[str, Any]]:
    """Yield an answer for each status that a refusal may have, with the codes that it may have."""

    def status(code: str) -> int:
        return guesses.statuses.get(code) or usual_status(code)

    pairs = [(status(code), code) for code in codes_of(operation, guesses)]
    pairs.append((guesses.throttle_status, guesses.throttle_code))
    for number, group in groupby(sorted(pairs), key=lambda pair: pair[0]):
        codes = tuple(code for _, code in group)
        is_one_of = {"properties": {"error": {"properties": {"code": text(words=codes)}}}}
        yield (
            str(number),
            {
                "description": f"Refused: {', '.join(codes)}.",
                "content": {"application/json": {"schema": {"allOf": [ref("Error"), is_one_of]}}},
            },
        )


# The control API.


def _control_paths(endpoints: Sequence[Endpoint]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for each in endpoints:
        paths.setdefault(f"{PREFIX}{each.path}", {})[each.method.lower()] = _endpoint(each)
    for each in endpoints:
        if not each.is_shared:
            path = f"{PREFIX}/merchants/{{merchant}}{each.path}"
            paths.setdefault(path, {})[each.method.lower()] = _endpoint(each, path)
    return paths


def _endpoint(endpoint: Endpoint, path: str | None = None) -> dict[str, Any]:
    """Describe an endpoint, at its own path or at another one that is of a merchant."""
    words = f"{endpoint.method} {'of merchant ' if path else ''}{endpoint.path}"
    problems = {
        "400": "The path, the query or the body is not as it should be.",
        "403": "The request comes from elsewhere.",
        "404": "There is no such thing.",
        "409": "What it is about does not allow it now; `error` is RM's code.",
    }
    if not endpoint.can_conflict:
        del problems["409"]
    return {
        "operationId": _camel(re.sub(r"\W+", " ", words.lower()).strip()),
        "tags": [CONTROL],
        "summary": endpoint.summary,
        "security": [],
        **_parameters(path or endpoint.path, endpoint.query),
        **_body(endpoint.fields),
        "responses": {
            "200": {
                "description": "It was done.",
                "content": {"application/json": {"schema": endpoint.answer}},
            },
            **{status: _problem(sentence) for status, sentence in problems.items()},
        },
    }


def _problem(sentence: str) -> Schema:
    return {
        "description": sentence,
        "content": {"application/json": {"schema": ref("Problem")}},
    }


# What both have.


def _camel(words: str) -> str:
    first, *rest = words.split()
    return first + "".join(word.title() for word in rest)


def _parameters(path: str, query: Mapping[str, Field]) -> dict[str, Any]:
    in_path = [
        _parameter("path", name, _NAMES.get(name, Field(str)), is_needed=True)
        for name in re.findall(r"\{(\w+)\}", path)
    ]
    in_query = [
        _parameter("query", name, field, is_needed=field.is_needed) for name, field in query.items()
    ]
    return {"parameters": in_path + in_query} if in_path or in_query else {}


def _parameter(place: str, name: str, field: Field, *, is_needed: bool) -> Schema:
    schema = field.schema()
    about = schema.pop("description", None)
    if place == "path" and "enum" not in schema:
        schema["minLength"] = 1
    return {
        "name": name,
        "in": place,
        "required": is_needed,
        **({} if about is None else {"description": about}),
        "schema": schema,
    }


def _body(fields: Mapping[str, Field] | None, *, is_open: bool = False) -> dict[str, Any]:
    if fields is None:
        needed, schema = True, by_name({})
    elif fields:
        needed = any(field.is_needed for field in fields.values())
        schema = object_of(fields, is_open=is_open)
    else:
        return {}
    return {
        "requestBody": {"required": needed, "content": {"application/json": {"schema": schema}}}
    }
