"""Output files of ``issue``, made up."""

from __future__ import annotations

import csv
import random
from collections.abc import Sequence
from pathlib import Path

COLUMNS = ("recipient", "code", "qr_url", "voucher_status", "error")
NAMES = (
    "Nur Aisyah binti Abdullah",
    "陈美玲",
    "முருகன் கிருஷ்ணசாமி",
    "José Müller",
    "+60 12-345 6789",
)
_LETTERS = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"


def url_of(code: str) -> str:
    return f"https://emulator.invalid/qr/1/voucher/{code}"


def code_of(number: int) -> str:
    return "".join(random.Random(number).choices(_LETTERS, k=12))


def row_of(number: int, recipient: str | None = None, status: str = "issued") -> list[str]:
    """Return a row; one that is not issued has no code."""
    name = f"{NAMES[number % len(NAMES)]} {number}" if recipient is None else recipient
    code = code_of(number) if status == "issued" else ""
    return [name, code, code and url_of(code), status, ""]


def write_results(
    path: Path, rows: Sequence[Sequence[str]], columns: Sequence[str] = COLUMNS
) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])
    return path
