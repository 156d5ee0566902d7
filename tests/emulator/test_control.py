"""The control API over HTTP, as a test in another language uses it."""

from urllib.parse import quote

import aiohttp
import attrs
import orjson
import pytest
from support.doubles import FakeTime
from support.files import KEY_FILE
from yarl import URL

from rm_voucher import Credentials, OutcomeUnknownError, OutOfStockError, RateLimitError
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.faults import Fault
from rm_voucher.emulator.server import serve

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
FRESH = {"key": "K", "quantity": 3, "balance": 3, "issued": 0, "redeemed": 0, "void": 0}
MEMBER = {"country_code": "60", "phone_number": "123456789"}
WINDOW = {"fault": "throttle-bare", "start_s": 0, "length_s": 60}
PATHS = {
    "batches": ("GET", "POST"),
    "faults": ("GET", "PUT"),
    "vouchers/X/redeem": ("POST",),
    "vouchers/X/void": ("POST",),
    "vouchers/X/expire": ("POST",),
    "members": ("POST",),
    "clock": ("POST",),
    "callbacks": ("GET", "PUT"),
    "reset": ("POST",),
    "fail-next": ("POST",),
    "requests": ("GET",),
    "rate-limit": ("PUT",),
}


pytestmark = pytest.mark.usefixtures("one_key")


@attrs.frozen
class Control:
    """Calls the control API over HTTP; gives status and JSON."""

    url: str
    session: aiohttp.ClientSession

    async def __call__(self, method, path, body=None, *, raw=None, headers=None):
        data = raw if body is None else orjson.dumps(body)
        url = f"/_emulator/{path}"
        async with self.session.request(method, url, data=data, headers=headers) as answer:
            assert answer.content_type == "application/json"
            return answer.status, await answer.json()


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def emulator(clock):
    return Emulator(seed=1, credentials=ME, batches={"K": 3}, clock=clock.clock)


@pytest.fixture
async def call(emulator):
    async with serve(emulator) as server, aiohttp.ClientSession(server.url) as session:
        yield Control(server.url, session)


async def test_batches(call, emulator):
    """A batch has key, quantity, balance and the numbers of its vouchers by what became of them."""
    assert await call("GET", "batches") == (200, [FRESH])
    codes = [emulator.state.issue("K")[0] for _ in range(2)]
    emulator.state.redeem(codes)
    emulator.state.void(codes[0])
    seen = FRESH | {"balance": 1, "issued": 2, "redeemed": 1, "void": 1}
    assert await call("GET", "batches") == (200, [seen])
    status, made = await call("POST", "batches", {"key": "B", "quantity": 5000})
    assert (status, made) == (200, FRESH | {"key": "B", "quantity": 5000, "balance": 5000})
    assert await call("GET", "batches") == (200, [seen, made])


async def test_batch_with_every_option(call, emulator):
    """Each option of a batch reaches it, with the units of its name."""
    wire = {
        "amount_sen": 500,
        "codes": ["A-1", "A-2"],
        "discount_rate_bp": 100,
        "expiry": {"type": "FIXED", "expiredAt": "2030-01-01T00:00:00Z"},
        "key": "B",
        "label": "Breakfast",
        "minimum_spend_sen": 2000,
        "quantity": 2,
        "type": "CASH",
    }
    status, made = await call("POST", "batches", wire)
    assert (status, made["quantity"]) == (200, 2)
    batch, voucher = emulator.batch("B"), emulator.voucher("A-2")
    assert (batch.label, batch.type, batch.amount_sen) == ("Breakfast", "CASH", 500)
    assert (batch.discount_rate_bp, batch.minimum_spend_sen) == (100, 2000)
    assert (batch.origin, batch.expiry.type) == ("SELF", "FIXED")
    assert (voucher.status, voucher.expiry.expires_at.year) == ("VALID", 2030)
    status, made = await call("POST", "batches", {"static_code": "HELLO", "quantity": 1})
    assert (status, made["key"]) == (200, "batch-000003")
    assert emulator.batch(made["key"]).label == ""
    assert emulator.state.issue(made["key"])[0] == "HELLO"
    await call("POST", "batches", {"key": "unnamed", "quantity": 1})
    assert emulator.batch("unnamed").label == "unnamed"


