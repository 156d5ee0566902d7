"""Converters: RM's example payloads round-trip, and misfits are kept, or refused by name."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import attrs
import cattrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.answers import payload

from rm_voucher import DecodeError, IssuedVoucher, Token, Voucher, VoucherBatch
from rm_voucher.converters import (
    configure_converter,
    format_time,
    make_converter,
    parse_time,
    structure,
    unstructure,
)
from rm_voucher.models import ErrorBody, Expiry, ExpiryType, VoucherStatus

# Every example payload that the operations can meet, and the models in it.
EXAMPLES = {
    "error": (ErrorBody, ["error"]),
    "get-voucher": (Voucher, ["item"]),
    "issue-voucher": (IssuedVoucher, ["item"]),
    "list-batch-vouchers": (Voucher, ["items"]),
    "list-batches": (VoucherBatch, ["items"]),
    "member-redeem": (Voucher, ["item"]),
    "member-voucher": (Voucher, ["item"]),
    "member-vouchers": (Voucher, ["items"]),
    "redeem-vouchers": (Voucher, ["item"]),
    "reinstate-voucher": (Voucher, ["item"]),
    "token-client-credentials": (Token, []),
    "token-refresh": (Token, []),
    "void-voucher": (Voucher, ["item"]),
    "webhook-callback": (Voucher, ["item"]),
}
TIME_FIELDS = {"assignedAt", "redeemedAt", "usedAt", "createdAt", "updatedAt", "expiredAt"}


def objects_in(name: str) -> list[dict[str, Any]]:
    value = payload(name)
    for part in EXAMPLES[name][1]:
        value = value[part]
    return value if isinstance(value, list) else [value]


def instant(text: str) -> datetime:
    # Independent of the package: cut the fraction by hand, let the standard library do the rest.
    whole, _, rest = text.partition(".")
    fraction = rest.rstrip("Z").partition("+")[0]
    zone = "+" + rest.partition("+")[2] if "+" in rest else "Z"
    cut = f"{whole}.{fraction[:6].ljust(6, '0')}{zone}" if rest else text
    return datetime.fromisoformat(cut).astimezone(UTC)


def comparable(wire: Any, *, model_level: bool = True) -> Any:
    """Null, absent and Go's zero time count as the same; instants compare in UTC."""
    result: dict[str, Any] = {}
    for key, value in wire.items():
        if value is None or value == "0001-01-01T00:00:00Z":
            continue
        if key in TIME_FIELDS and model_level:
            result[key] = instant(value)
        elif key == "expiry" and model_level:
            result[key] = comparable(value)
        else:
            result[key] = orjson.dumps(value)  # byte-equal
    return result


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_round_trips(name):
    """Decoding, encoding and decoding again loses nothing that the documentation shows."""
    model = EXAMPLES[name][0]
    found = objects_in(name)
    assert found
    for wire in found:
        decoded: Any = structure(wire, model)
        encoded = unstructure(decoded)
        assert structure(orjson.loads(orjson.dumps(encoded)), model) == decoded
        assert comparable(encoded) == comparable(wire)


@pytest.mark.parametrize("name", [n for n in EXAMPLES if EXAMPLES[n][0] is Voucher])
def test_example_known_fields_are_typed(name):
    """Known fields land in their attributes: nothing documented is left to ``extra``."""
    for wire in objects_in(name):
        voucher = structure(wire, Voucher)
        assert set(voucher.extra) <= {"voucherComboKey", "isMarketPlace"}
        assert voucher.code == wire["code"]
        assert voucher.amount_sen == wire["amount"]
        assert voucher.status == wire["status"]


def test_example_comparison_sees_a_difference():
    """The comparison above is one that can fail."""
    wire = objects_in("get-voucher")[0]
    assert comparable(wire) != comparable({**wire, "usedAt": "2018-09-28T17:19:44.686548Z"})
    assert comparable(wire) != comparable({**wire, "amount": 1})


def test_voucher_extra_survives():
    """Unknown fields of any shape survive, also one that is called extra."""
    wire = {"code": "X", "extra": {"a": [1, None]}, "new": 1.5, "quantity": 3, "reason": ""}
    voucher = structure(wire, Voucher)
    assert voucher.extra == {"extra": {"a": [1, None]}, "new": 1.5, "quantity": 3, "reason": ""}
    assert unstructure(voucher) == wire


