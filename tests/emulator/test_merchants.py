"""Several merchants in one emulator: credentials, books, faults and callbacks of their own."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest
from support.doubles import FakeTime
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from yarl import URL

from rm_voucher import (
    AuthenticationError,
    Credentials,
    Environment,
    NotFoundError,
    OutcomeUnknownError,
    PermissionDeniedError,
    Request,
    Response,
    RetryPolicy,
    VoucherClient,
    VoucherStateError,
)
from rm_voucher.emulator import Emulator, Fault, FaultPlan, Window
from rm_voucher.emulator.callbacks import Callbacks
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.server import serve
from rm_voucher.transport.base import Transport
from rm_voucher.transport.memory import MemoryTransport

PEM = KEY_FILE.read_bytes()


def credentials(name):
    return Credentials(f"id of {name}", f"secret of {name}", PEM)


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def emulator(clock):
    return Emulator(seed=1, credentials=credentials("main"), batches={"K": 3}, clock=clock.clock)


@pytest.fixture
def shop(emulator):
    return emulator.merchant("shop", credentials=credentials("shop"), batches={"K": 2}, seed=1)


async def test_books_are_apart(emulator, shop):
    """Equal batch keys and equal codes, and nobody sees another's."""
    async with emulator.client() as ours, shop.client() as theirs:
        code = (await ours.issue("K")).code
        assert (await theirs.issue("K")).code == code
        await ours.void(code)
        assert (await ours.get(code)).status == "VOID"
        assert (await theirs.get(code)).status == "ISSUED"
    assert emulator.requests["issue"] == shop.requests["issue"] == 1
    assert [one.name for one in emulator.merchants] == ["main", "shop"]
    assert {each.merchant for each in emulator.journal} == {"main", "shop"}


async def test_qr_urls_are_apart(emulator, shop):
    async with emulator.client() as ours, shop.client() as theirs:
        assert (await ours.issue("K")).qr_url.startswith("https://emulator.invalid/qr/1/voucher/")
        assert (await theirs.issue("K")).qr_url.startswith("https://emulator.invalid/qr/2/voucher/")


def test_merchant_is_made_once(emulator, shop):
    assert emulator.merchant("shop") is shop is emulator.find_merchant("shop")
    assert emulator.merchant("main") is emulator
    assert emulator.find_merchant("other") is None
    with pytest.raises(ValueError, match="'shop' already"):
        emulator.merchant("shop", seed=2)
    assert emulator.merchant("other", credentials=credentials("other")).guesses is emulator.guesses


async def test_faults_and_limits_are_apart(emulator, shop):
    shop.faults = FaultPlan(rate=1.0, kinds=[Fault.THROTTLE_BARE])
    shop.rate_limit = 5
    async with emulator.client() as ours:
        await ours.issue("K")
    assert emulator.rate_limit is None
    assert not emulator.faults_met


async def test_one_begins_anew(emulator, shop):
    """A merchant's reset leaves the others' books, late work and the clock as they are."""
    emulator.advance(60)
    async with emulator.client() as ours, shop.client() as theirs:
        for one, client in ((emulator, ours), (shop, theirs)):
            one.fail_next("issue", Fault.LATE_COMMIT)
            with pytest.raises(Exception, match="issue"):
                await client.issue("K")
    answer = control(emulator, "POST", "/_emulator/merchants/shop/reset", b"")
    assert answer.status == 200
    emulator.advance(10)
    assert len(emulator.issued("K")) == 1
    assert len(shop.issued("K")) == 0
    assert emulator.virtual_clock.ahead_s == 70
    emulator.reset()
    assert len(emulator.issued("K")) == 0
    assert emulator.virtual_clock.ahead_s == 0


async def test_request_of_nobody_is_the_first_merchants(emulator, shop):
    """A token that nobody granted, and credentials that nobody has, are refused by the first."""
    answer = emulator.transport()
    for header in ("Bearer none", "Basic ????", "Basic /w==", ""):
        request = _request(header)
        assert (await answer.send(request)).status == 401
    assert emulator.requests["issue"] == 4
    assert not shop.requests


def _request(authorization):
    url = URL("https://emulator.invalid/v3/voucher-batch/K/issue")
    headers = {"X-Other": "1", "authorization": authorization}
    return Request(operation="issue", method="POST", url=url, headers=headers)


