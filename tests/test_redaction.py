"""No secret and no voucher code leaves in an error, its frames' locals, a log, a span or a repr."""

import asyncio
import contextlib
import logging

import pytest
from support.canaries import (
    CANARIES,
    CODE,
    ECHO,
    Watching,
    in_error,
    in_metrics,
    in_reprs,
    in_spans,
)
from support.troubles import (
    CHANGING,
    KEPT,
    MEETINGS,
    OPERATIONS,
    PHONE,
    SERVER_OF,
    TOKEN_SERVERS,
    Hanging,
    World,
    error,
    outcome_of,
    read_back,
    success,
    token,
)

from rm_voucher import (
    ClientCredentialsToken,
    ConfigurationError,
    OutcomeUnknownError,
    Timeout,
    Voucher,
    VoucherError,
    bulk_issue,
)
from rm_voucher.service.client import issue_call


@pytest.fixture
def leaks_of(caplog):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="rm_voucher")
    logs = Watching()
    logging.getLogger().addHandler(logs)

    def search(world, *objects):
        leaks = logs.leaks + in_spans(world.exporter.get_finished_spans())
        leaks += in_metrics(world.reader)
        leaks += in_reprs(*world.seen, *objects)
        errors = [one for one in objects if isinstance(one, BaseException)]
        return leaks + [leak for error in errors for leak in in_error(error)]

    yield search
    logging.getLogger().removeHandler(logs)


@pytest.fixture
def check(leaks_of):
    def nothing_shown(world, *objects):
        assert leaks_of(world, *objects) == []

    return nothing_shown


@pytest.mark.parametrize(("operation", "server"), MEETINGS)
async def test_error_of_an_operation_shows_nothing(check, operation, server):
    """Whatever an operation meets, neither error, log, span nor repr shows a canary."""
    world = World(SERVER_OF[server])
    client = world.client()
    ended = await outcome_of(OPERATIONS[operation](client))
    assert isinstance(ended, VoucherError)
    check(world, ended, client)


@pytest.mark.parametrize(("operation", "server"), KEPT)
async def test_misfit_that_is_kept_shows_nothing(check, operation, server):
    """What does not fit is in no repr, nor in a log or span, of the listing that it came in."""
    world = World(SERVER_OF[server])
    client = world.client()
    ended = await outcome_of(OPERATIONS[operation](client))
    assert not isinstance(ended, BaseException)
    check(world, ended, client)


