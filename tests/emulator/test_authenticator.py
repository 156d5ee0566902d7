"""Who may pass: how tokens are granted, what they are good for, and how they end."""

import attrs
import pytest
from support.raw_requests import (
    BATCHES,
    FIRST_TOKEN,
    GOOD,
    UNKNOWN_TOKEN,
    access_token,
    prepared,
    request_to,
    send,
    signed,
    token_asking,
    token_request,
    with_header,
)

from rm_voucher import AuthenticationError, StaticToken
from rm_voucher.emulator import Guesses, authenticator

FIFTY_YEARS = 1_576_799_999


def refresh_of(answer):
    return {"grantType": "refresh_token", "refreshToken": answer["refreshToken"]}


def test_token_is_as_documented(make):
    """A token's answer has RM's fields, and a refresh token lives as long as in RM's example."""
    answer = token_request(make(token_lifetime_s=100), FIRST_TOKEN)
    assert answer.pop("accessToken") != answer.pop("refreshToken")
    assert answer == {"tokenType": "Bearer", "expiresIn": 100, "refreshTokenExpiresIn": FIFTY_YEARS}
    assert token_request(make(), FIRST_TOKEN)["expiresIn"] == 2_591_999


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Basic",
        "Basic Y2xpZW50LWlkOm90aGVy",
        "basic Y2xpZW50LWlkOmNsaWVudC1zZWNyZXQ=",
        "Bearer Y2xpZW50LWlkOmNsaWVudC1zZWNyZXQ=",
        "Basic client-id:client-secret",
        "Basic Y2xpZW50LWlkOmNsaWVudC1zZWNyZXQ",
        "Basic é\udcff",
    ],
)
def test_token_takes_the_secret(emulator, authorization):
    """Whoever does not show the client's id and secret, as documented, gets no token."""
    asking = with_header(token_asking(FIRST_TOKEN), "Authorization", authorization)
    assert send(emulator, asking) == (401, "INVALID_CLIENT")
    asking = with_header(token_asking(FIRST_TOKEN), "Authorization", None)
    assert send(emulator, asking) == (401, "INVALID_CLIENT")


@pytest.mark.parametrize(
    "body",
    [
        None,
        {},
        [],
        "client_credentials",
        {"grantType": "password"},
        {"grantType": None},
        {"grantType": "Client_Credentials"},
        {"grantType": "refresh_token"},
        {"grantType": "refresh_token", "refreshToken": 5},
        {"refreshToken": "x"},
    ],
)
def test_grant_types(emulator, body):
    """There are two grants, and the second takes a refresh token."""
    assert send(emulator, token_asking(body)) == (401, "GRANT_TYPE_INVALID")


def test_header_names_have_no_case(emulator):
    """A header's name may be written in any case, as HTTP has it."""
    ready = prepared(emulator, *BATCHES)
    shouted = {name.upper(): value for name, value in ready.headers.items()}
    assert send(emulator, attrs.evolve(ready, headers=shouted)) == GOOD


def test_refresh_is_a_rotation(emulator):
    """A refresh token works once, and gives a pair of new tokens that both work."""
    first = token_request(emulator, FIRST_TOKEN)
    second = token_request(emulator, refresh_of(first))
    assert second["accessToken"] != first["accessToken"]
    assert second["refreshToken"] != first["refreshToken"]
    assert send(emulator, token_asking(refresh_of(first))) == (401, "InvalidGrant")
    assert signed(emulator, *BATCHES, token=second["accessToken"]) == GOOD
    assert "accessToken" in token_request(emulator, refresh_of(second))


def test_access_token_is_no_refresh_token(emulator):
    """One kind of token does not do for the other."""
    answer = token_request(emulator, FIRST_TOKEN)
    swapped = refresh_of({"refreshToken": answer["accessToken"]})
    assert send(emulator, token_asking(swapped)) == (401, "InvalidGrant")
    assert signed(emulator, *BATCHES, token=answer["refreshToken"]) == UNKNOWN_TOKEN


def test_token_lifetimes(make, clock):
    """Both tokens are good until just before their end, and no longer."""
    emulator = make(token_lifetime_s=100)
    first, second = (token_request(emulator, FIRST_TOKEN) for _ in range(2))
    clock.now += 99.5
    assert signed(emulator, *BATCHES, token=first["accessToken"]) == GOOD
    clock.now += 0.5
    assert signed(emulator, *BATCHES, token=first["accessToken"]) == (401, "TOKEN_EXPIRED")
    clock.now += FIFTY_YEARS - 100.5
    assert "accessToken" in token_request(emulator, refresh_of(first))
    clock.now += 0.5
    assert send(emulator, token_asking(refresh_of(second))) == (401, "InvalidGrant")


