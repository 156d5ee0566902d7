"""Finds a column by its header, and the columns that a run of ours wrote. Pure."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.text import printable

OURS = ("code", "qr_url", "voucher_status", "error")
"""The columns that a run of ``issue`` appends."""
_PREFIX = "rm_"  # of ours, where a column of theirs has the name
_SHOWN = 12

# Headers as `_plain` makes them: English, Malay, Chinese.
_RECIPIENTS = """
    recipient recipients email emailaddress emails mail mailaddress
    id ids userid member memberid memberno membernumber membershipid membershipno membershipnumber
    customer customerid customerno customernumber
    penerima emel alamatemel alamatmel mel ahli idahli noahli nomborahli pelanggan idpelanggan
    收件人 收件者 接收人 接收者 收券人 电邮 電郵 电邮地址 電郵地址 邮箱 郵箱 邮箱地址 郵箱地址
    电子邮件 電子郵件 电子邮箱 電子郵箱 电子邮件地址 電子郵件地址
    会员 會員 会员号 會員號 会员编号 會員編號 会员卡号 會員卡號 客户编号 客戶編號 编号 編號
"""
_PHONES = """
    phone phoneno phonenumber phones mobile mobileno mobilenumber mobilephone tel telno telephone
    telephoneno telephonenumber handphone handphoneno contactno contactnumber whatsapp whatsappno
    telefon notelefon nombortelefon nofon telefonbimbit notelefonbimbit nohp hp
    手机 手機 手机号 手機號 手机号码 手機號碼 电话 電話 电话号码 電話號碼 联系电话 聯絡電話
"""
_CODES = """
    code codes vouchercode vouchercodes voucher kod kodbaucar 代码 代碼 券码 券碼 优惠码 優惠碼