@pytest.mark.parametrize(
    ("wire", "key"),
    [
        ({"voucherBathKey": "K"}, "K"),
        ({"voucherBatchKey": None, "voucherBathKey": "K"}, "K"),
        ({"voucherBatchKey": "K", "voucherBathKey": "other"}, "K"),
    ],
)
def test_voucher_misspelt_batch_key_is_read(wire, key):
    """The void page's misspelling is read; the right spelling wins."""
    assert structure(wire, Voucher).batch_key == key


def test_voucher_second_spelling_is_kept_when_both_come():
    """Where both spellings come, the one that was not used is kept."""
    voucher = structure({"voucherBatchKey": "K", "voucherBathKey": "other"}, Voucher)
    assert voucher.extra == {"voucherBathKey": "other"}


@pytest.mark.parametrize("name", ["expiryAt", "expiredAt"])
def test_expiry_both_spellings_are_read(name):
    """The tables say expiryAt, the payloads expiredAt; what is written is the payloads'."""
    text = "2020-10-07T17:44:26.679908+08:00"
    expiry = structure({"type": "FIXED", name: text}, Expiry)
    assert expiry.expires_at == datetime(2020, 10, 7, 9, 44, 26, 679908, UTC)
    assert unstructure(expiry) == {"type": "FIXED", "expiredAt": "2020-10-07T09:44:26.679908Z"}
    assert not expiry.extra


def test_voucher_issue_status_is_issued():
    """S 004 writes ISSUE where S 001 writes ISSUED."""
    assert structure({"status": "ISSUE"}, Voucher).status is VoucherStatus.ISSUED


@pytest.mark.parametrize("seconds", [2591999, "2591999"])
def test_token_lifetime_as_text_or_number(seconds):
    """expiresIn is documented as a string and shown as a number."""
    wire = {"accessToken": "a", "expiresIn": seconds, "refreshTokenExpiresIn": seconds}
    token = structure(wire, Token)
    assert (token.expires_in_s, token.refresh_expires_in_s) == (2591999, 2591999)


@pytest.mark.parametrize("seconds", ["", "1.5", "-1", "1e3", "٣", True, -1, 1.5, 1e400, []])
def test_token_lifetime_misfit_is_none(seconds):
    """Anything else is no lifetime: it is kept, and the token is good."""
    token = structure({"accessToken": "a", "expiresIn": seconds}, Token)
    assert (token.access_token, token.expires_in_s) == ("a", None)
    assert token.misfits == {"expires_in_s": seconds}


@pytest.mark.parametrize(
    ("field", "value", "where"),
    [
        ("amount", -1, "amount_sen"),
        ("amount", "100", "amount_sen"),
        ("amount", 1.0, "amount_sen"),
        ("amount", True, "amount_sen"),
        ("amount", 2**64, "amount_sen"),  # orjson reads it as a float
        ("code", 5, "code"),
        ("status", 5, "status"),
        ("isShipping", "false", "is_shipping"),
        ("expiry", [], "expiry"),
        ("usedAt", "GIFT", "used_at"),
        ("usedAt", 5, "used_at"),
    ],
)
def test_voucher_misfit_says_where_and_not_what(field, value, where):
    """In a strict field a wrong type or a negative amount is an error with its path, without the
    value. In any other it is None, and kept."""
    wire = {**orjson.loads(json.dumps({field: value})), "qrUrl": "secret-url"}
    with pytest.raises(DecodeError) as caught:
        structure(wire, Voucher, path="$.item", strict=[where])
    assert f"@ $.item.{where}" in str(caught.value)
    assert "GIFT" not in str(caught.value)
    assert "secret-url" not in str(caught.value)
    voucher = structure(wire, Voucher)
    assert (getattr(voucher, where), voucher.misfits) == (None, {where: wire[field]})
    assert unstructure(voucher) == wire


def test_misfit_in_what_a_voucher_has():
    """A voucher's expiry keeps its own misfits."""
    expiry = structure({"expiry": {"day": "30", "type": "FIXED"}}, Voucher).expiry
    assert expiry == Expiry(type=ExpiryType.FIXED, extra={"day": {"misfit": "30"}})
    assert expiry.misfits == {"days": "30"}


