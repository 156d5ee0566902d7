"""Each rule relaxed by itself: what it forbids is then answered, and nothing else is."""

import itertools

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
from rm_voucher.emulator.guesses import Rule

BATCHES = ("GET", "/v3/voucher-batches")
NUMBERS = itertools.count()


@pytest.fixture
def clock():
    return FakeTime()


def emulator_with(clock, *relax, **options):
    return known(clock=clock.clock, relax=relax, **options)


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
    Rule.CLIENT: (unknown_client, (401, "INVALID_CLIENT")),
    Rule.TOKEN: (unknown_token, (401, "TOKEN_INVALID")),
    Rule.TOKEN_LIFETIME: (token_that_ended, (401, "TOKEN_EXPIRED")),
    Rule.ROTATION: (refreshed_twice, (401, "InvalidGrant")),
    Rule.SIGNATURE: (unsigned, (401, "INVALID_REQUEST_SIGNATURE")),
    Rule.TIMESTAMP: (late, (401, "INVALID_TIMESTAMP")),
    Rule.NONCE: (nonce_again, (400, "INVALID_REQUEST")),
    Rule.METHOD: (wrong_method, (405, "METHOD_NOT_ALLOWED")),
    Rule.PATH: (slash_at_the_end, (404, "API_ENDPOINT_NOT_FOUND")),
    Rule.CURSOR: (cursor_of_nobody, (400, "INVALID_PARAMETER")),
    Rule.FILTER: (filter_of_no_object, (400, "INVALID_PARAMETER")),
    Rule.PIN: (wrong_pin, (400, "PIN_INVALID")),
    Rule.STORE: (unknown_store, (400, "STORE_NOT_FOUND")),
}
# Without a look at the token there is none at its end either.
IMPLIED = {Rule.TOKEN: {Rule.TOKEN_LIFETIME}}


def test_table_is_complete():
    """Every rule has its offence."""
    assert set(OFFENCES) == set(Rule)


def test_by_default_every_rule_is_kept(clock):
    """An emulator that was told nothing is strict."""
    emulator = emulator_with(clock)
    for rule, (offend, refusal) in OFFENCES.items():
        assert (rule, offend(emulator, clock)) == (rule, refusal)


@pytest.mark.parametrize("relaxed", Rule)
def test_rule_relaxed_by_itself(clock, relaxed):
    """The offence against a relaxed rule is answered, those against the other rules are not."""
    emulator = emulator_with(clock, relaxed)
    for rule, (offend, refusal) in OFFENCES.items():
        status, code = offend(emulator, clock)
        if rule is relaxed or rule in IMPLIED.get(relaxed, ()):
            assert (rule, status) == (rule, 200)
        else:
            assert (rule, status, code) == (rule, *refusal)


@pytest.mark.parametrize("kept", sorted(set(Rule) - IMPLIED[Rule.TOKEN]))
def test_rule_kept_by_itself(clock, kept):
    """A rule is kept also where all others are relaxed."""
    offend, refusal = OFFENCES[kept]
    assert offend(emulator_with(clock, *(set(Rule) - {kept})), clock) == refusal


def test_relaxed_by_name_or_not_at_all(clock):
    """Rules may be given as text; what is no rule is a mistake."""
    assert unsigned(emulator_with(clock, "signature"), clock) == (200, "SUCCESS")
    with pytest.raises(ValueError, match="signatures"):
        emulator_with(clock, "signatures")


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (Rule.TOKEN, "Authorization"),
        (Rule.SIGNATURE, "X-Signature"),
        (Rule.TIMESTAMP, "X-Timestamp"),
        (Rule.NONCE, "X-Nonce-Str"),
    ],
)
def test_header_of_a_relaxed_rule_may_be_missing(clock, rule, name):
    """What is not looked at need not be there; what is signed has an empty text in its place."""
    empty = {"X-Timestamp": {"timestamp": ""}, "X-Nonce-Str": {"nonce": ""}}.get(name, {})
    ready = prepared(emulator := emulator_with(clock, rule), *BATCHES, **empty)
    assert send(emulator, with_header(ready, name, None)) == (200, "SUCCESS")


def test_relaxed_lifetime_is_not_for_revoked_tokens(clock):
    """A token that needs no end can still be revoked."""
    emulator = emulator_with(clock, Rule.TOKEN_LIFETIME)
    token = access_token(emulator)
    emulator.gate.revoke(code="TOKEN_SUSPENDED")
    assert signed(emulator, *BATCHES, token=token) == (401, "TOKEN_SUSPENDED")


def test_relaxed_rotation_is_no_eternal_life(clock):
    """A refresh token that works more than once still ends."""
    emulator = emulator_with(clock, Rule.ROTATION)
    answer = token_request(emulator, FIRST_TOKEN)
    asking = token_asking({"grantType": "refresh_token", "refreshToken": answer["refreshToken"]})
    assert [send(emulator, asking)[0] for _ in range(3)] == [200] * 3
    clock.now += answer["refreshTokenExpiresIn"]
    assert send(emulator, asking) == (401, "InvalidGrant")


def test_relaxed_method_does_the_work_of_the_path(clock):
    """Any method does what the path stands for, the token's too."""
    emulator = emulator_with(clock, Rule.METHOD)
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
def test_relaxed_path_is_about_its_end(clock, target, expected):
    """Slashes are ignored at the end of the path, and nowhere else."""
    emulator = emulator_with(clock, Rule.PATH)
    emulator.add_batch("x", quantity=1, key="K")
    assert signed(emulator, "GET", target) == expected


async def test_relaxed_cursor_means_the_beginning(clock):
    """A cursor of nobody's begins at the beginning, and a page's own still goes on."""
    emulator = emulator_with(clock, Rule.CURSOR, guesses=Guesses(page_size=1))
    first, second = (emulator.add_batch("x", quantity=1) for _ in range(2))
    async with emulator.client() as client:
        page = await client.batches(cursor="of nobody")
        assert page.items == (first,)
        assert (await client.batches(cursor=page.cursor)).items == (second,)


def test_relaxed_filter_filters_nothing(clock):
    """A filter that is no object filters nothing, and one that is does."""
    emulator = emulator_with(clock, Rule.FILTER)
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
def test_relaxed_pin_may_be_missing(clock, body):
    """No PIN will do as well as a wrong one."""
    emulator = emulator_with(clock, Rule.PIN)
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
def test_relaxed_store_is_any_store(clock, body, expected):
    """Any text is a store; where the option asks for one, it must still be there."""
    emulator = emulator_with(clock, Rule.STORE, guesses=Guesses(void_needs_store=True))
    code = issued(emulator)
    emulator.state.add_store("not ours", is_authorised=False)
    assert signed(emulator, "POST", f"/v3/voucher/{code}/void", body) == expected
