"""The emulator as one object: what it is made of, and what comes of a whole round."""

import asyncio
import contextlib

import orjson
import pytest
from support.doubles import FakeTime, NoSigner
from support.files import PUBLIC_KEY_FILE
from support.raw_requests import ME, signed

from rm_voucher import (
    ConfigurationError,
    InvalidRequestError,
    OutcomeUnknownError,
    Response,
    ResponseTimeoutError,
    RetryPolicy,
    Timeout,
    VoucherType,
)
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Guesses
from rm_voucher.emulator.reply import spoilt
from rm_voucher.models import Expiry, ExpiryType


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def emulator(clock):
    return Emulator(seed=1, credentials=ME, guesses=Guesses(page_size=3), clock=clock.clock)


async def test_round_trip_of_a_voucher(emulator, clock):
    """Issue, get, void and both listings tell one story."""
    batch = emulator.add_batch(
        "RM5", quantity=2, type=VoucherType.CASH, amount_sen=500, minimum_spend_sen=2000
    )
    async with emulator.client() as client:
        issued = await client.issue(batch.key)
        assert issued.qr_url.endswith(f"/voucher/{issued.code}")
        found = await client.get(issued.code)
        assert (found.status, found.amount_sen, found.batch_key) == ("ISSUED", 500, batch.key)
        assert (found.assigned_at.timestamp(), found.used_at) == (clock.now, None)
        clock.now += 60
        voided = await client.void(issued.code)
        assert (voided.status, voided.used_at.timestamp()) == ("VOID", clock.now)
        assert [voucher async for voucher in client.vouchers(batch.key)] == [voided]
        (listed,) = [batch async for batch in client.batches()]
        assert (listed.quantity, listed.balance_quantity, listed.used_quantity) == (2, 1, 1)


async def test_same_seed_same_codes():
    """The same seed gives the same codes, another seed others; codes are distinct."""
    series = []
    for seed in (1, 1, 2):
        emulator = Emulator(seed=seed, credentials=ME)
        emulator.add_batch("x", key="B", quantity=50)
        series.append([emulator.state.issue("B")[0] for _ in range(50)])
    assert series[0] == series[1] != series[2]
    assert len(set(series[0])) == 50


def test_codes_stay_distinct_when_chance_repeats(emulator, monkeypatch):
    """A code that exists is not given twice."""
    batch = emulator.add_batch("x", quantity=2)
    drawn = iter(["AAAAAAAAAA", "AAAAAAAAAA", "BBBBBBBBBB"])
    monkeypatch.setattr(emulator.state.stock._rng, "choices", lambda *_, k: list(next(drawn)))
    assert [emulator.state.issue(batch.key)[0] for _ in range(2)] == ["AAAAAAAAAA", "BBBBBBBBBB"]


@pytest.mark.parametrize(
    ("options", "sentence"), [({"key": "K"}, "already"), ({"quantity": -1}, "negative")]
)
def test_add_batch_refuses(emulator, options, sentence):
    """A key that is taken or a negative quantity is a mistake of the test."""
    emulator.add_batch("first", quantity=1, key="K")
    with pytest.raises(ValueError, match=sentence):
        emulator.add_batch("second", **{"quantity": 1, **options})


def test_add_batch_with_expiry(emulator):
    """The expiry of a batch is its vouchers'."""
    expiry = Expiry(type=ExpiryType.DYNAMIC, days=7)
    assert emulator.add_batch("x", quantity=1, expiry=expiry).expiry.days == 7


async def test_emulator_makes_its_own_credentials():
    """Without credentials it makes a pair, ready to use."""
    emulator = Emulator()
    emulator.add_batch("x", quantity=1, key="K")
    async with emulator.client() as client:
        assert (await client.issue("K")).code
    assert repr(emulator.credentials).startswith("Credentials(client_id='emulator-")


def test_emulator_with_a_public_key_only():
    """With a public key it verifies a client whose private key it never sees."""
    emulator = Emulator(
        client_id="client-id",
        client_secret="client-secret",
        public_key=PUBLIC_KEY_FILE.read_bytes(),
    )
    assert signed(emulator, "GET", "/v3/voucher-batches") == (200, "SUCCESS")
    assert signed(emulator, "GET", "/v3/voucher-batches", signer=NoSigner())[0] == 401
    assert emulator.known_credentials is None
    with pytest.raises(ConfigurationError, match="only the client's public key"):
        emulator.client()
    with pytest.raises(ConfigurationError, match="only the client's public key"):
        _ = emulator.credentials


