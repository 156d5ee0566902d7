"""Write docs/openapi.json and docs/http-api.md: ``python docs/http_api_page.py``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from rm_voucher.emulator.control.endpoints import ENDPOINTS
from rm_voucher.emulator.control.openapi import CONTROL, VOUCHERS, describe
from rm_voucher.emulator.guesses import Guesses

HERE = Path(__file__).parent
DOCUMENT, PAGE = HERE / "openapi.json", HERE / "http-api.md"
HEAD = """\
# The HTTP API

What [the emulator](emulator.md) answers, for clients in any language. `GET /_emulator/openapi.json`
shows it in OpenAPI 3.1 as the running emulator is set; [openapi.json](openapi.json) is that of an
emulator with defaults, for generators of clients:

```text
npx openapi-typescript docs/openapi.json --output emulator.d.ts
```

It is the emulator's own description, and not Revenue Monster's: their documentation is the
authority on their API. `python docs/http_api_page.py` writes this page and the description from the
tables by which the emulator answers, `rm_voucher/emulator/paths.py` and
`rm_voucher/emulator/control/endpoints.py`.

A name in **bold** must be given. Other statuses than these come only where a fault is on, with 405
for a path that has another method.
"""
HEADS = {
    VOUCHERS: """
## The voucher API

A request for a token has the client's id and secret as HTTP Basic. Every other one has the token as
`Authorization: Bearer`, and `X-Signature`, `X-Nonce-Str` and `X-Timestamp`: see
[signing](api.md#signing-p). A refusal is `{"error": {"code", "message"}}` with one of RM's codes;
[openapi.json](openapi.json) lists them by status.
""",
    CONTROL: """
## The control API

Without token and signature, from this machine only. [The emulator](emulator.md#the-control-api) has
four calls as examples.
""",
}


def document() -> str:
    """Return the description as a file."""
    wire = orjson.dumps(describe(ENDPOINTS, Guesses()), option=orjson.OPT_INDENT_2)
    return wire.decode() + "\n"


def page() -> str:
    """Return the page."""
    found = describe(ENDPOINTS, Guesses())
    parts = [HEAD]
    for tag, head in HEADS.items():
        parts += [head, "\n| request | takes | answers | statuses |\n|---|---|---|---|\n"]
        for path, methods in found["paths"].items():
            for method, operation in methods.items():
                if operation["tags"] == [tag] and "{merchant}" not in path:
                    parts.append(_row(path, method, operation))
    parts.append("\n## The forms\n\n`?` stands behind what may be missing.\n")
    parts.append("\n| form | fields |\n|---|---|\n")
    parts += [
        f"| {name} | {_form(schema)} |\n" for name, schema in found["components"]["schemas"].items()
    ]
    return "".join(parts)


def _row(path: str, method: str, operation: dict[str, Any]) -> str:
    answers = operation["responses"]
    schema = answers["200"]["content"]["application/json"]["schema"]
    cells = (
        f"{method.upper()} `{path}`<br>{operation['summary']}",
        "<br>".join(_taken(operation)),
        _form(schema),
        ", ".join(answers),
    )
    return f"| {' | '.join(cells)} |\n"


def _taken(operation: dict[str, Any]) -> Iterator[str]:
    for each in operation.get("parameters", ()):
        if each["in"] == "query":
            yield _field(f"?{each['name']}", each["schema"], each, is_needed=each["required"])
    if "requestBody" in operation:
        schema = operation["requestBody"]["content"]["application/json"]["schema"]
        for name, each in schema.get("properties", {}).items():
            yield _field(name, each, each, is_needed=name in schema.get("required", ()))


def _field(name: str, schema: dict[str, Any], about: dict[str, Any], *, is_needed: bool) -> str:
    mark = "**" if is_needed else ""
    return f"{mark}`{name}`{mark} {_form(schema)}. {about.get('description', '')}".strip()


def _form(schema: dict[str, Any]) -> str:
    """Return a schema in a few words."""
    match schema:
        case {"$ref": where}:
            return str(where).rpartition("/")[2]
        case {"oneOf": [one, _]}:
            return f"{_form(one)} or null"
        case {"type": [kind, "null"], **more}:
            return f"{_form({**more, 'type': kind})} or null"
        case {"type": "array", "items": items}:
            return f"a list of {_form(items)}"
        case {"type": "object", "properties": fields, **more} if fields:
            needed = more.get("required", ())
            names = (f"`{name}`{'' if name in needed else '?'}" for name in fields)
            return f"an object: {', '.join(names)}"
        case {"type": "object", "properties": _}:
            return "`{}`"
        case {"type": "object"}:
            return "an object"
        case {"enum": words}:
            return " or ".join(f"`{word}`" for word in words)
        case {"type": "string"}:
            return "text"
        case {"type": "integer"}:
            return "whole number"
        case {"type": "boolean"}:
            return "true or false"
        case {"type": kind}:
            return str(kind)
        case _:
            return "any JSON"


if __name__ == "__main__":
    for path, text in ((DOCUMENT, document()), (PAGE, page())):
        path.write_text(text, encoding="utf-8")
        print(f"wrote {path.name}")