async def test_callbacks_are_apart():
    """Each merchant's changes go to its own URL, and a server delivers them all by itself."""
    emulator = Emulator(credentials=credentials("main"), batches={"K": 3})
    shop = emulator.merchant("shop", credentials=credentials("shop"), batches={"K": 2})
    came = asyncio.Event()
    told: dict[str, list[str]] = {}
    for one in (emulator, shop):

        def receive(request, name=one.name):
            told.setdefault(name, []).append(orjson.loads(request.body)["item"]["status"])
            if len(told) == 2:
                came.set()
            return Response(status=200)

        one.callbacks.url = f"https://{one.name}.invalid/"
        one.callbacks.transport = MemoryTransport(receive)
    async with serve(emulator) as server, asyncio.timeout(10):
        for one in (emulator, shop):
            async with one.client(transport=None, environment=server.environment) as client:
                await client.void((await client.issue("K")).code)
        await came.wait()
    assert told == {"main": ["VOID"], "shop": ["VOID"]}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "merchants/shop/batches", 200),
        ("GET", "merchants/nobody/batches", 404),
        ("POST", "merchants/shop/clock", 404),
        ("GET", "merchants/nobody", 404),
        ("DELETE", "merchants/nobody", 404),
        ("DELETE", "merchants/main", 400),
    ],
)
def test_control_of_one_merchant(emulator, shop, method, path, status):
    """The clock is everybody's: a merchant's part of the control API has none."""
    assert control(emulator, method, f"/_emulator/{path}", b"").status == status


async def test_voucher_and_member_of_another_merchant(emulator, shop):
    """They are told from those that nobody has; another's batch is none."""
    emulator.add_batch("OURS", key="OURS", codes=["OURS-1"])
    emulator.add_member("60", "123")
    async with shop.client() as theirs:
        with pytest.raises(PermissionDeniedError, match="VOUCHER_NOT_MERCHANT"):
            await theirs.get("OURS-1")
        with pytest.raises(NotFoundError, match="VOUCHER_NOT_FOUND"):
            await theirs.get("NOBODYS")
        with pytest.raises(NotFoundError, match="VOUCHER_BATCH_NOT_FOUND"):
            await theirs.issue("OURS")
        with pytest.raises(VoucherStateError, match="MEMBER_NOT_MERCHANT"):
            await theirs.member("60", "123").vouchers()
        with pytest.raises(NotFoundError, match="MEMBER_NOT_FOUND"):
            await theirs.member("60", "124").vouchers()


NAMES = ["", "-a", "_a", "a b", "a/b", "a.b", "ä", "a" * 64, "a\n"]


@pytest.mark.parametrize("name", NAMES)
def test_name_that_no_path_or_file_could_have(emulator, name):
    with pytest.raises(ValueError, match="no name of 1 to 63 letters"):
        emulator.merchant(name)
    assert len(emulator.merchants) == 1


def test_merchants_are_a_thousand_at_most(emulator):
    """To make one takes no new key, so a thousand are there in a second."""
    for number in range(999):
        emulator.merchant(f"m{number}")
    with pytest.raises(ValueError, match="1,000 merchants"):
        emulator.merchant("one-more")
    emulator.drop_merchant("m500")
    assert emulator.merchant("one-more").number == 1_001
    assert len({one.client_id for one in emulator.merchants}) == 1_000
    assert len({one.client_secret for one in emulator.merchants}) == 1_000


def test_client_id_is_one_merchants(emulator, shop):
    """A request for a token names it before a colon, and is found by it."""
    for taken in ("id of shop", "a:b"):
        with pytest.raises(
            ValueError, match=f"'{taken}' is another one's client id, or has a colon"
        ):
            emulator.merchant("other", client_id=taken)
    assert emulator.find_merchant("other") is None
    assert len(emulator.merchants) == 2


def test_seeds_follow_one_another():
    """Of equal seeds come equal codes in every run, and no two merchants have the same."""

    def codes():
        emulator = Emulator(seed=7, public_key=PUBLIC_KEY_FILE.read_bytes(), batches={"K": 1})
        for name in ("a", "b"):
            emulator.merchant(name, batches={"K": 1})
        issued = [one.state.issue("K")[0] for one in emulator.merchants]
        own = emulator.merchant("own", batches={"K": 1}, seed=7)
        assert own.state.issue("K")[0] == issued[0]
        return issued

    first, second = codes(), codes()
    assert first == second
    assert len(set(first)) == 3


def test_merchant_that_can_not_be_made_leaves_nothing(emulator):
    with pytest.raises(ValueError, match="quantity"):
        emulator.merchant("other", batches={"K": -1})
    assert emulator.merchants == [emulator]
    assert emulator.merchant("other").number == 2


