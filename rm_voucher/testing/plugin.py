"""A pytest plugin: fixtures on the emulator, in every project where rm_voucher is installed.

They need no import and no conftest. `rm_emulator` is a voucher server of the test's own,
`rm_client` a client of it in this process, `rm_server` the same server over HTTP, `rm_callbacks`
the merchant's URL, and `rm_requests` what came. ``@pytest.mark.rm_emulator(batches={"TEA": 5})``
gives arguments to the emulator. Tests don't wait: between attempts `rm_client` sets the emulator's
clock ahead.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from rm_voucher import VoucherClient
    from rm_voucher.emulator import Emulator
    from rm_voucher.emulator.server import Server
    from rm_voucher.testing.emulated import Emulated
    from rm_voucher.testing.receiver import CallbackReceiver
    from rm_voucher.testing.requests import RecordedRequests

__all__ = ["rm", "rm_callbacks", "rm_client", "rm_emulator", "rm_requests", "rm_server"]


def pytest_configure(config: pytest.Config) -> None:
    """Make the marker known."""
    config.addinivalue_line(
        "markers",
        "rm_emulator(**arguments): what the fixture rm_emulator gives to Emulator, and a scenario.",
    )


@pytest.fixture
def rm(request: pytest.FixtureRequest) -> Iterator[Emulated]:
    """All of the below in one: ``rm.emulator``, ``rm.client``, ``rm.client_of("cafe")``, …."""
    from rm_voucher.testing.emulated import emulated

    marker = request.node.get_closest_marker("rm_emulator")
    given: dict[str, Any] = dict(marker.kwargs) if marker else {}
    if marker and marker.args:
        raise TypeError("the marker rm_emulator takes keyword arguments only, as Emulator does")
    with emulated(**given) as made:
        yield made


@pytest.fixture
def rm_emulator(rm: Emulated) -> Emulator:
    """A voucher server of the test's own, empty unless the marker ``rm_emulator`` fills it."""
    return rm.emulator


@pytest.fixture
def rm_client(rm: Emulated) -> VoucherClient:
    """A client of `rm_emulator` in this process. It needs no closing."""
    return rm.client


@pytest.fixture
def rm_server(rm: Emulated) -> Server:
    """`rm_emulator` over HTTP on a free port, in a thread of its own.

    So it also serves tests without asyncio, other processes and other languages: see its ``url``,
    ``environment`` and ``variables``.
    """
    return rm.server


@pytest.fixture
def rm_callbacks(rm: Emulated) -> CallbackReceiver:
    """The merchant's URL, to which `rm_emulator` delivers its callbacks."""
    return rm.callbacks


@pytest.fixture
def rm_requests(rm: Emulated) -> RecordedRequests:
    """What came to `rm_emulator`: ``assert rm_requests.of("issue").count == 3``."""
    return rm.requests
