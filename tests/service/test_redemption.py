"""Bulk redeem: which codes are redeemed, unchanged or in doubt, and what is sent for each."""

import asyncio
import itertools
import json
import traceback
from collections import Counter

import pytest
from support.answers import LOST, THROTTLED, ok, rm_error, voucher, voucher_item
from support.scripted_server import ScriptedServer

from rm_voucher import (
    InvalidRequestError,
    Limits,
    OutcomeUnknownError,
    RetryPolicy,
    ServerError,
    Timeout,
    VoucherError,
)
from rm_voucher.service.redemption import _LOOK_UPS_AT_ONCE

NOT_FOUND = rm_error("VOUCHER_NOT_FOUND", 404)
ALREADY_REDEEMED = rm_error("VOUCHER_REDEEMED", 400)


def redeemed(*codes):
    """Return the answer that shows these codes redeemed."""
    items = [voucher_item("REDEEMED", code) for code in codes]
    return ok({"item": items, "code": "SUCCESS"})


class Shop:
    """Answers redeems in the order of a script, and look-ups by code."""

    def __init__(self, redeems, **looks):
        self.redeems = list(redeems)
        self.looks = {code: list(answers) for code, answers in looks.items()}
        self.bodies = []
        self.looked_up: Counter[str] = Counter()

    def __call__(self, request):
        if request.operation == "redeem":
            self.bodies.append(json.loads(request.body)["codes"])
            answers = self.redeems
        else:
            code = request.url.name
            self.looked_up[code] += 1
            answers = self.looks[code]
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer


async def redeem(make_client, shop, codes, **options):
    try:
        return await make_client(shop, **options).redeem(codes)
    except VoucherError as exc:
        return exc


def found(error):
    """Return what an error says of the codes: in doubt, as read back, and redeemed."""
    seen = [(v.code, v.status) for v in error.vouchers]
    return error.codes, seen, [v.code for v in error.redeemed]


def issued(code):
    return voucher("ISSUED", code=code)


async def test_redeem_keeps_the_order_of_the_codes(make_client):
    """The vouchers come in the order that was asked for, whatever the answer's order, case of the
    codes, and surplus."""
    shop = Shop([redeemed("c", "Z", "A", "B")])
    result = await redeem(make_client, shop, (code for code in "BCA"))
    assert [v.code for v in result] == ["B", "c", "A"]
    assert (shop.bodies, shop.looked_up) == ([["B", "C", "A"]], {})


@pytest.mark.parametrize(
    "shown",
    [
        [],
        [voucher_item("ISSUED", "B")],
        [voucher_item("VOID", "B")],
        [{**voucher_item("REDEEMED", "B"), "code": None}],
        [voucher_item("REDEEMED", "Z")],
    ],
)
async def test_redeem_partial_success_looks_at_the_others(make_client, time, shown):
    """An answer that shows one of two redeemed has redeemed that one; the other is looked up, is
    unchanged, and is sent again alone."""
    partial = ok({"item": [voucher_item("REDEEMED", "A"), *shown], "code": "SUCCESS"})
    shop = Shop([partial, redeemed("B")], B=[issued("B")])
    result = await redeem(make_client, shop, ["B", "A"])
    assert [v.code for v in result] == ["B", "A"]
    assert (shop.bodies, shop.looked_up) == ([["B", "A"], ["B"]], {"B": 1})
    assert time.slept == [0.5]


async def test_redeem_lost_sends_only_the_unchanged_again(make_client, time):
    """Of five, one has changed, one can't be read and one is of an unknown status: those stay in
    doubt, the two unchanged ones are sent again, and the error tells all of them apart."""
    looks = {
        "A": [issued("A")],
        "B": [voucher("REDEEMED", code="B")],
        "C": [NOT_FOUND],
        "D": [voucher("EXPIRED", code="D")],
        "E": [voucher("NEW", code="E")],
    }
    shop = Shop([LOST, redeemed("D", "A")], **looks)
    error = await redeem(make_client, shop, ["A", "B", "C", "D", "E"])
    assert shop.bodies == [["A", "B", "C", "D", "E"], ["A", "D"]]
    assert shop.looked_up == dict.fromkeys("ABCDE", 1)
    assert type(error) is OutcomeUnknownError
    codes, seen, done = found(error)
    assert codes == ("B", "C", "E")
    assert seen == [("B", "REDEEMED"), ("E", "NEW")]
    assert sorted(done) == ["A", "D"]
    assert (error.code, error.voucher, error.operation) == (None, None, "redeem")
    assert time.slept == [0.5]


async def test_redeem_lost_all_changed_is_not_sent_again(make_client, time):
    """Nothing on a redeemed voucher says who redeemed it: all in doubt, after one request."""
    looks = {code: [voucher("REDEEMED", code=code)] for code in "AB"}
    shop = Shop([LOST], **looks)
    error = await redeem(make_client, shop, ["A", "B"])
    assert type(error) is OutcomeUnknownError
    assert error.__cause__ is LOST
    assert found(error) == (("A", "B"), [("A", "REDEEMED"), ("B", "REDEEMED")], [])
    assert (shop.bodies, time.slept) == ([["A", "B"]], [])


