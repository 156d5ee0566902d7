"""The choice of a server, and the client for it."""

from __future__ import annotations

import os

import attrs

from rm_voucher import (
    ConfigurationError,
    Credentials,
    Environment,
    FlowPolicy,
    Limits,
    Proxy,
    VoucherClient,
)
from rm_voucher.emulator import Emulator
from rm_voucher.shared import SharedStore

_MEMORY = "memory"


def is_memory(environment: str | None) -> bool:
    """Return whether the command runs on the embedded emulator: only where its option says so.

    A variable outlives the trial that it was set for, and the emulator's codes look like real ones.
    """
    return environment is not None and environment.lower() == _MEMORY


def make_client(
    environment: str | None,
    *,
    concurrency: int = 1,
    flow: FlowPolicy | None = None,
    shared: SharedStore | None = None,
) -> VoucherClient:
    """Return the client for a server, with the credentials of the ``RM_…`` variables."""
    credentials, where = credentials_and_environment(environment)
    return VoucherClient(
        credentials,
        environment=where,
        limits=attrs.evolve(Limits(), max_connections=max(concurrency, 10)),
        flow=flow,
        shared=shared,
        proxy=Proxy.from_env(),
    )


def credentials_and_environment(environment: str | None) -> tuple[Credentials, Environment]:
    """Return who and where the ``RM_…`` variables and the option say."""
    if environment is None and os.environ.get("RM_ENVIRONMENT", "").strip().lower() == _MEMORY:
        raise ConfigurationError(
            "RM_ENVIRONMENT is 'memory', whose vouchers are not real: that takes --environment "
            "memory."
        )
    try:
        credentials = Credentials.from_env()
    except ConfigurationError as exc:
        raise ConfigurationError(
            f"{exc} Set the RM_… variables, or use --environment memory to try without an account."
        ) from exc
    return credentials, Environment.named(environment) if environment else Environment.from_env()


@attrs.frozen
class Setting:
    """One setting."""

    name: str
    value: str | None = attrs.field(repr=False)
    source: str


class Settings:
    """All settings."""

    def __init__(self, environment: str | None) -> None:
        self._option = environment
        self.notes: tuple[str, ...] = ()
        names = ["RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY", "RM_PRIVATE_KEY_FILE"]
        names += ["RM_ENVIRONMENT", "RM_API_URL", "RM_OAUTH_URL"]
        self.found = {n: Setting(n, os.environ.get(n), f"the variable {n}") for n in names}
        if environment:
            self.found["RM_ENVIRONMENT"] = Setting("RM_ENVIRONMENT", environment, "--environment")

    def credentials(self) -> Credentials:
        """Return who."""
        return Credentials.from_env()

    def environment(self) -> Environment:
        """Return where."""
        return Environment.named(self._option) if self._option else Environment.from_env()


def find_settings(environment: str | None = None) -> Settings:
    """Return all settings."""
    if environment is None and os.environ.get("RM_ENVIRONMENT", "").strip().lower() == _MEMORY:
        raise ConfigurationError("RM_ENVIRONMENT is 'memory', whose vouchers are not real.")
    return Settings(environment)


def is_real(environment: Environment) -> bool:
    """Return whether vouchers are real."""
    return environment == Environment.PRODUCTION


def in_words(environment: Environment) -> str:
    """Return the environment in words."""
    known = {Environment.PRODUCTION: "PRODUCTION", Environment.SANDBOX: "the sandbox"}
    return known.get(environment, f"an emulator at {environment.api_url}")


def make_memory_client(
    *, batch: str | None = None, quantity: int = 0, flow: FlowPolicy | None = None
) -> VoucherClient:
    """Return a client of a new embedded emulator, with a batch of that key made on the fly."""
    emulator = Emulator(client_id=_MEMORY)  # the same account in every run with one ledger
    if batch is not None:
        emulator.add_batch(batch, key=batch, quantity=quantity)
    return emulator.client(flow=flow)
