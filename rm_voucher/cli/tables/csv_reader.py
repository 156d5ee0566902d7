"""Reads CSV as spreadsheets write it: in their encodings, with their delimiters."""

from __future__ import annotations

import codecs
import contextlib
import csv
import io
import itertools
import re
from collections.abc import Iterator
from typing import IO

from rm_voucher.cli.tables.model import Cell, Format, Line, Problems
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.extras import extra

MAX_LINE_CHARS = 100_000
DELIMITERS = ",;\t|"
"""What divides cells in a file that does not say what does."""
_SAMPLE_LINES = 50
_SAMPLE_BYTES = 1 << 16
_CHUNK_BYTES = 1 << 20
_BOMS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
# Python's names of those that a program may save a table in; it knows others, such as punycode.
_OF_TABLES = re.compile(
    r"utf-(8|8-sig|16|16-le|16-be|32|32-le|32-be)|ascii|cp\d+|iso8859-\d+|iso2022_\w+|koi8-\w|"
    r"mac-\w+|big5\w*|gb2312|gbk|gb18030|hz|shift_jis\w*|euc_\w+|johab|tis-620|kz1048|ptcp154"
)
# Words that Python has for it, where a person has another.
_ALIASES = {"ansi": "cp1252", "unicode": "utf-16", "gbk": "gb18030", "gb2312": "gb18030"}


class CsvReader:
    """The rows of a CSV file, read once, as ``(line, cells)``.

    Raises `ConfigurationError` for an encoding that is not known.
    """

    def __init__(self, file: IO[bytes], title: str, *, encoding: str | None = None) -> None:
        self.title = title
        self.notes: list[str] = []
        self._encoding, has_bom = self._find_encoding(file, encoding)
        file.seek(0)
        self._text = io.TextIOWrapper(file, encoding=self._encoding, newline="")
        try:
            delimiter, newline, self._skipped = self._find_dialect()
        finally:
            self._text.detach()
        file.seek(0)
        self._file = file
        self.format: Format = Format(delimiter=delimiter, newline=newline, has_bom=has_bom)

    def rows(self, problems: Problems) -> Iterator[tuple[int, list[Cell]]]:
        """Iterate over all rows. What is no CSV ends the file, and is a problem."""
        text = io.TextIOWrapper(self._file, encoding=self._encoding, newline="")
        line = self._skipped
        try:
            for _ in range(self._skipped):
                text.readline()
            reader = csv.reader(_lines(text), delimiter=self.format.delimiter, strict=True)
            try:
                for number, row in enumerate(reader, start=1):
                    begin, line = line + 1, self._skipped + reader.line_num
                    yield Line.at(begin, self._skipped + number), [*row]
            except csv.Error as exc:
                begin, end = line + 1, self._skipped + reader.line_num
                problems.add(begin, _sentence(exc, end - begin))
            except _LineTooLong:
                problems.add(
                    self._skipped + reader.line_num + 1,
                    f"longer than {MAX_LINE_CHARS:,} characters",
                )
        except UnicodeDecodeError as exc:
            raise ConfigurationError(
                f"{self.title} is not {self._encoding}: name its encoding with --encoding, or save "
                "it as 'CSV UTF-8'."
            ) from exc
        finally:
            with contextlib.suppress(ValueError):  # nobody read on, and the file is closed
                text.detach()

    def _find_encoding(self, file: IO[bytes], named: str | None) -> tuple[str, bool]:
        """Return the encoding, and whether the file needs a byte order mark to be read right."""
        start = file.read(_SAMPLE_BYTES)
        bom = next((name for mark, name in _BOMS.items() if start.startswith(mark)), None)
        if named is not None:
            name = _ALIASES.get(named.casefold(), named)
            try:
                known = codecs.lookup(name).name
            except (LookupError, ValueError):  # a name with a null character
                known = ""
            if not _OF_TABLES.fullmatch(known):
                raise ConfigurationError(
                    f"There is no encoding {named!r} of tables: utf-8, utf-16, windows-1252, big5, "
                    "gbk and others are known."
                )
            return (bom if bom and known in ("utf-8", "utf-16") else known), known != "utf-8"
        if bom:
            return bom, True
        if (guessed := _utf_16_without_mark(start)) is not None:
            return guessed, True
        file.seek(0)
        odd = _not_utf_8(file)
        if odd is None:
            return "utf-8", False
        return self._find_old_encoding(*odd), True

    def _find_old_encoding(self, line: int, sample: bytes) -> str:
        text = sample.decode(errors="replace")
        bad = text.count("\N{REPLACEMENT CHARACTER}")
        if sum(not char.isascii() for char in text) > 2 * bad:
            raise ConfigurationError(
                f"{self.title} is UTF-8, but for line {line:,}: mend it there, or name another "
                "encoding with --encoding."
            )
        with extra("tables", "A file in an old encoding", ConfigurationError):
            from charset_normalizer import from_bytes  # slow to import, and seldom needed

        best = from_bytes(
            sample, cp_isolation=["cp1252", "big5", "gb18030", "shift_jis", "euc_kr"]
        ).best()
        guess = best.encoding if best else None
        if guess not in (None, "cp1252") or not _may_be_cp1252(sample):
            hint = "" if guess in (None, "cp1252") else f" It may be {guess}."
            raise ConfigurationError(
                f"{self.title} is neither UTF-8 nor Windows-1252: save it as 'CSV UTF-8', or name "
                f"its encoding with --encoding, such as big5 or gbk.{hint}"
            )
        self.notes.append(
            f"{self.title} is not UTF-8: it is read as Windows-1252. Name another encoding with "
            "--encoding if names look wrong."
        )
        return "cp1252"

    def _find_dialect(self) -> tuple[str, str, int]:
        """Return the delimiter, how lines end, and how many lines are before the header."""
        lines: list[str] = []
        # Whoever reads the rows says what is wrong.
        with contextlib.suppress(UnicodeDecodeError, _LineTooLong):
            lines.extend(itertools.islice(_lines(self._text), _SAMPLE_LINES))
        first = lines[0] if lines else ""
        newline = "\r\n" if first.endswith("\r\n") else "\n"
        if declared := re.fullmatch(r'"?sep=([^\r\n"])"?[\r\n]*', first, re.IGNORECASE):
            return declared[1], newline, 1
        return max(DELIMITERS, key=lambda delimiter: _fits(lines, delimiter)), newline, 0


