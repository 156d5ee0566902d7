"""What a client signed instead of what it should have signed: the usual mistakes, tried.

A signature shows the SHA-256 of its text to whoever has the public key. So each text that a client
may have signed by mistake is compared with it, until one fits. That is only done when somebody
looks at a refused request.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterator
from urllib.parse import quote, unquote

import attrs

from rm_voucher.jsontext import read_json
from rm_voucher.signing.signature import canonical_json, with_its_numbers
from rm_voucher.transport.base import Request

Spans = list[tuple[int, int]]
_MAX_CHARS = 4_000  # RM's requests have some hundreds; thousands of guesses are hashed


@attrs.frozen
class _Guess:
    """One way to write a part of the text, and the mistake that it is; none is empty."""

    text: str
    mistake: str = ""


@attrs.frozen
class SignedText:
    """What was signed, and the mistakes in it as sentences' parts."""

    text: str
    mistakes: list[str]


def signed_text(request: Request, expected: str, digest: bytes) -> SignedText | None:
    """Return what a client signed, or None where none of the usual mistakes explains it.

    ``expected`` is the right text, ``digest`` the SHA-256 of the signed one. A text that is far
    longer than any of RM's is not explained.
    """
    if len(expected) > _MAX_CHARS:
        return None
    headers = {name.lower(): value for name, value in request.headers.items()}
    parts = (
        list(_data(expected, request.body)),
        list(_methods(request.method)),
        list(_nonces(headers.get("x-nonce-str", ""))),
        list(_urls(request)),
        list(_sign_types()),
        list(_timestamps(headers.get("x-timestamp", ""))),
    )
    for guesses in _fewest_mistakes_first(parts):
        for text, mistake in _endings("&".join(each.text for each in guesses if each.text)):
            if hashlib.sha256(text.encode(errors="replace")).digest() == digest:
                mistakes = [each.mistake for each in guesses if each.mistake]
                return SignedText(text, [*mistakes, *([mistake] if mistake else [])])
    return None


def _fewest_mistakes_first(parts: tuple[list[_Guess], ...]) -> Iterator[list[_Guess]]:
    """Yield combinations: each part's first guess is the right one, and two may be wrong."""
    right = [guesses[0] for guesses in parts]
    for count in range(3):
        for wrong in itertools.combinations(range(len(parts)), count):
            for chosen in itertools.product(*(parts[index][1:] for index in wrong)):
                guesses = list(right)
                for index, guess in zip(wrong, chosen, strict=True):
                    guesses[index] = guess
                yield guesses


def _data(expected: str, body: bytes) -> Iterator[_Guess]:
    right, has_data = expected.partition("&")[0], expected.startswith("data=")
    yield _Guess(right if has_data else "")
    if has_data:
        yield _Guess("", "the body was left out")
    else:
        yield _Guess("data=", "an empty data= was put in front")
        yield _Guess("data=e30=", "the base64 of {} was put in front")
        yield _Guess("data=bnVsbA==", "the base64 of null was put in front")
    if len(body) <= _MAX_CHARS:
        for text, mistake in _bodies(body):
            yield _Guess(f"data={base64.b64encode(text).decode()}", mistake)
            yield _Guess(
                f"data={base64.urlsafe_b64encode(text).decode()}", f"{mistake}, in URL-safe base64"
            )
            yield _Guess(
                f"data={text.decode(errors='replace')}", f"{mistake}, without being put in base64"
            )


def _bodies(body: bytes) -> Iterator[tuple[bytes, str]]:
    yield body, "the body was signed as it was sent, not in canonical form"
    try:
        value = read_json(body)
    except ValueError:
        return
    yield canonical_json(value), "the canonical body was signed"
    yield with_its_numbers(value), "the body was signed with other numbers than Go writes"
    for is_sorted, is_ascii, is_tight in itertools.product((True, False), repeat=3):
        separators = (",", ":") if is_tight else None
        text = json.dumps(
            value, sort_keys=is_sorted, ensure_ascii=is_ascii, separators=separators
        ).encode(errors="replace")
        wrong = [
            words
            for words, applies in (
                ("without sorting its keys", not is_sorted),
                ("with white space", not is_tight),
                ("with \\u escapes for all but ASCII", is_ascii and not body.isascii()),
            )
            if applies
        ]
        yield text, f"the body was signed {' and '.join(wrong) or 'without escaping <, > and &'}"


