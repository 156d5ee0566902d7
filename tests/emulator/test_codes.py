"""Every error code, through the client: those the emulator draws by itself, and all others."""

import ast
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
from support.doubles import FakeTime, NoSigner
from support.raw_requests import ME, SIGNER, known

import rm_voucher.emulator
from rm_voucher import (
    APIError,
    AuthenticationError,
    DuplicateRequestError,
    ExpiredError,
    InvalidRequestError,
    NotFoundError,
    OutcomeUnknownError,
    OutOfStockError,
    PermissionDeniedError,
    RateLimitError,
    RetryPolicy,
    Runtime,
    ServerError,
    SignatureError,
    StaticToken,
    VoucherClient,
    VoucherStateError,
)
from rm_voucher.emulator import Fault, FaultPlan, Guesses
from rm_voucher.emulator.guesses import Check
from rm_voucher.models import BatchStatus, Expiry, ExpiryType
from rm_voucher.transport.memory import MemoryTransport
from rm_voucher.wire.error_codes import ERROR_CODES, CodeClass

ONE_ATTEMPT = RetryPolicy(max_attempts=1)
SOON = Expiry(type=ExpiryType.FIXED, expires_at=datetime.fromtimestamp(FakeTime().now + 60, UTC))
STATUS_OF_ERROR = {
    AuthenticationError: 401,
    SignatureError: 401,
    PermissionDeniedError: 403,
    NotFoundError: 404,
    RateLimitError: 429,
    ServerError: 500,
}
STATUS_OF_CODE = {"API_ENDPOINT_NOT_FOUND": 404, "METHOD_NOT_ALLOWED": 405, "PAGE_NOT_FOUND": 404}


def status_of(code, error):
    return STATUS_OF_CODE.get(code, STATUS_OF_ERROR.get(error, 400))


@attrs.frozen
class Shop:
    """An emulator with a voucher in each state, and how its clients are made."""

    emulator: rm_voucher.emulator.Emulator
    clock: FakeTime

    def client(self, **options):
        return self.emulator.client(**{"retry": ONE_ATTEMPT, "signer": SIGNER, **options})


def shop(**options):
    """Return an emulator with batches ``own``, ``empty``, ``soon``, ``new`` and ``others``.

    In ``own`` A is issued, B redeemed and a member's, C void, D and E in stock.
    """
    clock = FakeTime()
    emulator = known(clock=clock.clock, **options)
    emulator.add_batch("x", key="own", codes=list("ABCDE"))
    emulator.add_batch("x", key="empty", quantity=0)
    emulator.add_batch("x", key="soon", codes=["S"], expiry=SOON)
    emulator.add_batch("x", key="new", quantity=1, status=BatchStatus("PROCESSING"))
    emulator.add_batch("x", key="others", codes=["O"], is_ours=False)
    mine = emulator.add_member("60", "1")
    emulator.add_member("60", "2", is_ours=False)
    for _ in range(3):
        emulator.state.issue("own")
    emulator.state.collect("B", mine)
    emulator.state.void("C", store_id="any, while there is none")
    return Shop(emulator, clock)


async def void_at(shop, store_id):
    shop.emulator.state.add_store("ours")
    shop.emulator.state.add_store("closed", is_authorised=False)
    await shop.client().void("A", store_id=store_id)


async def with_ended_token(shop):
    async with shop.client() as client:
        await client.batches()
        token = await client.caller.tokens.token()
    shop.emulator.advance(10**8)
    await shop.client(token_source=StaticToken(token)).batches()


async def with_suspended_token(shop):
    async with shop.client() as client:
        await client.batches()
        shop.emulator.authenticator.revoke(code="TOKEN_SUSPENDED")
        await client.batches()


async def without_token(shop):
    def strip(request):
        bare = {name: text for name, text in request.headers.items() if name != "Authorization"}
        return shop.emulator.handle(
            request if request.operation == "token" else attrs.evolve(request, headers=bare)
        )

    await shop.client(transport=MemoryTransport(strip)).batches()


async def with_another_secret(shop):
    client = VoucherClient(
        attrs.evolve(ME, client_secret="other"),
        environment=shop.emulator.environment,
        transport=shop.emulator.transport(),
        runtime=shop.clock.runtime,
    )
    await client.batches()


async def ask_for_token(shop, body):
    # The client itself asks for no other grant, and falls back from a refresh that is refused.
    await shop.client().request("POST", "/v1/token", json=body)


async def with_late_clock(shop):
    await shop.client(runtime=Runtime(clock=lambda: shop.clock.now - 301)).batches()


async def too_often(shop):
    shop.emulator.rate_limit = 1
    client = shop.client(token_source=StaticToken("T"))
    for _ in range(2):
        await client.batches()


async def in_trouble(shop):
    shop.emulator.faults = FaultPlan(rate=1, kinds=[Fault.ERROR_BEFORE_COMMIT])
    await shop.client().get("A")


async def after_its_end(shop, act):
    shop.emulator.advance(60)
    await act(shop.client())


def member(shop, phone_number):
    return shop.client().member("60", phone_number)


