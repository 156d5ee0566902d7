"""One odd record spoils nothing else.

A value that does not fit is strict only in a field that the operation decides by: there the answer
is refused. In every other field it reads as None, and is kept, marked. None by a misfit is not None
by *not set*: where a decision hangs on the field, a misfit proves nothing. Money is never guessed.
"""

import typing
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import orjson
import pytest
from support.answers import LOST, finished, ok, payload, voucher_item
from support.deliveries import deliver, told, verifier
from support.files import DOCS
from support.ledger_clients import SETTLE_S, B, client_of, place
from support.scripted_server import ScriptedServer
from support.webhook_routers import Shop, make_router
from support.webhook_routers import deliver as post
from support.webhook_routers import item as event_item

from rm_voucher import (
    APIError,
    CallbackError,
    DecodeError,
    Expiry,
    LedgerError,
    OutcomeUnknownError,
    Response,
    Transport,
    Voucher,
    VoucherBatch,
)
from rm_voucher.calls.recovery import (
    Verdict,
    judge_member_redeem,
    judge_redeem,
    judge_reinstate,
    judge_void,
)
from rm_voucher.converters import structure, unstructure
from rm_voucher.emulator import Fault
from rm_voucher.models import OpenEnum, wire_name
from rm_voucher.webhooks import MemoryEventStore, VoucherEvent
from rm_voucher.wire import operations as p
from rm_voucher.wire.strict_fields import READINGS

CODE = "NAklEfbVdV"
VOID_ITEM = voucher_item("VOID", CODE, "2018-09-28T17:19:44.686549Z")
BATCH = payload("list-batches")["items"][0]


# ── Every field of every operation ──────────────────────────────────────────────────────────────

ODD_NUMBERS = [-1, 5.5, 1e300, "5", "", True, [], {}]
ODD_TEXTS = [7, 1.5, False, [], {}]
ODD_TIMES = ["GIFT", "20181231", "2018-02-30T00:00:00Z", 1538155184, True, [], {}]


def odd_values(model, name):
    """Return misfits of a field, by its type."""
    hint = typing.get_type_hints(model)[name]
    (kind, *_) = [arg for arg in typing.get_args(hint) or [hint] if arg is not type(None)]
    if kind is typing.Any:
        return []
    if kind is bool:
        return [0, 1, "true", [], {}]
    if name.endswith("_in_s"):
        return [-1, 5.5, "soon", "", True, [], {}]
    if kind is int:
        return ODD_NUMBERS
    if kind is datetime:
        return ODD_TIMES
    if kind is Expiry:
        return [5, "DYNAMIC", False, []]
    assert issubclass(kind, str | OpenEnum)
    return ODD_TEXTS


def listed(parse, item):
    page = finished(parse(ok({"items": [item], "code": "SUCCESS"})))
    (found,) = page.items
    return found


def redeemed(item):
    items = ok({"item": [item, voucher_item("REDEEMED", "OTHER")], "code": "SUCCESS"})
    *found, other = p.parse_redeem(items)
    assert other.code == "OTHER"
    if not found:
        raise DecodeError("it is left out, and the other one stands")
    return found[0]


def one(parse, *args):
    return lambda item: parse(ok({"item": item, "code": "SUCCESS"}), *args)


# By operation: an item that fits, and what reads it.
READ: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "issue": ({"code": CODE, "qrUrl": "https://qr.invalid/1"}, one(p.parse_issue)),
    "get": (VOID_ITEM, one(p.parse_get, CODE)),
    "void": (VOID_ITEM, one(p.parse_void, CODE)),
    "reinstate": ({**VOID_ITEM, "status": "REDEEMED"}, one(p.parse_reinstate, CODE)),
    "redeem": ({**VOID_ITEM, "status": "REDEEMED"}, redeemed),
    "member get": (VOID_ITEM, one(p.parse_get, CODE)),
    "member redeem": (VOID_ITEM, one(p.parse_member_redeem, CODE)),
    "vouchers": (VOID_ITEM, lambda item: listed(p.parse_vouchers, item)),
    "member vouchers": (VOID_ITEM, lambda item: listed(p.parse_vouchers, item)),
    "batches": (BATCH, lambda item: listed(p.parse_batches, item)),
    "batch": (BATCH, one(p.parse_batch, BATCH["key"])),
    "callback": (
        told(CODE)["item"],
        lambda item: verifier().verify(*deliver({"item": item})).voucher,
    ),
    "token": (payload("token-client-credentials"), lambda wire: p.parse_token(ok(wire))),
}