@pytest.mark.parametrize("status", ["EXPIRED", "VALID", "MARKET_PLACE"])
async def test_redeem_lost_redeemed_before_its_status(make_client, status):
    """A voucher may expire after its redemption: the time of it counts as a change, too."""
    item = {**voucher_item(status), "redeemedAt": "2026-11-20T10:00:00Z"}
    shop = Shop([LOST], X=[ok({"item": item, "code": "SUCCESS"})])
    error = await redeem(make_client, shop, ["X"])
    assert found(error) == (("X",), [("X", status)], [])
    assert shop.bodies == [["X"]]


@pytest.mark.parametrize("refusal", [ALREADY_REDEEMED, NOT_FOUND, rm_error("INVALID_SIGNATURE")])
async def test_redeem_refused_repeat_stays_in_doubt(make_client, refusal):
    """A refusal of the repeat does not say that the first request did nothing: looked up once
    more, in doubt, and not sent again."""
    later = [issued("B"), voucher("REDEEMED", code="B")]
    shop = Shop([LOST, refusal], A=[issued("A")] * 2, B=later)
    error = await redeem(make_client, shop, ["A", "B"])
    assert type(error) is OutcomeUnknownError
    assert found(error) == (("A", "B"), [("A", "ISSUED"), ("B", "REDEEMED")], [])
    assert shop.bodies == [["A", "B"], ["A", "B"]]
    assert shop.looked_up == {"A": 2, "B": 2}


async def test_redeem_partial_then_refused_keeps_what_was_redeemed(make_client):
    """What an earlier answer showed redeemed stays so, whatever becomes of the rest."""
    shop = Shop([redeemed("A"), ALREADY_REDEEMED], B=[issued("B")] * 2)
    error = await redeem(make_client, shop, ["A", "B"])
    assert found(error) == (("B",), [("B", "ISSUED")], ["A"])


async def test_redeem_lost_to_the_last_attempt(make_client):
    """Unchanged at each look, lost at each attempt: they may still arrive."""
    shop = Shop([LOST, LOST], A=[issued("A")] * 2, B=[issued("B"), NOT_FOUND])
    policy = RetryPolicy(max_attempts=2)
    error = await redeem(make_client, shop, ["A", "B"], retry=policy)
    assert found(error) == (("A", "B"), [("A", "ISSUED")], [])


async def test_redeem_throttled_sends_all_again_and_looks_at_none(make_client, time):
    """Proof that nothing was done needs no look."""
    shop = Shop([THROTTLED, redeemed("A", "B")])
    assert len(await redeem(make_client, shop, ["A", "B"])) == 2
    assert (shop.bodies, shop.looked_up) == ([["A", "B"]] * 2, {})
    assert time.slept == [0.5]


async def test_redeem_refused_at_once_is_definite(make_client):
    """A first refusal is raised as it is, and nothing is looked up."""
    shop = Shop([NOT_FOUND])
    error = await redeem(make_client, shop, ["A", "B"])
    assert (error.code, shop.bodies, shop.looked_up) == ("VOUCHER_NOT_FOUND", [["A", "B"]], {})


async def test_redeem_looks_up_a_few_at_once(make_client):
    """A lost answer of a hundred codes is not followed by a hundred look-ups at a time."""
    codes = [f"C{number}" for number in range(100)]
    at_once = most = 0

    async def shop(request):
        nonlocal at_once, most
        if request.operation == "redeem":
            raise LOST
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return voucher("REDEEMED", code=request.url.name)

    error = await redeem(make_client, shop, codes)
    assert error.codes == tuple(codes)
    assert [v.code for v in error.vouchers] == codes
    assert most == _LOOK_UPS_AT_ONCE == 8


async def test_redeem_unknown_hides_the_codes(make_client):
    """The error's text and traceback name the operation, not the vouchers."""
    shop = Shop([LOST], NAklEfbVdV=[voucher("REDEEMED", code="NAklEfbVdV")])
    error = await redeem(make_client, shop, ["NAklEfbVdV"])
    assert "NAklEfbVdV" not in "".join(traceback.format_exception(error))


TWICE = "position 2 is there twice"


