"""The written function that reads a model: the same as cattrs' own."""

from functools import partial

import attrs
import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from support.answers import payload

from rm_voucher import (
    BatchStatus,
    DecodeError,
    Expiry,
    ExpiryType,
    IssuedVoucher,
    Origin,
    Token,
    Voucher,
    VoucherBatch,
    VoucherStatus,
    VoucherType,
)
from rm_voucher.converters import (
    Field,
    _converter,
    make_converter,
    structure,
    structure_all,
    write_structure_fn,
)
from rm_voucher.models import ErrorBody

WRITTEN = _converter()
OF_CATTRS = make_converter(detailed_validation=True)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**53) | st.floats(0, 9) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)
whole = st.integers(0, 2**53)
text = st.text(max_size=9)
time = st.sampled_from(
    ["2018-09-28T17:15:17.686549Z", "2020-11-25T13:58:55+08:00", "0001-01-01T00:00:00Z"]
)
seconds = whole | st.sampled_from(["2591999", "0"])


def member_of(enum_class):
    return st.sampled_from([member.value for member in enum_class] + ["ISSUE", "STATIC", "NEW"])


def wire(required=(), **fields):
    """Objects whose fields mostly fit: each may be missing, null, or of any JSON value."""
    strategies = {name: st.none() | fit | fit | fit | json_values for name, fit in fields.items()}
    optional = {name: fit for name, fit in strategies.items() if name not in required}
    objects = st.fixed_dictionaries(
        {name: fields[name] for name in required}, optional=optional
    ) | st.fixed_dictionaries({}, optional=strategies)
    unknown = st.dictionaries(text | st.sampled_from(["extra", "nric"]), json_values, max_size=2)
    return st.builds(lambda known, other: {**other, **known}, objects, unknown)


worth = {
    "type": member_of(VoucherType),
    "amount": whole,
    "discountRate": whole,
    "minimumSpendAmount": whole,
    "label": text,
    "key": text,
    "origin": member_of(Origin),
    "imageUrl": text,
    "isShipping": st.booleans(),
    "isDeviceRedeem": st.booleans(),
    "createdAt": time,
    "updatedAt": time,
}
expiry = wire(type=member_of(ExpiryType), day=whole, expiredAt=time, expiryAt=time)
WIRE = {
    Expiry: expiry,
    IssuedVoucher: wire(["code"], code=st.text(min_size=1, max_size=9), qrUrl=text),
    Voucher: wire(
        **worth,
        code=text,
        status=member_of(VoucherStatus),
        expiry=expiry,
        voucherBatchKey=text,
        voucherBathKey=text,
        qrUrl=text,
        address=json_values,
        memberProfile=json_values,
        usedAt=time,
    ),
    VoucherBatch: wire(
        **worth,
        status=member_of(BatchStatus),
        quantity=whole,
        balanceQuantity=whole,
        expiry=expiry,
        isStatic=st.booleans(),
        staticCode=text,
    ),
    Token: wire(
        ["accessToken"],
        accessToken=text,
        tokenType=text,
        expiresIn=seconds,
        refreshToken=text,
        refreshTokenExpiresIn=seconds,
    ),
    ErrorBody: wire(["code"], code=text, message=text),
}


def read(converter, value, model):
    """Return what a converter makes of a value, with the type of each field; None: it refuses."""
    try:
        found = converter.structure(value, model)
    except Exception:  # noqa: BLE001 - how a value is refused differs; that both refuse it is held
        return None
    assert type(found) is model
    return found, [type(getattr(found, field.name)) for field in attrs.fields(model)]


@pytest.mark.parametrize("model", WIRE, ids=lambda model: model.__name__)
@given(data=st.data())
def test_written_function_reads_as_cattrs_does(model, data):
    """Of any object both make an equal model with fields of equal types, or both refuse it."""
    value = data.draw(WIRE[model] | json_values)
    assert read(WRITTEN, value, model) == read(OF_CATTRS, value, model)


@pytest.mark.parametrize("model", WIRE, ids=lambda model: model.__name__)
def test_comparison_meets_objects_that_fit_and_that_do_not(model):
    """The comparison above is not one of refusals only, nor of what fits."""

    def is_met(kind, value):
        found = read(WRITTEN, value, model)
        return kind == ("refused" if found is None else "kept" if found[0].misfits else "fits")

    first = settings(max_examples=200, phases=[Phase.generate])  # it need not be the smallest
    for kind in ("refused", "kept", "fits"):
        assert is_met(kind, find(WIRE[model] | json_values, partial(is_met, kind), settings=first))


