"""A server that answers oddly leaves a guess open, with the reason; it never makes one wrong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
import orjson
import pytest
from simulation.loop import VirtualLoop
from support.probe_runs import ALL, Stage, stage

from rm_voucher import (
    ClosedError,
    Environment,
    Request,
    Response,
    ResponseLostError,
    Token,
    Transport,
)
from rm_voucher.emulator import Guesses
from rm_voucher.probe import Options, Probe, Report, Verdict
from rm_voucher.wire.operations import build_issue

QUICK = attrs.evolve(ALL, measure_rate=False)

# What a server makes of a request and the emulator's answer, the n-th of its operation.
Twist = Callable[[Request, Response, int], Response]


@attrs.define(eq=False)
class Twisted(Transport):
    """An emulator whose answers are changed on the way."""

    there: Stage
    twist: Twist
    counts: dict[str, int] = attrs.field(factory=dict)

    async def send(self, request: Request) -> Response:
        number = self.counts[request.operation] = self.counts.get(request.operation, 0) + 1
        answer = await self.there.wire.send(request)
        return self.twist(request, answer, number)


def probe(twist: Twist, options: Options = QUICK, **others: Any) -> tuple[Report, Stage]:
    there = stage(**others)
    report = there.run(options, transport=Twisted(there, twist))
    assert there.used <= report.used.vouchers
    assert len(there.wire.requests) == report.used.calls <= report.stated.calls
    return report, there


def error(code: str, status: int = 400) -> Response:
    return Response(status=status, body=orjson.dumps({"error": {"code": code, "message": "no"}}))


def changed(answer: Response, **fields: Any) -> Response:
    """Return an answer whose item has other fields."""
    body = orjson.loads(answer.body)
    if "item" in body:
        item = body["item"]
        body["item"] = [{**one, **fields} for one in item] if isinstance(item, list) else {
            **item, **fields,
        }  # fmt: skip
    if "items" in body:
        body["items"] = [{**one, **fields} for one in body["items"]]
    return attrs.evolve(answer, body=orjson.dumps(body))


def when(operation: str, answer: Response, *numbers: int) -> Twist:
    """Answer the requests of an operation so, all of them or the n-th."""

    def twist(request: Request, usual: Response, number: int) -> Response:
        is_meant = request.operation == operation and (not numbers or number in numbers)
        return answer if is_meant else usual

    return twist


def with_fields(operation: str, **fields: Any) -> Twist:
    def twist(request: Request, usual: Response, number: int) -> Response:
        return changed(usual, **fields) if request.operation == operation else usual

    return twist


def to_path(end: str, answer: Response) -> Twist:
    def twist(request: Request, usual: Response, number: int) -> Response:
        return answer if request.url.path.endswith(end) else usual

    return twist


def lost(operation: str, *numbers: int) -> Twist:
    def twist(request: Request, usual: Response, number: int) -> Response:
        if request.operation == operation and number in numbers:
            raise ResponseLostError(f"{operation}: the connection broke")
        return usual

    return twist


SUCCESS = Response(status=200, body=b'{"code":"SUCCESS"}')
SUCCESS_AND_500 = Response(status=500, body=SUCCESS.body)
VOUCHERS = {"code": "SUCCESS", "items": [], "meta": {}}
NOT_FOUND = error("VOUCHER_BATCH_NOT_FOUND", 404)
ONE_VOID = Response(status=200, body=orjson.dumps({**VOUCHERS, "items": [{"status": "VOID"}]}))


def redeem_with_unknown(request: Request, usual: Response, number: int) -> Response:
    """Answer a bulk redeem of what there is and what there is not as a success."""
    if request.operation == "redeem" and b"RmProbe" in request.body:
        return Response(status=200, body=b'{"code":"SUCCESS","item":[]}')
    return usual


def stale_balance(request: Request, usual: Response, number: int) -> Response:
    """Show a balance that moves by more than one."""
    return (
        changed(usual, balanceQuantity=100 - 5 * number) if request.operation == "batch" else usual
    )


def uneven_pages(request: Request, usual: Response, number: int) -> Response:
    if request.operation != "vouchers":
        return usual
    body = orjson.loads(usual.body)
    if "cursor" not in request.url.query:
        body["items"] = body["items"][:1]
    return attrs.evolve(usual, body=orjson.dumps(body))


def endless(request: Request, usual: Response, number: int) -> Response:
    """Give each page of the listing a cursor."""
    if request.operation != "vouchers":
        return usual
    page = {**VOUCHERS, "meta": {"cursor": f"page-{number}"}}
    return Response(status=200, body=orjson.dumps(page))


def odd_mark(request: Request, usual: Response, number: int) -> Response:
    if request.operation != "vouchers":
        return usual
    body = orjson.loads(usual.body)
    return attrs.evolve(usual, body=orjson.dumps({**body, "meta": {"cursor": False}}))


def no_meta(request: Request, usual: Response, number: int) -> Response:
    if request.operation != "vouchers":
        return usual
    body = orjson.loads(usual.body)
    return attrs.evolve(usual, body=orjson.dumps({**body, "meta": None}))


def without_refresh_token(request: Request, usual: Response, number: int) -> Response:
    if request.operation != "token":
        return usual
    body = orjson.loads(usual.body)
    return attrs.evolve(usual, body=orjson.dumps({**body, "refreshToken": None}))


def nothing_listed(request: Request, usual: Response, number: int) -> Response:
    """List none of the batch's vouchers, ever."""
    is_listing = request.operation == "vouchers"
    return Response(status=200, body=orjson.dumps(VOUCHERS)) if is_listing else usual


