"""Canary secrets, and the search for them in all that an error reporter, a log or a span shows."""

from __future__ import annotations

import base64
import logging
import pickle
import traceback
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from urllib.parse import quote

import aiohttp
import attrs

import rm_voucher
from rm_voucher import VoucherError

PACKAGE = str(Path(rm_voucher.__file__).parent)
AIOHTTP = str(Path(aiohttp.__file__).parent)

CODE, OTHER_CODE = "rms@Xr43CanaryU", "7Gh2CanaryOther"
CANARIES = {
    "client secret": "s3cret~Canary/client?",
    "private key": "MIIEcanaryKeyText0123456789abcdef",
    "access token": "access.Canary-0a1b2c",
    "refresh token": "refresh.Canary-3d4e5f",
    "pin": "90210canary<PIN>",
    "code": CODE,
    "other code": OTHER_CODE,
    "QR URL": "https://qr.invalid/canary-qr/881",
    "phone": "164998877665",
    "signature": "raw-signature-canary-bytes",
}
PEM = f"-----BEGIN PRIVATE KEY-----\n{CANARIES['private key']}\n-----END PRIVATE KEY-----\n"


def _base64_forms(text: str) -> Iterator[str]:
    """Give what stands in base64 for ``text``, wherever in a longer text it begins."""
    data = text.encode()
    for before in range(3):
        padded = b"\0" * before + data
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            whole = encode(padded[: len(padded) // 3 * 3]).decode()
            yield whole[4 if before else 0 :]


def _forms(text: str) -> set[str]:
    escaped = repr(text)[1:-1], text.encode("unicode_escape").decode(), text.casefold()
    go_escaped = text.replace("<", r"\u003c").replace(">", r"\u003e")
    quoted = quote(text, safe=""), quote(text)
    hidden = text.encode().hex(), repr(go_escaped)[1:-1]
    return {text, go_escaped, *escaped, *quoted, *hidden, *_base64_forms(text)}


_FORMS = {name: _forms(text) for name, text in CANARIES.items()}


def found_in(text: str | bytes) -> list[str]:
    """Return the names of the canaries that stand in ``text``, however it is written."""
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    return [name for name, forms in _FORMS.items() if any(map(text.__contains__, forms))]


@attrs.frozen
class Leak:
    """A canary, and where it stood."""

    canary: str
    where: str


def tree(error: BaseException) -> list[BaseException]:
    """Return an error with all causes, contexts (suppressed ones too) and members of groups."""
    found: dict[int, BaseException] = {}
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or id(one) in found:
            continue
        found[id(one)] = one
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += one.exceptions
    return list(found.values())


def _leaks(where: str, *texts: str | bytes) -> list[Leak]:
    return [Leak(name, where) for text in texts for name in found_in(text)]


def in_frames(error: BaseException) -> list[Leak]:
    """Search the locals of this package's frames; a frame of aiohttp's is a leak as such."""
    shown = traceback.TracebackException(
        type(error), error, error.__traceback__, capture_locals=True
    )
    leaks = []
    for frame in shown.stack:
        place = f"{Path(frame.filename).name}:{frame.name}"
        if frame.filename.startswith(AIOHTTP):
            leaks.append(Leak("frame", f"aiohttp's {place}"))
        generated = frame.filename.startswith("<attrs generated") and "rm_voucher" in frame.filename
        if frame.filename.startswith(PACKAGE) or generated:
            for name, text in (frame.locals or {}).items():
                leaks += _leaks(f"{place} local {name}", text)
    return leaks


def in_text(error: BaseException) -> list[Leak]:
    """Search what an error says, and, of our own, what it pickles to."""
    kind = type(error).__name__
    notes = getattr(error, "__notes__", ())
    leaks = _leaks(f"text of {kind}", str(error), repr(error), repr(error.args), *notes)
    if isinstance(error, VoucherError):
        for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
            leaks += _leaks(f"pickle {protocol} of {kind}", pickle.dumps(error, protocol))
    return leaks


def in_error(error: BaseException) -> list[Leak]:
    """Search an error and all that hangs on it."""
    return [leak for one in tree(error) for leak in in_text(one) + in_frames(one)]


class Watching(logging.Handler):
    """Searches each log record when it is made: what it says, its arguments, its error."""

    def __init__(self) -> None:
        super().__init__()
        self.leaks: list[Leak] = []
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.count += 1
        where = f"log {record.name} {record.msg!r}"
        self.leaks += _leaks(where, record.getMessage(), repr(record.msg), repr(record.args))
        fields = {name: text for name, text in vars(record).items() if name.startswith("rm_")}
        self.leaks += _leaks(f"fields of {where}", repr(fields))
        if record.exc_info and record.exc_info[1] is not None:
            self.leaks += _leaks(where, "".join(traceback.format_exception(*record.exc_info)))
            self.leaks += in_error(record.exc_info[1])


def in_spans(spans) -> list[Leak]:
    """Search all that a span carries."""
    leaks = []
    for span in spans:
        events = [(event.name, dict(event.attributes)) for event in span.events]
        shown = span.name, span.to_json(indent=None), repr(dict(span.attributes)), repr(events)
        leaks += _leaks(f"span {span.name}", *shown, span.status.description or "")
    return leaks


def in_metrics(reader) -> list[Leak]:
    """Search all that is measured."""
    data = reader.get_metrics_data()
    return [] if data is None else _leaks("metrics", data.to_json(indent=None))


def in_reprs(*objects: object) -> list[Leak]:
    """Search what objects say of themselves."""
    return [
        leak
        for one in objects
        for leak in _leaks(f"repr of {type(one).__name__}", repr(one), str(one))
    ]


def item(**other: object) -> dict[str, object]:
    """Return a voucher on the wire whose every field that may is a canary."""
    key = base64.urlsafe_b64encode(b"\x12\x14\x0a\x08Merchant" + CODE.encode()).decode()
    return {
        "code": CODE,
        "key": key.rstrip("="),
        "qrUrl": CANARIES["QR URL"],
        "status": "ISSUED",
        "label": "label",
        "amount": 100,
        "usedAt": "0001-01-01T00:00:00Z",
        "memberProfile": {"phoneNumber": CANARIES["phone"]},
        "payload": {"pin": CANARIES["pin"]},
        "newField": CODE,
        **other,
    }


ECHO = " ".join(CANARIES.values())
"""What a server that repeats all that it was told would say."""
USED_AT = datetime.fromisoformat("2026-11-20T10:00:00.123456+00:00")