@pytest.mark.parametrize(
    ("codes", "why"),
    [
        ([], "No code"),
        ((), "No code"),
        (iter([]), "No code"),
        ("NAklEfbVdV", "several codes"),
        ("", "several codes"),
        (b"NAklEfbVdV", "several codes"),
        (["A", "A"], TWICE),
        (["abc", "ABC"], TWICE),
        (["straße", "STRASSE"], TWICE),
        ([f"C{number}" for number in range(101)], "More than 100"),
        ((f"C{number}" for number in itertools.count()), "More than 100"),
        (["A", "../x"], "slash"),
        (["A", None], "text"),
        ([5], "text"),
    ],
)
async def test_redeem_refused_codes_send_nothing(buyer, recorder, codes, why):
    """None, too many, the same twice, a text instead of a list, or a bad one: nothing is sent."""
    with pytest.raises(InvalidRequestError, match=why):
        await buyer.redeem(codes)
    assert recorder.requests == []


@pytest.mark.parametrize("codes", [None, 5, object()])
async def test_redeem_codes_that_are_no_iterable_are_refused(buyer, recorder, codes):
    """What is not several codes is refused like every other bad argument."""
    with pytest.raises(InvalidRequestError):
        await buyer.redeem(codes)
    assert recorder.requests == []


async def test_redeem_limit_is_a_setting(make_client):
    """As many codes as `Limits.max_redeem_codes` are taken, and no more."""
    server = ScriptedServer([redeemed("A", "B")])
    client = make_client(server, limits=Limits(max_redeem_codes=2))
    assert len(await client.redeem(["A", "B"])) == 2
    with pytest.raises(InvalidRequestError, match="More than 2"):
        await client.redeem(["A", "B", "C"])


async def test_redeem_certain_ones_are_in_the_order_of_the_codes(make_client):
    """What is redeemed for certain is told in the order of the codes, whoever confirmed it when."""
    shop = Shop([redeemed("B"), redeemed("A")], A=[voucher("ISSUED", code="A")], C=[NOT_FOUND])
    error = await redeem(make_client, shop, ["A", "B", "C"])
    assert [item.code for item in error.redeemed] == ["A", "B"]
    assert error.codes == ("C",)
    assert shop.bodies == [["A", "B", "C"], ["A"]]


async def test_redeem_defect_in_a_look_up_leaves_the_doubt(make_client, caplog):
    """An error that is not ours, in a look-up, is logged by its class; the doubt is raised."""
    shop = Shop([LOST, redeemed("B")], A=[ZeroDivisionError("A")], B=[voucher("ISSUED", code="B")])
    error = await redeem(make_client, shop, ["A", "B"])
    assert (error.codes, [one.code for one in error.redeemed]) == (("A",), ["B"])
    assert "can't be looked up (ZeroDivisionError)" in caplog.text
    assert len(asyncio.all_tasks()) == 1


async def test_redeem_look_up_of_another_code_proves_nothing(make_client):
    """A look-up that shows another voucher, unchanged, is no reason to send again."""
    shop = Shop([LOST], A=[voucher("ISSUED", code="ANOTHER")])
    error = await redeem(make_client, shop, ["A"])
    assert (error.codes, shop.bodies) == (("A",), [["A"]])


async def test_redeem_answer_that_shows_a_code_twice_is_no_success(make_client):
    """REDEEMED and VOID at once: which of the two to believe is unknown."""
    both = [voucher_item("VOID", "A"), voucher_item("REDEEMED", "A")]
    shop = Shop([ok({"item": both, "code": "SUCCESS"})], A=[voucher("VOID", code="A")])
    error = await redeem(make_client, shop, ["A"])
    assert isinstance(error, OutcomeUnknownError)
    assert (error.codes, error.redeemed) == (("A",), ())


async def test_redeem_sent_again_keeps_its_timeout(make_client):
    """The second request, of fewer codes, has the time-out of the call."""
    server = ScriptedServer(
        [LOST, voucher("REDEEMED", code="A"), voucher("ISSUED", code="B"), redeemed("B")]
    )
    timeout = Timeout(connect_s=1, attempt_s=2)
    with pytest.raises(OutcomeUnknownError):
        await make_client(server).redeem(["A", "B"], timeout=timeout)
    assert [request.timeout for request in server.requests] == [timeout] * 4


async def test_redeem_doubt_is_of_its_first_cause(make_client):
    """After two different doubts, the words and the cause are those of the first."""
    first = rm_error("INTERNAL_ERROR", 500)
    shop = Shop([first, LOST, redeemed("B")], A=[LOST] * 6, B=[voucher("ISSUED", code="B")] * 2)
    error = await redeem(make_client, shop, ["A", "B"])
    assert type(error.__cause__) is ServerError
    assert "server failed" in str(error)


async def test_redeem_look_up_that_ends_in_a_cancellation_proves_nothing(make_client):
    """A transport that cancels a look-up by itself has not shown the voucher unchanged."""
    shop = Shop([LOST, redeemed("B")], A=[], B=[voucher("ISSUED", code="B")])

    async def serve(request):
        if request.url.name == "A":
            raise asyncio.CancelledError
        return shop(request)

    error = await redeem(make_client, serve, ["A", "B"])
    assert (error.codes, shop.bodies) == (("A",), [["A", "B"], ["B"]])
