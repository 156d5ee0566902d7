"""An asyncio client for Revenue Monster's voucher API.

A name is imported when it is first asked for, with what it needs: the core only.
`rm_voucher.transport.aiohttp`, `rm_voucher.transport.memory`, `rm_voucher.emulator`,
`rm_voucher.ledger`, `rm_voucher.webhooks`, `rm_voucher.converters`, `rm_voucher.signing`,
`rm_voucher.wire.error_codes` and `rm_voucher.otel` are imported by name.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from rm_voucher._version import __version__

if TYPE_CHECKING:
    from rm_voucher.auth.client_credentials import ClientCredentialsToken
    from rm_voucher.auth.shared_store import SharedTokenStore
    from rm_voucher.auth.store import FileTokenStore, TokenStore
    from rm_voucher.bulk.issue import bulk_issue
    from rm_voucher.bulk.results import (
        BulkResult,
        BulkStatus,
        BulkSummary,
        Failed,
        Issued,
        Unresolved,
    )
    from rm_voucher.bulk.run import BulkIssue
    from rm_voucher.calls.flow import FlowState
    from rm_voucher.calls.hooks import (
        Attempt,
        AttemptResult,
        Gauge,
        Hook,
        Observer,
        Source,
        Work,
        WorkKind,
        WorkResult,
    )
    from rm_voucher.calls.outcomes import Outcome, Safety
    from rm_voucher.calls.token_source import StaticToken, TokenSource
    from rm_voucher.exceptions import (
        APIError,
        AuthenticationError,
        BatchStoppedError,
        CallbackError,
        ClosedError,
        ConfigurationError,
        ConnectError,
        ConnectTimeoutError,
        DecodeError,
        DuplicateRequestError,
        EventStoreError,
        ExpiredError,
        IdempotencyConflictError,
        InvalidRequestError,
        LedgerError,
        NotFoundError,
        OutcomeUnknownError,
        OutOfStockError,
        PermissionDeniedError,
        PoolTimeoutError,
        ProxyError,
        RateLimitError,
        ResponseLostError,
        ResponseTimeoutError,
        Retryable,
        ServerError,
        SharedStoreError,
        SignatureError,
        TransportError,
        VoucherError,
        VoucherStateError,
    )
    from rm_voucher.models import (
        BatchStatus,
        Expiry,
        ExpiryType,
        IssuedVoucher,
        Origin,
        Page,
        Token,
        Voucher,
        VoucherBatch,
        VoucherStatus,
        VoucherType,
    )
    from rm_voucher.runtime import Runtime
    from rm_voucher.service.client import VoucherClient
    from rm_voucher.service.member import Member
    from rm_voucher.service.pager import Pager
    from rm_voucher.settings import (
        Credentials,
        Environment,
        FlowPolicy,
        Limits,
        RetryPolicy,
        Timeout,
    )
    from rm_voucher.transport.base import Request, Response, Transport
    from rm_voucher.transport.proxy import Proxy

__all__ = [
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

# Where each name is, so that the command begins without what it does not need.
_HOMES = {
    "auth.client_credentials": "ClientCredentialsToken",
    "auth.shared_store": "SharedTokenStore",
    "auth.store": "FileTokenStore TokenStore",
    "bulk.issue": "bulk_issue",
    "bulk.results": "BulkResult BulkStatus BulkSummary Failed Issued Unresolved",
    "bulk.run": "BulkIssue",
    "calls.flow": "FlowState",
    "calls.hooks": ("Attempt AttemptResult Gauge Hook Observer Source Work WorkKind WorkResult"),
    "calls.outcomes": "Outcome Safety",
    "calls.token_source": "StaticToken TokenSource",
    "exceptions": (
        "APIError AuthenticationError BatchStoppedError CallbackError ClosedError "
        "ConfigurationError ConnectError ConnectTimeoutError DecodeError "
        "DuplicateRequestError EventStoreError ExpiredError IdempotencyConflictError "
        "InvalidRequestError LedgerError NotFoundError OutcomeUnknownError "
        "OutOfStockError PermissionDeniedError PoolTimeoutError ProxyError RateLimitError "
        "ResponseLostError ResponseTimeoutError Retryable ServerError SharedStoreError "
        "SignatureError TransportError VoucherError VoucherStateError"
    ),
    "models": (
        "BatchStatus Expiry ExpiryType IssuedVoucher Origin Page Token Voucher "
        "VoucherBatch VoucherStatus VoucherType"
    ),
    "runtime": "Runtime",
    "service.client": "VoucherClient",
    "service.member": "Member",
    "service.pager": "Pager",
    "settings": "Credentials Environment FlowPolicy Limits RetryPolicy Timeout",
    "transport.base": "Request Response Transport",
    "transport.proxy": "Proxy",
}


def __getattr__(name: str) -> object:
    for home, names in _HOMES.items():
        if name in names.split():
            value = getattr(importlib.import_module(f"rm_voucher.{home}"), name)
            globals()[name] = value
            return value
    if name in {home.partition(".")[0] for home in _HOMES}:
        return importlib.import_module(f"rm_voucher.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