def _methods(method: str) -> Iterator[_Guess]:
    yield _Guess(f"method={method.lower()}")
    yield _Guess(f"method={method.upper()}", "the method is not in lower case")
    yield _Guess(f"method={method.capitalize()}", "the method is not in lower case")
    for other in sorted({"get", "patch", "post"} - {method.lower()}):
        yield _Guess(f"method={other}", f"the method is {other}, and it was sent as {method}")
    yield _Guess("", "the method was left out")


def _nonces(nonce: str) -> Iterator[_Guess]:
    yield _Guess(f"nonceStr={nonce}")
    yield _Guess("nonceStr=", "the nonce is empty")
    yield _Guess(f"nonceStr={nonce.lower()}", "the nonce is in lower case, and was sent otherwise")
    yield _Guess("", "the nonce was left out")


def _urls(request: Request) -> Iterator[_Guess]:
    url = str(request.url)
    yield _Guess(f"requestUrl={url}")
    bare, question, query = url.partition("?")
    path = request.url.raw_path
    origin = bare.removesuffix(path)
    host = origin.partition("//")[2].rpartition(":")[0] or origin.partition("//")[2]
    wrong: dict[str, str] = {
        bare: "the query was left out of the URL",
        f"{origin}{unquote(path)}{question}{query}": "the URL's path is not percent-encoded",
        f"{origin}{quote(unquote(path))}{question}{query}": "the URL's path is encoded otherwise",
        f"{origin}{path.lower()}{question}{query}": "the path is in lower case",
        f"{url}/": "the URL has a slash at its end",
        f"{bare.rstrip('/')}/{question}{query}": "the path has a slash at its end",
        url.replace(
            "http://", "https://", 1
        ): "the URL begins with https, and it was sent over http",
        f"https://{host}{path}{question}{query}": "the URL has https, and no port",
        f"http://{host}{path}{question}{query}": "the URL has no port",
        f"{path}{question}{query}": "only the path of the URL was signed",
        quote(url, safe=""): "the URL is percent-encoded",
    }
    for name, other in (("127.0.0.1", "localhost"), ("localhost", "127.0.0.1")):
        wrong[url.replace(name, other, 1)] = f"the URL has {other} for {name}"
    for text, mistake in wrong.items():
        if text != url:
            yield _Guess(f"requestUrl={text}", mistake)
    yield _Guess("", "the URL was left out")


def _sign_types() -> Iterator[_Guess]:
    yield _Guess("signType=sha256")
    yield _Guess("signType=SHA256", "signType is in upper case")
    yield _Guess("signType=sha-256", "signType is sha-256")
    yield _Guess("", "signType was left out")


def _timestamps(timestamp: str) -> Iterator[_Guess]:
    yield _Guess(f"timestamp={timestamp}")
    if timestamp.isascii() and timestamp.isdecimal() and len(timestamp) < 20:
        yield _Guess(
            f"timestamp={int(timestamp) // 1000}", "the timestamp was sent in milliseconds"
        )
        yield _Guess(f"timestamp={timestamp}000", "the timestamp was signed in milliseconds")
        for off in (-2, -1, 1, 2):
            yield _Guess(
                f"timestamp={int(timestamp) + off}", "another timestamp was sent than signed"
            )
    yield _Guess("", "the timestamp was left out")


def _endings(text: str) -> Iterator[tuple[str, str]]:
    yield text, ""
    yield f"{text}\n", "there is a line break at the end"
    yield quote(text, safe="=&"), "the whole text is percent-encoded"


def differing_parts(text: str, other: str) -> Spans:
    """Return where the parts of a text are that the other one has not, as begin and end."""
    parts, found, begin = frozenset(other.split("&")), [], 0
    for part in text.split("&"):
        if part not in parts:
            found.append((begin, begin + len(part)))
        begin += len(part) + 1
    return found
