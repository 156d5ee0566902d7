"""Each operation times each way in which an attempt can end: what is sent, waited for and raised.

`outcomes` has the tables that these tests are made of.
"""

from __future__ import annotations

import pytest
from support.answers import LOST, ok, rm_error
from support.doubles import Tokens
from support.outcome_tables import CASES, CHANGES, ENDS, FOLLOWS, OPERATIONS, SLOWLY, follows
from support.scripted_server import ScriptedServer

from rm_voucher import (
    AttemptResult,
    AuthenticationError,
    ConfigurationError,
    OutcomeUnknownError,
    Response,
    Retryable,
    VoucherError,
)
from rm_voucher.calls.call import Phase
from rm_voucher.calls.outcomes import Outcome
from rm_voucher.service.client import issue_call


def cases(wanted):
    """Parametrize a test with what the tables say is followed by this."""
    chosen = [case for case in CASES if follows(*case) == wanted]
    return pytest.mark.parametrize(("name", "end"), chosen, ids=lambda part: part)


each_change = pytest.mark.parametrize("name", CHANGES)
WAITS = [0.5, 1.0, 2.0, 4.0, 8.0]


@pytest.fixture
def meet(make_client, time):
    """Meet a script: return the result or the error, the paths, the tokens and the waits."""

    async def run(operation, *script, **options):
        server = ScriptedServer(script)
        client = make_client(server, token_source=Tokens("old", "new", "newest"), **options)
        try:
            result = await operation.call(client)
        except VoucherError as exc:
            result = exc
        assert server.answers == []
        tokens = [r.headers["Authorization"].removeprefix("Bearer ") for r in server.requests]
        return result, server.paths, tokens, time.slept

    return run


def seen_in(error):
    """Return the vouchers that the error of a change carries."""
    return [v.status for v in (error.vouchers or [error.voucher]) if v is not None]


@cases("again")
async def test_outcome_is_waited_out(meet, name, end):
    """Proof that nothing was done, or a read: sent again after a wait, six times at most."""
    operation, bad = OPERATIONS[name], ENDS[end]
    result, *rest = await meet(operation, bad.answer, operation.done)
    waits = [max(wait, bad.asked_s) for wait in WAITS]
    assert rest == [[operation.path] * 2, ["old"] * 2, waits[:1]]
    assert not isinstance(result, VoucherError)
    rest[2].clear()
    result, *rest = await meet(operation, *[bad.answer] * 6)
    assert rest == [[operation.path] * 6, ["old"] * 6, waits]
    assert (type(result), result.retryable) == (bad.error, Retryable.AFTER_WAIT)


@cases("token")
async def test_outcome_renews_the_token_once(meet, name, end):
    """A refused token: a new one, and one more request at once. After a second refusal it waits,
    because a server may need a moment to know a token. It ends with the tokens."""
    operation, bad = OPERATIONS[name], ENDS[end]
    result, *rest = await meet(operation, bad.answer, operation.done)
    assert rest == [[operation.path] * 2, ["old", "new"], []]
    assert not isinstance(result, VoucherError)
    result, *rest = await meet(operation, bad.answer, bad.answer, operation.done)
    assert rest == [[operation.path] * 3, ["old", "new", "newest"], WAITS[:1]]
    assert not isinstance(result, VoucherError)
    rest[2].clear()
    result, *rest = await meet(operation, *[bad.answer] * 3)
    assert rest == [[operation.path] * 3, ["old", "new", "newest"], WAITS[:1]]
    assert (type(result), result.retryable) == (bad.error, Retryable.NEVER)


@cases("raised")
async def test_outcome_is_raised_at_once(meet, name, end):
    """A refusal is final, and raised as what it is."""
    operation, bad = OPERATIONS[name], ENDS[end]
    result, *rest = await meet(operation, bad.answer)
    assert rest == [[operation.path], ["old"], []]
    assert (type(result), result.retryable) == (bad.error, Retryable.NEVER)
    assert result.__cause__ is None


