"""What RM says of a signature that it refuses, compared with what was sent. No I/O.

In its sandbox RM answers with the text that it expected the signature of, and for each header
whether it is valid (RM's page "Signature Algorithm"). The text holds the body and, in the URL, a
code: of neither is anything in the error's words.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from rm_voucher.exceptions import SignatureError
from rm_voucher.jsontext import read_json
from rm_voucher.signing.signature import string_to_sign
from rm_voucher.transport.base import Request

_TEXT = re.compile(
    r"(?:data=(?P<body>[^&]*)&)?method=(?P<method>[^&]*)&nonceStr=(?P<nonce>[^&]*)"
    r"(?:&requestUrl=(?P<url>.*))?&signType=[^&]*&timestamp=(?P<timestamp>[^&]*)",
    re.DOTALL,
)
_BODY = re.compile(r"\Adata=[^&]*&")
_HEADERS = ("X-Nonce-Str", "X-Signature", "X-Timestamp")
_METHODS = frozenset({"delete", "get", "patch", "post", "put"})
_ORIGIN = re.compile(r"https?://[a-z0-9-]+(\.[a-z0-9-]+)*(:[0-9]{1,5})?")
_ANOTHER_KEY = "RM expected the very text that was signed, so it is the key that differs."
_NONCE_REFUSED = "It refuses the nonce: a space is in it, or it came before within two minutes."


def explain(
    error: SignatureError, answer: Mapping[str, Any], sent: Request, *, clock_offset_s: float | None
) -> None:
    """Let an error say what differs, as far as the server's answer and the two clocks tell.

    ``clock_offset_s`` is RM's clock less ours, by the answer's ``Date``.
    """
    debug = answer.get("debug") or _at(answer, "error", "debug")
    expected = _expected(debug)
    refused = {name for name in _HEADERS if _at(debug, "requestHeader", name, "isValid") is False}
    differences = dict(_differences(expected, debug, sent)) if expected else {}
    sentences = [error.hint]
    if "key" in differences:
        sentences.append(differences["key"])
    elif differences:  # not the key, which the hint of the code alone names
        read = ", ".join(differences.values())
        sentences = [f"The signature does not match. RM read otherwise than was sent: {read}."]
    if "X-Nonce-Str" in refused:
        differences.setdefault("nonce", "")
        sentences.append(_NONCE_REFUSED)
    if "X-Timestamp" in refused or error.code == "INVALID_TIMESTAMP":
        differences.setdefault("timestamp", "")
        sentences.append(_clock_words(clock_offset_s))
    error.explain(
        differs=tuple(differences),
        expected=expected and _BODY.sub("data=(the body)&", expected),
        hint=" ".join(filter(None, sentences)),
    )


def _expected(debug: object) -> str | None:
    """Return the text whose signature the server wanted."""
    steps = (_at(debug, "preVerifyContent", step, "content") for step in ("step4", "step3"))
    for text in (debug, *steps):
        if isinstance(text, str) and _TEXT.fullmatch(text):
            return text
    return None


def _differences(expected: str, debug: object, sent: Request) -> Iterator[tuple[str, str]]:
    """Return the parts that differ, each with its words."""
    signed = string_to_sign(
        method=sent.method,
        url=str(sent.url),
        nonce=sent.headers["X-Nonce-Str"],
        timestamp=sent.headers["X-Timestamp"],
        body=sent.body,
    )
    theirs, ours = _parts(expected), _parts(signed)
    if theirs["method"] != ours["method"]:
        named = f" ({theirs['method']})" if theirs["method"] in _METHODS else ""
        yield "method", f"the method{named}"
    if theirs["url"] != ours["url"]:
        yield "url", f"the URL{_url_words(theirs['url'] or '', str(sent.url))}"
    for name in ("nonce", "timestamp"):
        if theirs[name] != ours[name]:
            yield name, f"the {name}"
    if theirs["body"] != ours["body"]:
        yield "body", f"the body{_body_words(theirs['body'], ours['body'])}"
    came = _at(debug, "requestHeader", "X-Signature", "currentValue")
    if isinstance(came, str) and came != sent.headers["X-Signature"]:
        yield "signature", "the signature"
    elif expected == signed and _at(debug, "requestHeader", "X-Signature", "isValid") is not True:
        yield "key", _ANOTHER_KEY


def _parts(text: str) -> dict[str, str | None]:
    found = _TEXT.fullmatch(text)
    return {} if found is None else found.groupdict()


def _url_words(theirs: str, ours: str) -> str:
    there, here = _split(theirs), _split(ours)
    if there is None or here is None:
        return ""
    origin = f"{there.scheme}://{there.netloc}"
    if origin != f"{here.scheme}://{here.netloc}":
        named = f", {origin}" if _ORIGIN.fullmatch(origin) else ""
        return f" (its scheme or host{named}: is there a proxy?)"
    if there.path == here.path:
        return " (its query)"
    if unquote(there.path) == unquote(here.path):
        return " (its path is percent-encoded otherwise)"
    return " (its path)"


def _split(url: str) -> SplitResult | None:
    try:
        return urlsplit(url)
    except ValueError:
        return None


def _body_words(theirs: str | None, ours: str | None) -> str:
    if not theirs:
        return " (it saw none)"
    if not ours:
        return " (none was sent)"
    try:
        is_same = read_json(base64.b64decode(theirs)) == read_json(base64.b64decode(ours))
    except (binascii.Error, ValueError, RecursionError):
        return ""
    return " (the same JSON, written otherwise)" if is_same else ""


def _clock_words(offset_s: float | None) -> str:
    if offset_s is None:
        return ""
    if abs(offset_s) < 1:
        return "By the answer's date the two clocks agree."
    way = "behind" if offset_s > 0 else "ahead of"
    return f"By the answer's date this machine's clock is {abs(offset_s):.0f} s {way} RM's."


def _at(value: object, *names: str) -> object:
    """Return what is at a path of a stranger's JSON, or None."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
