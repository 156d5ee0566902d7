"""Models: open enums, money, and what their reprs hide."""

import copy
import pickle
from decimal import Decimal

import pytest
from support.answers import payload

from rm_voucher import ExpiryType, IssuedVoucher, Origin, Voucher, VoucherBatch, VoucherStatus
from rm_voucher.converters import structure
from rm_voucher.models import Token, mask, without_bearer_values


def test_open_enum_unknown_value_stays_text():
    """A value that nobody documented is kept, compares as text, and says that it is unknown."""
    status = VoucherStatus("FROZEN")
    assert status == "FROZEN"
    assert str(status) == "FROZEN"
    assert not status.is_known
    assert status == VoucherStatus("FROZEN")
    assert hash(status) == hash("FROZEN")
    assert "FROZEN" not in VoucherStatus.__members__


@pytest.mark.parametrize("name", ["DYNAMIC", "FIXED", "FIX", "PERMANENT"])
def test_expiry_types_that_rm_names(name):
    """Each is known, and stays as RM wrote it."""
    assert ExpiryType(name).is_known
    assert ExpiryType(name).value == name


def test_open_enum_known_value_is_the_member():
    """A documented value is the member itself, so `is` and `match` work."""
    assert VoucherStatus("VOID") is VoucherStatus.VOID
    assert VoucherStatus.VOID.is_known


@pytest.mark.parametrize(
    ("cls", "spelling", "member"),
    [(VoucherStatus, "ISSUE", "ISSUED"), (ExpiryType, "STATIC", "FIXED")],
)
def test_open_enum_other_spelling_is_read(cls, spelling, member):
    """Both spellings of the documented pairs are one value."""
    assert cls(spelling) is cls[member]


@pytest.mark.parametrize("value", [None, 1, b"VOID", ["VOID"]])
def test_open_enum_other_type_is_refused(value):
    """Only text can be an unknown value."""
    with pytest.raises(ValueError, match="not a valid"):
        VoucherStatus(value)


@pytest.mark.parametrize("member", [Origin.SELF, Origin("NEW")])
def test_open_enum_pickles_and_copies(member):
    """Known and unknown values survive pickling and copying."""
    assert pickle.loads(pickle.dumps(member)) == member
    assert type(pickle.loads(pickle.dumps(member))) is Origin
    assert copy.deepcopy(member) == member


def test_money_is_decimal_for_people():
    """Sen and hundredths of a percent have exact Decimal properties."""
    voucher = Voucher(amount_sen=12345, discount_rate_bp=1250, minimum_spend_sen=None)
    assert voucher.amount_rm == Decimal("123.45")
    assert voucher.discount_percent == Decimal("12.50")
    assert voucher.minimum_spend_rm is None
    assert VoucherBatch(minimum_spend_sen=100).minimum_spend_rm == 1


def test_repr_hides_what_is_worth_money():
    """No repr shows a code, a QR URL, a key that holds the code, a token or personal data."""
    voucher = structure(payload("list-batch-vouchers")["items"][0], Voucher)
    issued = structure(payload("issue-voucher")["item"], IssuedVoucher)
    token = structure(payload("token-client-credentials"), Token)
    batch = VoucherBatch(static_code="ALA10OFF-2026")
    assert voucher.key is not None
    text = repr((voucher, issued, token, batch))
    for secret in (
        "UUEra22VSy2",
        voucher.key,
        "Example Member",
        "NAklEfbVdV",
        "example-accesstoken",
        "example-refreshtoken",
        "ALA10OFF-2026",
    ):
        assert secret not in text
    assert "REDEEMED" in text


@pytest.mark.parametrize(
    ("text", "shown"),
    [(None, "None"), ("", "''"), ("short", "'…'"), ("NAklEfbVdV", "'NA…'")],
)
def test_mask_shows_a_hint_at_most(text, shown):
    """A short text shows nothing, a longer one two characters."""
    assert mask(text) == shown


def test_voucher_pickles_and_hashes():
    """Vouchers can be queued between processes and put into sets."""
    voucher = structure(payload("list-batch-vouchers")["items"][0], Voucher)
    assert pickle.loads(pickle.dumps(voucher)) == voucher
    assert len({voucher, structure(payload("list-batch-vouchers")["items"][0], Voucher)}) == 1


def test_models_are_frozen():
    """A voucher does not change under the feet of those who share it."""
    with pytest.raises(AttributeError):
        Voucher().amount_sen = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    ("voucher", "left"),
    [
        (Voucher(), "ABCD1234 abcd1234 https://q"),
        (IssuedVoucher(code="ABCD1234", qr_url="https://q"), "'AB…' 'AB…' …"),
        (Voucher(code="ABCD1234"), "'AB…' 'AB…' https://q"),
    ],
)
def test_text_without_what_a_voucher_is_worth(voucher, left):
    """Its code in any case and its URL; nothing where nothing is known."""
    assert without_bearer_values("ABCD1234 abcd1234 https://q", voucher) == left