async def test_key_pair_is_the_first_merchants(emulator):
    """Id and secret are not, so that a request is one merchant's."""
    other = emulator.merchant("other", batches={"K": 1})
    assert other.credentials.private_key == emulator.credentials.private_key
    assert other.public_key_pem == emulator.public_key_pem
    async with other.client() as client:
        await client.issue("K")
    assert other.requests == {"token": 1, "issue": 1}
    assert not emulator.requests


def test_key_pair_of_which_only_one_half_is_known():
    emulator = Emulator(public_key=PUBLIC_KEY_FILE.read_bytes())
    other = emulator.merchant("other")
    assert other.known_credentials is None
    assert other.public_key_pem == emulator.public_key_pem
    assert "RM_PRIVATE_KEY" not in other.variables


def test_callbacks_are_signed_by_one_key(emulator, shop):
    """They are the server's, as RM's are."""
    assert emulator.callbacks.public_key_pem == shop.callbacks.public_key_pem
    mine = Emulator(credentials=credentials("main"), callback_key=PEM)
    assert mine.merchant("other").callbacks.public_key_pem == mine.public_key_pem


async def test_dropped_merchant_is_forgotten(emulator, shop):
    """Its token is nobody's, its work to come is not done, and its name is free."""
    shop.callbacks.url = "https://shop.invalid/"
    async with emulator.client() as ours, shop.client() as theirs:
        code = (await theirs.issue("K")).code
        await theirs.void(code)
        shop.fail_next("issue", Fault.LATE_COMMIT)
        with pytest.raises(OutcomeUnknownError):
            await theirs.issue("K")
        assert shop.callbacks.waiting == 1
        emulator.drop_merchant("shop")
        assert shop.callbacks.waiting == 0
        assert emulator.virtual_clock.next_due() is None
        assert {each.merchant for each in emulator.journal} == set()
        with pytest.raises(AuthenticationError):
            await theirs.get(code)
        with pytest.raises(NotFoundError, match="VOUCHER_NOT_FOUND"):
            await ours.get(code)
    assert emulator.find_merchant("shop") is None
    assert emulator.merchant("shop", credentials=credentials("shop")).number == 3
    for name in ("main", "nobody"):
        with pytest.raises(ValueError, match="no merchant that was made beside"):
            emulator.drop_merchant(name)


async def test_closed_window_of_one_merchant():
    """Over HTTP the others' requests come through; its own are reset, and counted nowhere."""
    emulator = Emulator(credentials=credentials("main"), batches={"K": 3})
    shop = emulator.merchant("shop", credentials=credentials("shop"), batches={"K": 2})
    closed = FaultPlan(windows=[Window(fault=Fault.CLOSED, start_s=0, length_s=60)])
    async with (
        serve(emulator) as server,
        emulator.client(transport=None, environment=server.environment) as ours,
        shop.client(
            transport=None, environment=server.environment, retry=RetryPolicy(max_attempts=1)
        ) as theirs,
    ):
        await theirs.issue("K")
        shop.faults = closed
        with pytest.raises(OutcomeUnknownError):
            await theirs.issue("K")
        await ours.issue("K")
        assert shop.requests["issue"] == emulator.requests["issue"] == 1
        emulator.advance(60)
        await theirs.issue("K")
    assert len(shop.issued("K")) == 2


def asked(emulator, method, path, **body):
    answer = control(emulator, method, f"/_emulator/{path}", orjson.dumps(body))
    return answer.status, orjson.loads(answer.body)


async def test_merchant_over_the_control_api():
    """A test run makes its merchant, works as it, begins anew, and drops it."""
    emulator = Emulator(credentials=credentials("main"), batches={"K": 1})
    async with serve(emulator) as server:
        status, made = asked(
            emulator, "POST", "merchants", name="w1", batches={"K": 2}, seed=7, rate_limit=50
        )
        assert (status, made["name"], made["number"]) == (200, "w1", 2)
        assert asked(emulator, "GET", "merchants/w1") == (200, made)
        listed = [
            {key: one[key] for key in ("name", "number", "client_id")}
            for one in ({"name": "main", "number": 1, "client_id": "id of main"}, made)
        ]
        assert asked(emulator, "GET", "merchants") == (200, listed)
        assert made["variables"]["RM_ENVIRONMENT"] == server.url
        client = VoucherClient(
            Credentials.from_env(made["variables"]),
            environment=Environment.from_env(made["variables"]),
        )
        async with client:
            await client.issue("K")
            assert asked(emulator, "POST", "reset")[0] == 200
            await client.issue("K")
            assert asked(emulator, "POST", "merchants/main/reset") == (200, {})
            assert len(emulator.merchant("w1").issued("K")) == 1
            assert emulator.merchant("w1").rate_limit == 50
            assert asked(emulator, "DELETE", "merchants/w1") == (200, {})
            with pytest.raises(AuthenticationError):
                await client.issue("K")
        assert asked(emulator, "GET", "merchants") == (200, listed[:1])


