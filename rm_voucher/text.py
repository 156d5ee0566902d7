"""Text that people and strangers wrote: compared, shown, and looked at for what nobody sees. Pure.

A character is *seen* if Python counts it as printable and Unicode does not let a font leave it
out. Neither control and format characters are (U+200B, U+202E), nor private, unassigned and half
ones, nor any space but U+0020.
"""

from __future__ import annotations

import re
import string
import unicodedata

# Of Unicode's Default_Ignorable_Code_Point, those that are printable to Python: joiners, fillers
# and variation selectors.
_LEFT_OUT = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180d\u180f\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+\.[^@\s.]+")
_LOWER = {ord(char): char.lower() for char in string.ascii_uppercase}


def comparable(text: str) -> str:
    """Return what two spellings of one name or id share: NFC, without characters that don't show.

    ``José`` composed, decomposed, and with U+200B in it are one. Case and spaces count, but not
    the case of an e-mail address: ``Ann@x.my`` and ``ann@x.my`` are one mailbox.
    """
    if not text.isascii():
        shown = "".join(char for char in text if unicodedata.category(char) != "Cf")
        text = unicodedata.normalize("NFC", _LEFT_OUT.sub("", shown))
    if "@" in text and _EMAIL.fullmatch(text):
        return unicodedata.normalize("NFC", text.translate(_LOWER))
    return text


def printable(text: str) -> str:
    r"""Return a stranger's text as it may stand in a terminal, a table or a log: on one line.

    What is not printable is written as Python escapes it (``\x1b``, ``\u202e``), so that nothing
    moves the cursor, sets the clipboard, turns the line around or begins another one.
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def find_unseen(text: str) -> str | None:
    """Return where the first character is that is not seen, such as ``U+200B at position 3``."""
    if text.isascii() and text.isprintable():
        return None
    for position, char in enumerate(text, start=1):
        if not char.isprintable() or _LEFT_OUT.match(char):
            return f"U+{ord(char):04X} at position {position}"
    return None


def counted(number: int, noun: str) -> str:
    """Return a number and its noun, such as ``1 call`` or ``1,000 calls``."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"
