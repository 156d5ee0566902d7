"""Objects as dicts and JSON by our own names: all comes back, and no code is in a masked one."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from types import NoneType
from typing import Any, get_args, get_type_hints

import attrs
import cattrs
import httpx
import litestar
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, TypeAdapter
from support.answers import payload

from rm_voucher import (
    BulkSummary,
    DecodeError,
    Expiry,
    ExpiryType,
    IssuedVoucher,
    OutcomeUnknownError,
    Page,
    Retryable,
    Unresolved,
    Voucher,
    VoucherBatch,
    VoucherStatus,
    VoucherType,
)
from rm_voucher.converters import structure
from rm_voucher.models import BatchStatus, Origin
from rm_voucher.webhooks import VoucherEvent

CODE = "SECRET-0123456789"
URL = f"https://rm.example/voucher/{CODE}"
INSTANT = datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)

texts = st.text(max_size=20).filter(lambda text: not text.endswith("…"))
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)
instants = st.datetimes(
    timezones=st.sampled_from([UTC, timezone(timedelta(hours=8))]), min_value=datetime(2, 1, 2)
)
BY_TYPE: dict[Any, Any] = {
    NoneType: st.none(),
    str: texts,
    int: st.integers(),
    bool: st.booleans(),
    datetime: instants,
    Any: json_values,
    VoucherStatus: texts.map(VoucherStatus) | st.sampled_from(VoucherStatus),
    VoucherType: texts.map(VoucherType) | st.sampled_from(VoucherType),
    ExpiryType: texts.map(ExpiryType) | st.sampled_from(ExpiryType),
    BatchStatus: texts.map(BatchStatus) | st.sampled_from(BatchStatus),
    Origin: texts.map(Origin) | st.sampled_from(Origin),
    # A misfit is in ``extra``, under RM's name of its field.
    Mapping[str, Any]: st.dictionaries(
        texts | st.sampled_from(["amount", "code", "expiredAt"]),
        json_values | json_values.map(lambda value: {"misfit": value}),
        max_size=3,
    ),
}


def built(model: Any) -> st.SearchStrategy[Any]:
    fields = {}
    for name, hint in get_type_hints(model).items():
        kinds = get_args(hint) if NoneType in get_args(hint) else (hint,)
        fields[name] = st.one_of(*(BY_TYPE[kind] for kind in kinds))
    return st.builds(model, **fields)


BY_TYPE[Expiry] = built(Expiry)
MODELS = [Expiry, IssuedVoucher, Voucher, VoucherBatch]
vouchers = built(Voucher)
events = st.builds(
    VoucherEvent,
    id=texts,
    code=texts,
    status=BY_TYPE[VoucherStatus],
    voucher=vouchers,
    sent_at=st.none() | instants,
)


@given(st.one_of(events, st.builds(BulkSummary), *map(built, MODELS)))
def test_round_trip(one):
    """What is revealed is read again, equal, by way of JSON too: ``extra`` and misfits included."""
    again = type(one).from_json(one.to_json(reveal=True))
    assert again == one
    assert type(one).from_dict(one.to_dict(reveal=True)) == one
    assert getattr(again, "misfits", None) == getattr(one, "misfits", None)
    assert json.loads(one.to_json(reveal=True)) == one.to_dict(reveal=True)


@given(
    st.sampled_from([Voucher, VoucherBatch]).flatmap(
        lambda model: st.tuples(st.just(model), st.lists(built(model), max_size=3))
    )
)
def test_page_round_trip(drawn):
    """So is a page, of items of a class."""
    model, items = drawn
    page: Page[Any] = Page(items=tuple(items), cursor="next", count=3)
    assert Page.from_dict(page.to_dict(reveal=True), model) == page


WHOLE = Voucher(
    code=CODE,
    status=VoucherStatus.ISSUED,
    amount_sen=500,
    key="key " + CODE,
    qr_url=URL,
    member_profile={"name": "Ann " + CODE},
    payload=CODE,
    expiry=Expiry(days=3, extra={"zone": CODE}),
    created_at=INSTANT,
    extra={"code": {"misfit": [CODE]}},
)
EXAMPLES: list[Any] = [
    WHOLE,
    IssuedVoucher(code=CODE, qr_url=URL, extra={"more": CODE}),
    VoucherBatch(key="K", static_code=CODE, extra={"more": CODE}),
    Page(items=(WHOLE,), cursor=CODE),
    VoucherEvent(id="1", code=CODE, status=VoucherStatus.VOID, voucher=WHOLE),
    Unresolved(
        recipient=CODE,
        voucher=IssuedVoucher(code=CODE, qr_url=URL),
        error=OutcomeUnknownError("unknown", operation="issue", code=CODE),
        attempts=1,
    ),
]


@pytest.mark.parametrize("one", EXAMPLES, ids=lambda one: type(one).__name__)
def test_masked_has_no_code(one):
    """By default nothing of what the repr hides is in it, at any depth; with ``reveal`` it is."""
    assert CODE not in one.to_json()
    assert CODE not in repr(one.to_dict())
    assert CODE in one.to_json(reveal=True)
    assert one.to_dict().keys() == {*one.to_dict(reveal=True), "masked"}


def test_what_a_masked_voucher_says():
    """A hint of each text, None for the rest, and the names of what is hidden."""
    shown = WHOLE.to_dict()
    assert (shown["code"], shown["qr_url"], shown["key"]) == ("SE…", "ht…", None)
    assert (shown["status"], shown["amount_sen"], shown["label"]) == ("ISSUED", 500, None)
    assert shown["created_at"] == "2026-11-20T10:00:00.123456Z"
    assert shown["masked"] == ["code", "key", "qr_url", "member_profile", "payload", "extra"]
    assert shown["expiry"]["masked"] == ["extra"]
    assert Voucher(status=VoucherStatus.VALID).to_dict()["masked"] == []


def test_bulk_result_has_its_error():
    """An error is its class and its message, which has no code."""
    shown = EXAMPLES[-1].to_dict()
    assert shown["error"] == {"type": "OutcomeUnknownError", "message": "unknown"}
    assert (shown["status"], shown["recipient"]) == ("unresolved", None)
    assert EXAMPLES[-1].to_dict(reveal=True)["recipient"] == CODE


@pytest.mark.parametrize("one", EXAMPLES[:3], ids=lambda one: type(one).__name__)
def test_masked_is_not_read(one):
    """No hint ever passes for a code: neither with the mark, nor where somebody took it off."""
    masked = one.to_dict()
    with pytest.raises(DecodeError, match=r"masked @ \$"):
        type(one).from_dict(masked)
    del masked["masked"]
    with pytest.raises(DecodeError, match="masked @"):
        type(one).from_dict(masked)


def test_masked_inside_is_not_read():
    """Nor is a whole one with a masked one in it."""
    revealed = WHOLE.to_dict(reveal=True)
    with pytest.raises(DecodeError, match=r"masked @ \$\.expiry"):
        Voucher.from_dict({**revealed, "expiry": WHOLE.to_dict()["expiry"]})
    with pytest.raises(DecodeError, match=r"masked @ \$\.items\[0\]"):
        Page.from_dict({"items": [WHOLE.to_dict()]}, Voucher)


def test_masked_that_hides_nothing_is_read():
    """Where nothing was hidden, nothing is missing."""
    expiry = Expiry(type=ExpiryType.DYNAMIC, days=3)
    assert Expiry.from_dict(expiry.to_dict()) == expiry


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (None, "expected an object @ $"),
        ({CODE: 1, "code": CODE}, "an unknown field @ $"),
        ({"code": 5}, "expected text @ $.code"),
        ({"code": CODE, "amount_sen": CODE}, "expected a whole number @ $.amount_sen"),
        ({"code": CODE, "amount_sen": True}, "expected a whole number @ $.amount_sen"),
        ({"code": CODE, "is_shipping": 1}, "expected true or false @ $.is_shipping"),
        ({"code": CODE, "status": 5}, "expected another value @ $.status"),
        ({"code": CODE, "extra": CODE}, "expected an object @ $.extra"),
        ({"code": CODE, "extra": None}, "expected an object @ $.extra"),
        ({"code": CODE, "expiry": CODE}, "expected an object @ $.expiry"),
        ({"code": CODE, "expiry": {"days": "3"}}, "expected a whole number @ $.expiry.days"),
        ({"code": CODE, "created_at": CODE}, "expected a time"),
        ({"code": CODE, "created_at": "2026-11-20T10:00:00"}, "expected a time"),
        ({"code": CODE, "created_at": "0001-01-01T00:00:00+14:00"}, "expected a time"),
    ],
)
def test_what_does_not_fit_is_refused(data, said):
    """By the path of the field, and without a value or a name that came."""
    with pytest.raises(DecodeError) as caught:
        Voucher.from_dict(data)
    assert said in str(caught.value)
    assert CODE not in str(caught.value)
    assert caught.value.retryable is Retryable.NEVER  # to read it again would be no better
    frames = []
    traceback = caught.value.__traceback__
    while traceback is not None:
        frames.append(traceback.tb_frame.f_globals["__name__"])
        traceback = traceback.tb_next
    assert "rm_voucher.travel" not in frames


def test_what_is_missing_is_refused():
    """A voucher that was issued has a code; a page has a list of items."""
    with pytest.raises(DecodeError, match=r"missing @ \$\.code"):
        IssuedVoucher.from_dict({"qr_url": URL})
    with pytest.raises(DecodeError, match=r"expected text @ \$\.code"):
        IssuedVoucher.from_dict({"code": None})
    with pytest.raises(DecodeError, match=r"expected a list @ \$\.items"):
        Page.from_dict({"items": CODE}, Voucher)


@pytest.mark.parametrize("text", ["", b"\xff", CODE, "[" * 100_000])
def test_text_that_is_no_json(text):
    """It is refused without a word of it."""
    with pytest.raises(DecodeError, match=r"^expected JSON @ \$$"):
        Voucher.from_json(text)


def test_time_without_a_zone():
    """It is no instant, so it is not written as one."""
    with pytest.raises(ValueError, match="time zone"):
        Voucher(created_at=INSTANT.replace(tzinfo=None)).to_dict()


@pytest.mark.parametrize("name", ["get-voucher", "void-voucher", "webhook-callback"])
def test_rms_examples_travel(name):
    """What RM's pages show comes back from our form as it was read from RM's."""
    voucher = structure(payload(name)["item"], Voucher)
    assert Voucher.from_json(voucher.to_json(reveal=True)) == voucher


ADAPTER = TypeAdapter(Voucher)


def test_pydantic_writes_masked():
    """A field, a list or an adapter of the class is masked, unless its context says ``reveal``."""
    assert CODE.encode() not in ADAPTER.dump_json(WHOLE)
    assert ADAPTER.dump_python(WHOLE) == WHOLE.to_dict()
    revealed = ADAPTER.dump_json(WHOLE, context={"reveal": True})
    assert ADAPTER.validate_json(revealed) == WHOLE
    assert ADAPTER.validate_python(WHOLE) is WHOLE


def test_pydantic_model_with_a_voucher():
    """A model of the application's own has it as a field."""

    class Order(BaseModel):
        number: int
        vouchers: list[Voucher]

    order = Order(number=1, vouchers=[WHOLE])
    assert CODE not in order.model_dump_json()
    assert CODE not in repr(order)
    dumped = order.model_dump_json(context={"reveal": True})
    assert Order.model_validate_json(dumped) == order


