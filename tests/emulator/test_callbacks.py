"""Callbacks in memory: which changes are told, when, how often, and what is signed."""

import base64
import json

import orjson
import pytest
from support.answers import payload
from support.doubles import FakeTime
from support.files import KEY_FILE
from support.rm_signature import expected_text, public_numbers, verifies

from rm_voucher import (
    ConfigurationError,
    ConnectError,
    Credentials,
    Response,
    ResponseLostError,
    VoucherStatus,
)
from rm_voucher.converters import parse_time
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.faults import Fault, FaultPlan
from rm_voucher.emulator.guesses import Check
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.wire.requests import build

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
URL = "https://shop.invalid/callback?shop=1%2B1"


class Shop:
    """Answers with each of its statuses in turn, then with 200; an error is raised."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.requests = []

    def __call__(self, request):
        self.requests.append(request)
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return Response(status=answer)

    @property
    def told(self):
        return [orjson.loads(request.body)["item"]["status"] for request in self.requests]


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def make(clock):
    """Make an emulator with five vouchers, whose callbacks go to a shop."""

    def make(shop, url=URL, disabled_checks=(), **guesses):
        emulator = Emulator(
            seed=1,
            disabled_checks=disabled_checks,
            credentials=ME,
            batches={"K": 5},
            callback_url=url,
            guesses=Guesses(**guesses),
            clock=clock.clock,
        )
        emulator.callbacks.transport = MemoryTransport(shop)
        return emulator

    return make


async def deliveries(emulator, seconds):
    """Return how many attempts each second brings."""
    made = []
    for _ in range(seconds):
        emulator.advance(1)
        made.append(await emulator.callbacks.deliver())
    return made


def verify(emulator, tmp_path, request, *, url=URL):
    """Return whether the signature is of the request, by code that is not the package's."""
    public = tmp_path / "public.pem"
    public.write_bytes(emulator.callbacks.public_key_pem)
    headers = request.headers
    text = expected_text("POST", url, headers["X-Nonce-Str"], headers["X-Timestamp"], request.body)
    if not url:
        text = text.replace("&requestUrl=", "")
    return verifies(public_numbers(public), text, headers["X-Signature"])


async def test_five_attempts_a_minute_apart(make):
    """Without a 200 there are five attempts, each a minute after the last one, and no sixth."""
    shop = Shop(*[500] * 9)
    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    assert await emulator.callbacks.deliver() == 1
    made = await deliveries(emulator, 400)
    assert [second for second, count in enumerate(made, 1) if count] == [60, 120, 180, 240]
    assert (len(shop.requests), sum(made)) == (5, 4)
    assert (emulator.callbacks.delivered, emulator.callbacks.given_up) == (0, 1)
    assert emulator.callbacks.next_due() is None


async def test_a_late_attempt_has_its_minute_too(make):
    """An attempt that comes late moves the next one: two are never less than a minute apart."""
    shop = Shop(*[500] * 9)
    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    emulator.advance(600)
    assert await emulator.callbacks.deliver() == 1
    made = await deliveries(emulator, 61)
    assert [second for second, count in enumerate(made, 1) if count] == [60]


async def test_minute_can_be_shortened(make):
    """``interval_s`` is the minute."""
    shop = Shop(500, 500)
    emulator = make(shop)
    emulator.callbacks.interval_s = 3.0
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    assert await deliveries(emulator, 9) == [0, 0, 1, 0, 0, 1, 0, 0, 0]


@pytest.mark.parametrize(
    "failure",
    [201, 204, 202, 301, 302, 400, 404, 500, ConnectError("x"), ResponseLostError("x")],
    ids=str,
)
async def test_only_a_200_ends_it(make, failure):
    """Whatever is no 200 is followed by another attempt, and a 200 by none."""
    shop = Shop(failure, failure, 200)
    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    assert sum(await deliveries(emulator, 300)) == 2
    assert len(shop.requests) == 3
    assert (emulator.callbacks.delivered, emulator.callbacks.given_up) == (1, 0)


async def test_error_of_the_transport_itself_passes_through(make):
    """A handler's own bug is not taken for a shop that does not answer."""
    emulator = make(Shop(LookupError("a bug")))
    emulator.state.redeem([emulator.state.issue("K")[0]])
    with pytest.raises(LookupError):
        await emulator.callbacks.deliver()


async def test_repeat_is_the_same_bytes(make):
    """A repeat carries the first attempt's body, nonce, timestamp and signature."""
    shop = Shop(500, 500)
    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    await deliveries(emulator, 120)
    first, *others = [(str(r.url), dict(r.headers), r.body, r.method) for r in shop.requests]
    assert others == [first, first]