@cases("unknown")
async def test_outcome_is_unknown_after_one_request(meet, name, end):
    """What may have been done, and can't be read back, is never sent again."""
    operation, bad = OPERATIONS[name], ENDS[end]
    result, *rest = await meet(operation, bad.answer)
    assert rest == [[operation.path], ["old"], []]
    assert (type(result), result.retryable) == (OutcomeUnknownError, Retryable.READ_BACK)
    assert type(result.__cause__) is bad.error


@cases("read back")
async def test_outcome_unchanged_is_sent_again(meet, name, end):
    """A change of which the voucher shows no trace is sent again; in doubt to the last attempt,
    it is unknown."""
    operation, bad = OPERATIONS[name], ENDS[end]
    script = [bad.answer, operation.unchanged]
    result, paths, _, slept = await meet(operation, *script, operation.done)
    assert (paths, slept) == ([operation.path, operation.look, operation.path], WAITS[:1])
    assert not isinstance(result, VoucherError)
    slept.clear()
    result, paths, _, slept = await meet(operation, *script * 6)
    assert (paths, slept) == ([operation.path, operation.look] * 6, WAITS)
    assert type(result) is OutcomeUnknownError
    assert type(result.__cause__) is bad.error
    assert len(seen_in(result)) == 1


@cases("token, read back")
async def test_outcome_401_renews_the_token_before_it_is_sent_again(meet, name, end):
    """A change that a bare 401 left in doubt, and that is unchanged, is sent again with a new
    token, once; a second 401 is of no use."""
    operation, bad = OPERATIONS[name], ENDS[end]
    script = [bad.answer, operation.unchanged]
    result, paths, tokens, slept = await meet(operation, *script, operation.done)
    assert (paths, slept) == ([operation.path, operation.look, operation.path], WAITS[:1])
    assert tokens == ["old", "new", "new"]
    assert not isinstance(result, VoucherError)
    slept.clear()
    result, paths, _, slept = await meet(operation, *script * 2)
    assert (paths, slept) == ([operation.path, operation.look] * 2, WAITS[:1])
    assert type(result) is OutcomeUnknownError
    assert type(result.__cause__) is bad.error


@cases("read back")
async def test_outcome_changed_is_unknown(meet, name, end):
    """A change that is read back as made is nobody's for certain: unknown, with the voucher."""
    operation, bad = OPERATIONS[name], ENDS[end]
    result, paths, _, slept = await meet(operation, bad.answer, operation.changed)
    assert (paths, slept) == ([operation.path, operation.look], [])
    assert type(result) is OutcomeUnknownError
    assert type(result.__cause__) is bad.error
    done = {"void": "VOID", "reinstate": "REDEEMED", "redeem": "REDEEMED", "member redeem": "VOID"}
    assert seen_in(result) == [done[name]]


@pytest.mark.parametrize(
    ("name", "end"), [case for case in CASES if case[0] in CHANGES], ids=lambda part: part
)
async def test_outcome_after_a_doubt(meet, name, end):
    """After a lost answer every other end is one of the repeat: it takes no doubt away, and a
    refusal ends the repeating."""
    operation, bad = OPERATIONS[name], ENDS[end]
    sent, looked = operation.path, operation.look
    script = [LOST, operation.unchanged, bad.answer]
    if follows(name, end) == "token":
        result, paths, tokens, slept = await meet(operation, *script, operation.done)
        assert (paths, slept) == ([sent, looked, sent, sent], [0.5])
        assert tokens[2:] == ["old", "new"]
        assert not isinstance(result, VoucherError)
    elif follows(name, end) == "raised":
        result, paths, _, slept = await meet(operation, *script, operation.unchanged)
        assert (paths, slept) == ([sent, looked, sent, looked], [0.5])
        assert type(result) is OutcomeUnknownError
        assert type(result.__cause__) is bad.error
        assert len(seen_in(result)) == 1
    else:
        result, paths, _, _ = await meet(operation, *script, operation.unchanged, operation.done)
        assert paths == [sent, looked, sent, looked, sent]
        assert not isinstance(result, VoucherError)


