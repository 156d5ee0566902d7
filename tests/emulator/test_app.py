"""The emulator's engine: RM's access rules, routes and errors, seen by the client and raw."""

import base64
import secrets
from datetime import UTC, datetime

import attrs
import orjson
import pytest
from conftest import KEY_FILE, PUBLIC_KEY_FILE, FakeTime, NoSigner
from yarl import URL

from rm_voucher import (
    AuthenticationError,
    ConfigurationError,
    Credentials,
    InvalidRequestError,
    NotFoundError,
    OutOfStockError,
    Request,
    RetryPolicy,
    SignatureError,
    StaticToken,
    VoucherClient,
    VoucherStateError,
    VoucherStatus,
    VoucherType,
)
from rm_voucher.building import sign_request
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.models import Expiry, ExpiryType
from rm_voucher.protocol import build_issue
from rm_voucher.signing import RsaSigner
from rm_voucher.transport.memory import MemoryTransport

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())


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


async def test_refusals_are_rm_codes(emulator):
    """Each refusal is RM's code, and so the client's typed error."""
    batch = emulator.add_batch("one", quantity=1)
    async with emulator.client() as client:
        code = (await client.issue(batch.key)).code
        with pytest.raises(OutOfStockError, match="NOT_ENOUGH_QUANTITY"):
            await client.issue(batch.key)
        await client.void(code)
        with pytest.raises(VoucherStateError, match="NOT_ALLOW_VOID"):
            await client.void(code)
        for call in (client.get("none"), client.void("none")):
            with pytest.raises(NotFoundError, match="VOUCHER_NOT_FOUND"):
                await call
        for call in (client.issue("none"), client.vouchers("none")):
            with pytest.raises(NotFoundError, match="BATCH_NOT_FOUND"):
                await call


async def test_get_takes_both_methods(emulator):
    """The page says POST, the SDKs send GET: both are answered."""
    batch = emulator.add_batch("one", quantity=1)
    async with emulator.client() as client:
        code = (await client.issue(batch.key)).code
        client._get_method = "GET"
        assert (await client.get(code)).code == code


async def test_same_seed_same_codes():
    """The same seed gives the same codes, another seed others; codes are distinct."""
    series = []
    for seed in (1, 1, 2):
        emulator = Emulator(seed=seed, credentials=ME)
        batch = emulator.add_batch("x", quantity=50)
        series.append([emulator.state.issue(batch.key)[0] for _ in range(50)])
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


@pytest.mark.parametrize("count", [0, 1, 3, 4, 7])
async def test_listing_pages(emulator, count):
    """A listing of any length has every voucher once, in the order of issue."""
    batch = emulator.add_batch("x", quantity=10)
    codes = [emulator.state.issue(batch.key)[0] for _ in range(count)]
    async with emulator.client() as client:
        assert [voucher.code async for voucher in client.vouchers(batch.key)] == codes
        pages = [page async for page in client.vouchers(batch.key).pages()]
    assert [len(page.items) for page in pages] == [3] * (count // 3) + (
        [count % 3] if count % 3 or not count else []
    )


async def test_batches_filter_and_page(emulator):
    """The filter is RM's JSON in the query; what does not match is left out."""
    for number in range(5):
        emulator.add_batch(f"b{number}", quantity=1)
    async with emulator.client() as client:
        assert len([b async for b in client.batches(status="COMPLETED")]) == 5
        assert [b async for b in client.batches(is_static=True)] == []
        assert [b async for b in client.batches(status="FAILED")] == []


async def test_wrong_secret_is_refused(emulator):
    """Another secret gets no token."""
    other = attrs.evolve(ME, client_secret="other")
    client = VoucherClient(
        other, environment=emulator.environment, transport=MemoryTransport(emulator.handle)
    )
    with pytest.raises(AuthenticationError, match="INVALID_CLIENT"):
        await client.batches()