class _LineTooLong(Exception):  # noqa: N818 - it never leaves this module
    """A line that is none, but a file without an end."""


def _lines(text: io.TextIOWrapper) -> Iterator[str]:
    while line := text.readline(MAX_LINE_CHARS + 1):
        if len(line) > MAX_LINE_CHARS:
            raise _LineTooLong
        yield line


def _fits(lines: list[str], delimiter: str) -> tuple[float, int]:
    """Return how well a delimiter divides a file: the share of rows as wide as the first."""
    rows: list[list[str]] = []
    with contextlib.suppress(csv.Error):  # a field without an end
        rows.extend(csv.reader(lines, delimiter=delimiter))
    rows = [row for row in rows if any(row)]
    width = len(rows[0]) if rows else 0
    if width < 2:
        return 0.0, 0
    return sum(len(row) == width for row in rows) / len(rows), width


def _sentence(exc: csv.Error, further_lines: int) -> str:
    words = str(exc)
    if "end of data" in words or (further_lines and "field larger" in words):
        return "a quotation mark that is not closed"
    if "field larger" in words:
        return f"a cell of more than {csv.field_size_limit():,} characters"
    return "not CSV: text after a closing quotation mark"


def _utf_16_without_mark(start: bytes) -> str | None:
    """Tell text of which each other byte is zero: that of the header is ASCII, mostly."""
    even, odd = start[:200:2].count(0), start[1:200:2].count(0)
    half = len(start[:200]) // 2
    if half and odd > 0.7 * half and even < 0.1 * half:
        return "utf-16-le"
    if half and even > 0.7 * half and odd < 0.1 * half:
        return "utf-16-be"
    return None


def _not_utf_8(file: IO[bytes]) -> tuple[int, bytes] | None:
    """Return the first line that is not UTF-8, and what in the file is not ASCII; None if it is."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    seen = 1
    while chunk := file.read(_CHUNK_BYTES):
        try:
            decoder.decode(chunk)
        except UnicodeDecodeError as exc:
            before = chunk[: max(exc.start, 0)]
            line = seen + before.count(b"\n")
            break
        seen += chunk.count(b"\n")
    else:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            line = seen
        else:
            return None
    file.seek(0)
    sample = bytearray()
    while len(sample) < _SAMPLE_BYTES and (text := file.readline(MAX_LINE_CHARS)):
        if not text.isascii():
            sample += text
    return line, bytes(sample)


def _may_be_cp1252(sample: bytes) -> bool:
    """Return whether a text may be Western: its letters that are not ASCII seldom touch."""
    try:
        sample.decode("cp1252")
    except UnicodeDecodeError:
        return False
    runs = re.findall(rb"[\x80-\xff]+", sample)
    return sum(len(run) for run in runs if len(run) > 1) <= 0.3 * sum(map(len, runs))