async def test_faults(call, emulator):
    """A plan is set whole, shown with what was met, and switched off by a rate of 0."""
    plan = {"rate": 1, "kinds": ["drop-after-commit"], "seed": 1, "operations": ["issue"]}
    shown = {"rate": 1, "kinds": ["drop-after-commit"], "seed": 1, "met": {}, "undelivered": 0}
    shown |= {"operations": ["issue"], "windows": []}
    assert await call("PUT", "faults", plan) == (200, shown)
    assert emulator.faults.operations == ["issue"]
    async with emulator.client() as client:
        with pytest.raises(OutcomeUnknownError):
            await client.issue("K")
    status, seen = await call("GET", "faults")
    assert (status, seen["met"], seen["undelivered"]) == (
        200,
        {"issue": {"drop-after-commit": 1}},
        1,
    )
    status, off = await call("PUT", "faults", {"rate": 0})
    assert (status, off["rate"], off["seed"], len(off["kinds"]) > 10) == (200, 0, None, True)
    async with emulator.client() as client:
        await client.issue("K")
    assert emulator.batch("K").balance_quantity == 1


async def test_every_setting_of_a_plan(call, emulator, clock):
    """Each setting reaches the plan; a window's fault is one, not just its name."""
    numbers = {
        "slow_body_s": 0.5,
        "stall_s": 2,
        "listing_delay_s": 3.5,
        "late_s": 4,
        "retry_after_s": 7,
    }
    assert (await call("PUT", "faults", {**numbers, "windows": [WINDOW]}))[0] == 200
    plan = emulator.faults
    assert {name: getattr(plan, name) for name in numbers} == numbers
    assert plan.windows[0].fault is Fault.THROTTLE_BARE
    async with emulator.client(runtime=clock.runtime) as client:
        with pytest.raises(RateLimitError):
            await client.vouchers("K")


async def test_vouchers(call, emulator):
    """A voucher is redeemed, voided and expired by its code, and shown as the API shows it."""
    codes = [emulator.state.issue("K")[0] for _ in range(3)]
    status, redeemed = await call("POST", f"vouchers/{codes[0]}/redeem")
    assert (status, redeemed["status"], redeemed["code"]) == (200, "REDEEMED", codes[0])
    assert redeemed == emulator.state.wire(emulator.state.get(codes[0]))
    status, voided = await call("POST", f"vouchers/{codes[0]}/void", {})
    assert (status, voided["status"]) == (200, "VOID")
    status, expired = await call("POST", f"vouchers/{codes[1]}/expire")
    assert (status, expired["status"]) == (200, "EXPIRED")
    assert (await call("POST", "members", {**MEMBER, "name": "Mei"})) == (200, MEMBER)
    status, collected = await call("POST", f"vouchers/{codes[2]}/redeem", MEMBER)
    assert (status, collected["memberProfile"]["name"]) == (200, "Mei")
    member = emulator.state.member(*MEMBER.values())
    assert [record.code for record in member.vouchers] == [codes[2]]


@pytest.mark.parametrize("code", ["rms@xR43u4bRhUU", "A(1)", "A+1", "A#1", "A%41", "käse"])
async def test_code_in_the_path(call, emulator, code):
    """A code arrives as itself, whatever it is made of."""
    emulator.add_batch("x", codes=[code])
    url = URL(f"{call.url}/_emulator/vouchers/{quote(code, safe='')}/redeem", encoded=True)
    async with aiohttp.ClientSession() as session, session.post(url) as answer:
        assert (answer.status, (await answer.json())["code"]) == (200, code)


