"""The public surface: what the root exports, and what importing it loads."""

import ast
import subprocess
import sys
from pathlib import Path

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
    "Failed",
    "FileTokenStore",
    "FlowPolicy",
    "FlowState",
    "Gauge",
    "Hook",
    "IdempotencyConflictError",
    "InvalidRequestError",
    "Issued",
    "IssuedVoucher",
    "LedgerError",
    "Limits",
    "Member",
    "NotFoundError",
    "Observer",
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
    "Retryable",
    "Runtime",
    "Safety",
    "ServerError",
    "SharedStoreError",
    "SharedTokenStore",
    "SignatureError",
    "Source",
    "StaticToken",
    "Timeout",
    "Token",
    "TokenSource",
    "TokenStore",
    "Transport",
    "TransportError",
    "Unresolved",
    "Voucher",
    "VoucherBatch",
    "VoucherClient",
    "VoucherError",
    "VoucherStateError",
    "VoucherStatus",
    "VoucherType",
    "Work",
    "WorkKind",
    "WorkResult",
    "__version__",
    "bulk_issue",
]


def test_root_exports_exactly_this():
    """A name comes or goes on purpose, and the list stays sorted."""
    assert rm_voucher.__all__ == EXPORTED == sorted(EXPORTED)
    assert all(hasattr(rm_voucher, name) for name in EXPORTED)


def test_root_exports_are_documented():
    """Every public class and function has a docstring."""
    no_class_or_function = {"BulkResult", "__version__"}
    documented = {name for name in EXPORTED if getattr(rm_voucher, name).__doc__}
    assert set(EXPORTED) - documented <= no_class_or_function


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


def homes():
    """Return the names that the root has, by the modules that its two lists give."""
    tree = ast.parse(Path(rm_voucher.__file__).read_text())
    (checked,) = [node for node in tree.body if isinstance(node, ast.If)]
    imported = {
        alias.name: str(node.module).removeprefix("rm_voucher.")
        for node in checked.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    lazy = {name: home for home, names in rm_voucher._HOMES.items() for name in names.split()}
    return imported, lazy


def test_root_has_each_name_where_type_checkers_see_it():
    """The imports for type checkers and those at the first use are the same."""
    imported, lazy = homes()
    assert imported == lazy
    assert sorted([*lazy, "__version__"]) == EXPORTED


def test_root_imports_nothing_before_it_is_asked():
    """``import rm_voucher`` alone costs next to nothing."""
    script = (
        "import sys, rm_voucher\nprint(*[n for n in sys.modules if n.startswith('rm_voucher.')])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["rm_voucher._version"]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("rm_voucher.models.Voucher is rm_voucher.Voucher", "True"),
        ("pickle.loads(pickle.dumps(rm_voucher.Voucher)) is rm_voucher.Voucher", "True"),
        ("'VoucherClient' in dir(rm_voucher)", "True"),
        ("hasattr(rm_voucher, 'Vouchers')", "False"),
        ("sorted(set(rm_voucher.__all__) - {n for n in names if n[0] != '_'})", "['__version__']"),
    ],
)
def test_root_is_like_one_that_imports_all(expression, value):
    """Modules, pickles, ``dir`` and ``import *`` are what they are elsewhere."""
    script = "import pickle, rm_voucher\nnames = {}\nexec('from rm_voucher import *', names)"
    script += f"\nprint({expression})"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == value


def test_root_loads_a_part_that_is_asked_for():
    """A module that nobody has imported is there as an attribute, too."""
    script = "import rm_voucher\nprint(rm_voucher.models.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "rm_voucher.models"