def test_pydantics_error_shows_no_code():
    """A misfit raises our error, which has no value in it, and no masked voucher is read."""
    with pytest.raises(DecodeError) as caught:
        ADAPTER.validate_python({"code": CODE, "amount_sen": "x"})
    assert CODE not in str(caught.value)
    with pytest.raises(DecodeError, match="masked"):
        ADAPTER.validate_json(ADAPTER.dump_json(WHOLE))


def test_pydantic_describes_the_fields():
    """The JSON schema of what is written and of what is read has our fields."""
    for mode in ("serialization", "validation"):
        schema = ADAPTER.json_schema(mode=mode)
        assert schema["properties"].keys() == WHOLE.to_dict().keys()
        assert schema["properties"]["amount_sen"]["anyOf"][0] == {"type": "integer"}
        assert "days" in json.dumps(schema["properties"]["expiry"])


@pytest.mark.parametrize(
    "write", [msgspec.json.encode, lambda one: repr(attrs.asdict(one)), cattrs.unstructure]
)
def test_others_write_codes(write):
    """What docs/objects.md warns of: who knows attrs classes by itself writes everything."""
    assert CODE in str(write(EXAMPLES[1]))


async def test_litestar_writes_codes():
    """So does Litestar with a voucher that a handler returns; with `to_dict`, it is masked."""

    @litestar.get("/whole")
    async def whole() -> IssuedVoucher:
        return IssuedVoucher(code=CODE)

    @litestar.get("/masked")
    async def masked() -> dict[str, Any]:
        return IssuedVoucher(code=CODE).to_dict()

    app: Any = litestar.Litestar([whole, masked], logging_config=None)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://app.invalid") as http:
        assert CODE in (await http.get("/whole")).text
        assert (await http.get("/masked")).json()["code"] == "SE…"
