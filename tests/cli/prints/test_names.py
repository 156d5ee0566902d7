"""Names of files: safe on every file system, and the same for the same rows."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_voucher.cli.prints.names import MAX_BYTES, Stems, safe_stem

RESERVED = {
    "con",
    "prn",
    "aux",
    "nul",
    *(f"{d}{n}" for d in ("com", "lpt") for n in "0123456789¹²³"),
}
ANY = st.text(alphabet=st.characters(), max_size=300)
SPITEFUL = st.lists(
    st.sampled_from(
        [
            "..",
            "/",
            "\\",
            "CON",
            "nul",
            ".",
            " ",
            "-",
            "a",
            "é",
            "e\u0301",
            "A",
            "ß",
            "😀",
            ":",
            "\0",
        ]
    ),
    max_size=12,
).map("".join)


@given(ANY | SPITEFUL)
def test_any_text_becomes_a_name_that_every_file_system_takes(text: str) -> None:
    """Windows' characters, names and ends; no path, no option, no hidden file; not too long."""
    stem = safe_stem(text)
    assert not set(stem) & set('<>:"/\\|?*`$\0')
    assert stem.isprintable()
    assert stem == stem.strip(" ").rstrip(".")
    assert not stem.startswith((".", "-", "+", "=", "@"))
    assert stem.split(".")[0].strip().casefold() not in RESERVED
    assert len(stem.encode()) <= MAX_BYTES
    assert unicodedata.is_normalized("NFC", stem)


@pytest.mark.parametrize(
    ("text", "stem"),
    [
        ("Ana", "Ana"),
        ("陈美玲", "陈美玲"),
        ("முருகன்", "முருகன்"),
        ("ana@example.com", "ana@example.com"),
        ("+60 12-345 6789", "60 12-345 6789"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("C:\\Windows\\x", "C__Windows_x"),
        ("con", "_con"),
        ("LPT1.txt", "_LPT1.txt"),
        ("Con tact", "Con tact"),
        ("Ana. ", "Ana"),
        (".ssh", "ssh"),
        ("-rf", "rf"),
        ("a\nb\x1b[2J\u202e", "a_b_[2J_"),
        ("e\u0301", "\u00e9"),
        ("...", ""),
    ],
)
def test_a_name_stays_as_it_is_where_that_is_safe(text: str, stem: str) -> None:
    """Only what some file system refuses is altered."""
    assert safe_stem(text) == stem


def test_long_names_stay_apart() -> None:
    """Two long names that begin alike are two, and whole characters are cut off."""
    first, second = (safe_stem("முருகன்" * 30 + end) for end in "ab")
    assert first != second
    assert len(first.encode()) <= MAX_BYTES
    assert first[:10] == "முருகன்முருகன்"[:10]


def test_no_file_is_two_peoples() -> None:
    """Case, accents, and width are no difference; the first has the name, others their row."""
    stems = Stems()
    given_names = [
        stems.give(text, row)
        for row, text in enumerate(
            ["Ana", "ANA", "ana", "é", "e\u0301", "É", "...", "ana (row 3)"], 2
        )
    ]
    assert given_names == [
        "Ana",
        "ANA (row 3)",
        "ana (row 4)",
        "é",
        "é (row 6)",
        "É (row 7)",
        "row 8",
        "ana (row 3) (row 9)",
    ]


@given(st.lists(SPITEFUL | st.text(max_size=5), max_size=30))
def test_names_are_apart_on_every_file_system_and_the_same_again(texts: list[str]) -> None:
    """A second run over the same rows gives the same names."""
    runs = []
    for _ in range(2):
        stems = Stems()
        runs.append([stems.give(text, row) for row, text in enumerate(texts, start=2)])
    assert runs[0] == runs[1]
    for form in ("NFC", "NFD", "NFKC"):
        folded = {unicodedata.normalize(form, stem).casefold() for stem in runs[0]}
        assert len(folded) == len(texts)
    assert len({stem.upper() for stem in runs[0]}) == len(texts)
    assert all(stem and len(stem.encode()) <= MAX_BYTES + 10 for stem in runs[0])