@pytest.mark.parametrize("server", TOKEN_SERVERS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_of_the_first_token_shows_nothing(check, operation, server):
    """A token request that fails, or echoes the secret, is raised without showing either."""
    world = World(buy=TOKEN_SERVERS[server])
    client = world.client()
    ended = await outcome_of(OPERATIONS[operation](client))
    assert isinstance(ended, VoucherError)
    check(world, ended, client)


@pytest.mark.parametrize("server", TOKEN_SERVERS)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_error_of_a_renewed_token_shows_nothing(check, operation, server):
    """A refused token whose renewal (by refresh, then by credentials) fails shows nothing."""
    bought = []

    def buy(request):
        bought.append(request)
        return token(request) if len(bought) == 1 else TOKEN_SERVERS[server](request)

    world = World(error("TOKEN_INVALID", 401), buy)
    client = world.client()
    ended = await outcome_of(OPERATIONS[operation](client))
    assert isinstance(ended, VoucherError)
    assert len(bought) > 1
    check(world, ended, client, client.caller.tokens)


async def cancelled(operation, arrived):
    task = asyncio.ensure_future(operation)
    await arrived.wait()
    task.cancel()
    return await outcome_of(task)


async def timed_out(operation, arrived):
    async def run():
        async with asyncio.timeout(None) as limit:
            inner.append(limit)
            return await operation

    inner: list[asyncio.Timeout] = []
    task = asyncio.ensure_future(outcome_of(run()))
    await arrived.wait()
    inner[0].reschedule(0)
    return await task


@pytest.mark.parametrize("stage", ["token", "sent", "read back"])
@pytest.mark.parametrize(
    ("end", "expected"), [(cancelled, asyncio.CancelledError), (timed_out, TimeoutError)]
)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_cancellation_shows_nothing(check, operation, end, expected, stage):
    """A call that is broken off, by a cancellation or by a time-out around it, shows nothing."""
    hanging = Hanging()
    world = {
        "token": World(buy=hanging),
        "sent": World(hanging),
        "read back": World(read_back(hanging) if operation in CHANGING else hanging),
    }[stage]
    client = world.client()
    ended = await end(OPERATIONS[operation](client), hanging.arrived)
    assert isinstance(ended, expected)
    check(world, ended, client)
    await client.aclose()


@pytest.mark.parametrize("server", ["not sent", "lost", "failed with an echo", "token refused"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_deadline_that_has_passed_shows_nothing(check, operation, server):
    """A call whose deadline passes while it is answered shows nothing."""

    def late(request):
        world.time.now += 45
        return SERVER_OF[server](request)

    world = World(late)
    client = world.client(timeout=Timeout(total_s=40))
    ended = await outcome_of(OPERATIONS[operation](client))
    assert isinstance(ended, VoucherError)
    check(world, ended, client)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_deadline_without_a_token_shows_nothing(check, operation):
    """A call for which no token comes in time shows nothing."""
    world = World(buy=Hanging())
    client = world.client(timeout=Timeout(connect_s=0.001, attempt_s=0.002, total_s=0.002))
    ended = await outcome_of(OPERATIONS[operation](client))
    assert isinstance(ended, VoucherError)
    check(world, ended, client)
    await client.aclose()


class Store:
    """A token store, one method of which fails and says all that it knows."""

    def __init__(self, failing, kept=None):
        self.failing = failing
        self.kept = kept

    def _maybe(self, method):
        if self.failing == method:
            raise RuntimeError(ECHO)

    @contextlib.asynccontextmanager
    async def lock(self):
        self._maybe("lock")
        yield
        self._maybe("unlock")

    async def load(self):
        self._maybe("load")
        return self.kept

    async def save(self, content):
        self._maybe("save")
        self.kept = content


@pytest.mark.parametrize("failing", ["lock", "load", "save", "unlock"])
@pytest.mark.parametrize("server", ["success", "lost"])
async def test_store_that_fails_shows_nothing(check, caplog, failing, server):
    """What a token store raises is named by its class only, in an error's context too."""
    world = World(success if server == "success" else SERVER_OF[server])
    client = world.client(token_store=Store(failing))
    ended = await outcome_of(client.get(CODE))
    assert isinstance(ended, VoucherError) == (server != "success")
    assert "the store failed (RuntimeError)" in caplog.text
    check(world, ended, client, client.caller.tokens)


@pytest.mark.parametrize("server", TOKEN_SERVERS)
async def test_store_that_fails_with_the_token_shows_nothing(check, server):
    """A token request that fails after the store did does not carry the store's words along."""
    world = World(buy=TOKEN_SERVERS[server])
    ended = await outcome_of(world.client(token_store=Store("load")).get(CODE))
    assert isinstance(ended, VoucherError)
    check(world, ended)


@pytest.mark.parametrize("kept", [ECHO.encode(), b'{"application": "x", "token": "' + b"x" * 9])
async def test_store_that_is_damaged_shows_nothing(check, kept):
    """Content that is no token is not quoted."""
    world = World()
    ended = await outcome_of(world.client(token_store=Store(None, kept)).get(CODE))
    check(world, ended)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_signer_that_raises_shows_nothing(check, operation):
    """An error of the user's own signer is kept as the cause, without the frame that signs."""

    class Broken:
        def sign(self, text):
            raise ZeroDivisionError("no key in the slot")

    world = World()
    client = world.client(signer=Broken())
    ended = await outcome_of(OPERATIONS[operation](client))
    assert isinstance(ended, ConfigurationError)
    assert isinstance(ended.__cause__, ZeroDivisionError)
    check(world, ended, client)


@pytest.mark.parametrize("server", ["success", "lost", "wrong types", "refused with an echo"])
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_hook_that_raises_shows_nothing(check, caplog, operation, server):
    """The log of a hook that raises, with the traceback and its locals, shows nothing."""

    def before(attempt):
        raise ZeroDivisionError("before")

    def after(attempt):
        return lambda result: 1 / 0

    world = World(success if server == "success" else SERVER_OF[server])
    client = world.client(hooks=[before, after])
    ended = await outcome_of(OPERATIONS[operation](client))
    assert caplog.text.count("a hook failed (ZeroDivisionError)") >= 2
    check(world, ended, client)


@pytest.mark.parametrize("server", SERVER_OF)
async def test_bulk_results_show_nothing(check, server):
    """Neither a result of a bulk run nor its error shows a canary."""
    world = World(SERVER_OF[server])
    client = world.client()
    async with bulk_issue(client, "KEY", [1, 2, 3], concurrency=2) as run:
        results = [result async for result in run]
    errors = [result.error for result in results if result.error is not None]
    check(world, run, run.summary, client, *results, *errors)


async def test_bulk_result_hides_its_recipient(check):
    """A recipient is often a telephone number: it is no local of a frame of the result's error."""
    world = World(SERVER_OF["lost"])
    async with bulk_issue(world.client(), "KEY", [PHONE]) as run:
        (result,) = [result async for result in run]
    check(world, result, result.error)


@pytest.mark.parametrize("server", ["partly in doubt", "partly in doubt, late"])
async def test_redeem_in_doubt_keeps_its_codes_to_itself(check, server):
    """A redeem partly in doubt has codes and vouchers as attributes, and nowhere else."""
    world = World(SERVER_OF[server])
    ended = await outcome_of(world.client().redeem([CODE, CANARIES["other code"]]))
    assert isinstance(ended, OutcomeUnknownError)
    assert ended.codes == (CANARIES["other code"],)
    (redeemed,) = ended.redeemed
    assert isinstance(redeemed, Voucher)
    assert redeemed.code == CODE
    check(world, ended, *ended.vouchers, *ended.redeemed)


async def test_defect_of_a_token_request_is_not_quoted(leaks_of, caplog):
    """What a transport of the user's own raises by mistake is logged by its class only."""

    def quotes(request):
        raise ValueError(f"Illegal header value {request.headers['Authorization']}")

    world = World(buy=quotes)
    with pytest.raises(ValueError, match="Illegal"):
        await world.client().get(CODE)
    assert "the request failed" in caplog.text
    assert leaks_of(world) == []


async def test_values_show_nothing(check):
    """What a success returns masks what is worth money, and so does all that made it."""
    world = World()
    client = world.client()
    values = [await operation(client) for operation in OPERATIONS.values()]
    assert len(values) == len(OPERATIONS)
    member, source = client.member("60", PHONE), client.caller.tokens
    pagers = client.vouchers("KEY"), member.vouchers()
    call = issue_call(client.caller, "KEY")
    call.code, call.token = CODE, await source.token()
    assert isinstance(source, ClientCredentialsToken)
    held = source._held
    assert held is not None
    check(world, client, client.caller, member, source, held, held.token, call, *pagers, *values)
