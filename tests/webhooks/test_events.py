"""Events: what their id is made of, and what survives being kept."""

import copy
import hashlib
import pickle
from datetime import UTC, datetime
from typing import Any

import attrs
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import canaries as leaks
from support.answers import payload
from support.deliveries import NOW, deliver, told, verifier

from rm_voucher import DecodeError, Response, Voucher, VoucherStatus
from rm_voucher.converters import structure
from rm_voucher.webhooks import VoucherEvent
from rm_voucher.wire.operations import parse_get

TIMES = {
    "updatedAt": "2018-09-28T17:19:44.686549Z",
    "assignedAt": "2018-09-28T17:15:17Z",
    "redeemedAt": "2018-09-28T17:19:35Z",
    "usedAt": "2018-09-28T17:19:44Z",
}


def event(**fields):
    """Return the event of RM's example with other fields; those that are None are left out."""
    item = {**told()["item"], **TIMES, **fields}
    return VoucherEvent.of(structure({k: v for k, v in item.items() if v is not None}, Voucher))


def test_id_is_known():
    """The id is what it always was: a store keeps it, and a new release must find it again."""
    head, updated = b'["NAklEfbVdV","VOID"', b',"2018-09-28T17:19:44.686549Z"]'
    assert event().id == hashlib.sha256(head + updated).hexdigest()[:32]
    others = b',"2018-09-28T17:15:17Z","2018-09-28T17:19:35Z","2018-09-28T17:19:44Z"]'
    assert event(updatedAt=None).id == hashlib.sha256(head + others).hexdigest()[:32]


def test_id_does_not_depend_on_the_delivery():
    """Every delivery of an event has its id, whatever the nonce, the time and the formatting."""
    bodies = [orjson.dumps(told()), orjson.dumps(told(), option=orjson.OPT_INDENT_2)]
    deliveries = [
        deliver(url=url, nonce=nonce, timestamp=timestamp, body=body)
        for url in (None, "https://shop.invalid/callback?shop=1%2B1")
        for nonce in ("a", "b")
        for timestamp in (NOW, f"{NOW}500")
        for body in bodies
    ]
    events = [verifier().verify(*delivery) for delivery in deliveries]
    assert len({one.id for one in events}) == 1
    assert all(one == events[0] for one in events)
    assert len({one.sent_at for one in events}) == 2


def test_look_up_finds_the_event_that_was_delivered():
    """A voucher that is looked up shows the same event as its callback, but for when it came."""
    answer = Response(status=200, body=orjson.dumps(told()))
    found = VoucherEvent.of(parse_get(answer, "NAklEfbVdV"))
    delivered = verifier().verify(*deliver())
    assert found == delivered
    assert hash(found) == hash(delivered)
    assert (found.sent_at, delivered.sent_at) == (None, datetime.fromtimestamp(NOW, UTC))


@pytest.mark.parametrize(
    "fields",
    [
        {"label": "another"},
        {"amount": 5},
        {"qrUrl": None, "key": None, "payload": {"a": [1]}},
        {"newField": {"b": None}},
        {"assignedAt": None, "redeemedAt": None, "usedAt": None},
        {"usedAt": "2026-01-01T00:00:00Z"},
        {"createdAt": "2026-01-01T00:00:00Z"},
        {"updatedAt": "2018-09-28T17:19:44.686549000Z"},
        {"updatedAt": "2018-09-28T17:19:44.686549977Z"},
        {"updatedAt": "2018-09-28T17:19:44.686549999Z"},
        {"updatedAt": "2018-09-29T01:19:44.686549+08:00"},
        {"updatedAt": "2018-09-28t17:19:44.686549z"},
    ],
    ids=str,
)
def test_id_is_the_same(fields):
    """What is beside code, status and updatedAt, nanoseconds and zones do not make a new event."""
    assert event(**fields).id == event().id


@pytest.mark.parametrize(
    "fields",
    [
        {"code": "NAklEfbVdW"},
        {"code": "naklefbvdv"},
        {"code": " NAklEfbVdV"},
        {"status": "REDEEMED"},
        {"status": "NEW_STATUS"},
        {"status": "void"},
        {"updatedAt": "2018-09-28T17:19:44.686550Z"},
        {"updatedAt": "2018-09-28T17:19:44.686548999Z"},
        {"updatedAt": "2018-09-28T17:19:44.686549+08:00"},
        {"updatedAt": None},
        {"updatedAt": "0001-01-01T00:00:00Z"},
    ],
    ids=str,
)
def test_id_differs(fields):
    """Another code, another status, or a microsecond: another event."""
    assert event(**fields).id != event().id


def test_id_without_updated_at():
    """Without updatedAt, or with Go's zero time, the times of issue, redeeming and use count, each
    in its own place."""
    names = ["assignedAt", "redeemedAt", "usedAt"]
    moments = [None, "2018-09-28T17:19:44Z", "2018-09-28T17:19:44.000001Z"]
    ids = {
        event(updatedAt=None, **dict(zip(names, (a, b, c), strict=True))).id
        for a in moments
        for b in moments
        for c in moments
    }
    assert len(ids) == 27
    assert event(updatedAt="0001-01-01T00:00:00Z").id == event(updatedAt=None).id
    assert event(updatedAt=None, label="another").id == event(updatedAt=None).id


