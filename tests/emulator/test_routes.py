"""Paths, methods, queries and bodies: RM's are answered, everything else draws RM's error."""

import orjson
import pytest
from support.raw_requests import ROUTES, WHO, known, prepared, request_to, send, signed, stocked

from rm_voucher import InvalidRequestError, NotFoundError
from rm_voucher.emulator import Guesses
from rm_voucher.emulator.routes import OPERATIONS

GOOD = (200, "SUCCESS")
NO_PATH = (404, "API_ENDPOINT_NOT_FOUND")
NO_METHOD = (405, "METHOD_NOT_ALLOWED")
NO_VOUCHER = (404, "VOUCHER_NOT_FOUND")
NO_BATCH = (404, "VOUCHER_BATCH_NOT_FOUND")
BAD_PARAMETER = (400, "INVALID_PARAMETER")
BAD_REQUEST = (400, "INVALID_REQUEST")
INCOMPLETE = (400, "VALIDATION_ERROR")
AWKWARD = ["rms@xR43u4bRhUU", "A(1)", "A+1", "A#1", "A%41", "A 1", "é漢😀", "a&b=c", "~-._"]


@pytest.fixture
def emulator():
    return stocked()


METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "post", "")


def test_table_is_complete():
    """Every operation has its row."""
    assert set(ROUTES) == set(OPERATIONS)


@pytest.mark.parametrize("operation", OPERATIONS)
def test_methods(operation):
    """A path takes its methods only, what it refuses changes nothing, and each request counts."""
    methods, target, body = ROUTES[operation]
    emulator = stocked()
    before = emulator.batch("K"), [emulator.voucher(code) for code in "ABCDE"]
    for method in METHODS:
        if method not in methods:
            assert signed(emulator, method, target, body) == NO_METHOD
    assert (emulator.batch("K"), [emulator.voucher(code) for code in "ABCDE"]) == before
    for method in sorted(methods):
        emulator = stocked()
        expected = (401, "INVALID_CLIENT") if operation == "token" else GOOD
        assert signed(emulator, method, target, body) == expected
        # The request's own token was asked for as well.
        assert emulator.requests == {"token": 1} | {operation: 2 if operation == "token" else 1}


def wire_of(emulator, operation):
    methods, target, body = ROUTES[operation]
    return orjson.loads(emulator.handle(prepared(emulator, sorted(methods)[0], target, body)).body)


@pytest.mark.parametrize(
    ("operation", "status"),
    [
        ("get", "ISSUED"),
        ("void", "VOID"),
        ("reinstate", "REDEEMED"),
        ("member get", "REDEEMED"),
        ("member redeem", "VOID"),
    ],
)
def test_answers_with_a_voucher(emulator, operation, status):
    """These answer the voucher itself, as it is afterwards."""
    wire = wire_of(emulator, operation)
    (code,) = set(ROUTES[operation][1].partition("?")[0].split("/")) & set("ABCD")
    assert (wire["item"]["code"], wire["item"]["status"], wire["code"]) == (code, status, "SUCCESS")
    assert emulator.voucher(code).status == status


def test_other_answers(emulator):
    """The others answer what their page shows: a code, a batch, a list."""
    assert wire_of(emulator, "issue")["item"] == {
        "code": "D",
        "qrUrl": "https://emulator.invalid/qr/1/voucher/D",
    }
    assert wire_of(emulator, "batch")["item"]["balanceQuantity"] == 1
    assert [item["key"] for item in wire_of(emulator, "batches")["items"]] == ["K"]
    assert [item["code"] for item in wire_of(emulator, "vouchers")["items"]] == list("ABCDE")
    assert [item["code"] for item in wire_of(emulator, "member vouchers")["items"]] == ["B"]
    emulator = known()
    emulator.add_batch("x", codes=["A", "D"])
    assert [item["status"] for item in wire_of(emulator, "redeem")["item"]] == ["REDEEMED"] * 2


