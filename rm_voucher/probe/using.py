"""Experiments with the vouchers that were issued: looked up, redeemed, voided, reinstated."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta

from rm_voucher.converters import parse_time, structure
from rm_voucher.exceptions import InvalidRequestError, NotFoundError, VoucherStateError
from rm_voucher.models import ExpiryType, Voucher, VoucherStatus
from rm_voucher.probe.budget import Cost
from rm_voucher.probe.experiment import Decision, Experiment, Notes
from rm_voucher.probe.findings import NotDecided
from rm_voucher.probe.options import option_in_words
from rm_voucher.probe.session import Answer, Session, UnclearError, no_such_code, words_of
from rm_voucher.wire import operations
from rm_voucher.wire.error_codes import fold

_MICROSECOND = 123_456
_NOT_REDEEMED = fold("VOUCHER_NOT_REDEEMED")
_MOST_CODES = 1_000
_NO_STORE = "rm-voucher-probe"


def _is_about_store(answer: Answer) -> bool:
    return answer.outcome is not None and "STORE" in answer.code.upper()


async def _get(session: Session) -> None:
    code = session.voucher("first")
    taken = []
    for method in ("POST", "GET"):
        answer = await session.ask(operations.build_get(session.environment, code, method=method))
        if answer.succeeded:
            taken.append(method)
            _note_voucher(session, answer)
        elif not answer.is_unknown_path:
            raise UnclearError(f"{method} is answered with {words_of(answer)}")
    if not taken:
        raise UnclearError("neither method is taken")
    session.notes["get.methods"] = taken


def _note_voucher(session: Session, answer: Answer) -> None:
    voucher = structure(answer.item, Voucher)
    session.notes["get.assigned_at"] = voucher.assigned_at is not None
    expiry, raw = voucher.expiry, answer.item.get("expiry")
    if expiry is None or expiry.type not in (ExpiryType.DYNAMIC, ExpiryType.PERMANENT):
        session.notes["expiry.undated"] = NotDecided("the batch ends at a date")
        return
    text = raw.get("expiredAt") if isinstance(raw, dict) else None
    try:
        is_time = isinstance(text, str) and len(text) <= 40 and (parse_time(text), True)[1]
    except ValueError:
        is_time = False
    session.notes["expiry.undated"] = text if is_time else NotDecided("it shows no time there")


async def _case(session: Session) -> None:
    code = session.voucher("first")
    other = code.swapcase()
    if other == code or other.casefold() != code.casefold():
        raise UnclearError("the code that was issued has no letters")
    session.secret.add(other)
    answer = await session.get(other)
    if answer.succeeded:
        session.notes["case.ignored"] = answer.item["code"].casefold() == code.casefold()
    elif answer.is_error(NotFoundError):
        session.notes["case.ignored"] = False
    else:
        raise UnclearError(f"the other spelling is answered with {words_of(answer)}")


async def _void_once(session: Session, name: str, used_at: datetime | None = None) -> Answer:
    store = session.notes.get("void.store")
    request = operations.build_void(
        session.environment, session.voucher(name), store_id=store, used_at=used_at
    )
    return await session.change(request, name)


async def _void(session: Session) -> None:
    """Void an ISSUED voucher, and do what the server asks for: a store, a redeem."""
    notes = session.notes
    now = datetime.fromtimestamp(session.runtime.clock(), UTC)
    used_at = (now - timedelta(seconds=90)).replace(microsecond=_MICROSECOND)
    was_redeemed = False
    while True:  # each demand of the server's is met once
        answer = await _void_once(session, "first", used_at)
        if answer.succeeded:
            notes.setdefault("void.needs_store", False)
            notes.setdefault("void.needs_redeem", False)
            break
        if _is_about_store(answer) and "void.store" not in notes:
            notes["void.needs_store"] = True
            if not session.options.store_id:
                raise UnclearError(
                    f"a void without a store is refused with {answer.code}: give "
                    f"{option_in_words('store_id')}"
                )
            notes["void.store"] = session.options.store_id
        elif fold(answer.code) == _NOT_REDEEMED and not was_redeemed:
            notes["void.needs_redeem"] = was_redeemed = True
            await _redeem_one(session, "first")
        else:
            raise UnclearError(f"the void is refused: {words_of(answer)}")
    notes["first.was_redeemed"] = was_redeemed
    shown = (await session.get_voucher(session.voucher("first"))).used_at
    notes["used_at.digits"] = None if shown is None else _digits(shown, used_at)


def _digits(shown: datetime, sent: datetime) -> int | None:
    """Return how many digits of a second were kept, cut off or rounded; None if it was not kept."""
    for digits in range(6, -1, -1):
        step = 10 ** (6 - digits)
        cut = sent.replace(microsecond=sent.microsecond // step * step)
        if shown in (cut, cut + timedelta(microseconds=step)):
            return digits
    return None


async def _redeem_one(session: Session, name: str) -> None:
    request = operations.build_redeem(session.environment, [session.voucher(name)])
    answer = await session.change(request, name)
    if not answer.succeeded:
        raise UnclearError(f"the redeem is refused: {words_of(answer)}")


async def _void_again(session: Session) -> None:
    _needs_void(session)
    answer = await _void_once(session, "first")
    session.notes["void.again"] = "" if answer.succeeded else answer.code


def _needs_void(session: Session) -> None:
    if "used_at.digits" not in session.notes:
        raise UnclearError("no voucher could be voided")


async def _wrong_pin(session: Session) -> None:
    _needs_void(session)
    wrong = f"{secrets.randbelow(10**6):06}"
    if wrong == session.options.pin:
        wrong = wrong[::-1] + "0"
    request = operations.build_reinstate(
        session.environment, session.voucher("first"), pin=wrong, reason="rm-voucher probe"
    )
    answer = await session.change(request, "first")
    session.notes["pin.is_checked"] = not answer.succeeded
    if not answer.succeeded:
        session.notes["pin.code"] = answer.code
    elif (await _void_once(session, "first")).succeeded:
        raise UnclearError("a wrong PIN is taken")


async def _redeem(session: Session) -> None:
    """Issue a voucher, redeem it together with a code that there is not, then alone."""
    notes = session.notes
    await session.issue_as("second")
    code = session.voucher("second")
    notes["balance.unredeemed"] = (await session.read_batch()).balance_quantity
    request = operations.build_redeem(session.environment, [code, no_such_code()])
    answer = await session.change(request, "second")
    status = (await session.get_voucher(code)).status
    if answer.succeeded:
        notes["redeem.is_atomic"] = NotDecided("it is a success, though one code does not exist")
    elif answer.is_error(InvalidRequestError):
        notes["redeem.is_atomic"] = NotDecided(
            f"it is refused with {answer.code}, maybe not for the code that does not exist"
        )
    else:
        notes["redeem.is_atomic"] = status is VoucherStatus.ISSUED
    if status is VoucherStatus.ISSUED:
        await _redeem_one(session, "second")
    notes["balance.redeemed"] = (await session.read_batch()).balance_quantity
    again = operations.build_redeem(session.environment, [code])
    answer = await session.change(again, "second")
    notes["redeem.again"] = NotDecided("it is a success") if answer.succeeded else answer.code


async def _store(session: Session) -> None:
    """Void a REDEEMED voucher at a store that there is not; if that is refused, as before."""
    notes = session.notes
    if "balance.redeemed" not in notes:
        raise UnclearError("no voucher could be redeemed")
    request = operations.build_void(
        session.environment, session.voucher("second"), store_id=_NO_STORE
    )
    answer = await session.change(request, "second")
    if answer.succeeded:
        notes["store.code"] = ""
    elif _is_about_store(answer):
        notes["store.code"] = answer.code
        if notes.get("void.needs_store") and "void.store" not in notes:
            raise UnclearError(f"a void must name a store: give {option_in_words('store_id')}")
        answer = await _void_once(session, "second")
    if not answer.succeeded:
        raise UnclearError(f"the void of a REDEEMED voucher is refused: {words_of(answer)}")
    notes["void.redeemed"] = True
    notes["balance.void"] = (await session.read_batch()).balance_quantity


async def _reinstate(session: Session) -> None:
    for name in ("first", "second"):
        request = operations.build_reinstate(
            session.environment,
            session.voucher(name),
            pin=session.options.pin,
            reason="rm-voucher probe",
        )
        answer = await session.change(request, name)
        if not answer.succeeded:
            raise UnclearError(f"the reinstate is refused: {words_of(answer)}")
        voucher = structure(answer.item, Voucher)
        session.notes[f"reinstate.{name}"] = str(voucher.status)


async def _redeem_limit(session: Session) -> None:
    """Find the most codes of a bulk redeem, with codes that there are not: nothing is redeemed."""

    async def refusal(count: int) -> str:
        codes = [no_such_code() for _ in range(count)]
        answer = await session.ask(operations.build_redeem(session.environment, codes))
        if answer.succeeded:
            raise UnclearError("codes that there are not are redeemed")
        return answer.code

    few, many = await refusal(1), await refusal(_MOST_CODES)
    if few == many:
        raise UnclearError(f"{_MOST_CODES:,} codes are answered as one is, with {few}")
    good, bad = 1, _MOST_CODES
    for tried in (100, 101):
        if good < tried < bad and await refusal(tried) == few:
            good = tried
        else:
            bad = min(bad, tried)
    while bad - good > 1:
        middle = (good + bad) // 2
        if await refusal(middle) == few:
            good = middle
        else:
            bad = middle
    session.notes["redeem.most"] = good


async def _redeem_valid(session: Session) -> None:
    if "valid" not in session.vouchers:
        raise UnclearError("no VALID voucher is listed, so that no code of one is known")
    session.budget.take_voucher()
    request = operations.build_redeem(session.environment, [session.voucher("valid")])
    answer = await session.change(request, "valid")
    if answer.succeeded:
        session.notes["redeem.valid"] = True
    elif answer.is_error(VoucherStateError, InvalidRequestError, NotFoundError):
        session.budget.return_voucher()
        session.notes["redeem.valid"] = False
    else:
        raise UnclearError(f"it is answered with {words_of(answer)}")


async def _member(session: Session) -> None:
    assert session.options.member is not None  # noqa: S101 - it is not run without
    listed = await session.ask(
        operations.build_member_vouchers(session.environment, *session.options.member)
    )
    if not listed.succeeded:
        raise UnclearError(f"the member's vouchers: {words_of(listed)}")
    vouchers = [structure(item, Voucher) for item in listed.body["items"] if isinstance(item, dict)]
    session.secret |= {one.code for one in vouchers if one.code}
    codes = [
        one.code
        for one in vouchers
        if one.status is VoucherStatus.REDEEMED and one.batch_key == session.batch_key and one.code
    ]
    if not codes:
        raise UnclearError("the member has no REDEEMED voucher of the batch")
    session.vouchers["member"] = codes[0]
    session.budget.take_voucher()
    request = operations.build_member_redeem(session.environment, *session.options.member, codes[0])
    answer = await session.change(request, "member")
    if not answer.succeeded:
        session.budget.return_voucher()
        raise UnclearError(f"the member's redeem is refused: {words_of(answer)}")
    status = structure(answer.item, Voucher).status
    session.notes["member.status"] = (
        str(status)
        if status in (VoucherStatus.VOID, VoucherStatus.REDEEMED)
        else NotDecided("the answer has another status than VOID or REDEEMED")
    )


def _used_at_digits(notes: Notes) -> object:
    digits = notes["used_at.digits"]
    return NotDecided("usedAt is not kept") if digits is None else digits


def _reinstate_to(notes: Notes) -> object:
    if notes["first.was_redeemed"]:
        return NotDecided("a voucher must be redeemed before it is voided")
    status = notes["reinstate.first"]
    return status if status in ("ISSUED", "REDEEMED") else NotDecided(f"it is {status}")


GET = Experiment(
    name="get",
    asks="Which methods does get by code take, and which times does a voucher show?",
    observe=_get,
    decides=(
        Decision(
            "get_methods",
            lambda notes: notes["get.methods"],
            "Profile.get_method: the client begins with it",
        ),
        Decision("shows_assigned_at", lambda notes: notes["get.assigned_at"]),
        Decision("undated_expiry", lambda notes: notes["expiry.undated"]),
    ),
    cost=Cost(calls=2),
)
USING = (
    Experiment(
        name="case",
        asks="Do codes differ by case?",
        observe=_case,
        decides=(Decision("codes_ignore_case", lambda notes: notes["case.ignored"]),),
        cost=Cost(calls=1),
    ),
    Experiment(
        name="void",
        asks="What does the void of an ISSUED voucher need, and is usedAt kept?",
        observe=_void,
        decides=(
            Decision(
                "void_needs_store",
                lambda notes: notes["void.needs_store"],
                "client.void(store_id=…): always name a store",
            ),
            Decision(
                "void_needs_redeem",
                lambda notes: notes["void.needs_redeem"],
                "redeem a voucher before it is voided",
            ),
            Decision(
                "keeps_used_at",
                lambda notes: notes["used_at.digits"] is not None,
                "don't count on client.void(used_at=…): no lost answer can be settled by it",
            ),
            Decision(
                "used_at_digits",
                _used_at_digits,
                "client.void(used_at=…): send no more digits of a second than are kept",
            ),
        ),
        cost=Cost(calls=5),
        undoes="With a PIN, the voucher is reinstated.",
    ),
    Experiment(
        name="void-again",
        asks="What answers the void of a VOID voucher?",
        observe=_void_again,
        decides=(Decision("void_again_code", lambda notes: notes["void.again"]),),
        cost=Cost(calls=1),
    ),
    Experiment(
        name="wrong-pin",
        asks="What answers a reinstate with a wrong PIN?",
        observe=_wrong_pin,
        decides=(
            Decision("check:pin", lambda notes: notes["pin.is_checked"]),
            Decision("wrong_pin_code", lambda notes: notes["pin.code"]),
        ),
        cost=Cost(calls=2),
        undoes="If it is taken, the voucher is voided again.",
    ),
    Experiment(
        name="redeem",
        asks="Does a bulk redeem that is refused redeem some, and what answers a second redeem?",
        observe=_redeem,
        decides=(
            Decision("redeem_is_atomic", lambda notes: notes["redeem.is_atomic"]),
            Decision("redeem_again_code", lambda notes: notes["redeem.again"]),
        ),
        cost=Cost(calls=17, vouchers=1),
    ),
    Experiment(
        name="store",
        asks="What answers a void of a REDEEMED voucher at a store that there is not?",
        observe=_store,
        decides=(
            Decision("unknown_store_code", lambda notes: notes["store.code"]),
            Decision("fact:void of a REDEEMED voucher", lambda notes: notes["void.redeemed"]),
        ),
        cost=Cost(calls=8),
        undoes="With a PIN, the voucher is reinstated.",
    ),
    Experiment(
        name="redeem-limit",
        asks="How many codes does a bulk redeem take? It asks for codes that there are not.",
        observe=_redeem_limit,
        decides=(
            Decision(
                "max_redeem_codes",
                lambda notes: notes["redeem.most"],
                "Limits.max_redeem_codes, as the profile has it",
            ),
        ),
        cost=Cost(calls=14),
    ),
    Experiment(
        name="redeem-valid",
        asks="Can a voucher be redeemed that was not issued?",
        observe=_redeem_valid,
        decides=(Decision("redeems_valid", lambda notes: notes["redeem.valid"]),),
        cost=Cost(calls=1, vouchers=1),
    ),
    Experiment(
        name="member",
        asks="Which status has a voucher after a member's redeem?",
        observe=_member,
        decides=(Decision("member_redeem_to", lambda notes: notes["member.status"]),),
        cost=Cost(calls=2, vouchers=1),
        needs="member",
    ),
    Experiment(
        name="reinstate",
        asks="Which status has a reinstated voucher that was never redeemed?",
        observe=_reinstate,
        decides=(Decision("reinstate_to", _reinstate_to),),
        cost=Cost(calls=2),
        undoes="It undoes the voids.",
        needs="pin",
    ),
)