FIELDS = [
    (operation, field.name)
    for operation in READ
    for field in attrs.fields(READINGS[operation].model)
    if field.name != "extra" and odd_values(READINGS[operation].model, field.name)
]


def test_each_operation_is_here():
    """An operation that is added to the data has its rows below. An error is read by itself."""
    assert READ.keys() | {"error"} == READINGS.keys()
    names = {operation: {name for of, name in FIELDS if of == operation} for operation in READ}
    for operation, reading in READINGS.items():
        assert reading.strict <= {field.name for field in attrs.fields(reading.model)}
        assert operation == "error" or reading.strict <= names[operation]


@pytest.mark.parametrize(("operation", "name"), FIELDS)
def test_misfit_is_refused_or_kept(operation, name):
    """A misfit in a strict field is an error; in any other the rest is as it was, and the value
    survives being written again."""
    (wire, read), reading = READ[operation], READINGS[operation]
    model: Any = reading.model
    sound = read(wire)
    assert type(sound) is model
    assert sound.misfits == {}
    for value in odd_values(model, name):
        odd_wire = {**wire, wire_name(name): value}
        if name in reading.strict:
            with pytest.raises((DecodeError, CallbackError)):
                read(odd_wire)
            continue
        odd = read(odd_wire)
        assert odd.misfits == {name: value}
        assert getattr(odd, name) == getattr(attrs.fields(model), name).default  # None, or ""
        assert odd.extra[wire_name(name)] == {"misfit": value}
        mended = attrs.evolve(odd, extra=sound.extra, **{name: getattr(sound, name)})
        assert mended == sound
        assert unstructure(odd)[wire_name(name)] == value
        assert structure(unstructure(odd), model) == odd


@pytest.mark.parametrize(("name", "value"), [("code", 5), ("code", None), ("message", ["again"])])
def test_misfit_in_an_error_is_not_rms_word(name, value):
    """Both fields of an error are strict: with a misfit in one the status decides, as without."""
    body = {"error": {"code": "VOUCHER_NOT_FOUND", "message": "no", name: value}}
    with pytest.raises(APIError) as caught:
        p.parse_get(ok(body, 400), CODE)
    assert (caught.value.code, caught.value.http_status) == ("", 400)


def test_page_is_the_table():
    """docs/odd-answers.md shows each operation, its strict fields, and that it keeps the others."""
    page = (DOCS / "odd-answers.md").read_text()
    rows = []
    for operation, reading in READINGS.items():
        model, strict = reading.model, reading.strict
        names = [field.name for field in attrs.fields(model) if field.name != "extra"]
        kept = [f"`{name}`" for name in names if name not in strict]
        shown = ", ".join(f"`{name}`" for name in names if name in strict) or "none"
        others = ", ".join(kept) if len(kept) < 5 else f"the other {len(kept)}"
        rows.append(f"| {operation} | `{model.__name__}` | {shown} | {others or 'none'} |")
    assert [line for line in page.splitlines() if line.startswith("| ")][1 : len(rows) + 1] == rows


# ── Money ───────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("model", [Voucher, VoucherBatch])
@pytest.mark.parametrize(
    ("field", "shown"),
    [
        ("amount", "amount_rm"),
        ("discountRate", "discount_percent"),
        ("minimumSpendAmount", "minimum_spend_rm"),
    ],
)
def test_money_is_never_guessed(model, field, shown):
    """An amount that does not fit is None, and its property raises. One that is not set is None."""
    for value in ODD_NUMBERS:
        with pytest.raises(DecodeError, match="a whole number, not negative"):
            getattr(structure({field: value}, model), shown)
    assert getattr(structure({field: None}, model), shown) is None
    assert getattr(structure({}, model), shown) is None
    assert getattr(structure({field: 550}, model), shown) == Decimal("5.5")