async def test_repeat_signed_again(make, clock, tmp_path):
    """With ``callback_signs_again`` a repeat has a nonce and a timestamp of its own."""
    shop = Shop(500)
    emulator = make(shop, callback_signs_again=True)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    clock.now += 60
    await emulator.callbacks.deliver()
    first, second = shop.requests
    assert first.body == second.body
    assert first.headers["X-Nonce-Str"] != second.headers["X-Nonce-Str"]
    times = [int(request.headers["X-Timestamp"]) for request in shop.requests]
    assert times == [clock.now - 60, clock.now]
    assert all(verify(emulator, tmp_path, request, url="") for request in shop.requests)


async def test_every_delivery_has_its_own_nonce(make):
    """Two changes are two deliveries with two nonces of 32 characters, in their order."""
    shop = Shop()
    emulator = make(shop)
    code = emulator.state.issue("K")[0]
    emulator.state.redeem([code])
    emulator.state.void(code)
    assert await emulator.callbacks.deliver() == 2
    assert shop.told == ["REDEEMED", "VOID"]
    nonces = {request.headers["X-Nonce-Str"] for request in shop.requests}
    assert {len(nonce) for nonce in nonces} == {32}
    assert len(nonces) == 2


async def test_timestamp_is_the_clocks_own(make, clock):
    """The timestamp is of the clock that the receiver has too, not of the one set ahead."""
    shop = Shop()
    emulator = make(shop)
    clock.now += 0.9
    emulator.advance(86_400)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    assert shop.requests[0].headers["X-Timestamp"] == "1700000000"


async def test_body_is_the_change(make, clock):
    """The body shows the voucher as it was at its change, however late it arrives."""
    shop = Shop(500)
    emulator = make(shop)
    code = emulator.state.issue("K")[0]
    emulator.state.redeem([code])
    then = emulator.state.wire(emulator.state.get(code))
    emulator.state.void(code)
    emulator.advance(3600)
    await emulator.callbacks.deliver()
    assert orjson.loads(shop.requests[0].body) == {"item": then, "code": "SUCCESS"}
    assert shop.told == ["REDEEMED", "VOID"]


async def test_body_is_as_documented(make):
    """The body has the fields of the documented callback, each of its JSON type."""
    shop = Shop()
    emulator = make(shop)
    code = emulator.state.issue("K")[0]
    emulator.state.redeem([code])
    emulator.state.void(code)
    await emulator.callbacks.deliver()
    body, documented = orjson.loads(shop.requests[1].body), payload("webhook-callback")
    assert (body.keys(), body["code"]) == (documented.keys(), documented["code"])
    assert documented["item"].keys() <= body["item"].keys()
    assert {name: type(body["item"][name]) for name in documented["item"]} == {
        name: type(value) for name, value in documented["item"].items()
    }
    assert documented["item"]["expiry"].keys() == body["item"]["expiry"].keys()
    assert (body["item"]["code"], body["item"]["status"]) == (code, "VOID")


@pytest.mark.parametrize("label", ["plain", "<&>\u2028 käse \U0001f9c0"])
async def test_signature_covers_url_and_body(make, tmp_path, label):
    """With ``callback_signs_url`` the signature is of method, URL, nonce, time and body."""
    shop = Shop()
    emulator = make(shop, callback_signs_url=True)
    batch = emulator.add_batch(label, quantity=1)
    emulator.state.redeem([emulator.state.issue(batch.key)[0]])
    await emulator.callbacks.deliver()
    (request,) = shop.requests
    assert (request.method, str(request.url), request.operation) == ("POST", URL, "callback")
    assert request.headers["Content-Type"] == "application/json"
    assert json.loads(request.body)["item"]["label"] == label
    assert verify(emulator, tmp_path, request)
    assert not verify(emulator, tmp_path, request, url=URL + "2")
    assert not verify(emulator, tmp_path, request, url="")
    assert len(base64.b64decode(request.headers["X-Signature"].removeprefix("sha256 "))) == 256


async def test_signature_without_url(make, tmp_path):
    """By default the URL is left out of what is signed, as on RM's pages."""
    shop = Shop()
    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    assert verify(emulator, tmp_path, shop.requests[0], url="")
    assert not verify(emulator, tmp_path, shop.requests[0])


async def test_timeout_of_an_attempt(make):
    """An attempt waits ``callback_timeout_s``, half of it for the connection."""
    shop = Shop()
    emulator = make(shop, callback_timeout_s=3.0)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    timeout = shop.requests[0].timeout
    assert (timeout.attempt_s, timeout.connect_s) == (3.0, 1.5)


def test_key_is_the_same_for_life():
    """The key pair is made once, at the first use; it is the one that was given, if one was."""
    emulator = Emulator(credentials=ME)
    assert emulator.callbacks.public_key_pem == emulator.callbacks.public_key_pem
    assert emulator.callbacks.public_key_pem != Emulator(credentials=ME).callbacks.public_key_pem
    mine = Emulator(credentials=ME, callback_key=KEY_FILE.read_bytes())
    assert mine.callbacks.public_key_pem == (KEY_FILE.parent / "throwaway-public.pem").read_bytes()