# The first answer to each token comes at the second look.
LATE = (1, 2, 3, 4, 6, 7, 8, 9, 11, 12, 13, 14)

CASES: list[tuple[str, Twist, str, str]] = [
    ("token_delay_s", when("batches", error("TOKEN_INVALID", 401)), "the new token was not", ""),
    ("token_delay_s", lost("batches", *range(1, 9)), "", "a second token"),
    ("token_delay_s", lost("batches", *LATE), "looked for too late", "three times"),
    ("check:rotation", without_refresh_token, "came without a refresh token", ""),
    ("check:rotation", when("token", error("InvalidGrant", 401), 3), "was refused with", ""),
    ("unknown_path_code", when("request", SUCCESS), "answered as a success", ""),
    ("unknown_path_code", when("request", Response(status=404)), "not RM's error format", ""),
    ("duplicate_code", lost("batches", 4), "", "another nonce is tried"),
    ("duplicate_code", lost("batches", *range(3, 40)), "no two requests with one nonce", ""),
    ("check:timestamp", when("batches", error("SPAM", 403), 5), "refused with SPAM", ""),
    ("signature_debug", when("batches", error("SPAM", 403), 2), "was not seen", ""),
    ("signed_path", when("get", error("SPAM", 403), 3), "is answered with SPAM", ""),
    ("signed_path", when("get", error("INVALID_REQUEST_SIGNATURE", 401), 3, 4), "either", ""),
    ("get_methods", when("get", error("SPAM", 403)), "POST is answered with SPAM", ""),
    ("get_methods", when("get", error("METHOD_NOT_ALLOWED", 405)), "neither method", ""),
    ("undated_expiry", with_fields("get", expiry={"type": "FIXED"}), "ends at a date", ""),
    ("undated_expiry", with_fields("get", expiry={"type": "DYNAMIC"}), "no time there", ""),
    (
        "undated_expiry",
        with_fields("get", expiry={"type": "DYNAMIC", "expiredAt": "soon"}),
        "no time there",
        "",
    ),
    ("codes_ignore_case", with_fields("issue", code="1234567890"), "no letters", ""),
    ("codes_ignore_case", when("get", error("SPAM", 403), 5), "answered with SPAM", ""),
    ("void_needs_store", when("void", error("SPAM", 403)), "the void is refused", ""),
    ("keeps_used_at", when("void", error("VOUCHER_NOT_REDEEMED")), "is refused", ""),
    ("keeps_used_at", when("redeem", error("SPAM", 403)), "", "redeeming is not needed"),
    ("keeps_used_at", with_fields("get", usedAt="0001-01-01T00:00:00Z"), "", "no time: False"),
    ("void_again_code", lost("void", 1), "no voucher could be voided", ""),
    ("void_again_code", lost("void", 2), "the connection broke", ""),
    ("wrong_pin_code", when("void", error("SPAM", 403)), "no voucher could be voided", ""),
    ("redeem_is_atomic", redeem_with_unknown, "one code does not exist", ""),
    ("redeem_again_code", with_fields("redeem", status="REDEEMED"), "", "fields change nothing"),
    ("redeem_again_code", when("redeem", error("SPAM", 403), 2), "is refused: SPAM", ""),
    (
        "redeem_again_code",
        when("redeem", Response(status=200, body=b'{"code":"SUCCESS","item":[{}]}'), 3),
        "it is a success",
        "",
    ),
    ("unknown_store_code", when("redeem", error("SPAM", 403), 2), "could be redeemed", ""),
    ("unknown_store_code", when("void", error("SPAM", 403), 3), "is refused: SPAM", ""),
    ("reinstate_to", when("reinstate", error("SPAM", 403), 2), "the reinstate is refused", ""),
    ("reinstate_to", with_fields("reinstate", status="MARKET_PLACE"), "it is MARKET_PLACE", ""),
    ("max_redeem_codes", redeem_with_unknown, "there are not are redeemed", ""),
    ("redeems_valid", when("redeem", error("SPAM", 403), 8), "it is answered with SPAM", ""),
    ("member_redeem_to", when("member vouchers", error("SPAM", 403)), "SPAM", ""),
    (
        "member_redeem_to",
        when("member vouchers", Response(status=200, body=orjson.dumps(VOUCHERS))),
        "has no REDEEMED voucher",
        "",
    ),
    ("member_redeem_to", when("member redeem", error("SPAM", 403)), "redeem is refused", ""),
    ("member_redeem_to", with_fields("member redeem", status="ISSUED"), "another status", ""),
    ("used_from", stale_balance, "somebody else uses the batch", ""),
    ("used_from", with_fields("batch", balanceQuantity=None), "shows no balance", ""),
    ("used_from", with_fields("batch", balanceQuantity=7), "stayed the same", ""),
    ("page_size", uneven_pages, "not of one size", ""),
    ("page_size", endless, "its pages are empty", ""),
    ("last_page", endless, "more than 5 pages", ""),
    ("listing_delay_s", endless, "more than 5 pages", ""),
    ("check:timestamp", when("batches", error("INVALID_TIMESTAMP"), 6), "", "one side is refused"),
    ("last_page", nothing_listed, "the listing is empty", ""),
    ("keeps_used_at", when("void", error("STORE_NOT_SET")), "the void is refused", "twice"),
    ("new_token_ends_earlier", when("batches", error("TOKEN_INVALID", 401), 10, 11),
        "tokens end by themselves", ""),
    ("unknown_path_code", when("request", SUCCESS_AND_500), "expected no success", ""),
    ("codes_up_front", endless, "whether there is one or not", ""),
    ("last_page", odd_mark, "no text, nor null", ""),
    ("last_page", no_meta, "", "no cursor at all"),
    ("listing_delay_s", when("vouchers", error("SPAM", 403)), "a listing is refused", ""),
    ("static_issue_code", to_path("/STATIC/issue", NOT_FOUND), "the static batch", ""),
    ("lists_valid", to_path("/UPLOADED/vouchers", ONE_VOID), "give --uploaded-batch", ""),
    ("older_batch_path", when("batch", error("SPAM", 403)), "can't be read: SPAM", ""),
    ("token_delay_s", when("token", Response(status=200, body=b"{}")), "not as documented", ""),
]  # fmt: skip


