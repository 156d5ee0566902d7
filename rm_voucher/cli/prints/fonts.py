"""The fonts of this machine that draw a sheet's texts, and the characters that none of them draws.

A PDF brings the fonts that it is drawn with. No font has all scripts: Latin, Chinese and Tamil
names need two or three.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import attrs
from fontTools.ttLib import (  # type: ignore[import-untyped] # it has no types
    TTCollection,
    TTFont,
    TTLibError,
)

from rm_voucher.exceptions import ConfigurationError

_ENDINGS = {".ttf", ".otf", ".ttc", ".otc"}
_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": ("C:/Windows/Fonts",),
}
_OTHER_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
# The beginnings of files' names, plain and quiet fonts first. Any other font comes after them.
_LIKED = (
    "notosans-regular",
    "dejavusans.",
    "liberationsans-regular",
    "arial.",
    "segoeui.",
    "notosanstamil-regular",
    "lohit-tamil",
    "nirmala",
    "latha.",
    "tamil mn",
    "notosanscjk-regular",
    "notosanssc-regular",
    "droidsansfallback",
    "wqy-microhei",
    "msyh.",
    "pingfang",
    "stheiti",
    "simsun",
    "notosans",
)
_SLANTED_OR_HEAVY = ("bold", "italic", "oblique", "black", "light", "thin", "condensed", "medium")
_SIMPLIFIED = " SC"  # of a collection's faces: as Malaysia writes Chinese
_NOT_EMBEDDED = 0x0002  # of OS/2.fsType: its maker forbids it
_PACKAGES = {
    "CJK": "fonts-noto-cjk",
    "HANGUL": "fonts-noto-cjk",
    "HIRAGANA": "fonts-noto-cjk",
    "KATAKANA": "fonts-noto-cjk",
}
_PACKAGE = "fonts-noto-core"
_FEW = 12


@attrs.frozen
class Face:
    """A font: its file, and its place in that if the file has several."""

    path: Path
    number: int = 0
    characters: frozenset[int] = attrs.field(default=frozenset(), repr=False)


@attrs.frozen
class Chosen:
    """The fonts of a sheet, the main one first, and the characters that none of them has."""

    faces: tuple[Face, ...]
    missing: str = ""


def choose(text: Iterable[str], *, named: Sequence[Path] = ()) -> Chosen:
    """Return the fonts for these characters: those that a person named, then the machine's own.

    Raises `ConfigurationError` if a named file is no font.
    """
    wanted = {ord(char) for char in text if _is_drawn(char)}
    faces: list[Face] = []
    for path in named:
        if (face := _face(path)) is None:
            raise ConfigurationError(f"{path} is no font that can be put into a PDF.")
        faces.append(face)
        wanted -= face.characters
    for path in _liked_first() if wanted else ():
        if (face := _face(path)) is not None and face.characters & wanted:
            faces.append(face)
            wanted -= face.characters
            if not wanted:
                break
    if not faces:  # each reader of PDFs has fonts for these
        wanted = {number for number in wanted if not _is_western(chr(number))}
    return Chosen(tuple(faces), "".join(map(chr, sorted(wanted))))


def bold_of(face: Face) -> Face | None:
    """Return the bold font that belongs to one, if the machine has it."""
    stem, ending = face.path.stem, face.path.suffix
    for name in (stem.replace("Regular", "Bold"), f"{stem}-Bold", f"{stem}bd"):
        path = face.path.with_name(name + ending)
        if name != stem and path.exists():
            found = _face(path)
            if found is not None:
                return found
    return None


def fixed_width() -> Face | None:
    """Return a font that tells 0 from O, and l from 1, if the machine has one."""
    for path in _files():
        if path.name.lower().startswith(("dejavusansmono.", "notosansmono-regular", "consola.")):
            return _face(path)
    return None


def in_words(missing: str) -> str:
    """Return the sentence that says which characters can't be drawn, and what helps."""
    few = missing[:_FEW]
    more = f" and {len(missing) - _FEW:,} more" if len(missing) > _FEW else ""
    scripts = sorted({_script(char) for char in missing})
    packages = sorted({_PACKAGES.get(script, _PACKAGE) for script in scripts})
    names = ", ".join(script.title() if script != "CJK" else "Chinese" for script in scripts)
    return (
        f"No font of this machine draws {few}{more} ({names}). Install one (on Debian and Ubuntu: "
        f"apt install {' '.join(packages)}), name a font file with --font, or name an --output "
        "that ends in .html: a browser has its own fonts."
    )


def _is_drawn(char: str) -> bool:
    # Joiners and the like shape their neighbours and are nothing by themselves.
    return char.isprintable() and unicodedata.category(char) not in {"Cf", "Zs"}


def _is_western(char: str) -> bool:
    return bool(char.encode("cp1252", errors="ignore"))


def _script(char: str) -> str:
    if unicodedata.category(char)[0] not in "LM":
        return "SIGNS"
    return unicodedata.name(char, "OTHERS").split(" ")[0].split("-")[0]


def _liked_first() -> list[Path]:
    return sorted(_files(), key=_rank)


def _rank(path: Path) -> tuple[int, bool, str]:
    name = path.name.lower()
    liked = next((n for n, start in enumerate(_LIKED) if name.startswith(start)), len(_LIKED))
    return liked, any(word in name for word in _SLANTED_OR_HEAVY), str(path)


def _files() -> list[Path]:
    """Return the files of the machine's fonts: as fontconfig says, or of the usual folders."""
    program = shutil.which("fc-list")
    if program is not None:
        listed = subprocess.run(  # noqa: S603 - its own arguments, nobody's words
            [program, "--format", "%{file}\n"], capture_output=True, check=False
        )
        files = {Path(os.fsdecode(line)) for line in listed.stdout.splitlines() if line}
    else:
        folders = (Path(name).expanduser() for name in _FOLDERS.get(sys.platform, _OTHER_FOLDERS))
        files = {path for folder in folders for path in folder.rglob("*")}
    return sorted(path for path in files if path.suffix.lower() in _ENDINGS)


def _face(path: Path) -> Face | None:
    """Return a font if its file can be read, and may be put into a PDF."""
    try:
        with path.open("rb") as file:  # where it can't be read, fontTools leaves it open
            number = _number(file) if path.suffix.lower() in {".ttc", ".otc"} else 0
            font = TTFont(file, fontNumber=number, lazy=True)
            if "glyf" not in font and "CFF " not in font:
                return None
            if "OS/2" in font and font["OS/2"].fsType & 0x000F == _NOT_EMBEDDED:
                return None
            return Face(path, number, frozenset(font.getBestCmap() or ()))
    except (OSError, TTLibError, KeyError, ValueError, AssertionError):
        return None


def _number(file: BinaryIO) -> int:
    names = [font["name"].getDebugName(4) or "" for font in TTCollection(file, lazy=True)]
    return next((number for number, name in enumerate(names) if _SIMPLIFIED in name), 0)
