"""A column is found by its header, whatever the case, blanks and marks; never guessed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rm_voucher import ConfigurationError
from rm_voucher.cli.tables.columns import (
    OURS,
    RECIPIENT_NAMES,
    choose_column,
    find_ours,
    is_phone,
    keys_of,
    name_ours,
)
from rm_voucher.cli.tables.index import Index


@pytest.mark.parametrize(
    "name",
    [
        "recipient",
        "Recipient ",
        "E-Mail",
        "e mail",
        "EMAIL ADDRESS",
        "Phone No.",
        "Mobile_Number",
        "ID",
        "Member ID",
        "No. Telefon",
        "No. HP",
        "Penerima",
        "手机号码",
        "電郵",
        "会员编号",
        "Ｅｍａｉｌ",
    ],
)
def test_names(name: str) -> None:
    """These say who a row is about."""
    header = ["Name", name, "City"]
    assert choose_column(header, column=None, names=RECIPIENT_NAMES, what="recipient") == 1


@pytest.mark.parametrize("name", ["Name", "", "Ticket", "idea", "emailed at", "姓名"])
def test_no_names(name: str) -> None:
    """These don't."""
    with pytest.raises(ConfigurationError, match="no column is called 'recipient'"):
        choose_column([name], column=None, names=RECIPIENT_NAMES, what="recipient")


def test_a_name_that_is_exact_comes_first() -> None:
    """Of two columns that differ in case alone, --column names one."""
    assert choose_column(["Email", "email"], column="email", names=(), what="recipient") == 1
    with pytest.raises(ConfigurationError, match="there are 2 columns 'EMAIL'"):
        choose_column(["Email", "email"], column="EMAIL", names=(), what="recipient")


def test_phones() -> None:
    """A column of telephone numbers is text."""
    assert is_phone("Mobile No.")
    assert is_phone("手机")
    assert not is_phone("Member ID")


@given(st.lists(st.sampled_from(["code", "Code", "qr_url", "error", "x", ""]), max_size=6))
def test_ours_are_found_again(header: list[str]) -> None:
    """Beside whatever columns of theirs, ours are found by their names."""
    if find_ours(header) is not None:
        return
    whole = (*header, *name_ours(OURS, header))
    ours = find_ours(whole)
    assert ours is not None
    assert ours.columns == tuple(range(len(header), len(whole)))


def test_both_names_are_taken() -> None:
    """A file that has both of our names can't have a third."""
    with pytest.raises(ConfigurationError, match="has columns 'code' and 'rm_code' already"):
        name_ours(OURS, ["code", "rm_code"])


@given(st.lists(st.sampled_from(["a", "", "a (2)", "column 2"]), max_size=6))
def test_keys(header: list[str]) -> None:
    """Each column has a key of its own in JSON."""
    assert len(set(keys_of(header))) == len(header)


@given(st.lists(st.text(max_size=3), max_size=300))
def test_index(texts: list[str]) -> None:
    """Each text that was added is found, among few others, however often it grew."""
    index = Index()
    index._make(4)
    for number, text in enumerate(texts):
        index.add(text, number)
    assert len(index) == len(texts)
    for text in texts:
        found = [number for number in index.find(text) if texts[number] == text]
        assert sorted(found) == [number for number, each in enumerate(texts) if each == text]
    assert not [number for number in index.find("not there") if texts[number] == "not there"]