def test_id_of_issue_is_that_of_issued():
    """RM's two spellings are one status, and so one event."""
    assert event(status="ISSUE") == event(status="ISSUED")
    assert event(status="ISSUE").id == event(status="ISSUED").id
    assert event(status="ISSUE").status is VoucherStatus.ISSUED


texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(texts, texts, texts, texts)
def test_id_has_no_collisions_by_quotes(code, status, other_code, other_status):
    """Code and status can't run into each other, whatever stands in them."""
    one, other = event(code=code, status=status), event(code=other_code, status=other_status)
    assert (one.id == other.id) == ((one.code, one.status) == (other.code, other.status))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"code": None}, r"missing @ \$.item.code"),
        ({"code": ""}, r"missing @ \$.item.code"),
        ({"status": None}, r"missing @ \$.item.status"),
        ({"status": ""}, r"missing @ \$.item.status"),
        ({"code": "NAkl\0VdV"}, "no NUL"),
        ({"status": "VOID\0"}, "no NUL"),
        ({"code": "A" * 513}, "512 characters at most"),
        ({"status": "A" * 513}, "512 characters at most"),
    ],
)
def test_voucher_that_shows_no_event(fields, words):
    """Without a code or a status, or with NUL in one, there is no event, and no code is shown."""
    with pytest.raises(DecodeError, match=words) as caught:
        event(**fields)
    assert "NAkl" not in str(caught.value)


def test_code_as_long_as_can_be():
    """512 characters are a code."""
    assert event(code="A" * 512).code == "A" * 512


@pytest.mark.parametrize(
    "name", ["webhook-callback", "get-voucher", "void-voucher", "member-redeem"]
)
def test_record_keeps_all(name):
    """An event that was kept comes back equal, with every field of RM's example."""
    voucher = structure(payload(name)["item"], Voucher)
    one = VoucherEvent.of(voucher)
    again = VoucherEvent.from_record(one.to_record())
    assert (again, again.id, again.voucher) == (one, one.id, voucher)
    assert again.to_record() == one.to_record()


def test_record_keeps_unknown_fields():
    """What no page documents is kept, at the top and in the expiry, null and deep values too."""
    extra: dict[str, Any] = {
        "newField": {"a": [None, 1.5, {"é": "\0"}]},
        "nothing": None,
        "voucherBathKey": "x",
    }
    item = told(address={"a": 1}, expiry={"type": "FIXED", "zone": "MYT"}, **extra)["item"]
    one = VoucherEvent.of(structure(item, Voucher))
    again = VoucherEvent.from_record(one.to_record())
    assert again == one
    assert again.voucher.extra == extra
    assert again.voucher.expiry is not None
    assert again.voucher.expiry.extra == {"zone": "MYT"}
    assert again.voucher.address == {"a": 1}


def test_record_has_no_time_of_signing():
    """When a delivery was signed is not the event's, and is not kept."""
    delivered = verifier().verify(*deliver())
    assert delivered.sent_at is not None
    assert VoucherEvent.from_record(delivered.to_record()).sent_at is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"", "expected JSON"),
        (b'{"code":"' + leaks.CODE.encode() + b'"', "expected JSON"),
        (b"\xff", "expected JSON"),
        (b"null", "expected an object"),
        (b"{}", "missing"),
        (b'{"code":5,"status":"VOID"}', "expected text"),
        (b'{"code":"' + leaks.CODE.encode() + b'","status":1}', "expected text"),
    ],
)
def test_record_that_is_no_event(text, words):
    """What was not written by `to_record` is refused, without a word of what it holds."""
    with pytest.raises(DecodeError, match=words) as caught:
        VoucherEvent.from_record(text)
    assert leaks.in_error(caught.value) == []


def test_repr_masks():
    """The repr shows a hint of the code, and nothing of what else is worth money."""
    one = VoucherEvent.of(structure(leaks.item(), Voucher))
    assert leaks.in_reprs(one, [one], {"event": one}) == []
    assert "code='rm…'" in repr(one)
    assert "voucher=" not in repr(one)
    assert leaks.CODE not in f"{one} {one!s} {one.voucher}"


@pytest.mark.parametrize("status", ["VOID", "ISSUE", "NEW_STATUS"])
def test_pickle_and_copy(status):
    """An event goes to another process and comes back equal, with a status nobody documented."""
    one = attrs.evolve(event(status=status), sent_at=datetime.fromtimestamp(NOW, UTC))
    protocols = range(2, pickle.HIGHEST_PROTOCOL + 1)
    pickled = [pickle.loads(pickle.dumps(one, protocol)) for protocol in protocols]
    for again in (copy.copy(one), copy.deepcopy(one), *pickled):
        assert again == one
        assert (again.sent_at, again.voucher.extra) == (one.sent_at, one.voucher.extra)
        assert isinstance(again.status, VoucherStatus)


def test_event_is_frozen():
    """What a handler is given can't be changed for the next one."""
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        event().status = VoucherStatus.ISSUED