@pytest.mark.parametrize(
    "target",
    [
        "/",
        "",
        "/v3",
        "/v3/",
        "/v3/nothing",
        "/v3/voucher",
        "/v3/vouchers",
        "/v3/voucher-batch",
        "/v3/voucher-batch/K/",
        "/v3/voucher-batch/K/issue/",
        "/v3/voucher-batches/",
        "/v3/voucher-batches/K",
        "/V3/voucher-batches",
        "/v4/voucher-batches",
        "//v3/voucher-batches",
        "/v3/voucher/A/issue",  # where RM's JavaScript SDK sends its void
        "/v3/voucher/A/redeem",
        "/v3/voucher/A/void/void",
        "/v3/voucher/A/Void",
        "/v3/voucher/a/b",
        "/v3/vouchers/void",
        "/v3/loyalty/vouchers" + WHO,
        "/v3/loyalty/60/vouchers" + WHO,
        "/v3/loyalty/me/voucher" + WHO,
        "/v3/loyalty/me/voucher/B/void" + WHO,
        # A member's rewards, which lead from points to a voucher.
        "/v3/loyalty/me/rewards" + WHO,
        "/v3/loyalty/reward/1" + WHO,
        "/v3/loyalty/me/reward/1/redeem" + WHO,
        "/v1/token/",
        "/v3/token",
        "/v1/voucher-batches",
        "/v3/../v3/voucher-batches",
        "/v3/voucher/A%2Fvoid/x",
        "/_emulator",
    ],
)
def test_unknown_paths(emulator, target):
    """A path that is on no page is unknown, whoever asks and with which method."""
    before = emulator.voucher("A")
    for method in ("GET", "POST"):
        assert signed(emulator, method, target) == NO_PATH
        assert send(emulator, request_to(method, target or "/")) == NO_PATH
    assert emulator.voucher("A") == before
    assert set(emulator.requests) == {"token"}


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v3/voucher/%41", GOOD),
        ("/v3/%76oucher/A", GOOD),
        ("/v3/voucher/a", NO_VOUCHER),
        ("/v3/voucher/%2541", NO_VOUCHER),
        ("/v3/voucher/A%2Fvoid", NO_VOUCHER),
        ("/v3/voucher/..", NO_VOUCHER),
        ("/v3/voucher/A%00", NO_VOUCHER),
        ("/v3/voucher/%2e%2e%2fvoucher%2fA", NO_VOUCHER),
        ("/v3/voucher/", NO_PATH),
        ("/v3/voucher/%ff", BAD_REQUEST),
        ("/v3/voucher/%ed%a0%80", BAD_REQUEST),
        ("/%ff", BAD_REQUEST),
    ],
)
def test_segments_are_decoded_once(emulator, target, expected):
    """A path is split, then each part is decoded once; what is then no text is refused."""
    assert signed(emulator, "POST", target) == expected


@pytest.mark.parametrize("operation", ["issue", "vouchers", "batch"])
@pytest.mark.parametrize(
    ("key", "expected"),
    [("none", NO_BATCH), ("k", NO_BATCH), ("a%20b", (400, "VOUCHER_BATCH_KEY_INVALID"))],
)
def test_batch_keys(emulator, operation, key, expected):
    """A batch that does not exist is not found; a key that can't be one is told apart."""
    (method,), target, _ = ROUTES[operation]
    assert signed(emulator, method, target.replace("/K", f"/{key}")) == expected


def test_unknown_path_by_another_name():
    """RM's list has two codes for it."""
    emulator = stocked(guesses=Guesses(unknown_path_code="PAGE_NOT_FOUND"))
    for target in ("/v3/nothing", "/v3/voucher/"):
        assert signed(emulator, "GET", target) == (404, "PAGE_NOT_FOUND")


def test_older_batch_path_can_be_switched_off():
    """Without the older path there is none, and the documented one stays."""
    emulator = stocked(guesses=Guesses(older_batch_path=False))
    assert signed(emulator, "GET", "/v3/voucher-batch/K") == NO_PATH
    assert signed(emulator, "GET", "/v3/voucher-batch/K/vouchers") == GOOD