async def test_wrong_signature_is_refused(emulator):
    """A request that is not signed with the client's key is refused."""
    async with emulator.client(signer=NoSigner()) as client:
        with pytest.raises(SignatureError, match="INVALID_REQUEST_SIGNATURE"):
            await client.batches()


@pytest.mark.parametrize("token", ["none", "Bearer"])
async def test_wrong_token_is_refused(emulator, token):
    """A token that was not handed out is refused."""
    async with emulator.client(token_source=StaticToken(token)) as client:
        with pytest.raises(AuthenticationError, match="TOKEN_INVALID"):
            await client.batches()


async def test_token_expires_and_is_renewed(clock):
    """An expired or revoked token is refused; the client renews it without its caller noticing."""
    emulator = Emulator(credentials=ME, token_lifetime_s=100, clock=clock.clock)
    async with emulator.client() as client:
        await client.batches()
        first = client._caller.tokens._held
        emulator.revoke_tokens()
        await client.batches()
        assert client._caller.tokens._held is not first
        clock.now += 200
        await client.batches()
        static = emulator.client(
            token_source=StaticToken(client._caller.tokens._held.token.access_token)
        )
        clock.now += 100
        with pytest.raises(AuthenticationError, match="TOKEN_EXPIRED"):
            await static.batches()


def token_request(emulator, body):
    identity = base64.b64encode(b"client-id:client-secret").decode()
    answer = emulator.handle(
        Request(
            operation="token",
            method="POST",
            url=URL("https://emulator.invalid/v1/token"),
            headers={"Authorization": f"Basic {identity}"},
            body=orjson.dumps(body),
        )
    )
    return orjson.loads(answer.body)


def test_refresh_is_a_rotation(emulator, clock):
    """A refresh token works once and not after its time; another grant type is refused."""
    first = token_request(emulator, {"grantType": "client_credentials"})
    refresh = {"grantType": "refresh_token", "refreshToken": first["refreshToken"]}
    second = token_request(emulator, refresh)
    assert second["accessToken"] != first["accessToken"]
    assert token_request(emulator, refresh)["error"]["code"] == "InvalidGrant"
    clock.now += second["refreshTokenExpiresIn"]
    late = {"grantType": "refresh_token", "refreshToken": second["refreshToken"]}
    assert token_request(emulator, late)["error"]["code"] == "InvalidGrant"
    for body in ({}, [], {"grantType": "password"}, {"grantType": "refresh_token"}):
        assert token_request(emulator, body)["error"]["code"] == "GRANT_TYPE_INVALID"


def signed(emulator, method, target, body=b"", signer=None):
    """Return the answer's status and code to a request as any client could send it."""
    token = token_request(emulator, {"grantType": "client_credentials"})["accessToken"]
    request = Request(
        operation="raw",
        method=method,
        url=URL("https://emulator.invalid" + target, encoded=True),
        body=body,
    )
    ready = sign_request(
        request,
        signer=signer or RsaSigner.from_pem(KEY_FILE.read_bytes()),
        token=token,
        nonce=secrets.token_hex(16),
        timestamp=int(emulator._clock()),
    )
    answer = emulator.handle(ready)
    wire = orjson.loads(answer.body)
    return answer.status, wire.get("error", wire)["code"]