# ── What a lost answer's read-back proves ───────────────────────────────────────────────────────

OURS = datetime(2026, 11, 20, 10, 0, 0, 123456, UTC)
JUDGES = {
    "void": lambda voucher: judge_void(voucher, used_at=OURS),
    "redeem": judge_redeem,
    "reinstate": judge_reinstate,
    "member redeem": lambda voucher: judge_member_redeem(voucher, begun_at=OURS),
}


@pytest.mark.parametrize("judge", JUDGES)
@pytest.mark.parametrize("field", ["status", "usedAt", "redeemedAt"])
@pytest.mark.parametrize("status", ["VALID", "ISSUED", "REDEEMED", "VOID"])
def test_odd_voucher_proves_neither(judge, field, status):
    """Whatever the other fields show, a misfit in one of these three leaves the call unproven."""
    item = {"status": status, "usedAt": "2026-11-20T10:00:00.123456Z"}
    for value in (5, True, [], "now" if field != "status" else {}):
        voucher = structure({**item, field: value}, Voucher)
        assert JUDGES[judge](voucher) is Verdict.UNPROVEN


@pytest.mark.parametrize("field", ["label", "amount", "assignedAt", "createdAt", "expiry"])
def test_other_misfits_change_no_verdict(field):
    """A misfit that no verdict rests on leaves a proof a proof."""
    item = {"status": "VOID", "usedAt": "2026-11-20T10:00:00.123456Z", field: True}
    assert JUDGES["void"](structure(item, Voucher)) is Verdict.DONE


async def test_redeem_is_not_sent_again_after_an_odd_time(make_client):
    """A code whose time of redemption can't be read may be redeemed: it is not sent again."""
    item = {**voucher_item("ISSUED", CODE), "redeemedAt": "yesterday"}
    server = ScriptedServer([LOST, ok({"item": item, "code": "SUCCESS"})])
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(server).redeem([CODE])
    vouchers: list[Any] = list(caught.value.vouchers)
    assert [voucher.misfits for voucher in vouchers] == [{"redeemed_at": "yesterday"}]


async def test_odd_voucher_of_a_redeem_leaves_the_others_redeemed(make_client):
    """Of three, one shows no status: it alone is looked up, and its outcome alone is unknown."""
    items = [voucher_item("REDEEMED", code) for code in ("A", "B", "C")]
    items[1]["status"] = 5
    read_back = ok({"item": voucher_item("REDEEMED", "B"), "code": "SUCCESS"})
    server = ScriptedServer([ok({"item": items, "code": "SUCCESS"}), read_back])
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(server).redeem(["A", "B", "C"])
    assert caught.value.codes == ("B",)
    redeemed: list[Any] = list(caught.value.redeemed)
    assert [voucher.code for voucher in redeemed] == ["A", "C"]


@pytest.mark.parametrize("odd", [None, 5, "C", {"code": 5, "status": "REDEEMED"}, {"label": 1}])
async def test_odd_stranger_in_a_redeem_spoils_nothing(make_client, odd):
    """What stands beside the vouchers that were asked for is nobody's."""
    items = [odd, voucher_item("REDEEMED", "A"), odd]
    server = ScriptedServer([ok({"item": items, "code": "SUCCESS"})])
    (voucher,) = await make_client(server).redeem(["A"])
    assert voucher.code == "A"


# ── The inputs that were found ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "change", [{"label": 7}, {"amount": 5.5}, {"createdAt": 0}, {"expiry": "never"}]
)
async def test_void_that_succeeded_is_a_success(make_client, change):
    """A void's answer decides by code, status and usedAt."""
    item = {**VOID_ITEM, **change}
    voucher = await make_client(ScriptedServer([ok({"item": item, "code": "SUCCESS"})])).void(CODE)
    assert list(voucher.misfits.values()) == list(change.values())


@pytest.mark.parametrize("expires_in", [2591999.0, "2591999.0", "soon", -1, None, [], True])
async def test_good_token_of_an_odd_life_is_used(make_client, expires_in):
    """A token is good whatever its life is said to be; what can't be read is the default."""
    wire = {**payload("token-client-credentials"), "expiresIn": expires_in}
    server = ScriptedServer([ok(wire), ok(READ_ISSUED)])
    client = make_client(server, token_source=None)
    assert (await client.issue("KEY")).code == CODE
    assert p.parse_token(ok(wire)).expires_in_s in (None, 2591999)