# A code, the class that it must raise, the way there; then how the emulator is made.
REACHED: list[tuple[Any, ...]] = [
    ("API_ENDPOINT_NOT_FOUND", InvalidRequestError, lambda s: s.client().request("GET", "/v3/x")),
    ("CLIENT_NOT_AUTHORIZE_STORE", PermissionDeniedError, lambda s: void_at(s, "closed")),
    ("DOES_NOT_ALLOW_MULTIPLE_BATCH_PROCESSING", ServerError, lambda s: s.client().issue("new")),
    (
        "GRANT_TYPE_INVALID",
        AuthenticationError,
        lambda s: ask_for_token(s, {"grantType": "password"}),
        {"disabled_checks": [Check.CLIENT]},
    ),
    ("INTERNAL_ERROR", ServerError, in_trouble),
    ("INVALID_CLIENT", AuthenticationError, with_another_secret),
    ("INVALID_PARAMETER", InvalidRequestError, lambda s: s.client().batches(cursor="x")),
    ("INVALID_REQUEST", InvalidRequestError, lambda s: s.client().request("GET", "/v3/%ff")),
    (
        "INVALID_REQUEST_SIGNATURE",
        SignatureError,
        lambda s: s.client(signer=NoSigner()).batches(),
    ),
    ("INVALID_TIMESTAMP", SignatureError, with_late_clock),
    (
        "InvalidGrant",
        AuthenticationError,
        lambda s: ask_for_token(s, {"grantType": "refresh_token", "refreshToken": "spent"}),
        {"disabled_checks": [Check.CLIENT]},
    ),
    ("MEMBER_NOT_FOUND", NotFoundError, lambda s: member(s, "9").vouchers()),
    ("MEMBER_NOT_MERCHANT", VoucherStateError, lambda s: member(s, "2").get("B")),
    (
        "METHOD_NOT_ALLOWED",
        InvalidRequestError,
        lambda s: s.client().request("PUT", "/v3/voucher-batches"),
    ),
    ("USER_PIN_CODE_INVALID", InvalidRequestError, lambda s: s.client().reinstate("C", pin="0")),
    ("STORE_ID_INVALID", InvalidRequestError, lambda s: void_at(s, " ")),
    ("STORE_NOT_FOUND", InvalidRequestError, lambda s: void_at(s, "unknown")),
    (
        "STORE_NOT_SET",
        InvalidRequestError,
        lambda s: void_at(s, None),
        {"guesses": Guesses(void_needs_store=True)},
    ),
    ("TOKEN_EXPIRED", AuthenticationError, with_ended_token),
    (
        "TOKEN_INVALID",
        AuthenticationError,
        lambda s: s.client(token_source=StaticToken("T")).batches(),
    ),
    ("TOO_MANY_REQUEST_PER_SECOND", RateLimitError, too_often, {"disabled_checks": [Check.TOKEN]}),
    ("UNAUTHORIZED", AuthenticationError, without_token),
    (
        "VALIDATION_ERROR",
        InvalidRequestError,
        lambda s: s.client().request("POST", "/v3/vouchers/redeem", json={}),
    ),
    (
        "VOUCHER_BATCH_EXPIRED",
        ExpiredError,
        lambda s: after_its_end(s, lambda client: client.issue("soon")),
    ),
    ("VOUCHER_BATCH_KEY_INVALID", InvalidRequestError, lambda s: s.client().issue("a b")),
    ("VOUCHER_BATCH_NOT_ENOUGH_QUANTITY", OutOfStockError, lambda s: s.client().issue("empty")),
    ("VOUCHER_BATCH_NOT_FOUND", NotFoundError, lambda s: s.client().vouchers("others")),
    ("VOUCHER_NOT_ALLOW_VOID", VoucherStateError, lambda s: s.client().void("C")),
    ("VOUCHER_NOT_FOUND", NotFoundError, lambda s: s.client().get("X")),
    ("VOUCHER_NOT_MERCHANT", PermissionDeniedError, lambda s: s.client().void("O")),
    ("VOUCHER_NOT_REDEEMED", VoucherStateError, lambda s: s.client().reinstate("A", pin="123456")),
    ("VOUCHER_OWNER_INVALID", VoucherStateError, lambda s: member(s, "1").redeem("A")),
    ("VOUCHER_REDEEMED", VoucherStateError, lambda s: s.client().redeem(["A", "B"])),
    (
        "VOUCHER_REDEEMED_INVALID",
        VoucherStateError,
        lambda s: after_its_end(s, lambda client: client.redeem(["S"])),
    ),
    # Those that an option or a test chooses.
    (
        "PAGE_NOT_FOUND",
        InvalidRequestError,
        lambda s: s.client().request("GET", "/v3/x"),
        {"guesses": Guesses(unknown_path_code="PAGE_NOT_FOUND")},
    ),
    ("TOKEN_SUSPENDED", AuthenticationError, with_suspended_token),
    (
        "VOUCHER_INSUFFICIENT",
        OutOfStockError,
        lambda s: s.client().issue("empty"),
        {"guesses": Guesses(sold_out_code="VOUCHER_INSUFFICIENT")},
    ),
    (
        "VOUCHER_SOLD_OUT",
        OutOfStockError,
        lambda s: s.client().issue("empty"),
        {"guesses": Guesses(sold_out_code="VOUCHER_SOLD_OUT")},
    ),
]
CODES_REACHED = [code for code, *_ in REACHED]
CHOSEN = {"TOKEN_SUSPENDED", "VOUCHER_INSUFFICIENT", "VOUCHER_SOLD_OUT"}
OTHERS = sorted(set(ERROR_CODES) - set(CODES_REACHED))
SENT = {CodeClass.AUTH: 2}  # with a new token, too
WRONG_METHOD = {"INVALID_HTTP_METHOD", "NO_METHOD"}


