"""A client made of another, with options of its own; and clients from variables and settings."""

from __future__ import annotations

from typing import Any

import pytest

from rm_voucher import (
    ClosedError,
    ConfigurationError,
    Environment,
    OutcomeUnknownError,
    Proxy,
    RetryPolicy,
    ServerError,
    Timeout,
    VoucherClient,
)
from rm_voucher.emulator import Emulator, Fault
from rm_voucher.emulator.server import serve
from rm_voucher.transport.aiohttp import AiohttpTransport
from rm_voucher.transport.memory import MemoryTransport


@pytest.fixture
def emulator() -> Emulator:
    return Emulator(batches={"TEA": 9})


async def test_client_with_options_shares_all_else(emulator: Emulator) -> None:
    """Connections, token, signer, hooks and pace: one token is bought, and the calls are paced
    together."""
    async with emulator.client(hooks=[lambda _: None]) as client:
        made = client.with_options(timeout=Timeout(attempt_s=5), retry=RetryPolicy(max_attempts=1))
        assert type(made) is VoucherClient
        for name in ("transport", "tokens", "signer", "flow", "hooks", "runtime", "server_clock"):
            assert getattr(made.caller, name) is getattr(client.caller, name)
        assert (made.account, made.flow) == (client.account, client.flow)
        await made.issue("TEA")
        await client.issue("TEA")
        assert emulator.requests == {"token": 1, "issue": 2}


async def test_client_with_options_knows_its_maker(emulator: Emulator) -> None:
    """What outlasts a call, such as a ledger's sweeps, goes on with the first one's options."""
    async with emulator.client() as client:
        assert client.made_of is None
        made = client.with_options(timeout=Timeout(attempt_s=5))
        assert made.with_options(retry=RetryPolicy(max_attempts=1)).made_of is client


async def test_client_with_options_has_them(emulator: Emulator) -> None:
    """What is given is its own; what is not is the other's, which keeps both."""
    async with emulator.client(
        timeout=Timeout(attempt_s=9), retry=RetryPolicy(max_attempts=2)
    ) as c:
        once = c.with_options(retry=RetryPolicy(max_attempts=1))
        assert once.caller.timeout == Timeout(attempt_s=9)
        quick = c.with_options(timeout=Timeout(attempt_s=3, change_s=6))
        assert quick.caller.timeout.attempt_s == 3
        assert quick.caller.change_timeout.attempt_s == 6
        assert quick.caller.retries is c.caller.retries
        assert c.caller.timeout == Timeout(attempt_s=9)
        emulator.fail_next("batches", "OVERLOAD")
        with pytest.raises(ServerError):
            await once.batches()
        emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
        with pytest.raises(OutcomeUnknownError):
            await once.issue("TEA")


async def test_client_with_options_learns_with_the_other(emulator: Emulator) -> None:
    """What one found out of the server, the other goes by: neither asks in vain twice."""
    client = emulator.client()
    made = client.with_options(timeout=Timeout(attempt_s=5))
    emulator.fail_next("get", "METHOD_NOT_ALLOWED")
    code = (await client.issue("TEA")).code
    await made.get(code)
    assert emulator.requests["get"] == 2
    await client.get(code)
    assert emulator.requests["get"] == 3


async def test_closing_a_client_with_options_closes_nothing(emulator: Emulator) -> None:
    """So it need not be closed. Once the other is closed, its calls are refused, unsent."""
    async with serve(emulator) as server:
        client = VoucherClient(emulator.credentials, environment=server.environment)
        async with client.with_options(timeout=Timeout(attempt_s=5)) as made:
            await made.issue("TEA")
        await client.issue("TEA")
        await made.issue("TEA")
        await client.aclose()
        with pytest.raises(ClosedError):
            await made.issue("TEA")
        assert emulator.requests["issue"] == 3


@pytest.mark.parametrize("options", [{"timeout": 5}, {"retry": 3}])
def test_options_of_another_type_are_refused(emulator: Emulator, options: dict) -> None:
    """At once, and not by a call."""
    with pytest.raises(ConfigurationError, match="must be of type"):
        emulator.client().with_options(**options)


@pytest.mark.parametrize("environment", ["sandbox", Environment.SANDBOX, None])
def test_client_takes_the_name_of_an_environment(emulator: Emulator, environment) -> None:
    """By the constructor, and by `from_env` in place of the variables."""
    credentials = emulator.credentials
    if environment is not None:
        client = VoucherClient(credentials, environment=environment)
        assert client.caller.environment == Environment.SANDBOX
    client = VoucherClient.from_env(credentials=credentials, environment=environment)
    assert client.caller.environment == Environment.SANDBOX
    with pytest.raises(ConfigurationError, match="is no environment: write sandbox"):
        VoucherClient(credentials, environment="staging")


def test_client_from_env_takes_credentials_and_a_proxy(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is given is used, and its variable is not read: neither RM_CLIENT_ID nor HTTPS_PROXY."""
    monkeypatch.setenv("HTTPS_PROXY", "http://other.test:1")
    given: dict[str, Any] = {"credentials": emulator.credentials, "environment": "production"}
    proxy = Proxy("http://proxy.test:3128")
    cases: list[tuple[dict[str, Any], Proxy | None]] = [
        ({}, Proxy("http://other.test:1")),
        ({"proxy": proxy}, proxy),
        ({"proxy": None}, None),
    ]
    for more, expected in cases:
        caller = VoucherClient.from_env(**given, **more).caller
        assert caller.environment == Environment.PRODUCTION
        assert isinstance(caller.transport, AiohttpTransport)
        assert caller.transport._proxy == expected
    transport = MemoryTransport(emulator.handle)
    assert VoucherClient.from_env(**given, transport=transport).caller.transport is transport


def test_missing_variables_are_told_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """One run of the program is enough to know them."""
    for name in ("RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY", "RM_PRIVATE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigurationError, match="RM_CLIENT_ID, RM_CLIENT_SECRET and RM_PRIVATE"):
        VoucherClient.from_env()
