"""The public surface: what the root exports, and what importing it loads."""

import subprocess
import sys

import pytest

import rm_voucher

EXPORTED = [
    "APIError",
    "Attempt",
    "AttemptResult",
    "AuthenticationError",
    "BatchStatus",
    "BatchStoppedError",
    "BulkIssue",
    "BulkResult",
    "BulkStatus",
    "BulkSummary",
    "CallbackError",
    "ClientCredentialsToken",
    "ClosedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeoutError",
    "Credentials",
    "DecodeError",
    "DuplicateRequestError",
    "Environment",
    "EventStoreError",
    "ExpiredError",
    "Expiry",
    "ExpiryType",
    "FileTokenStore",
    "FlowPolicy",
    "FlowState",
    "Hook",
    "IdempotencyConflictError",
    "InvalidRequestError",
    "IssuedVoucher",
    "LedgerError",
    "Limits",
    "Member",
    "NotFoundError",
    "Origin",
    "OutOfStockError",
    "Outcome",
    "OutcomeUnknownError",
    "Page",
    "Pager",
    "PermissionDeniedError",
    "PoolTimeoutError",
    "Proxy",
    "ProxyError",
    "RateLimitError",
    "Request",
    "Response",
    "ResponseLostError",
    "ResponseTimeoutError",
    "RetryPolicy",
    "Runtime",
    "Safety",
    "ServerError",
    "SharedStoreError",
    "SharedTokenStore",
    "SignatureError",
    "StaticToken",
    "Timeout",
    "Token",
    "TokenSource",
    "TokenStore",
    "Transport",
    "TransportError",
    "Voucher",
    "VoucherBatch",
    "VoucherClient",
    "VoucherError",
    "VoucherStateError",
    "VoucherStatus",
    "VoucherType",
    "__version__",
    "bulk_issue",
]


def test_root_exports_exactly_this():
    """A name comes or goes on purpose, and the list stays sorted."""
    assert rm_voucher.__all__ == EXPORTED == sorted(EXPORTED)
    assert all(hasattr(rm_voucher, name) for name in EXPORTED)


def test_root_exports_are_documented():
    """Every public class and function has a docstring."""
    assert [
        name for name in EXPORTED if name != "__version__" and not getattr(rm_voucher, name).__doc__
    ] == []


def loaded_after(statement):
    script = f"{statement}\nimport sys\nprint(*sorted({{n.split('.')[0] for n in sys.modules}}))"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return set(done.stdout.split())


EXTRAS = {"aiosqlite", "asyncpg", "faststream", "opentelemetry", "rich", "sqlalchemy", "typer"}


@pytest.mark.parametrize(
    "statement",
    [
        "import rm_voucher",
        "from rm_voucher.transport import Transport",
        "import rm_voucher.transport.memory",
        "import rm_voucher; from rm_voucher import VoucherClient, bulk_issue",
    ],
)
def test_import_loads_the_core_only(statement):
    """Importing loads neither aiohttp, nor cryptography, nor an extra, nor the emulator."""
    loaded = loaded_after(statement)
    assert "rm_voucher" in loaded
    assert loaded & (EXTRAS | {"aiohttp", "cryptography"}) == set()


def test_import_of_the_emulator_loads_no_extra():
    """The emulator in memory needs no HTTP library."""
    assert loaded_after("import rm_voucher.emulator") & (EXTRAS | {"aiohttp"}) == set()