@pytest.mark.parametrize("options", [{"client_id": ""}, {"client_secret": ""}])
def test_identity_is_not_empty(options):
    """A client without a name or a secret is a mistake, and not one that gets new ones."""
    with pytest.raises(ConfigurationError, match="empty"):
        Emulator(public_key=PUBLIC_KEY_FILE.read_bytes(), **options)


async def test_reset_is_as_it_was_made(clock):
    """A reset goes back to the faults, the rate limit and the callback URL of the beginning."""
    plan = FaultPlan(rate=1, kinds=[Fault.THROTTLE], seed=5)
    url = "https://shop.invalid/"
    emulator = Emulator(credentials=ME, faults=plan, rate_limit=7, callback_url=url)

    def settings():
        return emulator.faults, emulator.rate_limit, emulator.callbacks.url

    emulator.faults, emulator.rate_limit, emulator.callbacks.url = FaultPlan(), None, None
    assert settings() == (FaultPlan(), None, None)
    emulator.reset()
    assert settings() == (plan, 7, url)


@pytest.mark.parametrize("own", [1, 2])
def test_one_seed_is_enough(own):
    """A plan without a seed goes by the emulator's; with one, by its own."""

    def met(plan_seed, seed):
        emulator = Emulator(credentials=ME, seed=seed)
        emulator.faults = FaultPlan(rate=0.5, seed=plan_seed)
        return [emulator._engine.faults.draw("issue", 0.0) for _ in range(40)]

    assert met(None, own) == met(own, 9) == met(own, None)
    assert met(None, own) != met(None, own + 1)
    assert met(None, None) != met(None, None)


async def test_cancelled_call_is_in_the_books(emulator):
    """A call in this process that is cancelled after its work was done is undelivered."""
    batch = emulator.add_batch("x", quantity=1)
    async with emulator.client() as client:
        await client.batches()  # has its token
        call = asyncio.ensure_future(client.issue(batch.key))
        while not emulator.requests["issue"]:
            await asyncio.sleep(0)
        call.cancel()
        with pytest.raises((asyncio.CancelledError, OutcomeUnknownError)):
            await call
    assert list(emulator.issued(batch.key)) == emulator.undelivered != []


async def test_client_options_pass_through(emulator):
    """`client` takes what `VoucherClient` takes."""
    policy = RetryPolicy(max_attempts=1)
    async with emulator.client(retry=policy) as client:
        assert client.caller.retries.policy is policy
        with pytest.raises(InvalidRequestError):
            await client.get("")


@pytest.mark.parametrize(
    ("answer", "spoilt_answer"),
    [
        ({"item": {"code": "A"}, "code": "SUCCESS"}, {"item": ["A"], "code": "SUCCESS"}),
        ({"items": ["A"], "code": "SUCCESS"}, {"items": {"0": "A"}, "code": "SUCCESS"}),
        ({"accessToken": "t"}, {"accessToken": {"value": "t"}}),
    ],
)
def test_wrong_types(answer, spoilt_answer):
    """Objects and lists change places and a text is an object; what says SUCCESS still does, so
    that a client has to look at the rest."""
    response = Response(status=200, body=orjson.dumps(answer))
    assert orjson.loads(spoilt(response, Fault.WRONG_TYPES).body) == spoilt_answer


@pytest.mark.parametrize("attempt_s", [5.0, 5.001])
async def test_time_out_to_the_instant(emulator, attempt_s):
    """A slow body that takes as long as an attempt may is a time-out; a shorter one is not."""
    emulator.faults = FaultPlan(slow_body_s=5)
    emulator.fail_next("batches", Fault.SLOW_BODY)
    timeout = Timeout(connect_s=1, attempt_s=attempt_s)
    async with emulator.client(timeout=timeout, retry=RetryPolicy(max_attempts=1)) as client:
        with contextlib.nullcontext() if attempt_s > 5 else pytest.raises(ResponseTimeoutError):
            await client.batches()


async def test_clients_clock_is_not_set_ahead(emulator, clock):
    """Setting the emulator ahead moves no client's clock: what it signs says the real time."""
    emulator.advance(1000)
    async with emulator.client() as client:
        assert client.caller.runtime.clock() == clock.now