def test_advance_ages_tokens_and_no_timestamps(make):
    """The emulator set ahead lets tokens end, and still takes the timestamps of its clients."""
    emulator = make(token_lifetime_s=3600)
    token = access_token(emulator)
    emulator.advance(3599)
    assert signed(emulator, *BATCHES, token=token) == GOOD
    emulator.advance(1)
    assert signed(emulator, *BATCHES, token=token) == (401, "TOKEN_EXPIRED")


async def test_client_renews_what_ended(make, clock):
    """A token that ended or was revoked is renewed, and the client's caller does not notice."""
    emulator = make(token_lifetime_s=100)
    async with emulator.client() as client:
        await client.batches()
        first = await client.caller.tokens.token()
        emulator.revoke_tokens()
        await client.batches()
        second = await client.caller.tokens.token()
        clock.now += 200
        await client.batches()
        assert len({first, second, await client.caller.tokens.token()}) == 3
    assert emulator.requests["token"] == 3


@pytest.mark.parametrize(
    ("options", "code"),
    [({}, "TOKEN_INVALID"), ({"code": "TOKEN_SUSPENDED"}, "TOKEN_SUSPENDED")],
)
async def test_revocation(emulator, options, code):
    """Revoking one token leaves the others; the code is the test's choice; refreshing goes on."""
    first, other = (token_request(emulator, FIRST_TOKEN) for _ in range(2))
    emulator.authenticator.revoke(first["accessToken"], **options)
    emulator.authenticator.revoke("of nobody", **options)
    async with emulator.client(token_source=StaticToken(first["accessToken"])) as client:
        with pytest.raises(AuthenticationError) as caught:
            await client.batches()
    assert caught.value.code == code
    assert signed(emulator, *BATCHES, token=other["accessToken"]) == GOOD
    assert signed(emulator, *BATCHES, token="of nobody") == UNKNOWN_TOKEN
    assert "accessToken" in token_request(emulator, refresh_of(first))
    emulator.authenticator.revoke(first["accessToken"], code="NO_ACCESS")
    assert signed(emulator, *BATCHES, token=first["accessToken"]) == (401, code)


def test_revoking_all(emulator):
    """Revoking without a token revokes every one."""
    tokens = [access_token(emulator) for _ in range(3)]
    emulator.authenticator.revoke(code="TOKEN_SUSPENDED")
    for token in tokens:
        assert signed(emulator, *BATCHES, token=token) == (401, "TOKEN_SUSPENDED")


@pytest.mark.parametrize(("ends", "expected"), [(False, GOOD), (True, UNKNOWN_TOKEN)])
def test_new_token_ends_earlier(make, ends, expected):
    """Whether a new token ends those before it is an option; refresh tokens live on either way."""
    emulator = make(guesses=Guesses(new_token_ends_earlier=ends))
    first = token_request(emulator, FIRST_TOKEN)
    second = access_token(emulator)
    assert signed(emulator, *BATCHES, token=first["accessToken"]) == expected
    emulator.authenticator.revoke("of nobody")
    assert signed(emulator, *BATCHES, token=second) == GOOD
    assert "accessToken" in token_request(emulator, refresh_of(first))


def test_tokens_kept_are_bounded(emulator, monkeypatch):
    """Only so many tokens are remembered, good or revoked, and the oldest are forgotten first."""
    monkeypatch.setattr(authenticator, "_MAX_TOKENS", 2)
    tokens = [access_token(emulator) for _ in range(3)]
    outcomes = [signed(emulator, *BATCHES, token=token) for token in tokens]
    assert outcomes == [UNKNOWN_TOKEN, GOOD, GOOD]
    emulator.authenticator.revoke(code="TOKEN_SUSPENDED")
    tokens.append(access_token(emulator))
    emulator.authenticator.revoke(code="TOKEN_SUSPENDED")
    codes = [signed(emulator, *BATCHES, token=token)[1] for token in tokens]
    assert codes == ["TOKEN_INVALID"] * 2 + ["TOKEN_SUSPENDED"] * 2


def test_refresh_tokens_kept_are_bounded(emulator, monkeypatch):
    """Refresh tokens are as many."""
    monkeypatch.setattr(authenticator, "_MAX_TOKENS", 2)
    answers = [token_request(emulator, FIRST_TOKEN) for _ in range(3)]
    outcomes = [send(emulator, token_asking(refresh_of(answer)))[1] for answer in answers]
    assert outcomes == ["InvalidGrant", "", ""]


def test_no_header_is_unauthorized(emulator):
    """A request without any Authorization is told so, before anything else is looked at."""
    bare = request_to(*BATCHES)
    assert send(emulator, bare) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize("scheme", ["Basic ", "bearer ", "Bearer", "Bearer  ", ""])
def test_other_schemes_are_no_token(emulator, scheme):
    """A token that was handed out counts only after ``Bearer`` and one space."""
    ready = prepared(emulator, *BATCHES, token="T")
    value = scheme + access_token(emulator)
    assert send(emulator, with_header(ready, "Authorization", value)) == UNKNOWN_TOKEN
