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


def make_memory_client(
    *, batch: str | None = None, quantity: int = 0, flow: FlowPolicy | None = None
) -> VoucherClient:
    """Return a client of a new embedded emulator, with a batch of that key made on the fly."""
    emulator = Emulator(client_id=_MEMORY)  # the same account in every run with one ledger
    if batch is not None:
        emulator.add_batch(batch, key=batch, quantity=quantity)
    return emulator.client(flow=flow)
