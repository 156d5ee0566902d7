"""What a person sees over the control API: books, requests, callbacks. Codes only when asked."""

import orjson
import pytest
from support.doubles import FakeTime
from support.files import KEY_FILE
from yarl import URL

from rm_voucher import ConnectError, Credentials, Request, Response, VoucherType
from rm_voucher.emulator import Emulator, Fault, Guesses
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.view.events import Watch
from rm_voucher.signing.rsa import RsaSigner
from rm_voucher.signing.signature import format_signature
from rm_voucher.transport.memory import MemoryTransport

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())

pytestmark = pytest.mark.usefixtures("one_key")


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def emulator(clock):
    emulator = Emulator(seed=1, credentials=ME, batches={"K": 300}, clock=clock.clock)
    emulator.add_member("60", "123456789", name="Aminah")
    return emulator


@pytest.fixture
def call(emulator):
    def call(method, path, body=None, *, status=200):
        given = b"" if body is None else orjson.dumps(body)
        answer = control(emulator, method, f"/_emulator{path}", given)
        assert answer.status == status, answer.body
        return orjson.loads(answer.body)

    return call


async def issued(emulator, count):
    async with emulator.client() as client:
        return [(await client.issue("K")).code for _ in range(count)]


async def test_summary(emulator, call):
    codes = await issued(emulator, 3)
    emulator.state.void(codes[0])
    emulator.state.add_store("S1")
    found = call("GET", "/summary")
    (batch,) = found["batches"]
    assert (batch["issued"], batch["void"], batch["balance"]) == (3, 1, 297)
    assert found["members"] == [
        {"country_code": "60", "phone_number": "12…", "name": "Aminah", "vouchers": 0}
    ]
    assert found["stores"] == [{"id": "S1", "is_authorised": True}]
    (token,) = found["tokens"]
    assert token["is_good"] is True
    assert token["token"].endswith("…")
    assert found["requests"] == {"token": 1, "issue": 3}
    assert found["faults"]["rate"] == 0
    revealed = call("GET", "/summary?reveal=true")
    assert revealed["members"][0]["phone_number"] == "123456789"
    call("POST", "/tokens/revoke")
    assert [one["is_good"] for one in call("GET", "/summary")["tokens"]] == [False]


async def test_vouchers_of_a_batch(emulator, call):
    """They come in pages, the newest first, and can be searched by a part of the code."""
    codes = await issued(emulator, 5)
    emulator.state.void(codes[3])
    page = call("GET", "/batches/K/vouchers?size=2&reveal=true")
    assert [one["code"] for one in page["vouchers"]] == [codes[4], codes[3]]
    assert page["next"] == 2
    rest = call("GET", f"/batches/K/vouchers?size=9&start={page['next']}&reveal=true")
    assert [one["code"] for one in rest["vouchers"]] == codes[2::-1]
    assert [one["place"] for one in rest["vouchers"]] == [2, 1, 0]
    assert rest["next"] is None
    masked = call("GET", "/batches/K/vouchers")["vouchers"]
    assert all(code not in str(masked) for code in codes)
    found = call("GET", f"/batches/K/vouchers?search={codes[1][3:7].lower()}")["vouchers"]
    assert [one["place"] for one in found] == [1]
    used = call("GET", "/batches/K/vouchers?status=VOID")["vouchers"]
    assert [one["place"] for one in used] == [3]
    call("GET", "/batches/none/vouchers", status=404)


async def test_history_of_a_voucher(emulator, call, clock):
    """Each change has its time and the request that caused it; what was done by hand has none."""
    (code,) = await issued(emulator, 1)
    call(
        "POST", "/batches/K/vouchers/0/redeem", {"country_code": "60", "phone_number": "123456789"}
    )
    async with emulator.client() as client:
        await client.void(code)
    shown = call("GET", "/batches/K/vouchers/0")
    assert [(step["status"], step["operation"]) for step in shown["history"]] == [
        ("ISSUED", "issue"),
        ("REDEEMED", None),
        ("VOID", "void"),
    ]
    assert [step["request"] for step in shown["history"]] == [2, None, 4]
    assert code not in str(shown)
    assert shown["qr_url"] is None
    assert call("GET", "/batches/K/vouchers/0?reveal=true")["qr_url"].endswith(code)
    emulator.journal.forget()
    assert call("GET", "/batches/K/vouchers/0")["history"][0]["operation"] is None
    line = call("GET", "/batches/K/vouchers")["vouchers"][0]
    assert line["member"] == "Aminah"


async def test_expiry_is_in_the_history(emulator, call):
    await issued(emulator, 1)
    call("POST", "/batches/K/vouchers/0/expire")
    shown = call("GET", "/batches/K/vouchers/0")
    assert shown["status"] == "EXPIRED"
    assert [step["status"] for step in shown["history"]] == ["ISSUED", "EXPIRED"]


