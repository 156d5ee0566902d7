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
    find_written,
    is_phone,
    keys_of,
    name_ours,
    refuse_codes,
    refuse_remains,
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


THEIRS = st.sampled_from([*OURS, *(f"rm_{name}" for name in OURS), "Code", "RM Code", "x", ""])


@given(st.lists(THEIRS, max_size=8), st.sampled_from([OURS, ("outcome", "status", "error")]))
def test_ours_are_found_again(header: list[str], names: tuple[str, ...]) -> None:
    """Beside whatever columns of theirs, ours are where they were written."""
    try:
        whole = (*header, *name_ours(names, header))
    except ConfigurationError:  # both names of one are taken
        return
    assert find_written(names, whole) == tuple(range(len(header), len(whole)))


@given(st.lists(THEIRS, max_size=4), st.permutations(range(8)))
def test_columns_that_were_moved_are_never_mistaken(header: list[str], order: list[int]) -> None:
    """Ours are found, or not: never one of theirs in the place of one of ours."""
    try:
        whole = (*header, *name_ours(OURS, header))
    except ConfigurationError:
        return
    moved = [at for at in order if at < len(whole)]
    found = find_ours([whole[at] for at in moved])
    side_by_side = any(
        moved[n : n + 4] == list(range(len(header), len(whole))) for n in range(len(moved))
    )
    if found is None:
        assert {"rm_code", "rm_qr_url", "rm_voucher_status", "rm_error"} & {*whole}
    elif side_by_side or not {name.removeprefix("rm_") for name in header} & {*OURS}:
        assert [moved[at] for at in found.columns] == list(range(len(header), len(whole)))


@pytest.mark.parametrize(
    ("header", "places"),
    [
        ("email rm_code code qr_url voucher_status error", (2, 3, 4, 5)),
        ("email rm_code", None),
        ("email rm_code qr_url voucher_status error", None),
        ("email code rm_code qr_url voucher_status error", (2, 3, 4, 5)),
        ("email Code rm_code qr_url voucher_status error", (2, 3, 4, 5)),
        ("email code qr_url voucher_status error rm_code", (1, 2, 3, 4)),
        ("code error email voucher_status qr_url", (0, 4, 3, 1)),
        ("rm_code error email code voucher_status qr_url", None),
        ("email code qr_url voucher_status error outcome status rm_error", (1, 2, 3, 4)),
    ],
)
def test_which_are_ours(header: str, places: tuple[int, ...] | None) -> None:
    """A column of theirs may be called as ours would be beside another."""
    ours = find_ours(header.split())
    assert (ours and ours.columns) == places


@pytest.mark.parametrize(
    "header",
    ["email code voucher_status error", "code qr_url", "rm_code rm_error", "Voucher Status Code"],
)
def test_what_is_left_of_an_output_is_refused(header: str) -> None:
    """Two of our columns are enough: who has a code would get a second one."""
    columns = header.replace("Voucher Status", "Voucher_Status").split()
    with pytest.raises(ConfigurationError, match="is not the whole output of a run"):
        refuse_codes(columns)
    refuse_codes(["email", columns[0]])


def test_codes_are_not_taken_from_what_is_left() -> None:
    """Which codes were issued can't be told; those of a listing were."""
    with pytest.raises(ConfigurationError, match="a column 'voucher_status'"):
        refuse_remains(["rm_code", "email", "code", "voucher_status", "qr_url", "error"])
    refuse_remains(["code", "qr_url", "status"])
    with pytest.raises(ConfigurationError, match="may be in 'code' and 'rm_code'"):
        choose_column(["code", "rm_code"], column=None, names=(), what="code")


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
