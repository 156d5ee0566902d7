"""Rule: a person whose name is written in two forms is one person, and gets one voucher.

Recipients are compared in NFC, without characters that nobody sees. Two that look the same stop the
command, unless ``--allow-similar`` says that they are two people. A recipient who is in the ledger
in another form has that voucher: the file was saved by another program since.
"""

import time
import unicodedata
from collections.abc import Callable
from pathlib import Path

import pytest

from rm_voucher.cli.recipients import Recipients
from rm_voucher.exceptions import ConfigurationError

NFC = unicodedata.normalize("NFC", "José")
NFD = unicodedata.normalize("NFD", "José")
UNSEEN = "Jos\u200bé"
FORMS = [NFC, NFD, UNSEEN, "\u2060José", f"{NFD}\ufe0f", "Jo\u00adsé"]


def write(path: Path, *names: str) -> Path:
    path.write_text("".join(f"{name}\n" for name in ["recipient", *names]))
    return path


@pytest.fixture
def shop(served):
    """A served emulator with a batch, on the clock that the command runs on."""
    served.emulator.advance(time.time() - served.emulator.virtual_clock.now())
    served.emulator.add_batch("Breakfast", key="B", quantity=100)
    return served


@pytest.fixture
def issue(rm, shop, tmp_path: Path) -> Callable:
    """Issue through a ledger; return how it ended, and each recipient's code."""

    def run(*names: str, options: tuple[str, ...] = ()):
        path = write(tmp_path / "r.csv", *names)
        url = f"sqlite:///{tmp_path}/ledger.db"
        ended = rm("issue", "B", "--recipients", path, "--ledger", url, *options)
        return ended, {row["recipient"]: row["code"] for row in ended.rows}

    return run


SIMILAR = ("--allow-similar",)


@pytest.mark.parametrize("second", FORMS[1:])
@pytest.mark.parametrize("turned", [False, True])
def test_two_forms_in_a_file(rm, embedded, tmp_path: Path, second: str, turned: bool) -> None:
    """It is a mistake in the file that names both lines; nothing is issued."""
    first, second = (second, NFC) if turned else (NFC, second)
    path = write(tmp_path / "r.csv", "a", first, "b", second)
    ended = rm("issue", "B", "--recipients", path)
    assert (ended.code, ended.out, embedded.issued) == (2, "", [])
    assert ended.err == (
        f"Error: {path}, line 5: {second!a} looks the same as {first!a} in line 3: remove one, or "
        "give --allow-similar if they are two people.\n"
    )


def test_two_odd_forms_in_a_file(tmp_path: Path) -> None:
    """Neither of them need be the usual form."""
    with pytest.raises(ConfigurationError, match=r"line 3: .* in line 2"):
        Recipients(write(tmp_path / "r.csv", NFD, UNSEEN))


@pytest.mark.parametrize(
    ("one", "other"),
    [("José", "Jose"), ("josé", "José"), ("Ａ", "A"), ("ﬁ", "fi"), ("a b", "a  b"), ("ß", "ss")],
)
def test_names_that_only_resemble(tmp_path: Path, one: str, other: str) -> None:
    """Another letter, case, width or space makes another name."""
    with Recipients(write(tmp_path / "r.csv", one, other)) as found:
        assert list(found) == [one, other]


def test_allowed(rm, embedded, tmp_path: Path) -> None:
    """``--allow-similar`` takes them for several people; the same form twice stays a mistake."""
    path = write(tmp_path / "r.csv", *FORMS)
    ended = rm("issue", "B", "--recipients", path, *SIMILAR)
    assert (ended.code, len(embedded.issued)) == (0, len(FORMS))
    assert sorted(row["recipient"] for row in ended.rows) == sorted(FORMS)
    ended = rm("issue", "B", "--recipients", write(path, NFC, NFD, NFC), *SIMILAR)
    assert (ended.code, len(embedded.issued)) == (2, len(FORMS))
    assert "line 4: 'José' stands there twice" in ended.err


def test_allowed_without_a_file(rm, embedded) -> None:
    """Numbers don't resemble each other."""
    ended = rm("issue", "B", "--count", 3, *SIMILAR)
    assert (ended.code, embedded.issued) == (2, [])