def codes_in(tree):
    """Yield every error code that stands as a text of its own in a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and node.value in set(ERROR_CODES):
            yield node.value
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "RefusedError":
            for text in ast.walk(node.args[0]):
                if isinstance(text, ast.Constant) and re.fullmatch(r"[A-Z]\w+", str(text.value)):
                    yield text.value


def test_table_is_complete():
    """Every code that stands in the emulator's source has one way to it, and none is made up."""
    files = list(Path(rm_voucher.emulator.__file__).parent.glob("*.py"))
    found = {code for file in files for code in codes_in(ast.parse(file.read_bytes()))}
    assert "INVALID_REQUEST_SIGNATURE" in found  # by a subclass of RefusedError
    assert found <= set(ERROR_CODES)
    assert sorted(CODES_REACHED) == sorted(found | CHOSEN)


async def test_nonce_again_is_a_duplicate():
    """A nonce that comes again is refused as a duplicate, with a code that no list has."""
    place = shop()
    runtime = attrs.evolve(place.emulator.runtime, make_nonce=lambda: "0" * 32)
    client = place.client(runtime=runtime)
    await client.batches()
    with pytest.raises(DuplicateRequestError, match="DUPLICATE_REQUEST"):
        await client.batches()


@pytest.mark.parametrize("row", REACHED, ids=CODES_REACHED)
async def test_code_is_reached(row):
    """What draws the code from the emulator gives the client's caller the code's own error."""
    code, error, act, *options = row
    place = shop(**(options[0] if options else {}))
    with pytest.raises(APIError) as caught:
        await act(place)
    assert (type(caught.value), caught.value.code) == (error, code)
    assert caught.value.http_status == status_of(code, error)
    assert ERROR_CODES[code].hint in str(caught.value)


@pytest.mark.parametrize("code", OTHERS)
async def test_any_other_code_on_a_read(code):
    """A read that is refused with a code raises its error, after what the code's class allows."""
    place, info = shop(), ERROR_CODES[code]
    sent = 2 if code in WRONG_METHOD else SENT.get(info.code_class, 1)
    place.emulator.fail_next("get", code, times=sent)
    async with place.client() as client:
        with pytest.raises(APIError) as caught:
            await client.get("A")
        assert (type(caught.value), caught.value.code) == (info.error, code)
        assert caught.value.http_status == status_of(code, info.error)
        assert place.emulator.requests["get"] == sent
        assert (await client.get("A")).status == "ISSUED"


@pytest.mark.parametrize("code", [*OTHERS, "INTERNAL_ERROR"])
async def test_any_other_code_on_an_issue(code):
    """An issue raises it as well, unless it leaves open whether a voucher was issued."""
    place, info = shop(), ERROR_CODES[code]
    sent = SENT.get(info.code_class, 1)
    place.emulator.fail_next("issue", code, times=sent)
    async with place.client() as client:
        with pytest.raises((APIError, OutcomeUnknownError)) as caught:
            await client.issue("own")
        error: BaseException | None = caught.value
        if info.code_class is CodeClass.UNKNOWN:
            assert isinstance(error, OutcomeUnknownError)
            assert error.batch_key == "own"
            error = error.__cause__
        assert isinstance(error, APIError)
        assert (type(error), error.code) == (info.error, code)
        assert place.emulator.requests["issue"] == sent
        assert place.emulator.state.issued("own") == ("A", "B", "C")
        assert (await client.issue("own")).code == "D"
    assert place.emulator.faults_met == {("issue", code): sent}


@pytest.mark.parametrize("code", ["SOMETHING_NEW", "SomethingNew"])
async def test_unlisted_code(code):
    """A code that nobody listed is kept as it is, in the general error."""
    place = shop()
    place.emulator.fail_next("issue", code)
    with pytest.raises(APIError) as caught:
        await place.client().issue("own")
    assert (type(caught.value), caught.value.code) == (APIError, code)
    assert caught.value.http_status == 400
    assert "do not have this one" in caught.value.hint


@pytest.mark.parametrize("code", ["TOKEN_EXPIRED", "InvalidCode", "NOT_AUTH"])
async def test_code_about_the_token_is_answered_by_a_new_one(code):
    """After one such refusal the client gets another token, and its caller notices nothing."""
    place = shop()
    place.emulator.fail_next("issue", code)
    async with place.client() as client:
        assert (await client.issue("own")).code == "D"
    assert place.emulator.requests == {"token": 2, "issue": 2}