@pytest.mark.parametrize(
    ("method", "target", "body", "expected"),
    [
        ("GET", "/v3/voucher-batches", b"", (200, "SUCCESS")),
        ("POST", "/v3/voucher-batch/K/issue", b"", (200, "SUCCESS")),
        ("POST", "/v3/voucher-batch/K/issue", b"null", (200, "SUCCESS")),
        ("GET", "/v3/voucher-batch/K/issue", b"", (405, "METHOD_NOT_ALLOWED")),
        ("POST", "/v3/voucher-batches", b"", (405, "METHOD_NOT_ALLOWED")),
        ("PATCH", "/v3/voucher/X", b"", (405, "METHOD_NOT_ALLOWED")),
        ("GET", "/v3/voucher/X/void", b"", (405, "METHOD_NOT_ALLOWED")),
        ("POST", "/v3/voucher-batch/K/vouchers", b"", (405, "METHOD_NOT_ALLOWED")),
        ("GET", "/v3/nothing", b"", (404, "API_ENDPOINT_NOT_FOUND")),
        ("GET", "/", b"", (404, "API_ENDPOINT_NOT_FOUND")),
        ("GET", "/v3/voucher-batches?cursor=x", b"", (400, "INVALID_PARAMETER")),
        ("GET", "/v3/voucher-batches?cursor=eA==", b"", (400, "INVALID_PARAMETER")),
        ("GET", "/v3/voucher-batches?cursor=dG8gMQ==", b"", (400, "INVALID_PARAMETER")),
        ("GET", "/v3/voucher-batches?cursor=ZnJvbSAtMQ==", b"", (400, "INVALID_PARAMETER")),
        ("GET", "/v3/voucher-batches?cursor=", b"", (200, "SUCCESS")),
        ("GET", "/v3/voucher-batches?filter=x", b"", (400, "INVALID_PARAMETER")),
        ("GET", "/v3/voucher-batches?filter=[]", b"", (400, "INVALID_PARAMETER")),
        ("POST", "/v3/voucher-batch/%ff/issue", b"", (400, "INVALID_REQUEST")),
        ("POST", "/v3/voucher-batch/K/issue", b"{", (400, "INVALID_REQUEST")),
        ("POST", "/v3/voucher-batch/K/issue", b"[" * 500 + b"]" * 500, (400, "INVALID_REQUEST")),
        ("POST", "/v3/voucher-batch/K/issue", b"[" * 100_000, (400, "INVALID_REQUEST")),
        ("POST", "/v3/voucher/X/void", b'{"usedAt":"x"}', (400, "INVALID_PARAMETER")),
        ("POST", "/v3/voucher/X/void", b'{"usedAt":5}', (400, "INVALID_PARAMETER")),
    ],
)
def test_routes(emulator, method, target, body, expected):
    """Methods, paths and parameters are RM's; everything else draws an error of its list."""
    emulator.add_batch("x", quantity=5, key="K")
    assert signed(emulator, method, target, body) == expected


def test_token_route_takes_post_only(emulator):
    """The token endpoint is a POST."""
    url = URL("https://emulator.invalid/v1/token")
    answer = emulator.handle(Request(operation="raw", method="GET", url=url))
    assert answer.status == 405


@pytest.mark.parametrize("scheme", ["Basic", "Bearer", ""])
def test_no_access_without_token(emulator, scheme):
    """No token, or another scheme, is refused before anything else is looked at."""
    request = build_issue(emulator.environment, "K")
    headers = {"Authorization": f"{scheme} x"} if scheme else {}
    answer = emulator.handle(attrs.evolve(request, headers=headers))
    assert orjson.loads(answer.body)["error"]["code"] == (
        "TOKEN_INVALID" if scheme else "UNAUTHORIZED"
    )


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
    assert emulator.credentials is None
    with pytest.raises(ConfigurationError, match="only the client's public key"):
        emulator.client()


async def test_client_options_pass_through(emulator):
    """`client` takes what `VoucherClient` takes."""
    policy = RetryPolicy(max_attempts=1)
    async with emulator.client(retry=policy) as client:
        assert client._caller.retry is policy
        with pytest.raises(InvalidRequestError):
            await client.get("")


async def test_void_stamps_what_was_sent(emulator):
    """``usedAt`` is kept, so that a lost void can be proved."""
    batch = emulator.add_batch("x", quantity=1)
    instant = datetime(2026, 1, 1, 12, 0, 0, 123456, UTC)
    async with emulator.client() as client:
        voucher = await client.void((await client.issue(batch.key)).code, used_at=instant)
    assert (voucher.used_at, voucher.status) == (instant, VoucherStatus.VOID)
