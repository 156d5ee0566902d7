"""What the checks share: what they found out so far, and how each says what it found."""

from __future__ import annotations

import ssl
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import attrs

from rm_voucher import Credentials, Environment, Proxy, Timeout
from rm_voucher.cli.connect import Settings
from rm_voucher.exceptions import VoucherError
from rm_voucher.signing.rsa import RsaSigner

MISTAKE = 2
REFUSED = 3
FAILED = 1
UNKNOWN = 4

TIMEOUT = Timeout(connect_s=10, attempt_s=30)


class Fault(Exception):  # noqa: N818 - a finding, and no error of the program
    """What is wrong, in a sentence, and the remedy in another."""

    def __init__(self, says: str, remedy: str, *, exit_code: int = FAILED) -> None:
        super().__init__(says)
        self.says: str = says
        self.remedy: str = remedy
        self.exit_code: int = exit_code


class Unasked(Exception):  # noqa: N818 - likewise
    """Why a check can't be made, or need not be."""


@attrs.frozen
class Finding:
    """What a check found: ``ok`` is None where it was not made."""

    check: str
    ok: bool | None
    says: str
    remedy: str | None = None
    exit_code: int = 0


@attrs.define
class Patient:
    """An installation under examination. Each check reads what the ones before it have found."""

    option: str | None = None
    """The value of ``--environment``."""
    ledger: str | None = attrs.field(default=None, repr=False)
    namespace: str | None = None
    server_keys: list[Path] = attrs.field(factory=list)
    tries_other: bool = False
    """Whether refused credentials may be shown to RM's other environment."""
    clock: Callable[[], float] = time.time

    settings: Settings | None = attrs.field(default=None, repr=False)
    credentials: Credentials | None = attrs.field(default=None, repr=False)
    environment: Environment | None = None
    signer: RsaSigner | None = attrs.field(default=None, repr=False)
    proxy: Proxy | None = None
    tls: ssl.SSLContext | None = attrs.field(default=None, repr=False)
    is_blocked: bool = False
    """Whether a check of the way there has failed."""
    is_reached: bool = False
    """Whether both servers can be talked to."""
    date: tuple[str, float, float] | None = None
    """The ``Date`` of the API's answer, when it was asked and when it came, in unix seconds."""
    token: str | None = attrs.field(default=None, repr=False)
    listing_error: VoucherError | None = None
    batches: int | None = None

    def known_environment(self) -> Environment:
        """Return where the servers are. Raises `Unasked`."""
        if self.environment is None:
            raise Unasked("the environment is not known")
        return self.environment


Check = Callable[[Patient], Awaitable[str]]
"""Returns what it says if all is well. Raises `Fault` and `Unasked`."""


async def examine(name: str, check: Check, patient: Patient) -> Finding:
    """Make one check. An error that it does not explain is a fault of its own."""
    try:
        return Finding(name, ok=True, says=await check(patient))
    except Unasked as exc:
        return Finding(name, ok=None, says=str(exc))
    except Fault as exc:
        return Finding(name, False, exc.says, exc.remedy, exc.exit_code)  # noqa: FBT003 - a finding
    except VoucherError as exc:
        return Finding(name, False, str(exc), None, FAILED)  # noqa: FBT003
