"""docs/doctor.md: its table has each check, and its example is what the doctor writes."""

import re

from support.files import DOCS

from rm_voucher.cli.doctor.command import CHECKS

PAGE = (DOCS / "doctor.md").read_text()


def test_each_check_is_on_the_page() -> None:
    """In the order in which they are made."""
    assert re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE) == list(CHECKS)


def test_example_shows_each_check() -> None:
    """A line each, by the same names."""
    (example,) = re.findall(r"```text\n(.*?)```", PAGE, re.DOTALL)
    shown = re.findall(r"^[✔✘–] ([\w ]+):", example, re.MULTILINE)
    assert shown == [name.replace("_", " ") for name in CHECKS]