async def test_use_by_place_and_what_is_refused(emulator, call):
    await issued(emulator, 1)
    assert call("POST", "/batches/K/vouchers/0/void")["status"] == "VOID"
    assert (
        call("POST", "/batches/K/vouchers/0/void", status=409)["error"] == "VOUCHER_NOT_ALLOW_VOID"
    )
    assert "one of redeem" in call("POST", "/batches/K/vouchers/0/eat", status=400)["error"]
    for place in ("1", "-1", "x", "9" * 30, "\u0661"):
        call("GET", f"/batches/K/vouchers/{place}", status=404)


async def test_requests_newest_first(emulator, call):
    emulator.fail_next("issue", Fault.DROP_BEFORE_COMMIT)
    async with emulator.client() as client:
        with pytest.raises(Exception, match="issue"):
            await client.issue("K")
        code = (await client.issue("K")).code
        with pytest.raises(Exception, match="NOT_FOUND"):
            await client.get("NOSUCHCODE")
    lines = call("GET", "/exchanges")
    assert [one["operation"] for one in lines] == ["get", "issue", "issue", "token"]
    assert lines[0]["code"] == "VOUCHER_NOT_FOUND"
    assert lines[2]["fault"] == "drop-before-commit"
    assert lines[2]["status"] is None
    failed = call("GET", "/exchanges?failed=true")
    assert [one["operation"] for one in failed] == ["get", "issue"]
    assert [one["number"] for one in call("GET", "/exchanges?operation=issue&most=1")] == [3]
    assert code not in str(lines)
    assert "NOSUCHCODE" not in str(lines)
    assert "NOSUCHCODE" in str(call("GET", "/exchanges?reveal=true"))


async def test_request_whole(emulator, call):
    (code,) = await issued(emulator, 1)
    shown = call("GET", "/exchanges/2")
    assert code not in str(shown)
    assert emulator.client_secret not in str(call("GET", "/exchanges/1"))
    assert shown["answer"]["item"]["code"].endswith("…")
    assert shown["signature"] is None
    revealed = call("GET", "/exchanges/2?reveal=true")
    assert revealed["answer"]["item"]["code"] == code
    for number in ("9", "x", "\u0661", "9" * 30):
        call("GET", f"/exchanges/{number}", status=404)
    emulator.merchant("shop", credentials=Credentials("a", "b", KEY_FILE.read_bytes()))
    call("GET", "/merchants/shop/exchanges/2", status=404)
    assert call("GET", "/merchants/shop/exchanges") == []


async def signed_wrongly(emulator, sign):
    """Send a void whose signature ``sign`` made of the right text."""
    async with emulator.client() as client:
        await client.issue("K")
    authorization = next(reversed(list(emulator.journal))).request.headers["Authorization"]
    url, now = URL("https://emulator.invalid/v3/voucher/X/void"), int(emulator.runtime.clock())
    signature = sign(f"method=post&nonceStr=n&requestUrl={url}&signType=sha256&timestamp={now}")
    headers = {"Authorization": authorization, "X-Nonce-Str": "n", "X-Timestamp": str(now)}
    if signature:
        headers["X-Signature"] = signature
    request = Request(operation="void", method="POST", url=url, headers=headers)
    await emulator.transport().send(request)
    return emulator.journal.number


async def test_refused_signature_is_explained(emulator, call):
    """The mistakes are told; the two texts, which hold the code, only to whom asks."""
    signer = RsaSigner.from_pem(ME.private_key_pem())
    number = await signed_wrongly(
        emulator,
        lambda text: format_signature(signer.sign(text.replace("post", "POST").encode())),
    )
    shown = call("GET", f"/exchanges/{number}")["signature"]
    assert shown == {"by_this_key": True, "mistakes": ["the method is not in lower case"]}
    revealed = call("GET", f"/exchanges/{number}?reveal=true")["signature"]
    begin, end = revealed["signed_differs"][0]
    assert revealed["signed"][begin:end] == "method=POST"
    begin, end = revealed["expected_differs"][0]
    assert revealed["expected"][begin:end] == "method=post"


async def test_signature_of_another_key_or_none(emulator, call):
    for sign in (lambda text: "", lambda text: "sha256 AAAA"):
        number = await signed_wrongly(emulator, sign)
        shown = call("GET", f"/exchanges/{number}?reveal=true")["signature"]
        assert shown["by_this_key"] is False
        assert shown["signed"] is None
        assert shown["signed_differs"] == []


def test_body_that_is_no_json(emulator, call):
    url = URL("https://emulator.invalid/v3/voucher/X/void?phoneNumber=123456789")
    emulator.reply(Request(operation="x", method="POST", url=url, body=b"\xff<b>"))
    shown = call("GET", "/exchanges/1")
    assert shown["body"] == "(4 bytes)"
    assert shown["query"] == {"phoneNumber": "12…"}
    revealed = call("GET", "/exchanges/1?reveal=true")
    assert revealed["body"] == "\ufffd<b>"
    assert revealed["query"] == "phoneNumber=123456789"


