"""Experiments with tokens, signatures, nonces, timestamps and paths. They use no voucher."""

from __future__ import annotations

from rm_voucher.calls.outcomes import Outcome
from rm_voucher.emulator.reply import usual_status
from rm_voucher.exceptions import NotFoundError, SignatureError
from rm_voucher.models import Token
from rm_voucher.probe.budget import Cost
from rm_voucher.probe.experiment import GRID_S, Decision, Experiment, Notes, Watch
from rm_voucher.probe.findings import NotDecided
from rm_voucher.probe.session import Session, UnclearError, no_such_code
from rm_voucher.wire import operations

_OFFSETS_S = (-130, -110, 110, 130)
_TRIES = 3


async def _token(session: Session) -> None:
    """Watch the token that was bought at the start; if answers were missing, another one."""
    for _ in range(_TRIES):
        watch, token = Watch(session, since=session.tokens.bought_at), await session.tokens.token()
        async for _ in watch:
            try:
                answer = await session.ask(session.some_read(), token=token)
            except UnclearError:
                continue
            if answer.outcome is not Outcome.TOKEN_REFUSED:
                break
            watch.is_absent()
        else:
            raise UnclearError(f"the new token was not taken within {GRID_S[-1]:.0f} s")
        delay_s = session.notes["token.delay_s"] = watch.seen("the token's acceptance")
        session.tokens.delay_s = session.runtime.monotonic() - session.tokens.bought_at
        if not isinstance(delay_s, NotDecided):
            session.tokens.delay_s = float(str(delay_s))
            return
        session.tokens.hold(await session.buy())


async def _ends(session: Session) -> None:
    """Buy another token, and look whether the one before is still good. If not, once more."""
    for _ in range(2):
        await session.ask(session.some_read())
        held = session.tokens.held
        assert held is not None  # noqa: S101 - it was used just now
        session.tokens.hold(await session.buy())
        await session.pause(session.tokens.delay_s)
        before = await session.ask(session.some_read(), token=held.access_token)
        session.notes["token.ends_earlier"] = before.outcome is Outcome.TOKEN_REFUSED
        if before.outcome is not Outcome.TOKEN_REFUSED:
            return


async def _refresh(session: Session) -> None:
    held = session.tokens.held
    if held is None or not held.refresh_token:
        raise UnclearError("the token came without a refresh token")
    first = await session.refresh(held.refresh_token)
    if not isinstance(first, Token):
        raise UnclearError(f"the refresh was refused with {first.code}")
    session.tokens.hold(first)
    second = await session.refresh(held.refresh_token)
    session.notes["refresh.rotates"] = not isinstance(second, Token)
    if isinstance(second, Token):
        session.tokens.hold(second)
    await session.pause(session.tokens.delay_s)


async def _unknown_path(session: Session) -> None:
    answer = await session.ask(
        operations.build_any(session.environment, "GET", "/v3/rm-voucher-probe")
    )
    if answer.succeeded:
        raise UnclearError("a path that there is not is answered as a success")
    session.notes["unknown_path.code"] = answer.code


async def _signature(session: Session) -> None:
    answer = await session.ask(session.some_read(), signs_wrong=True)
    session.notes["signature.is_checked"] = not answer.succeeded
    if answer.is_error(SignatureError):
        session.notes["signature.debug"] = isinstance(answer.body.get("debug"), dict)


async def _nonce(session: Session) -> None:
    for _ in range(_TRIES):
        nonce, request = session.runtime.make_nonce(), session.some_read()
        try:
            # Where the answer is lost and the request was not, its repeat is refused: another one.
            await session.ask(request, nonce=nonce)
            again = await session.ask(request, nonce=nonce, takes=Outcome.DUPLICATE)
        except UnclearError:
            continue
        session.notes["nonce.is_checked"] = not again.succeeded
        session.notes["nonce.code"] = again.code
        return
    raise UnclearError("no two requests with one nonce were answered")


async def _timestamp(session: Session) -> None:
    taken = []
    for off_s in _OFFSETS_S:
        answer = await session.ask(
            session.some_read(), skew_s=off_s + (session.clock.offset_s or 0.0)
        )
        if answer.succeeded:
            taken.append(off_s)
        elif not answer.is_error(SignatureError):
            raise UnclearError(f"a timestamp {off_s} s off is refused with {answer.code}")
    session.notes["timestamp.taken"] = taken


async def _batch(session: Session) -> None:
    batch = session.batch = await session.read_batch()
    session.notes["batch.origin"] = str(batch.origin)