async def test_clock(call, emulator, clock):
    """The clock is set ahead by seconds, and told."""
    assert await call("POST", "clock", {"advance_s": 60}) == (200, {"now": clock.now + 60})
    assert await call("POST", "clock", {"advance_s": 0.5}) == (200, {"now": clock.now + 60.5})
    assert await call("POST", "clock") == (200, {"now": clock.now + 60.5})
    assert emulator.virtual_clock.now() == clock.now + 60.5


async def test_callbacks(call, emulator):
    """The URL and the minute are each set by themselves, and shown with what came of them."""
    url = "http://127.0.0.1:1/callback"
    shown = {
        "url": url,
        "interval_s": 60.0,
        "signs_url": False,
        "delivered": 0,
        "given_up": 0,
        "public_key": emulator.callbacks.public_key_pem.decode(),
    }
    assert (await call("GET", "callbacks")) == (200, {**shown, "url": None})
    assert (await call("PUT", "callbacks", {"url": url})) == (200, shown)
    assert (await call("PUT", "callbacks", {"interval_s": 1})) == (200, {**shown, "interval_s": 1})
    assert (await call("PUT", "callbacks", {"signs_url": True}))[1]["signs_url"] is True
    status, seen = await call("PUT", "callbacks", {"url": ""})
    assert (status, seen["url"], seen["interval_s"]) == (200, None, 1)
    assert seen["signs_url"] is emulator.callbacks.signs_url is True
    assert emulator.callbacks.url is None
    assert (await call("GET", "callbacks"))[1] == seen


async def test_fail_next(call, emulator):
    """The next requests of an operation fail as asked, and how many there were is told."""
    body = {"operation": "issue", "fault": "VOUCHER_SOLD_OUT", "times": 2}
    assert await call("POST", "fail-next", body) == (200, {})
    async with emulator.client() as client:
        for _ in range(2):
            with pytest.raises(OutOfStockError):
                await client.issue("K")
        await client.issue("K")
    assert await call("GET", "requests") == (200, {"token": 1, "issue": 3})
    status, said = await call("POST", "fail-next", {"fault": "truncated"})
    assert (status, said) == (400, {"error": "operation must be given"})


async def test_rate_limit(call, emulator):
    """The rate limit can be set while it serves, and lifted."""
    assert await call("PUT", "rate-limit", {"per_s": 50}) == (200, {"per_s": 50})
    assert emulator.rate_limit == 50
    assert (await call("PUT", "rate-limit", {"per_s": -1}))[0] == 400
    assert emulator.rate_limit == 50
    assert await call("PUT", "rate-limit", {"per_s": 0}) == (200, {"per_s": 0})
    assert emulator.rate_limit is None


async def test_reset(call, emulator, clock):
    """A reset gives back the emulator as it was made; an access token lives on."""
    await call("POST", "batches", {"key": "B", "quantity": 1})
    await call("PUT", "faults", {"rate": 1})
    await call("POST", "members", MEMBER)
    await call("POST", "clock", {"advance_s": 60})
    code = emulator.state.issue("K")[0]
    async with emulator.client() as client:
        assert await call("PUT", "faults", {"rate": 0})
        await client.get(code)
        await call("PUT", "faults", {"rate": 1})
        assert await call("POST", "reset") == (200, {})
        assert await call("GET", "batches") == (200, [FRESH])
        assert (await call("POST", f"vouchers/{code}/void"))[0] == 404
        assert (await call("POST", "clock"))[1] == {"now": clock.now}
        assert (await call("GET", "faults"))[1]["rate"] == 0
        assert emulator.requests == {}
        await client.issue("K")
        assert "token" not in emulator.requests
    assert (await call("POST", "vouchers/X/redeem", MEMBER)) == (404, {"error": "MEMBER_NOT_FOUND"})


@pytest.mark.parametrize("path", PATHS)
async def test_wrong_method(call, path):
    """A method that a path has not is a 405 that names those it has."""
    says = {"error": f"the method is {' or '.join(PATHS[path])}"}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - {*PATHS[path]}:
        assert await call(method, path) == (405, says)