READ_ISSUED = {"item": {"code": CODE}, "code": "SUCCESS"}


@pytest.mark.parametrize("cursor", [None, "", False, 0])
async def test_no_cursor_in_other_words_ends_the_listing(make_client, cursor):
    """The last page's items are there."""
    page = {"items": [VOID_ITEM], "code": "SUCCESS", "meta": {"cursor": cursor}}
    client = make_client(ScriptedServer([ok(page)]))
    assert [voucher.code async for voucher in client.vouchers("KEY")] == [CODE]


@pytest.mark.parametrize("cursor", [5, True, 1.5, [], {}, ["next"], {"next": 1}])
async def test_cursor_that_can_not_be_sent_ends_nothing(make_client, cursor):
    """A listing that goes on, and nobody can say where, is not taken for one that ended."""
    page = {"items": [VOID_ITEM], "code": "SUCCESS", "meta": {"cursor": cursor}}
    client = make_client(ScriptedServer([ok(page)] * 6))
    with pytest.raises(DecodeError, match=r"@ \$\.meta\.cursor"):
        await client.vouchers("KEY")


@pytest.mark.parametrize("odd", [{"usedAt": ""}, {"usedAt": "GIFT"}, {"code": 5}, {"status": []}])
async def test_odd_voucher_does_not_spoil_its_page(make_client, odd):
    """The others are read, and it is among them."""
    items = [VOID_ITEM, {**VOID_ITEM, **odd}, VOID_ITEM]
    client = make_client(ScriptedServer([ok({"items": items, "code": "SUCCESS"})]))
    codes = [voucher.code async for voucher in client.vouchers("KEY")]
    assert codes == [CODE, None if "code" in odd else CODE, CODE]


@pytest.mark.parametrize("odd", [None, 5, "x", [], True])
async def test_item_that_is_no_object_is_not_left_out(make_client, odd):
    """It is a voucher, or a batch, of which nothing can be read but that it is there."""
    wire = {"items": [odd, {}], "code": "SUCCESS"}
    client = make_client(ScriptedServer([ok(wire), ok(wire)]))
    (voucher, _), (batch, _) = (await client.vouchers("KEY")).items, (await client.batches()).items
    assert voucher == Voucher(extra={"$": {"misfit": odd}})
    assert batch.misfits == {"$": odd}
    assert structure(unstructure(voucher), Voucher) == voucher


def test_marker_in_an_answer_is_a_field_like_any_other():
    """What a server writes as we mark misfits is kept as it came, and is no misfit of its own."""
    wire = {"amount": {"misfit": 5}, "new": {"misfit": 5}, "misfit": 1, "misfits": {"a": 1}}
    voucher = structure(wire, Voucher)
    assert voucher.misfits == {"amount_sen": {"misfit": 5}}
    assert unstructure(voucher) == wire
    own = Voucher(code="X", extra={"amount": 5})  # of somebody who makes models by hand
    assert own.misfits == {}


# ── The ledger ──────────────────────────────────────────────────────────────────────────────────


class Spoiling(Transport):
    """Changes the items of some answers on their way."""

    def __init__(self, behind, **changes):
        self._behind, self.changes = behind, changes

    async def send(self, request):
        answer = await self._behind.send(request)
        change = self.changes.get(request.operation)
        if change is None:
            return answer
        body = orjson.loads(answer.body)
        body["items"] = change(body["items"])
        return Response(status=answer.status, headers=answer.headers, body=orjson.dumps(body))


@pytest.fixture
def there(time):
    return place(time)


def spoilt(there, **changes):
    transport = Spoiling(there.emulator.transport(), **changes)
    return client_of(there.emulator, there.time, transport=transport)


def each(**fields):
    """Return a change of every item."""
    return lambda items: [{**item, **fields} for item in items]