@each_change
async def test_outcome_that_can_not_be_read_back(meet, name):
    """Where the look is refused, nothing is known: not sent again, and no voucher attached, not
    even one that an earlier look showed."""
    operation = OPERATIONS[name]
    refused = rm_error("VOUCHER_NOT_FOUND", 404)
    for times in (0, 1):
        script = [LOST, operation.unchanged] * times + [LOST, refused]
        result, paths, _, slept = await meet(operation, *script)
        assert (paths, slept) == ([operation.path, operation.look] * (times + 1), WAITS[:times])
        assert type(result) is OutcomeUnknownError
        assert seen_in(result) == []


@pytest.mark.parametrize("name", ["request", "request, a read"])
@pytest.mark.parametrize("end", [end for end in ENDS if ENDS[end].is_2xx])
async def test_request_returns_any_2xx(meet, name, end):
    """What an answer without an error means is for the caller of `request` to say."""
    answer = ENDS[end].answer
    result, paths, _, _ = await meet(OPERATIONS[name], answer)
    assert (result, paths) == (answer, [OPERATIONS[name].path])


@pytest.mark.parametrize("end", [end for name, end in CASES if name == "issue"])
async def test_outcome_is_told_to_the_hooks(meet, end):
    """Each end proves what the table says; the hooks are told so."""
    results: list[AttemptResult] = []
    hooks = [lambda attempt: results.append]
    bad = ENDS[end]
    goes_on = follows("issue", end) in ("again", "token")
    rest = [OPERATIONS["issue"].done] if goes_on else []
    await meet(OPERATIONS["issue"], bad.answer, *rest, hooks=hooks)
    first = results[0].outcome
    assert first is not None
    assert first.name == bad.outcome
    assert [result.outcome for result in results[1:]] == [None] * len(rest)


def test_outcomes_are_all_here():
    """Every outcome that the package knows has a row and an end."""
    assert {outcome.name for outcome in Outcome} == set(FOLLOWS)
    assert {end.outcome for end in ENDS.values()} == set(FOLLOWS)


@pytest.mark.parametrize("name", [name for name, o in OPERATIONS.items() if o.safety == "read"])
async def test_outcome_of_a_read_keeps_to_retry_after(meet, name):
    """A server that fails and says when to come back is believed, by a read."""
    operation = OPERATIONS[name]
    busy = Response(status=503, headers=SLOWLY)
    _, _, _, slept = await meet(operation, busy, operation.done)
    assert slept == [7.0]


@each_change
@pytest.mark.parametrize("doubt", [[], [LOST]], ids=["first", "after a doubt"])
async def test_outcome_of_a_change_keeps_to_retry_after(meet, name, doubt):
    """A wait that the server asks for is kept before a change is sent again, too."""
    operation = OPERATIONS[name]
    busy = Response(status=429 if doubt else 503, headers=SLOWLY)
    script = [part for answer in [*doubt, busy] for part in (answer, operation.unchanged)]
    _, _, _, slept = await meet(operation, *script, operation.done)
    assert slept[-1] == 7.0


@each_change
async def test_outcome_of_a_401_is_not_met_with_the_same_token(make_client, time, name):
    """A change that a bare 401 left in doubt is sent again with the token that the look got."""
    operation = OPERATIONS[name]
    issued: list[str] = []

    def gateway(request):
        if request.operation == "token":
            issued.append(f"token-{len(issued)}")
            return ok({"accessToken": issued[-1], "expiresIn": 10_000})
        if request.headers["Authorization"] == "Bearer token-0":
            return Response(status=401)
        is_look = f"{request.method} {request.url.raw_path}" == operation.look
        return operation.unchanged if is_look else operation.done

    client = make_client(gateway, token_source=None)
    assert not isinstance(await operation.call(client), VoucherError)
    await client.aclose()


async def test_call_that_has_ended_waits_for_nothing(make_client):
    """Its watcher may be keeping its outcome, and must not be cancelled for it: also where the
    last that it did was to ask for another token, in vain."""
    server = ScriptedServer([rm_error("TOKEN_INVALID", 401)])
    tokens = Tokens("refused", ConfigurationError("no other"))
    client = make_client(server, token_source=tokens)
    call = issue_call(client.caller, "KEY")
    with pytest.raises(AuthenticationError):
        await client.caller.execute(call)
    assert (call.phase, call.is_waiting, call.in_flight) == (Phase.TOKEN, False, False)