@pytest.mark.parametrize(("subject", "twist", "why", "note"), CASES)
def test_an_odd_answer(subject: str, twist: Twist, why: str, note: str) -> None:
    """What is odd leaves the guess open with the reason, or is no hindrance."""
    report, _ = probe(twist, issued=5 if subject != "page_size" else 9, guesses=_guesses(subject))
    finding = report.finding(subject)
    if why:
        assert finding.verdict is Verdict.NOT_DECIDED
        assert why in finding.why + report.stopped
    else:
        assert finding.verdict is not Verdict.NOT_DECIDED, finding.why


def _guesses(subject: str) -> Guesses:
    return Guesses(page_size=3) if subject in ("page_size",) else Guesses()


def test_no_store_is_named() -> None:
    """Where a void needs a store and none is named, all that a void decides is open."""
    there = stage(Guesses(void_needs_store=True))
    report = there.run(attrs.evolve(QUICK, store_id=""))
    assert report.finding("void_needs_store").value is True
    for subject in ("void_needs_redeem", "keeps_used_at", "void_again_code", "wrong_pin_code"):
        assert report.finding(subject).verdict is Verdict.NOT_DECIDED
    assert report.finding("unknown_store_code").verdict is Verdict.CONFIRMED


def test_no_store_is_named_and_any_other_is_refused() -> None:
    there = stage(Guesses(void_needs_store=True, unknown_store_code="STORE_NOT_FOUND"))
    report = there.run(attrs.evolve(QUICK, store_id=""))
    assert report.finding("unknown_store_code").value == "STORE_NOT_FOUND"
    finding = report.finding("fact:void of a REDEEMED voucher")
    assert finding.why == "a void must name a store: give --store-id, in code Options.store_id"


