"""Phone numbers as people write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

_MALAYSIA = "60"
_BETWEEN = re.compile(r"[\s().\-]+")
_DIGITS = re.compile(r"(\+|00)?([0-9]{1,15})")
_COUNTRY_CODE = re.compile(  # E.164's list: of one digit, of two, and all others of three
    r"1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]|[2-9][0-9]{2}"
)


def readings(text: str) -> Sequence[tuple[str, str]]:
    """Return what a phone number may mean, as country code and number; the likeliest first.

    Without a plus sign it is Malaysian, or has its country code all the same. Raises `ValueError`.
    """
    found = _DIGITS.fullmatch(_BETWEEN.sub("", text))
    if found is None:
        raise ValueError("Write the phone number in digits, such as +60 12-345 6789.")
    plus, digits = found.groups()
    country = _COUNTRY_CODE.match(digits)
    abroad = [(country[0], digits[country.end() :])] if country else []
    at_home = [(_MALAYSIA, digits.removeprefix("0")), (_MALAYSIA, digits)]
    able = [(code, number) for code, number in (abroad if plus else at_home + abroad) if number]
    if not able:
        raise ValueError("The phone number is too short.")
    return able