"""
PHONE_NAMES = frozenset(_PHONES.split())
RECIPIENT_NAMES = PHONE_NAMES.union(_RECIPIENTS.split())
CODE_NAMES = frozenset(_CODES.split())


@attrs.frozen
class Ours:
    """Where the columns of a run of ours are in a table."""

    code: int
    qr_url: int
    voucher_status: int
    error: int

    @property
    def columns(self) -> tuple[int, ...]:
        """The four, in the order of `OURS`."""
        return (self.code, self.qr_url, self.voucher_status, self.error)


def find_ours(header: Sequence[str]) -> Ours | None:
    """Return where a run of ours wrote its columns, or None: it is no output of a run."""
    places = find_written(OURS, header)
    return None if places is None else Ours(*places)


def find_written(names: Sequence[str], header: Sequence[str]) -> tuple[int, ...] | None:
    """Return where columns of ours stand that were called as `name_ours` calls them, or None.

    They stand side by side, called as they are called beside the columns before them. A person may
    have moved them: then each must be the only one that may be it.
    """
    plain = [_plain(name) for name in header]
    for start in range(len(header) - len(names), -1, -1):
        here = range(start, start + len(names))
        before = plain[:start]
        if all(_is_called(header[at], name, before) for at, name in zip(here, names, strict=True)):
            return tuple(here)
    places = [_only_place(name, header, plain) for name in names]
    found = tuple(place for place in places if place is not None)
    return found if len(found) == len(names) else None


def _is_called(called: str, name: str, taken: Collection[str]) -> bool:
    """Return whether `name_ours` calls a column so, where some plain names are taken."""
    if called == name:
        return _plain(name) not in taken
    prefixed = _PREFIX + name
    return called == prefixed and _plain(name) in taken and _plain(prefixed) not in taken


def _only_place(name: str, header: Sequence[str], plain: Sequence[str]) -> int | None:
    """Return the one column that may be ours of a name."""
    ways = [way for way in (name, _PREFIX + name) if way in header]
    if len(ways) != 1 or header.count(ways[0]) != 1:
        return None
    return header.index(ways[0]) if ways[0] == name or _plain(name) in plain else None


def refuse_codes(header: Sequence[str]) -> None:
    """Raise `ConfigurationError` for a table of codes that is no output of a run.

    Whoever has a code in it would get a second one. Two of our columns are left of an output.
    """
    plain = {_plain(name) for name in header}
    left = [name for name in OURS if {_plain(name), _plain(_PREFIX + name)} & plain]
    if len(left) > 1 and find_ours(header) is None:
        raise ConfigurationError(
            "the file has vouchers in it, and is not the whole output of a run: who has a code "
            f"would get a second one. Give the output with its columns {', '.join(OURS)}, or a "
            "file without codes"
        )


def refuse_remains(header: Sequence[str]) -> None:
    """Raise `ConfigurationError` for what is left of an output: whose code is issued can't be told.

    A listing, or any other table with codes, is none.
    """
    status = OURS[2]
    if {_plain(status), _plain(_PREFIX + status)} & {*map(_plain, header)} and not find_ours(
        header
    ):
        raise ConfigurationError(
            f"the file has a column {status!r}, and is not the whole output of a run, with "
            f"{', '.join(OURS)} as they were called: give that"
        )


def name_ours(names: Sequence[str], header: Sequence[str]) -> tuple[str, ...]:
    """Return how our columns are called beside a person's: as no column of theirs is.

    Raises `ConfigurationError` where both names of one are taken.
    """
    taken = {_plain(name) for name in header}
    called = []
    for name in names:
        free = next((way for way in (name, _PREFIX + name) if _plain(way) not in taken), None)
        if free is None:
            raise ConfigurationError(
                f"The file has columns {name!r} and {_PREFIX + name!r} already: rename one of them."
            )
        called.append(free)
    return tuple(called)


def choose_column(
    header: Sequence[str], *, column: str | None, names: Collection[str], what: str
) -> int:
    """Return the index of the column that a person named, or that has one of the names.

    Raises `ConfigurationError` with what the header has.
    """
    listed = ", ".join(repr(printable(name)) for name in header[:_SHOWN])
    if len(header) > _SHOWN:
        listed += f" and {len(header) - _SHOWN:,} more"
    if column is not None:
        found = [index for index, name in enumerate(header) if name == column]
        found = found or [i for i, name in enumerate(header) if _plain(name) == _plain(column)]
        if len(found) == 1:
            return found[0]
        how = "no" if not found else f"{len(found):,}"
        raise ConfigurationError(
            f"there {'is' if len(found) < 2 else 'are'} {how} column{'s' * (len(found) > 1)} "
            f"{printable(column)!r}; the header has {listed}"
        )
    for wanted in ({what}, names):  # our own word comes before all others
        found = [index for index, name in enumerate(header) if _plain(name) in wanted]
        if found and what == "code":  # which of the two is theirs can't be told
            found += [i for i, name in enumerate(header) if _plain(name) == _plain(_PREFIX + what)]
        if len(found) == 1:
            return found[0]
        if found:
            several = " and ".join(repr(printable(header[index])) for index in found)
            raise ConfigurationError(
                f"the {what} may be in {several}: name the column with --column"
            )
    raise ConfigurationError(
        f"no column is called {what!r} or anything like it: name it with --column. The first line "
        f"must have the names of the columns; it has {listed}"
    )


def is_phone(name: str) -> bool:
    """Return whether a column holds telephone numbers, by its header."""
    return _plain(name) in PHONE_NAMES


def keys_of(header: Sequence[str]) -> tuple[str, ...]:
    """Return a name of its own for each column, for JSON: a blank or second one is numbered."""
    keys: list[str] = []
    for number, name in enumerate(header, start=1):
        key, again = name or f"column {number}", 2
        while key in keys:
            key, again = f"{name or f'column {number}'} ({again})", again + 1
        keys.append(key)
    return tuple(keys)


def _plain(name: str) -> str:
    """Return a header without case, width, blanks and marks: ``E-Mail `` is ``email``."""
    return re.sub(r"[\W_]", "", unicodedata.normalize("NFKC", name).casefold())