async def _signed_path(session: Session) -> None:
    """Look a code up that there is not, with its ``@`` as it is and percent-encoded."""
    if "get.methods" not in session.notes:
        raise UnclearError("it is not known which method get by code takes")
    method = session.notes["get.methods"][0]
    code = f"{no_such_code()}@probe"
    for name, escapes in (("raw", False), ("escaped", True)):
        here = session.environment
        request = operations.build_get(
            type(here)(
                here.api_url,
                here.oauth_url,
                allow_plain_http=here.allow_plain_http,
                escapes_paths=escapes,
            ),
            code,
            method=method,
        )
        answer = await session.ask(request)
        if not answer.is_error(SignatureError, NotFoundError):
            raise UnclearError(f"a code that there is not is answered with {answer.code}")
        session.notes[f"signed_path.{name}"] = answer.is_error(NotFoundError)


async def _nothing(session: Session) -> None:
    """Look at what the other experiments saw."""
    session.notes["date"] = session.clock.offset_s is not None
    session.notes["statuses"] = dict(session.statuses)


def _delay_s(notes: Notes) -> object:
    return notes["token.delay_s"]


def _code(notes: Notes) -> object:
    if not notes["nonce.is_checked"]:
        return NotDecided("a nonce that was used before is taken")
    return notes["nonce.code"] or NotDecided("it is refused without a code of RM's")


def _window(notes: Notes) -> object:
    taken = notes["timestamp.taken"]
    if taken == [-110, 110]:
        return True
    if taken == list(_OFFSETS_S):
        return False
    return "taken: " + (", ".join(f"{off_s:+d} s" for off_s in taken) or "none")


def _spelling(notes: Notes) -> object:
    if not notes["signature.is_checked"]:
        return NotDecided("no signature is looked at")
    match notes["signed_path.raw"], notes["signed_path.escaped"]:
        case True, True:
            return "as-sent"
        case True, False:
            return "raw"
        case False, True:
            return "escaped"
        case _:
            return NotDecided("the signature is refused for either spelling")


def _statuses(notes: Notes) -> object:
    return {
        code: status
        for code, status in sorted(notes["statuses"].items())
        if usual_status(code) != status
    }


TOKEN = Experiment(
    name="token",
    asks="How soon is a new token accepted?",
    observe=_token,
    decides=(
        Decision("token_delay_s", _delay_s, "a token that is refused is used again for 3 s only"),
    ),
    cost=Cost(calls=len(GRID_S)),
)
BATCH = Experiment(
    name="batch",
    asks="Is one batch answered by its own path?",
    observe=_batch,
    decides=(
        Decision(
            "older_batch_path",
            lambda notes: notes["batch.path"],
            "Profile.has_batch_path: the client looks in the list of batches at once",
        ),
    ),
    cost=Cost(calls=6),
)
ACCESS = (
    Experiment(
        name="unknown-path",
        asks="What answers a path that there is not?",
        observe=_unknown_path,
        decides=(Decision("unknown_path_code", lambda notes: notes["unknown_path.code"]),),
        cost=Cost(calls=1),
    ),
    Experiment(
        name="signature",
        asks="What answers a request that is signed wrong?",
        observe=_signature,
        decides=(
            Decision("check:signature", lambda notes: notes["signature.is_checked"]),
            Decision("signature_debug", lambda notes: notes["signature.debug"]),
        ),
        cost=Cost(calls=1),
    ),
    Experiment(
        name="nonce",
        asks="What answers a nonce that was used before?",
        observe=_nonce,
        decides=(
            Decision("check:nonce", lambda notes: notes["nonce.is_checked"]),
            Decision("duplicate_code", _code),
        ),
        cost=Cost(calls=2 * _TRIES),
    ),
    Experiment(
        name="timestamp",
        asks="How far may a timestamp be off: 110 s, 130 s?",
        observe=_timestamp,
        decides=(Decision("check:timestamp", _window, "keep this machine's clock right"),),
        cost=Cost(calls=len(_OFFSETS_S)),
    ),
)
TOKENS = (
    Experiment(
        name="token-ends",
        asks="Does a new token end the earlier ones?",
        observe=_ends,
        decides=(
            Decision(
                "new_token_ends_earlier",
                lambda notes: notes["token.ends_earlier"],
                "VoucherClient(token_store=…): let processes share one token",
            ),
        ),
        cost=Cost(calls=6),
    ),
    Experiment(
        name="refresh",
        asks="Does a refresh token work once?",
        observe=_refresh,
        decides=(Decision("check:rotation", lambda notes: notes["refresh.rotates"]),),
        cost=Cost(calls=2),
    ),
)
SIGNED_PATH = Experiment(
    name="signed-path",
    asks="Of which spelling of a path must the signature be?",
    observe=_signed_path,
    decides=(
        Decision("signed_path", _spelling, "Environment(escapes_paths=…), as the profile has it"),
    ),
    cost=Cost(calls=2),
)
ANSWERS = Experiment(
    name="answers",
    asks="Which headers and statuses do answers have?",
    observe=_nothing,
    decides=(
        Decision("sends_date", lambda notes: notes["date"], "look at this machine's clock"),
        Decision("statuses", _statuses),
    ),
)