def uploaded(lists_valid: bool, codes: int = 4) -> Report:
    """Probe a batch whose codes were uploaded."""
    there = stage(Guesses(lists_valid=lists_valid), quantity=1, issued=0)
    there.emulator.add_batch("Mine", key="MINE", codes=[f"UPCODE{n}" for n in range(codes)])

    async def main() -> Report:
        probe = there.probe(Options())
        probe._session.batch_key = "MINE"
        async with probe:
            return await probe.run()

    return VirtualLoop(there.clock).run(main)


@pytest.mark.parametrize("lists_valid", [True, False])
def test_batch_with_uploaded_codes(lists_valid: bool) -> None:
    """It shows whether VALID vouchers are listed, and nothing of codes that RM makes."""
    report = uploaded(lists_valid)
    assert report.finding("lists_valid").value is lists_valid
    assert "were uploaded" in report.finding("codes_up_front").why


def test_batch_with_uploaded_codes_and_none_left() -> None:
    report = uploaded(lists_valid=False, codes=0)
    assert report.finding("lists_valid").why == "the batch had nothing left"


def test_batch_that_has_ended() -> None:
    """The answer of the probe's own batch says the same as that of one that is named."""
    there = stage()
    there.emulator.fail_next("issue", "VOUCHER_BATCH_EXPIRED", times=2)
    report = there.run(attrs.evolve(Options()))
    assert report.finding("expired_code").value == "VOUCHER_BATCH_EXPIRED"


def test_batch_beyond_the_first_pages() -> None:
    """Without a path of its own, a batch is looked for on five pages of batches."""
    there = stage(Guesses(older_batch_path=False, page_size=1), issued=0)
    there.emulator.add_batch("Far", key="FAR", quantity=3)
    there.emulator.add_batch("Farther", key="FARTHER", quantity=3)
    probe_of_last = there.probe(QUICK)
    probe_of_last._session.batch_key = "FARTHER"
    report = VirtualLoop(there.clock).run(probe_of_last.run)
    assert "not among the first 5 pages" in report.stopped


def test_wrong_pin_that_is_the_right_one(monkeypatch) -> None:
    """The PIN that is made up is never the one that was given."""
    monkeypatch.setattr("rm_voucher.probe.using.secrets.randbelow", lambda most: 123_456)
    report = stage().run(QUICK)
    assert report.finding("check:pin").value is True


def test_voucher_that_is_reinstated_by_a_wrong_pin_and_stays() -> None:
    """If it can't be voided again, nothing more is said of it."""
    there = stage(disabled_checks=["pin"])
    twist = when("void", error("SPAM", 403), 3)
    report = there.run(QUICK, transport=Twisted(there, twist))
    assert report.finding("check:pin").value is False


async def test_transport_of_its_own(credentials) -> None:
    """Without one that is given, the probe makes a transport and closes it."""
    async with Probe(credentials, "K") as own:
        assert own.experiments
        assert own.used.calls == 0
    with pytest.raises(ClosedError):
        await own._transport.send(build_issue(Environment.SANDBOX, "K"))


def test_token_that_is_another_one() -> None:
    """A refusal of an older token does not cost the present one."""
    probe_here = stage().probe(QUICK)
    tokens = probe_here._session.tokens
    tokens.hold(Token(access_token="present"))
    assert tokens.refuse("older")
    assert tokens.held is not None
    assert tokens.refuse("present")
    assert tokens.held is None