async def test_deliveries(emulator, call):
    """Each callback with its attempts and the next one; one that ended can be sent again."""
    answers = [Response(status=500), TimeoutError]

    def receive(request):
        if not answers:
            return Response(status=200)
        answer = answers.pop(0)
        if answer is TimeoutError:
            raise ConnectError("not there")
        return answer

    emulator.callbacks.transport = MemoryTransport(receive)
    call("PUT", "/callbacks", {"url": "https://shop.invalid/"})
    (code,) = await issued(emulator, 1)
    emulator.state.void(code)
    (waits,) = call("GET", "/deliveries")
    assert waits["attempts"] == []
    assert waits["next_at"] is not None
    assert code not in str(waits)
    call("POST", "/deliveries/1/resend", status=400)
    for _ in range(3):
        await emulator.callbacks.deliver()
        emulator.advance(60)
    (done,) = call("GET", "/deliveries?reveal=true")
    assert [(one["status"], one["failure"]) for one in done["attempts"]] == [
        (500, ""),
        (None, "ConnectError"),
        (200, ""),
    ]
    assert done["code"] == code
    assert done["next_at"] is None
    call("POST", "/deliveries/1/resend")
    await emulator.callbacks.deliver()
    assert emulator.callbacks.delivered == 2
    call("POST", "/deliveries/7/resend", status=404)
    call("POST", "/deliveries/x/resend", status=404)


def test_stores(emulator, call):
    assert call("POST", "/stores", {"id": "S1"}) == {"S1": True}
    assert call("POST", "/stores", {"id": "S2", "is_authorised": False})["S2"] is False
    call("POST", "/stores", {}, status=400)


@pytest.mark.parametrize(
    "path",
    [
        "/exchanges?most=x",
        "/exchanges?most=-1",
        "/exchanges?failed=1",
        "/exchanges?other=1",
        "/exchanges?" + "&".join(["most=1"] * 30),
        "/batches?x=1",
    ],
)
def test_queries_that_are_refused(call, path):
    assert call("GET", path, status=400)["error"]


async def test_watch_tells_what_is_new(emulator, call):
    """Nothing while nothing happens; else the counts by which a page knows that it must look."""
    watch = Watch(emulator)
    first = watch.news()
    assert first is not None
    assert first["requests"] == 0
    assert watch.news() is None
    await issued(emulator, 30)
    assert watch.news()["requests"] == 31
    call("POST", "/members", {"country_code": "60", "phone_number": "1"})
    assert watch.news() is not None
    call("POST", "/clock", {"advance_s": 3600})
    assert watch.news()["ahead_s"] == 3600
    assert watch.news() is None
    overview = call("GET", "/overview")
    assert overview["merchants"] == ["main"]
    assert "issue" in overview["operations"]
    assert "throttle" in overview["faults"]


def test_text_of_strangers_is_text(emulator, call):
    """Markup and halves of surrogate pairs come through as they are, or as question marks."""
    bad = "<script>alert(1)</script>\u202e\"'&"
    call("POST", "/batches", {"key": "X", "label": bad, "quantity": 1})
    assert call("GET", "/summary")["batches"][1]["label"] == bad
    url = URL("https://emulator.invalid/<script>", encoded=True)
    emulator.reply(Request(operation="x", method="<b>", url=url, headers={"X-<": "\udcff"}))
    shown = call("GET", "/exchanges/1?reveal=true")
    assert shown["method"] == "<b>"
    assert shown["headers"] == {"X-<": "?"}


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (VoucherType.CASH, {"amount_sen": 500, "minimum_spend_sen": 2000}),
        (VoucherType.DISCOUNT, {"discount_rate_bp": 1500}),
    ],
)
def test_worth_of_a_batch(emulator, call, kind, options):
    emulator.add_batch("x", key="X", quantity=1, type=kind, **options)
    shown = call("GET", "/summary")["batches"][1]
    assert {name: shown[name] for name in options} == options
    assert shown["type"] == kind


def test_vouchers_up_front_have_no_history():
    emulator = Emulator(credentials=ME, guesses=Guesses(codes_up_front=True, lists_valid=True))
    emulator.add_batch("x", key="X", quantity=2)
    answer = control(emulator, "GET", "/_emulator/batches/X/vouchers/1", b"")
    assert orjson.loads(answer.body)["history"] == []


def test_body_that_is_too_deep(emulator, call):
    """JSON that no writer could write again is shown as text."""
    url = URL("https://emulator.invalid/v3/voucher/X/void")
    emulator.reply(Request(operation="x", method="POST", url=url, body=b"[" * 300 + b"]" * 300))
    assert call("GET", "/exchanges/1?reveal=true")["body"] == "[" * 300 + "]" * 300
    assert call("GET", "/exchanges/1")["body"] == "(600 bytes)"