@pytest.mark.parametrize(
    "path",
    ["", "batch", "batches/", "batches/K", "vouchers", "vouchers/X", "vouchers/X/issue", "reset/x",
     "%62atchesx", "../v3/voucher-batches", "%2e%2e/batches", "v3/voucher-batches"],
)  # fmt: skip
def test_no_such_path(emulator, path):
    """Another path is a 404, which points to where they are listed."""
    answer = control(emulator, "GET", f"/_emulator/{path}", b"")
    assert answer.status == 404
    assert b"no such path" in answer.body


@pytest.mark.parametrize("key", ["absent", "%13", "%5C%C2%A2"])
def test_batch_that_there_is_not(emulator, key):
    """It is a 404, also by a key that no batch can have."""
    for path in (f"batches/{key}/vouchers", f"batches/{key}/vouchers/0"):
        assert control(emulator, "GET", f"/_emulator/{path}", b"").status == 404


MISTAKES = [
    ("PUT", "faults", {"operations": [None]}, "operations[0] is text"),
    *[
        (method, path, {"qantity": 1, "b": 2}, "no such field: b, qantity")
        for path, methods in PATHS.items()
        for method in methods
    ],
    ("POST", "batches", {}, "quantity is a whole number"),
    ("POST", "batches", {"quantity": -1}, "quantity is a whole number"),
    ("POST", "batches", {"quantity": 2**63}, "quantity is a whole number"),
    ("POST", "batches", {"quantity": "5"}, "quantity is a whole number"),
    ("POST", "batches", {"quantity": 5.0}, "quantity is a whole number"),
    ("POST", "batches", {"quantity": True}, "quantity is a whole number"),
    ("POST", "batches", {"quantity": None}, "quantity is a whole number"),
    ("POST", "batches", {"quantity": 1, "key": 5}, "key is text"),
    ("POST", "batches", {"quantity": 1, "key": ""}, "key is empty"),
    ("POST", "batches", {"quantity": 1, "key": "K"}, "a batch with the key 'K' already"),
    ("POST", "batches", {"quantity": 1, "type": "GOLD"}, "they are CASH, DISCOUNT, GIFT"),
    ("POST", "batches", {"quantity": 1, "amount_sen": -1}, "amount_sen is a whole number, 0 at"),
    ("POST", "batches", {"quantity": 1, "discount_rate_bp": -1}, "0 at least"),
    ("POST", "batches", {"quantity": 1, "minimum_spend_sen": -1}, "0 at least"),
    ("POST", "batches", {"quantity": 1, "expiry": "soon"}, "expiry is an object"),
    ("POST", "batches", {"quantity": 1, "expiry": {"days": 1}}, "no such field of expiry: days"),
    ("POST", "batches", {"quantity": 1, "expiry": {"day": "1"}}, "$.expiry.day"),
    ("POST", "batches", {"codes": "A"}, "codes is a list"),
    ("POST", "batches", {"codes": ["A", 5]}, "codes[1] is text"),
    ("POST", "batches", {"codes": ["A", "A"]}, "a code is there twice"),
    ("POST", "batches", {"codes": ["A"], "quantity": 2}, "codes are as many as the quantity"),
    ("PUT", "faults", {"rate": 2}, "rate is a number, 1 at most"),
    ("PUT", "faults", {"rate": "0.2"}, "rate is a number"),
    ("PUT", "faults", {"rate": False}, "rate is a number"),
    ("PUT", "faults", {"kinds": ["nonsense"]}, "'nonsense' is no word for kinds[0]"),
    ("PUT", "faults", {"kinds": [[]]}, "kinds[0] is text"),
    ("PUT", "faults", {"kinds": []}, "kinds is a list of 1 at least"),
    ("PUT", "faults", {"operations": ["isue"]}, "operations[0]; they are issue, get"),
    ("PUT", "faults", {"windows": ["closed"]}, "windows[0] is an object"),
    ("PUT", "faults", {"windows": [{"fault": "closed"}]}, "start_s and length_s must"),
    ("PUT", "faults", {"windows": [{"faults": "closed"}]}, "no such field: faults"),
    ("PUT", "faults", {"windows": [{**WINDOW, "fault": "shut"}]}, "'shut' is no word for fault"),
    ("PUT", "faults", {"windows": [{**WINDOW, "length_s": 0}]}, "a number, more than 0"),
    ("POST", "clock", {"advance_s": -1}, "advance_s is a number, 0 at least"),
    ("PUT", "faults", {"windows": [WINDOW] * 101}, "windows is a list of 100 at most"),
    ("POST", "clock", {"advance_s": 1e300}, "advance_s is a number, 1000000000 at most"),
    ("POST", "clock", {"advance_s": "60"}, "advance_s is a number"),
    ("POST", "members", {}, "country_code and phone_number must be given"),
    ("POST", "members", {"country_code": "60"}, "phone_number must be given"),
    ("POST", "members", {**MEMBER, "phone_number": 1}, "phone_number is text"),
    ("PUT", "callbacks", {"url": "ftp://x"}, "no http or https URL"),
    ("PUT", "callbacks", {"url": "http://["}, "no http or https URL"),
    ("PUT", "callbacks", {"url": None}, "url is text"),
    ("PUT", "callbacks", {"signs_url": 1}, "signs_url is true or false"),
    ("PUT", "callbacks", {"interval_s": True}, "interval_s is a number"),
    ("PUT", "callbacks", {"interval_s": 0}, "interval_s is a number, more than 0"),
    ("PUT", "callbacks", {"interval_s": -1, "url": "http://a.invalid"}, "more than 0"),
]  # fmt: skip