@pytest.mark.parametrize("value", [None, [], "x", 5, True])
@pytest.mark.parametrize("model", [Voucher, IssuedVoucher, VoucherBatch, Token, ErrorBody])
def test_model_of_another_shape_is_refused(model, value):
    """Only an object is a model."""
    with pytest.raises(DecodeError, match=r"expected an object @ \$"):
        structure(value, model)


@pytest.mark.parametrize("wire", [{}, {"code": None}, {"code": ""}, {"code": " "}, {"code": 7}])
def test_issued_voucher_needs_a_code(wire):
    """Without a code nothing was issued that anybody could use."""
    with pytest.raises(DecodeError, match=r"@ \$"):
        structure(wire, IssuedVoucher)


def test_misfit_of_each_strict_field_is_named():
    """All that was strict is named, and nothing else."""
    with pytest.raises(DecodeError) as caught:
        structure(
            {"code": [], "status": 5, "label": 7, "key": None},
            Voucher,
            strict=["status", "key", "code", "used_at"],
        )
    assert str(caught.value) == "expected text @ $.code; expected text @ $.status"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0001-01-01T00:00:00Z", None),
        ("0001-01-01T08:00:00+08:00", None),
        ("0001-01-01T06:55:25+06:55", None),
        ("0001-01-01T00:00:00+08:00", None),
        ("0001-06-30T12:00:00.5z", None),
        ("0000-12-31T16:07:02-07:52", None),
        ("0002-01-01T07:59:59+08:00", None),
        ("0002-01-01T08:00:00+08:00", datetime(2, 1, 1, tzinfo=UTC)),
        ("0009-02-28T00:00:00Z", datetime(9, 2, 28, tzinfo=UTC)),
        ("2016-12-31T23:59:60Z", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2016-12-31T23:59:60.25Z", datetime(2017, 1, 1, 0, 0, 0, 250000, UTC)),
        ("2017-01-01T07:59:60+08:00", datetime(2017, 1, 1, tzinfo=UTC)),
        ("2018-09-28T17:15:17Z", datetime(2018, 9, 28, 17, 15, 17, 0, UTC)),
        ("2018-09-28T17:15:17.1Z", datetime(2018, 9, 28, 17, 15, 17, 100000, UTC)),
        ("2018-09-28T17:19:44.686549737Z", datetime(2018, 9, 28, 17, 19, 44, 686549, UTC)),
        ("2020-11-25T13:58:55+08:00", datetime(2020, 11, 25, 5, 58, 55, 0, UTC)),
        ("2020-11-25t13:58:55.000000001z", datetime(2020, 11, 25, 13, 58, 55, 0, UTC)),
        ("9999-12-31T23:59:59.999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ],
)
def test_parse_time_takes_rfc3339(text, expected):
    """Zero to nine digits of a fraction, Z or an offset; Go's zero time is None."""
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "GIFT",
        "20181231",
        "2018-W01-1",
        "2018-09-28",
        "2018-09-28T17:15:17",
        "2018-09-28 17:15:17Z",
        "2018-09-28T17:15Z",
        "2018-09-28T17:15:17,5Z",
        "2018-09-28T17:15:17.Z",
        "2018-09-28T17:15:17.1234567890Z",
        "2018-09-28T17:15:17+0800",
        "2018-09-28T17:15:17+08",
        "2018-09-28T17:15:60Z",
        "2018-09-28T24:00:00Z",
        "2018-02-30T00:00:00Z",
        "2018-09-28T17:15:17+25:00",
        "9999-12-31T23:59:59-08:00",
        "2018-09-28T23:59:60+08:00",
        "9999-12-31T23:59:60Z",
        "2018-09-28T23:59:61Z",
        "0001-13-01T00:00:00Z",
        "0001-02-29T00:00:00Z",
        "2018-09-28T17:15:17Z\n",
        "٢٠١٨-09-28T17:15:17Z",
    ],
)
def test_parse_time_refuses_all_else(text):
    """What is not RFC 3339 is refused, also where `fromisoformat` would take it."""
    with pytest.raises(ValueError, match="RFC 3339"):
        parse_time(text)


