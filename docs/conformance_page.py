"""Write the tables of docs/conformance.md on the probe: ``python docs/conformance_page.py``.

The page's other parts are written by hand.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from rm_voucher.emulator import Guesses
from rm_voucher.probe.catalogue import EXPERIMENTS, QUESTIONS, WITHOUT_EXPERIMENT
from rm_voucher.probe.findings import plain, shown

PAGE = Path(__file__).with_name("conformance.md")
HEADING = "## What is not known\n"
BEGIN = f"""{HEADING}
`python docs/conformance_page.py` writes the rest of this page, from the catalogue of
[the probe](probe.md).

### Options of the emulator

Each option of `Guesses`, what is assumed, and the experiment of the probe that decides it, or why
none can.

| option | assumed | the probe |
|---|---|---|
"""
QUESTIONS_HEAD = """
### Open questions

Each row of [Guesses](api.md#guesses) on the page of the API, and each **?** there.

| not documented | the probe |
|---|---|
"""
EXPERIMENTS_HEAD = """
### Experiments

What each experiment asks, and the most that it takes. Where one decides nothing alone, `stock`
concludes from what it saw.

| experiment | asks | decides | calls | vouchers |
|---|---|---|---|---|
"""


def page(text: str) -> str:
    """Return the whole page; ``text`` is the page as it stands."""
    by_hand = text.partition(HEADING)[0]
    options = _rows(
        (f"`{name}`", _shown(default), _experiments(name))
        for name, default in attrs.asdict(Guesses()).items()
    )
    names = {one.name for one in EXPERIMENTS}
    questions = _rows(
        (question, f"`{answer}`" if answer in names else answer)
        for question, answer in QUESTIONS.items()
    )
    experiments = _rows(
        (
            f"`{one.name}`",
            one.asks,
            ", ".join(f"`{each.subject}`" for each in one.decides) or "nothing alone",
            str(one.cost.calls),
            str(one.cost.vouchers),
        )
        for one in EXPERIMENTS
    )
    return f"{by_hand}{BEGIN}{options}{QUESTIONS_HEAD}{questions}{EXPERIMENTS_HEAD}{experiments}"


def _experiments(option: str) -> str:
    deciding = [one.name for one in EXPERIMENTS if option in {each.subject for each in one.decides}]
    return ", ".join(f"`{name}`" for name in deciding) or WITHOUT_EXPERIMENT[option]


def _shown(default: object) -> str:
    value = plain(default)
    if isinstance(value, list):
        return ", ".join(f"`{each}`" for each in value)
    return f"`{shown(value)}`"


def _rows(rows: Iterable[tuple[str, ...]]) -> str:
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"wrote {PAGE.name}")