@pytest.mark.parametrize(
    ("methods", "sent"),
    [
        (("POST", "GET"), ["POST"] * 2),
        (("POST",), ["POST"] * 2),
        (("GET",), ["POST", "GET", "GET"]),
    ],
)
async def test_client_finds_the_method(methods, sent):
    """A client finds by itself which method the server takes, and keeps to it."""
    emulator = stocked(guesses=Guesses(get_methods=methods))
    seen = []
    for method in ("GET", "POST"):
        expected = GOOD if method in methods else NO_METHOD
        assert signed(emulator, method, "/v3/voucher/A") == expected

    def watch(attempt):
        if attempt.operation == "get":
            seen.append(attempt.method)

    async with emulator.client(hooks=[watch]) as client:
        for _ in range(2):
            assert (await client.get("A")).status == "ISSUED"
    assert seen == sent


async def test_client_that_learnt_get_finds_post():
    """The other way round it is the same."""
    emulator = stocked(guesses=Guesses(get_methods=("POST",)))
    async with emulator.client() as client:
        client._learnt.get_method = "GET"
        assert (await client.get("A")).code == "A"
        assert client._learnt.get_method == "POST"


async def test_no_method_at_all():
    """Where neither method is taken, the client says so."""
    async with stocked(guesses=Guesses(get_methods=())).client() as client:
        with pytest.raises(InvalidRequestError, match="METHOD_NOT_ALLOWED"):
            await client.get("A")


@pytest.mark.parametrize("code", AWKWARD)
async def test_awkward_codes(code):
    """A code is data: whatever stands in it, it is issued, found, redeemed, listed and voided."""
    emulator = known()
    emulator.add_batch("uploaded", key="UP", codes=[code, "A", "A1", "AA"])
    async with emulator.client() as client:
        issued = await client.issue("UP")
        assert (issued.code, (await client.get(code)).status) == (code, "ISSUED")
        client._learnt.get_method = "GET"
        assert (await client.get(code)).code == code
        assert [voucher.code for voucher in await client.redeem([code])] == [code]
        assert (await client.void(code)).status == "VOID"
        assert (await client.reinstate(code, pin="123456")).status == "REDEEMED"
        listed = [voucher.code async for voucher in client.vouchers("UP")]
        assert listed == [code, "A", "A1", "AA"]


@pytest.mark.parametrize("code", AWKWARD)
async def test_awkward_codes_of_a_member(code):
    """It is the same where the voucher is a member's."""
    emulator = known()
    emulator.add_batch("uploaded", codes=[code, "A"])
    emulator.state.collect(code, emulator.add_member("60", "1"))
    async with emulator.client() as client:
        mine = client.member("60", "1")
        assert (await mine.get(code)).code == code
        assert (await mine.redeem(code)).status == "VOID"
    assert emulator.voucher("A").status == "VALID"


async def test_codes_have_case(emulator):
    """A code in another case is another code."""
    async with emulator.client() as client:
        with pytest.raises(NotFoundError):
            await client.get("a")


def test_answers_are_json(emulator):
    """Whether an answer is good or not, it is JSON and says so."""
    for ready in (
        prepared(emulator, "GET", "/v3/voucher-batches"),
        request_to("GET", "/v3/voucher-batches"),
        request_to("GET", "/nothing"),
    ):
        assert emulator.handle(ready).headers["content-type"] == "application/json"


def test_refusal_has_a_message(emulator):
    """An error says more than its code: the code in words, or what is wrong."""
    ready = request_to("GET", "/nothing")
    error = orjson.loads(emulator.handle(ready).body)
    assert error == {
        "error": {"code": "API_ENDPOINT_NOT_FOUND", "message": "Api endpoint not found"}
    }
    ready = prepared(emulator, "GET", f"/v3/loyalty/me/vouchers{WHO}&limit=x")
    error = orjson.loads(emulator.handle(ready).body)["error"]
    assert error["message"] == "limit is a whole number, 1 or more"
