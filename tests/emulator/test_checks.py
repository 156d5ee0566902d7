"""Each check disabled by itself: what it forbids is then answered, and nothing else is."""

import itertools
from typing import Any

import pytest
from support.doubles import FakeTime, NoSigner
from support.raw_requests import (
    FIRST_TOKEN,
    access_token,
    known,
    prepared,
    send,
    signed,
    token_asking,
    token_request,
    with_header,
)

from rm_voucher.emulator import Guesses
from rm_voucher.emulator.guesses import Check

BATCHES = ("GET", "/v3/voucher-batches")
NUMBERS = itertools.count()


@pytest.fixture
def clock():
    return FakeTime()


def emulator_with(clock, *disabled, **options):
    return known(clock=clock.clock, disabled_checks=disabled, **options)


def issued(emulator):
    """Return the code of a voucher of a new batch."""
    batch = emulator.add_batch("x", quantity=1)
    return emulator.state.issue(batch.key)[0]


def void(emulator):
    """Return the code of a voucher that is void."""
    code = issued(emulator)
    emulator.state.void(code)
    return code


def unknown_client(emulator, clock):
    return send(emulator, token_asking(FIRST_TOKEN, secret="another"))


def unknown_token(emulator, clock):
    return signed(emulator, *BATCHES, token="T")


def token_that_ended(emulator, clock):
    answer = token_request(emulator, FIRST_TOKEN)
    clock.now += answer["expiresIn"]
    return signed(emulator, *BATCHES, token=answer["accessToken"])


def refreshed_twice(emulator, clock):
    refresh_token = token_request(emulator, FIRST_TOKEN)["refreshToken"]
    asking = token_asking({"grantType": "refresh_token", "refreshToken": refresh_token})
    assert send(emulator, asking) == (200, "")
    return send(emulator, asking)


def unsigned(emulator, clock):
    return signed(emulator, *BATCHES, signer=NoSigner())


def late(emulator, clock):
    return signed(emulator, *BATCHES, timestamp=int(clock.now) - 301)


def nonce_again(emulator, clock):
    nonce = f"again-{next(NUMBERS)}"
    assert signed(emulator, *BATCHES, nonce=nonce) == (200, "SUCCESS")
    return signed(emulator, *BATCHES, nonce=nonce)


def wrong_method(emulator, clock):
    return signed(emulator, "DELETE", "/v3/voucher-batches")


def slash_at_the_end(emulator, clock):
    return signed(emulator, "GET", "/v3/voucher-batches/")


def cursor_of_nobody(emulator, clock):
    return signed(emulator, "GET", "/v3/voucher-batches?cursor=x")


def filter_of_no_object(emulator, clock):
    return signed(emulator, "GET", "/v3/voucher-batches?filter=x")


def wrong_pin(emulator, clock):
    code = void(emulator)
    return signed(emulator, "PATCH", f"/v3/voucher/{code}/reinstate", b'{"pin":"0"}')


def unknown_store(emulator, clock):
    code = issued(emulator)
    emulator.state.add_store("the only one")
    return signed(emulator, "POST", f"/v3/voucher/{code}/void", b'{"storeId":"another"}')


OFFENCES = {
    Check.CLIENT: (unknown_client, (401, "INVALID_CLIENT")),
    Check.TOKEN: (unknown_token, (401, "TOKEN_INVALID")),
    Check.TOKEN_LIFETIME: (token_that_ended, (401, "TOKEN_EXPIRED")),
    Check.ROTATION: (refreshed_twice, (401, "InvalidGrant")),
    Check.SIGNATURE: (unsigned, (401, "INVALID_REQUEST_SIGNATURE")),
    Check.TIMESTAMP: (late, (401, "INVALID_TIMESTAMP")),
    Check.NONCE: (nonce_again, (400, "DUPLICATE_REQUEST")),
    Check.METHOD: (wrong_method, (405, "METHOD_NOT_ALLOWED")),
    Check.PATH: (slash_at_the_end, (404, "API_ENDPOINT_NOT_FOUND")),
    Check.CURSOR: (cursor_of_nobody, (400, "INVALID_PARAMETER")),
    Check.FILTER: (filter_of_no_object, (400, "INVALID_PARAMETER")),
    Check.PIN: (wrong_pin, (400, "USER_PIN_CODE_INVALID")),
    Check.STORE: (unknown_store, (400, "STORE_NOT_FOUND")),
}
# Without a look at the token there is none at its end either.
IMPLIED = {Check.TOKEN: {Check.TOKEN_LIFETIME}}


def test_table_is_complete():
    """Every check has its offence."""
    assert set(OFFENCES) == set(Check)


def test_by_default_every_rule_is_kept(clock):
    """An emulator that was told nothing is strict."""
    emulator = emulator_with(clock)
    for check, (offend, refusal) in OFFENCES.items():
        assert (check, offend(emulator, clock)) == (check, refusal)


@pytest.mark.parametrize("disabled", Check)
def test_check_disabled_by_itself(clock, disabled):
    """The offence against a disabled check is answered, those against the other checks are not."""
    emulator = emulator_with(clock, disabled)
    for check, (offend, refusal) in OFFENCES.items():
        status, code = offend(emulator, clock)
        if check is disabled or check in IMPLIED.get(disabled, ()):
            assert (check, status) == (check, 200)
        else:
            assert (check, status, code) == (check, *refusal)


@pytest.mark.parametrize("kept", sorted(set(Check) - IMPLIED[Check.TOKEN]))
def test_rule_kept_by_itself(clock, kept):
    """A check is kept also where all others are disabled."""
    offend, refusal = OFFENCES[kept]
    assert offend(emulator_with(clock, *(set(Check) - {kept})), clock) == refusal