def test_key_that_is_none():
    """A key that nothing can be signed with is refused at once, not at the first callback."""
    with pytest.raises(ConfigurationError):
        Emulator(credentials=ME, callback_key=b"no key")


async def test_which_changes_are_told(make):
    """By default REDEEMED and VOID are told, also when a voucher comes back to REDEEMED."""
    shop = Shop()
    emulator = make(shop)
    state = emulator.state
    code, other = state.issue("K")[0], state.issue("K")[0]
    state.share(other)
    state.void(code)
    state.reinstate(code)
    state.expire(code)
    member = emulator.add_member("60", "1")
    state.member_redeem(member, state.collect(state.issue("K")[0], member).code)
    await emulator.callbacks.deliver()
    assert shop.told == ["VOID", "REDEEMED", "REDEEMED", "VOID"]


async def test_other_changes_can_be_told(make):
    """``callback_statuses`` says which."""
    shop = Shop()
    emulator = make(shop, callback_statuses=(VoucherStatus.ISSUED, VoucherStatus.MARKET_PLACE))
    code = emulator.state.issue("K")[0]
    emulator.state.redeem([code])
    emulator.state.share(emulator.state.issue("K")[0])
    await emulator.callbacks.deliver()
    assert shop.told == ["ISSUED", "ISSUED", "MARKET_PLACE"]


async def test_none_without_url(make):
    """Without a URL nothing is told, also not later, when there is one."""
    shop = Shop()
    emulator = make(shop, url=None)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    assert emulator.callbacks.next_due() is None
    emulator.callbacks.url = URL
    assert await emulator.callbacks.deliver() == 0
    assert shop.requests == []


async def test_url_removed_while_waiting(make):
    """What waits for a URL that is gone is dropped; one that has changed gets what waits."""
    shop = Shop(500, 500)
    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    emulator.callbacks.url = "https://other.invalid/"
    await deliveries(emulator, 60)
    assert str(shop.requests[-1].url) == "https://other.invalid/"
    emulator.callbacks.url = None
    await deliveries(emulator, 300)
    assert len(shop.requests) == 2
    assert emulator.callbacks.next_due() is None
    assert (emulator.callbacks.delivered, emulator.callbacks.given_up) == (0, 0)


async def test_reset_forgets(make):
    """A reset forgets what waits and what was counted."""
    shop = Shop(200, 500)
    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0], emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    assert emulator.callbacks.delivered == 1
    emulator.reset()
    assert (emulator.callbacks.delivered, emulator.callbacks.next_due()) == (0, None)
    assert sum(await deliveries(emulator, 300)) == 0


@pytest.mark.parametrize("status", [200, 500])
async def test_reset_during_an_attempt(make, status):
    """An attempt that is under way at a reset is neither counted nor repeated."""

    def shop(request):
        emulator.reset()
        return Response(status=status)

    emulator = make(shop)
    emulator.state.redeem([emulator.state.issue("K")[0]])
    await emulator.callbacks.deliver()
    assert (emulator.callbacks.delivered, emulator.callbacks.next_due()) == (0, None)


async def test_late_execution_calls(make, clock):
    """What a fault does late is told when it is done, and shows that time."""
    shop = Shop()
    emulator = make(shop, disabled_checks=list(Check))
    code = emulator.state.issue("K")[0]
    emulator.faults = FaultPlan(late_s=30)
    emulator.fail_next("void", Fault.LATE_COMMIT)
    with pytest.raises(ResponseLostError):
        emulator.handle(
            build(emulator.environment.api_url, "void", "POST", f"/v3/voucher/{code}/void")
        )
    assert await emulator.callbacks.deliver() == 0
    clock.now += 40
    assert await emulator.callbacks.deliver() == 1
    (item,) = [orjson.loads(request.body)["item"] for request in shop.requests]
    used_at = parse_time(item["usedAt"])
    assert used_at is not None
    assert (item["status"], item["code"]) == ("VOID", code)
    assert clock.now - 40 < used_at.timestamp() < clock.now - 10


@pytest.mark.parametrize("action", ["redeem", "void"])
async def test_control_api_calls(make, action):
    """What the control API does to a voucher is told as well."""
    shop = Shop()
    emulator = make(shop)
    code = emulator.state.issue("K")[0]
    assert control(emulator, "POST", f"/_emulator/vouchers/{code}/{action}", b"").status == 200
    await emulator.callbacks.deliver()
    assert shop.told == [{"redeem": "REDEEMED", "void": "VOID"}[action]]