@given(
    st.datetimes(min_value=datetime(2, 1, 3), max_value=datetime(9999, 12, 29)),
    st.integers(-23 * 60, 23 * 60),
)
def test_time_round_trips(naive, offset_min):
    """Every instant since year 2 survives being written and read, and is written in UTC."""
    aware = naive.replace(tzinfo=timezone(timedelta(minutes=offset_min)))
    text = format_time(aware)
    assert text.endswith("Z")
    assert parse_time(text) == aware


def test_format_time_refuses_naive():
    """A time without a zone has no place on the wire."""
    with pytest.raises(ValueError, match="time zone"):
        format_time(datetime(2026, 1, 1))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(sorted(objects_in("get-voucher")[0])), json_values))
def test_voucher_any_json_gives_a_voucher_or_decode_error(changes):
    """Whatever JSON takes a field's place: a voucher that round-trips, or `DecodeError`."""
    wire = {**objects_in("get-voucher")[0], **changes}
    try:
        voucher = structure(wire, Voucher)
    except DecodeError as exc:
        assert "@ $" in str(exc)
    else:
        assert structure(unstructure(voucher), Voucher) == voucher


def test_converter_of_ones_own_learns_the_models():
    """`configure_converter` teaches a converter the models and leaves its other hooks alone."""
    converter = cattrs.Converter()
    converter.register_structure_hook(complex, lambda value, _: complex(value))
    configure_converter(converter)

    @attrs.frozen
    class Order:
        voucher: Voucher
        weight: complex

    order = converter.structure({"voucher": {"code": "X"}, "weight": "1j"}, Order)
    assert order == Order(Voucher(code="X"), 1j)
    assert converter.unstructure(order)["voucher"] == {"code": "X"}


@pytest.mark.parametrize("is_detailed", [True, False])
@pytest.mark.parametrize("model", [VoucherStatus, Expiry])
def test_hooks_that_come_later_are_asked(model, is_detailed):
    """A hook of one's own for a type of a field is asked, although the models were learnt before,
    by a converter of one's own and by one that `make_converter` gave."""
    own = cattrs.Converter(detailed_validation=is_detailed)
    configure_converter(own)
    for converter in (own, make_converter(detailed_validation=is_detailed)):
        converter.register_structure_hook(model, lambda value, _: f"mine: {value}")
        name = "expiry" if model is Expiry else "status"
        voucher = converter.structure({name: "soon"}, Voucher)
        assert "mine: soon" in (voucher.status, voucher.expiry)


@pytest.mark.parametrize("is_detailed", [True, False])
def test_converter_that_forbids_unknown_fields_does(is_detailed):
    """A converter's own setting holds for the models too, whether it explains misfits or not."""
    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=is_detailed)
    configure_converter(converter)
    assert converter.structure({"code": "X"}, Voucher) == Voucher(code="X")
    with pytest.raises((cattrs.ForbiddenExtraKeysError, cattrs.ClassValidationError)):
        converter.structure({"code": "X", "channel": 5}, Voucher)


@pytest.mark.parametrize("name", EXAMPLES)
def test_converter_of_ones_own_reads_the_examples(name):
    """With cattrs' detailed errors, which are its default, it reads the same as the library's."""
    model = EXAMPLES[name][0]
    converter = cattrs.Converter()
    configure_converter(converter)
    for wire in objects_in(name):
        assert converter.structure(wire, model) == structure(wire, model)


def test_make_converter_is_fresh():
    """Each call gives a converter of its own, which may be changed."""
    assert make_converter() is not make_converter()
    assert make_converter().structure({"code": "X"}, Voucher) == Voucher(code="X")


@pytest.mark.parametrize("wire", [{}, {"qrUrl": None}, {"qrUrl": 5}, {"qrUrl": ""}])
def test_code_without_a_qr_url_is_a_code(wire):
    """The URL is empty text, whatever stands in its place; a misfit is kept. So it is for a
    converter of a user's own."""
    for read in (structure, make_converter().structure):
        voucher = read({"code": "X", **wire}, IssuedVoucher)
        assert (voucher.code, voucher.qr_url) == ("X", "")
        assert voucher.misfits == ({"qr_url": 5} if wire.get("qrUrl") else {})
        batch = read({"label": "L", "key": wire.get("qrUrl")}, VoucherBatch)
        assert (batch.key, batch.label) == ("", "L")