def test_disabled_by_name_or_not_at_all(clock):
    """Checks may be given as text; what is no check is a mistake."""
    assert unsigned(emulator_with(clock, "signature"), clock) == (200, "SUCCESS")
    with pytest.raises(ValueError, match="signatures"):
        emulator_with(clock, "signatures")


@pytest.mark.parametrize(
    ("check", "name"),
    [
        (Check.TOKEN, "Authorization"),
        (Check.SIGNATURE, "X-Signature"),
        (Check.TIMESTAMP, "X-Timestamp"),
        (Check.NONCE, "X-Nonce-Str"),
    ],
)
def test_header_of_a_disabled_check_may_be_missing(clock, check, name):
    """What is not looked at need not be there; what is signed has an empty text in its place."""
    empty: dict[str, Any] = {}
    if check is Check.TIMESTAMP:
        empty = {"timestamp": ""}
    elif check is Check.NONCE:
        empty = {"nonce": ""}
    ready = prepared(emulator := emulator_with(clock, check), *BATCHES, **empty)
    assert send(emulator, with_header(ready, name, None)) == (200, "SUCCESS")


def test_disabled_lifetime_is_not_for_revoked_tokens(clock):
    """A token that needs no end can still be revoked."""
    emulator = emulator_with(clock, Check.TOKEN_LIFETIME)
    token = access_token(emulator)
    emulator.authenticator.revoke(code="TOKEN_SUSPENDED")
    assert signed(emulator, *BATCHES, token=token) == (401, "TOKEN_SUSPENDED")


def test_disabled_rotation_is_no_eternal_life(clock):
    """A refresh token that works more than once still ends."""
    emulator = emulator_with(clock, Check.ROTATION)
    answer = token_request(emulator, FIRST_TOKEN)
    asking = token_asking({"grantType": "refresh_token", "refreshToken": answer["refreshToken"]})
    assert [send(emulator, asking)[0] for _ in range(3)] == [200] * 3
    clock.now += answer["refreshTokenExpiresIn"]
    assert send(emulator, asking) == (401, "InvalidGrant")


def test_disabled_method_does_the_work_of_the_path(clock):
    """Any method does what the path stands for, the token's too."""
    emulator = emulator_with(clock, Check.METHOD)
    emulator.add_batch("x", quantity=1, key="K")
    assert signed(emulator, "PUT", "/v3/voucher-batch/K/issue") == (200, "SUCCESS")
    assert len(emulator.state.issued("K")) == 1


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("/v3/voucher-batches//", (200, "SUCCESS")),
        ("/v3/voucher-batch/K/vouchers/?cursor=", (200, "SUCCESS")),
        ("//v3/voucher-batches", (404, "API_ENDPOINT_NOT_FOUND")),
        ("/v3//voucher-batches", (404, "API_ENDPOINT_NOT_FOUND")),
        ("/v3/voucher-batches/%2F", (404, "API_ENDPOINT_NOT_FOUND")),
        ("/", (404, "API_ENDPOINT_NOT_FOUND")),
    ],
)
def test_disabled_path_is_about_its_end(clock, target, expected):
    """Slashes are ignored at the end of the path, and nowhere else."""
    emulator = emulator_with(clock, Check.PATH)
    emulator.add_batch("x", quantity=1, key="K")
    assert signed(emulator, "GET", target) == expected


async def test_disabled_cursor_means_the_beginning(clock):
    """A cursor of nobody's begins at the beginning, and a page's own still goes on."""
    emulator = emulator_with(clock, Check.CURSOR, guesses=Guesses(page_size=1))
    first, second = (emulator.add_batch("x", quantity=1) for _ in range(2))
    async with emulator.client() as client:
        page = await client.batches(cursor="of nobody")
        assert page.items == (first,)
        assert (await client.batches(cursor=page.cursor)).items == (second,)


def test_disabled_filter_filters_nothing(clock):
    """A filter that is no object filters nothing, and one that is does."""
    emulator = emulator_with(clock, Check.FILTER)
    emulator.add_batch("x", quantity=1)

    def count(text):
        ready = prepared(emulator, "GET", f"/v3/voucher-batches?filter={text}")
        return emulator.handle(ready).body.count(b'"quantity"')

    assert [count(text) for text in ("x", "[]", "", "%7B%22status%22:%22FAILED%22%7D")] == [
        1,
        1,
        1,
        0,
    ]


@pytest.mark.parametrize("body", [b"", b"{}", b'{"pin":null}', b'{"pin":"0","reason":"r"}'])
def test_disabled_pin_may_be_missing(clock, body):
    """No PIN will do as well as a wrong one."""
    emulator = emulator_with(clock, Check.PIN)
    target = f"/v3/voucher/{void(emulator)}/reinstate"
    assert signed(emulator, "PATCH", target, body) == (200, "SUCCESS")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"storeId":"another"}', (200, "SUCCESS")),
        (b'{"storeId":" "}', (200, "SUCCESS")),
        (b'{"storeId":"not ours"}', (200, "SUCCESS")),
        (b"{}", (400, "STORE_NOT_SET")),
    ],
)
def test_disabled_store_is_any_store(clock, body, expected):
    """Any text is a store; where the option asks for one, it must still be there."""
    emulator = emulator_with(clock, Check.STORE, guesses=Guesses(void_needs_store=True))
    code = issued(emulator)
    emulator.state.add_store("not ours", is_authorised=False)
    assert signed(emulator, "POST", f"/v3/voucher/{code}/void", body) == expected