def test_merchant_with_a_key_of_its_own(emulator):
    pem = PUBLIC_KEY_FILE.read_text()
    status, made = asked(
        emulator, "POST", "merchants", name="a", public_key=pem, client_id="i", client_secret="s"
    )
    assert status == 200
    assert made["variables"] == {
        "RM_ENVIRONMENT": "https://emulator.invalid",
        "RM_CLIENT_ID": "i",
        "RM_CLIENT_SECRET": "s",
    }


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "name must be given"),
        ({"name": "main"}, "there is a merchant 'main' already"),
        ({"name": "../x"}, "no name of 1 to 63"),
        ({"name": "x", "batches": {"K": "3"}}, "quantity is a whole number"),
        ({"name": "x", "batches": {"K": 10**7}}, "quantity is a whole number, 1000000 at most"),
        ({"name": "x", "batches": {"/": 1}}, "key"),
        ({"name": "x", "callback_url": "nowhere"}, "no http or https URL"),
        ({"name": "x", "client_id": "id of main"}, "'id of main' is another one's client id"),
        ({"name": "x", "client_secret": ""}, "not empty"),
        ({"name": "x", "public_key": "none"}, "public key"),
        ({"name": "x", "rate_limit": -1}, "more than 0"),
        ({"name": "x", "seed": "1"}, "seed is a whole number"),
    ],
)
def test_merchant_that_is_refused(emulator, body, sentence):
    status, answer = asked(emulator, "POST", "merchants", **body)
    assert status == 400
    assert sentence in answer["error"]
    assert len(emulator.merchants) == 1


class SlowTransport(Transport):
    """A merchant's URL that answers when it is let."""

    def __init__(self):
        self.begun, self.may_end = asyncio.Event(), asyncio.Event()
        self.ended = asyncio.Event()

    async def send(self, request):
        self.begun.set()
        await self.may_end.wait()
        self.ended.set()
        return Response(status=200)


async def test_merchant_dropped_while_it_is_told(monkeypatch):
    """The attempt that is under way ends; then its connections are closed."""
    emulator = Emulator(credentials=credentials("main"), batches={"K": 3})
    shop = emulator.merchant("shop", batches={"K": 2}, callback_url="https://shop.invalid/")
    shop.callbacks.transport = slow = SlowTransport()
    closed = asyncio.Event()

    async def aclose(callbacks):
        if callbacks is shop.callbacks:
            assert slow.ended.is_set()
            closed.set()

    monkeypatch.setattr(Callbacks, "aclose", aclose)
    async with serve(emulator), asyncio.timeout(10):
        shop.state.void(shop.state.issue("K")[0])
        await slow.begun.wait()
        emulator.drop_merchant("shop")
        for _ in range(3):
            await asyncio.sleep(0)  # the server looks at it, and leaves it
        assert not closed.is_set()
        slow.may_end.set()
        await closed.wait()
    assert shop.callbacks.delivered == 0


def is_locked(emulator):
    """Whether another thread, a server's say, would have to wait."""
    with ThreadPoolExecutor(1) as thread:
        lock = emulator.virtual_clock.lock
        if not thread.submit(lock.acquire, blocking=False).result():
            return True
        thread.submit(lock.release).result()
    return False


def test_nobody_sees_half_of_a_beginning(emulator, shop, monkeypatch):
    """A test begins anew while a thread serves: no request comes between the old and the new."""
    seen = []
    add_batch = Merchant.add_batch

    def looking_on(merchant, *given, **options):
        seen.append((merchant.name, is_locked(emulator)))
        return add_batch(merchant, *given, **options)

    monkeypatch.setattr(Merchant, "add_batch", looking_on)
    emulator.reset()
    shop.begin()
    assert seen == [("main", True), ("shop", True), ("shop", True)]
    assert not is_locked(emulator)


def test_key_of_callbacks_is_made_once(emulator, monkeypatch):
    """A test may ask for its public half while a thread signs with it."""
    seen = []

    def new_private_key():
        seen.append(is_locked(emulator))
        return PEM

    monkeypatch.setattr("rm_voucher.emulator.site.new_private_key", new_private_key)
    assert emulator.callbacks.public_key_pem == PUBLIC_KEY_FILE.read_bytes()
    assert emulator.callbacks.public_key_pem == PUBLIC_KEY_FILE.read_bytes()
    assert seen == [True]