async def lose(there, ledger, client, name="r", fault=Fault.DROP_AFTER_COMMIT):
    there.emulator.fail_next("issue", fault)
    with pytest.raises(OutcomeUnknownError):
        await ledger.issue(client, B, name)
    there.time.now += 2 * SETTLE_S


@pytest.mark.parametrize(
    "odd", [{"balanceQuantity": -1}, {"createdAt": ""}, {"amount": 5.5}, {"quantity": "9"}, None]
)
async def test_ledger_works_beside_another_odd_batch(there, odd):
    """A batch that can't be read in part, or at all, is not the ledger's."""
    other = odd and {"key": "OTHER", **odd}
    client = spoilt(there, batches=lambda items: [other, *items])
    async with there.ledger() as ledger:
        voucher = await ledger.issue(client, B, "r")
        report = await ledger.reconcile(client, B)
    assert [voucher.code] == there.issued
    assert (report.listed, report.stop_reason) == (1, None)


@pytest.mark.parametrize("name", ["label", "createdAt", "updatedAt", "usedAt", "amount", "expiry"])
async def test_ledger_settles_by_vouchers_with_other_misfits(there, name):
    """A lost answer's code is adopted, whatever else its voucher shows."""
    client = spoilt(there, vouchers=each(**{name: True}))
    async with there.ledger() as ledger:
        await lose(there, ledger, client)
        assert (await ledger.reconcile(client, B)).adopted == 1
        assert (await ledger.issue(client, B, "r")).code == there.issued[0]
    assert there.posts == 1


@pytest.mark.parametrize("mode", ["exclusive", "shared"])
@pytest.mark.parametrize("check_balance", [True, False])
@pytest.mark.parametrize(
    "odd",
    [
        pytest.param(each(code=5), id="code"),
        pytest.param(each(code=None), id="no code"),
        pytest.param(lambda items: [None for _ in items], id="no object"),
    ],
)
async def test_issued_code_that_can_not_be_read_is_not_missing(there, mode, check_balance, odd):
    """A lost answer's code may be the one that the listing does not show: its request stays open,
    and nothing is issued for it again."""
    client = spoilt(there, vouchers=odd)
    async with there.ledger(mode, check_balance=check_balance) as ledger:
        await lose(there, ledger, client)
        report = await ledger.reconcile(client, B, wait=True)
        assert (report.adopted, report.not_issued, report.open) == (0, 0, 1)
        with pytest.raises(OutcomeUnknownError):
            await ledger.issue(client, B, "r")
    assert there.posts == 1


async def test_odd_status_is_not_valid(there):
    """A listed voucher whose status can't be read may be issued: it is the lost answer's."""
    client = spoilt(there, vouchers=each(status=5))
    async with there.ledger() as ledger:
        await lose(there, ledger, client)
        assert (await ledger.reconcile(client, B)).adopted == 1
    assert there.posts == 1


async def test_odd_time_of_issue_is_no_missing_one(there):
    """Where no times are shown, codes are given by counting; a time that can't be read is a
    reason to ask a person."""
    async with there.ledger() as ledger:
        odd = spoilt(there, vouchers=each(assignedAt="yesterday"))
        await lose(there, ledger, odd)
        report = await ledger.reconcile(odd, B, wait=True)
        assert (report.adopted, report.not_issued, len(report.held)) == (0, 0, 1)
        assert list(report.held[0].candidates) == there.issued


async def test_missing_time_of_issue_is_counted_as_before(there):
    """The same with the empty time."""
    async with there.ledger() as ledger:
        plain = spoilt(there, vouchers=each(assignedAt=""))
        await lose(there, ledger, plain)
        assert (await ledger.reconcile(plain, B, wait=True)).adopted == 1


BALANCES = [
    {"balanceQuantity": -1},
    {"balanceQuantity": "99"},
    {"quantity": 5.5},
    {"quantity": 1, "balanceQuantity": 2},
    {"key": 7},
]


