"""Names of files, made of what people are called: safe on every file system. Pure.

A name is safe if Windows, macOS and Linux take it as it is, and no two of a folder are one to any
of them: Windows and macOS don't tell ``Ana`` from ``ana``, nor macOS ``é`` from ``e`` and an
accent.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata

MAX_BYTES = 120
"""The most that a name has, in UTF-8, without its ending: some encrypted folders take 143."""
# Windows refuses the first ones. The rest means something to a shell, where a name is typed.
_REFUSED = re.compile(r'[<>:"/\\|?*`$!&;\'%^]')
_RESERVED = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|com[0-9¹²³]|lpt[0-9¹²³])\s*(\.|$)", re.I)
_DIGEST_CHARS = 8


def safe_stem(text: str) -> str:
    """Return a text as the name of a file, without an ending; empty if nothing of it is left.

    What a file system refuses becomes ``_``, and what is too long ends in a digest of the whole.
    """
    text = unicodedata.normalize("NFC", text)
    text = "".join(char if char.isprintable() else "_" for char in text)
    # A dot or space at the end is lost on Windows; at the beginning a dot hides a file, a hyphen
    # makes an option of it, and a plus a formula in a table of the names.
    stem = _REFUSED.sub("_", text).rstrip(" .").lstrip("-. +=@\uff1d\uff20\uff0b\uff0d")
    if _RESERVED.match(stem):
        stem = f"_{stem}"
    if len(stem.encode(errors="replace")) > MAX_BYTES:
        digest = hashlib.blake2b(text.encode(errors="surrogatepass")).hexdigest()[:_DIGEST_CHARS]
        stem = f"{_cut(stem, MAX_BYTES - _DIGEST_CHARS - 1)}~{digest}"
    return stem


class Stems:
    """The names of a folder's files, given in the order of rows: the same rows, the same names."""

    def __init__(self) -> None:
        self._given: set[bytes] = set()  # digests: a million long names don't fill the memory

    def give(self, text: str, row: int) -> str:
        """Return a name for a row that nothing else of the folder has.

        The first that has a name keeps it; to others the number of their row is added.
        """
        stem = safe_stem(text) or f"row {row}"
        if self._take(stem):
            return stem
        number = f" (row {row})"
        stem = f"{_cut(stem, MAX_BYTES - len(number))}{number}"
        while not self._take(stem):  # somebody is called that
            stem += "_"
        return stem

    def _take(self, stem: str) -> bool:
        digest = hashlib.blake2b(_folded(stem).encode(), digest_size=12).digest()
        if digest in self._given:
            return False
        self._given.add(digest)
        return True


def _folded(stem: str) -> str:
    """Return what the names share that some file system takes for one, and some more."""
    text = unicodedata.normalize("NFKD", stem).casefold().upper()
    return unicodedata.normalize("NFKD", text).casefold()


def _cut(text: str, size: int) -> str:
    """Return the beginning of a text that fits into a number of bytes, without half a character."""
    text = text.encode()[:size].decode(errors="ignore")
    while text and unicodedata.combining(text[-1]):  # its base may have lost others
        text = text[:-1]
    return text.rstrip(" .")