@pytest.mark.parametrize(
    ("value", "where"),
    [({}, "missing @ $.code"), ({"code": None}, "expected text @ $.code")],
)
def test_required_field_that_is_missing_is_named(value, where):
    """What must be there and is not, or is null, is refused with its path."""
    with pytest.raises(DecodeError) as caught:
        structure(value, ErrorBody)
    assert str(caught.value) == where


@attrs.frozen(kw_only=True)
class Cup:
    size: int
    label: str | None = None
    made: str | None = None
    extra: dict = attrs.field(factory=dict)


ASKED: list[tuple[object, object]] = []


def doubled(value, cls):
    ASKED.append((value, cls))
    if not isinstance(value, int):
        raise TypeError
    return 2 * value


def asked(value, cls):
    ASKED.append((value, cls))
    return f"<{value}>"


CUP = write_structure_fn(
    Cup,
    [
        Field("size", "cupSize", int, doubled, None, True),
        Field("label", "cupLabel", str, asked, str, False),
        Field("made", "made", str, asked, None, False),
    ],
)


class Text(str):
    """Text that is not just text."""

    __slots__ = ()


@pytest.mark.parametrize(
    ("value", "cup", "hooks"),
    [
        ({"cupSize": 2}, Cup(size=4), [(2, int)]),
        ({"cupSize": 2, "cupLabel": "a"}, Cup(size=4, label="a"), [(2, int)]),
        ({"cupSize": 2, "cupLabel": None, "made": None}, Cup(size=4), [(2, int)]),
        ({"cupSize": 2, "cupLabel": 5}, Cup(size=4, label="<5>"), [(2, int), (5, str)]),
        (
            {"cupSize": 2, "cupLabel": Text("a")},
            Cup(size=4, label="<a>"),
            [(2, int), (Text("a"), str)],
        ),
        ({"cupSize": 2, "made": "x"}, Cup(size=4, made="<x>"), [(2, int), ("x", str)]),
        (
            {"cupSize": 2, "size": 3, "extra": {"a": 1}, "z": None},
            Cup(size=4, extra={"size": 3, "extra": {"a": 1}, "z": None}),
            [(2, int)],
        ),
    ],
)
def test_written_function_asks_hooks_for_what_is_not_plain(value, cup, hooks):
    """A value of just the plain type and an optional null are taken as they are, the rest go
    through the hook with their type; what no field reads is extra, in a mapping of its own."""
    ASKED.clear()
    before = dict(value)
    made = CUP(value, Cup)
    assert (made, ASKED) == (cup, hooks)
    assert value == before
    assert made.extra is not CUP(value, Cup).extra


@pytest.mark.parametrize("value", [{}, {"cupSize": None}, {"cupSize": "2"}, {"size": 2}])
def test_written_function_raises_what_its_hooks_raise(value):
    """A required field that is missing or null is its hook's to refuse."""
    with pytest.raises(TypeError):
        CUP(value, Cup)


def test_models_of_the_written_function_are_whole():
    """They are as frozen, slotted and hashable as those that are made by hand."""
    (item,) = [payload("get-voucher")["item"]]
    voucher = structure(item, Voucher)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        voucher.code = "other"  # type: ignore[misc]
    assert not hasattr(voucher, "__dict__")
    by_hand = Voucher(
        **{field.name: getattr(voucher, field.name) for field in attrs.fields(Voucher)}
    )
    assert (voucher, hash(voucher), repr(voucher)) == (by_hand, hash(by_hand), repr(by_hand))


def test_structure_all_names_the_index_that_does_not_fit():
    """Items are counted from the index of the first, as in the whole list."""
    for item, words in (({"qrUrl": "x"}, "missing @ $.items[101].code"), (5, "expected an object")):
        with pytest.raises(DecodeError, match=r"@ \$\.items\[101\]") as caught:
            structure_all([{"code": "X"}, item], IssuedVoucher, path="$.items", first=100)
        assert words in str(caught.value)


def test_structure_all_leaves_nothing_out():
    """An item that is no object has its place in the list, with nothing but that misfit."""
    one, odd, other = structure_all([{"code": "A"}, None, {"code": "B"}], Voucher)
    assert (one.code, other.code) == ("A", "B")
    assert (odd, odd.misfits) == (Voucher(extra={"$": {"misfit": None}}), {"$": None})