@pytest.mark.parametrize("odd", BALANCES)
async def test_balance_that_can_not_be_read_is_no_agreement(there, odd):
    """With the batch's own balance odd, an empty listing proves nothing, unless balances are not
    to be looked at."""
    async with there.ledger() as ledger:
        await ledger.prepare(there.client, B)
        client = spoilt(there, batches=each(**odd))
        await lose(there, ledger, client, fault=Fault.DROP_BEFORE_COMMIT)
        report = await ledger.reconcile(client, B, wait=True)
        assert (report.not_issued, report.open) == (0, 1)
    async with there.ledger(check_balance=False) as ledger:
        there.time.now += 2 * SETTLE_S
        assert (await ledger.reconcile(client, B, wait=True)).not_issued == 1


@pytest.mark.parametrize("odd", [{"balanceQuantity": None}, {"quantity": None}])
async def test_balance_that_is_not_shown_is_not_looked_at(there, odd):
    """RM does not promise one: without it the listing alone counts."""
    client = spoilt(there, batches=each(**odd))
    async with there.ledger() as ledger:
        await lose(there, ledger, client, fault=Fault.DROP_BEFORE_COMMIT)
        assert (await ledger.reconcile(client, B, wait=True)).not_issued == 1


@pytest.mark.parametrize("odd", BALANCES)
async def test_baseline_needs_a_balance_that_can_be_read(there, odd):
    """A code that is not listed yet would pass for ours."""
    client = spoilt(there, batches=each(**odd))
    async with there.ledger() as ledger:
        with pytest.raises(LedgerError, match="its balance can't be read"):
            await ledger.prepare(client, B)
    assert there.posts == 0


@pytest.mark.parametrize("odd", [each(code=5), lambda items: [None for _ in items]])
async def test_baseline_needs_every_code(there, odd):
    """A code that can't be read now may be read later, and would pass for ours."""
    there.emulator.state.issue(B)
    client = spoilt(there, vouchers=odd)
    async with there.ledger(check_balance=False) as ledger:
        with pytest.raises(LedgerError, match="1 that may be issued and don't show a code"):
            await ledger.issue(client, B, "r")
    assert there.posts == 0


async def test_vouchers_that_are_valid_need_no_code(there):
    """What is surely in its batch still is nobody's."""
    client = spoilt(there, vouchers=lambda items: [*items, {"status": "VALID"}])
    async with there.ledger() as ledger:
        assert (await ledger.issue(client, B, "r")).code == there.issued[0]


@pytest.mark.parametrize("odd", [1, "yes", []])
async def test_batch_that_may_be_static_is_refused(there, odd):
    """Its one code would be everybody's."""
    client = spoilt(there, batches=each(isStatic=odd))
    async with there.ledger() as ledger:
        with pytest.raises(LedgerError, match="static"):
            await ledger.issue(client, B, "r")
    assert there.posts == 0


# ── Callbacks ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("fields", [{"updatedAt": ""}, {"updatedAt": None}])
def test_events_with_odd_times_are_not_one_event(fields):
    """The id comes from the times where updatedAt is not set: misfits there are told apart."""
    items = [{**event_item(), **fields, "usedAt": value} for value in (5, 6, [5], "5", None)]
    ids = [VoucherEvent.of(structure(item, Voucher)).id for item in items]
    assert len(set(ids)) == len(ids)
    again = [VoucherEvent.of(structure(item, Voucher)).id for item in items]
    assert again == ids


def test_event_of_an_odd_updated_at_is_none():
    """Its place among the voucher's other events is unknown: neither a delivery nor a look-up
    makes an event of it."""
    odd = structure({**event_item(), "updatedAt": 5}, Voucher)
    with pytest.raises(DecodeError, match=r"not as documented @ \$\.item\.updated_at"):
        VoucherEvent.of(odd)


@pytest.mark.parametrize(("value", "status", "handled"), [("soon", 503, 0), ("", 200, 1)])
async def test_look_up_with_an_odd_time_confirms_nothing(value, status, handled, make_client):
    """An older state of the voucher could pass for the event's."""
    item = {**event_item(), "updatedAt": value}
    server = ScriptedServer([ok({"item": item, "code": "SUCCESS"})])
    shop = Shop()
    router = make_router(MemoryEventStore(), confirm=make_client(server))
    router.on("VOID")(shop.handle)
    async with router:
        answer = await post(router)
    assert (answer, len(shop.got)) == (status, handled)