@pytest.mark.parametrize("before", FORMS)
def test_file_in_another_form(issue, shop, before: str) -> None:
    """The same people in a file that another program saved, and in the next, have the same
    vouchers."""
    _, first = issue("a", before, "z")
    for after in FORMS:
        ended, again = issue("z", after, "a", "new")
        found = again["a"], again[after], again["z"]
        assert (ended.code, *found) == (0, first["a"], first[before], first["z"]), ascii(after)
        assert len(shop.issued()) == 4, ascii(after)
    assert issue(before, "a")[1] == {before: first[before], "a": first["a"]}


def test_several_in_the_ledger(issue, shop) -> None:
    """Who may be either of two in the ledger is asked about, and nothing is issued."""
    issue(NFC, NFD, options=SIMILAR)
    ended, _ = issue("a", UNSEEN)
    assert (ended.code, ended.out, len(shop.issued())) == (2, "", 2)
    assert f"line 3: {UNSEEN!a} is not in the ledger, and " in ended.err
    assert issue(NFC)[0].code == 0
    assert len(shop.issued()) == 2


def test_allowed_with_a_ledger(issue, shop) -> None:
    """Several people stay who they are in each run."""
    _, first = issue(NFC, NFD, options=SIMILAR)
    ended, again = issue(NFD, NFC, UNSEEN, options=SIMILAR)
    assert ended.code == 0
    assert again.items() >= first.items()
    assert len(shop.issued()) == 3


def test_allowed_with_a_ledger_in_another_form(issue, shop) -> None:
    """Whether a new form is a new person nobody but a person knows."""
    issue(NFC)
    ended, _ = issue("a", UNSEEN, options=SIMILAR)
    assert (ended.code, len(shop.issued())) == (2, 1)
    assert "write it as it stands there if it is the same person" in ended.err


def test_another_batch(issue, rm, shop, tmp_path: Path) -> None:
    """An id is for one batch, in whatever form: the recipient fails, as in the same form."""
    issue(NFD)
    shop.emulator.add_batch("Lunch", key="C", quantity=10)
    path = write(tmp_path / "r.csv", NFC, "b")
    ended = rm("issue", "C", "--recipients", path, "--ledger", f"sqlite:///{tmp_path}/ledger.db")
    assert (ended.code, len(shop.issued("C"))) == (1, 1)
    assert {row["recipient"]: row["voucher_status"] for row in ended.rows} == {
        NFC: "failed",
        "b": "issued",
    }


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("\u200b", "a recipient in which nothing can be seen"),
        ("\u2066\u200d\u2069", "a recipient with U+2066 at position 1, which turns text around"),
        (
            "José \u200b",
            "a recipient with a space at an end, beside a character that can't be seen",
        ),
        ("\ufeff\xa0José", "a recipient with a space at an end"),
        ("José \ufe0f", "a recipient with a space at an end"),
        ("Al\u202ei", "a recipient with U+202E at position 3, which turns text around"),
        ("@SUM(1+9)*cmd|'/C calc'!A0", "a recipient that starts with '@' is a formula"),
        ("+HYPERLINK(A1)", "a recipient that starts with '+' is a formula to a spreadsheet"),
        ("-1+1|cmd", "a recipient that starts with '-' is a formula to a spreadsheet"),
        ("\uff1dA1", "a recipient that starts with '\uff1d' is a formula to a spreadsheet"),
    ],
)
def test_names_of_no_use(tmp_path: Path, name: str, sentence: str) -> None:
    """What a table would show as something else is refused where it comes from."""
    with pytest.raises(ConfigurationError) as refused:
        Recipients(write(tmp_path / "r.csv", "a", f'"{name}"'))
    assert f"r.csv, line 3: {sentence}" in str(refused.value)


@pytest.mark.parametrize(
    "name", ["+60 12-345 6789", "@ali.baba_2", "-5", "O'Neil", "ali@x.my", "👩‍👩‍👧", "می‌خواهم"]
)
def test_names_of_use(tmp_path: Path, name: str) -> None:
    """A telephone number, a handle, and joiners inside a word are no harm."""
    with Recipients(write(tmp_path / "r.csv", name)) as found:
        assert list(found) == [name]
