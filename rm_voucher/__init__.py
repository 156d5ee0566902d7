"""An asyncio client for Revenue Monster's voucher API.

This loads the core only. `rm_voucher.transport.aiohttp`, `rm_voucher.transport.memory`,
`rm_voucher.emulator`, `rm_voucher.ledger`, `rm_voucher.webhooks`, `rm_voucher.converters`,
`rm_voucher.signing`, `rm_voucher.wire.error_codes` and `rm_voucher.otel` are imported by name.
"""

from rm_voucher._version import __version__
from rm_voucher.auth.client_credentials import ClientCredentialsToken
from rm_voucher.auth.shared_store import SharedTokenStore
from rm_voucher.auth.store import FileTokenStore, TokenStore
from rm_voucher.bulk.issue import bulk_issue
from rm_voucher.bulk.results import BulkResult, BulkStatus, BulkSummary
from rm_voucher.bulk.run import BulkIssue
from rm_voucher.calls.flow import FlowState
from rm_voucher.calls.hooks import Attempt, AttemptResult, Hook
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
from rm_voucher.settings import Credentials, Environment, FlowPolicy, Limits, RetryPolicy, Timeout
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