def seen(emulator):
    """Return all that the control API shows."""
    names = ("batches", "callbacks", "faults")
    return [control(emulator, "GET", f"/_emulator/{name}", b"").body for name in names]


@pytest.mark.parametrize(("method", "path", "body", "says"), MISTAKES)
def test_mistakes(emulator, method, path, body, says):
    """A mistake is a 400 with a sentence that names it, and nothing has changed."""
    if "/" in path:
        path = path.replace("X", emulator.state.issue("K")[0])
    before = seen(emulator)
    answer = control(emulator, method, f"/_emulator/{path}", orjson.dumps(body))
    assert answer.status == 400
    assert says in orjson.loads(answer.body)["error"]
    assert seen(emulator) == before


@pytest.mark.parametrize(
    "raw", [b"{", b"NaN", b"\xff", b"\xef\xbb\xbf{}", b"9" * 5000, b"[" * 10**5]
)
async def test_body_that_is_no_json(call, raw):
    """A body that can't be read is a 400, as is one that is no object."""
    assert await call("POST", "reset", raw=raw) == (
        400,
        {"error": "the path or the body can't be read; the body is JSON"},
    )
    assert await call("POST", "reset", raw=b"[1]") == (400, {"error": "the body is a JSON object"})


def test_path_that_is_not_utf8(emulator):
    """A path that is not UTF-8 is a 400."""
    assert control(emulator, "POST", "/_emulator/vouchers/%ff/void", b"").status == 400


@pytest.mark.parametrize(
    ("path", "status", "code"),
    [
        ("vouchers/none/redeem", 404, "VOUCHER_NOT_FOUND"),
        ("vouchers/none/void", 404, "VOUCHER_NOT_FOUND"),
        ("vouchers/none/expire", 404, "VOUCHER_NOT_FOUND"),
        ("vouchers/USED/redeem", 409, "VOUCHER_REDEEMED"),
        ("vouchers/USED/void", 409, "VOUCHER_NOT_ALLOW_VOID"),
        ("vouchers/USED/expire", 409, "VOUCHER_REDEEMED_INVALID"),
    ],
)
async def test_refused(call, emulator, path, status, code):
    """What the domain refuses is its code: 404 for what there is not, else 409."""
    emulator.add_batch("x", codes=["USED"])
    emulator.state.redeem(["USED"])
    emulator.state.void("USED")
    assert await call("POST", path) == (status, {"error": code})
