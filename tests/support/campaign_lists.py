"""Our list and RM's, as Hypothesis makes them up: small, so that they meet."""

from __future__ import annotations

from hypothesis import strategies as st

from rm_voucher.cli.campaign.standing import Kept, Listed, Mark
from rm_voucher.models import VoucherStatus

# Few names, two of which look the same, so that they meet.
NAMES = ["ann", "bob", "José", "Jose\u0301", "Jose\u0301\u200b", "eve"]
CODES = ["c1", "c2", "c3", "c4"]
MICROS = st.none() | st.integers(min_value=0, max_value=2**50)
STATUSES = [None, "SOMETHING", *(status.value for status in VoucherStatus)]

LISTINGS = st.lists(
    st.builds(
        Listed,
        code=st.sampled_from(CODES),
        status=st.sampled_from(STATUSES),
        assigned_at=MICROS,
        redeemed_at=MICROS,
        used_at=MICROS,
        amount_sen=st.none() | st.integers(min_value=0, max_value=10_000),
    ),
    max_size=6,
)


@st.composite
def entries(draw) -> list[Kept]:
    """What was asked: whoever is issued to has a code."""
    kept = []
    for name in draw(st.lists(st.sampled_from(NAMES), max_size=6)):
        mark = draw(st.sampled_from(list(Mark)))
        has_code = mark in (Mark.ISSUED, Mark.UNKEPT)
        code = draw(st.sampled_from(CODES)) if has_code else None
        kept.append(Kept(recipient=name, mark=mark, code=code))
    return kept


PEOPLE = st.none() | st.lists(st.sampled_from(NAMES), max_size=6)
