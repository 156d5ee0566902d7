"""The errors that this library raises. `wire.error_codes` has the meaning of each of RM's codes.

The tree::

    VoucherError
    ├── ConfigurationError          a setting or key is wrong; nothing was sent
    ├── TransportError              no whole answer arrived
    │   ├── ConnectError            provably not sent
    │   │   ├── ConnectTimeoutError
    │   │   │   └── PoolTimeoutError    too many calls were in flight
    │   │   ├── ProxyError          the proxy refuses; not tried again
    │   │   └── ClosedError         by a client that was closed; not tried again
    │   └── ResponseLostError       may have been executed
    │       └── ResponseTimeoutError
    ├── OutcomeUnknownError         it may have been executed, and nothing can prove either
    ├── LedgerError                 the ledger failed, or its state forbids the call
    │   ├── IdempotencyConflictError
    │   └── BatchStoppedError
    ├── CallbackError               a delivery that is not provably a callback of RM's
    ├── EventStoreError             the store of callbacks can't be used
    ├── SharedStoreError            what processes share can't be read or written
    ├── DecodeError                 an answer that is not as documented
    └── APIError                    the server's error, or input that the client refuses
        ├── AuthenticationError
        ├── SignatureError
        ├── PermissionDeniedError
        ├── NotFoundError
        ├── VoucherStateError
        │   ├── OutOfStockError
        │   └── ExpiredError
        ├── InvalidRequestError
        ├── DuplicateRequestError   may have been executed, by an earlier copy
        ├── RateLimitError
        └── ServerError

No message, repr or pickle contains a secret or a voucher code. Only attributes may hold a code,
and a pickle leaves these out: ``message`` of `APIError` (the server's own words), ``expected`` of
`SignatureError`, the voucher of `DecodeError`, and the codes and vouchers of `OutcomeUnknownError`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, ClassVar, Self

from rm_voucher.decode_error import DecodeError, Retryable, VoucherError
from rm_voucher.models import IssuedVoucher, Voucher

__all__ = [
    "APIError",
    "AuthenticationError",
    "BatchStoppedError",
    "CallbackError",
    "ClosedError",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeoutError",
    "DecodeError",
    "DuplicateRequestError",
    "EventStoreError",
    "ExpiredError",
    "IdempotencyConflictError",
    "InvalidRequestError",
    "LedgerError",
    "NotFoundError",
    "OutOfStockError",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "PoolTimeoutError",
    "ProxyError",
    "RateLimitError",
    "ResponseLostError",
    "ResponseTimeoutError",
    "Retryable",
    "ServerError",
    "SharedStoreError",
    "SignatureError",
    "TransportError",
    "VoucherError",
    "VoucherStateError",
]


class ConfigurationError(VoucherError):
    """A setting, a key or a credential can't be used. Nothing was sent."""


class TransportError(VoucherError):
    """No whole HTTP answer arrived. Transports raise this family and nothing else."""


class ConnectError(TransportError):
    """No connection was made, so provably no byte of the request left: safe to send again."""


class ConnectTimeoutError(ConnectError):
    """No connection in time, or no turn to send: provably not sent."""


class PoolTimeoutError(ConnectTimeoutError):
    """None of the client's connections became free in time: provably not sent.

    More calls were in flight than `Limits.max_connections`, and the server was slow.
    """


class ProxyError(ConnectError):
    """The proxy refuses to connect (HTTP 403, 407): provably not sent. A repeat would not help."""


class ClosedError(ConnectError):
    """The client or its session was closed: provably not sent. A repeat would not help."""


class ResponseLostError(TransportError):
    """The request may have arrived, its answer did not: whether it was executed is unknown."""


class ResponseTimeoutError(ResponseLostError):
    """The answer did not come in time: whether the request was executed is unknown."""


class LedgerError(VoucherError):
    """The ledger can't be opened or written, or its state forbids the call.

    A call that was sent before stays in the ledger with an unknown outcome, to be settled.
    """


class IdempotencyConflictError(LedgerError):
    """A request id was used before with another batch or content. Nothing was sent."""


class BatchStoppedError(LedgerError):
    """Nothing more is issued from this batch before somebody has looked. Nothing was sent."""


class CallbackError(VoucherError):
    """A delivery is refused: it is not, or not provably, a callback of RM's.

    ``step`` is the check that failed, a `CallbackStep`. Don't tell the sender which.
    """

    def __init__(self, step: str, message: str) -> None:
        super().__init__(message)
        self.step = step


class EventStoreError(VoucherError):
    """The store of callbacks can't be opened, read or written."""


class SharedStoreError(VoucherError):
    """The store of what processes share can't be reached, read or written."""


class OutcomeUnknownError(VoucherError):
    """The call may or may not have been executed, and nothing at hand can prove either.

    Never repeat an *issue* that ended like this: a second voucher may come into being. Keep
    the attributes for reconciliation.

    Attributes:
        operation: what was called, for example ``"issue"``.
        batch_key: the batch, where the operation has one.
        code: the voucher code, where the operation has one; of an *issue*, that of ``voucher``.
            Bearer value; not in the message.
        codes: of a bulk redeem, the codes whose outcome is unknown.
        attempt_id: identifies the last attempt in this library's log.
        nonce: the ``X-Nonce-Str`` of the last attempt.
        sent_at: when the last attempt was signed, UTC.
        voucher: the voucher as it was read back, when it could be. Of an *issue*, the
            `IssuedVoucher` that came in spite of all: in an answer that is also an error, say. Keep
            it.
        vouchers: of a bulk redeem, the vouchers of these codes that could be read back.
        redeemed: of a bulk redeem, the vouchers that it redeemed for certain.

    Neither a pickle nor a `copy.copy` has codes or vouchers.
    """

    _private: ClassVar = {
        "code": None,
        "codes": (),
        "voucher": None,
        "vouchers": (),
        "redeemed": (),
    }

    def __init__(
        self,
        message: str,
        *,
        operation: str,
        batch_key: str | None = None,
        code: str | None = None,
        attempt_id: str | None = None,
        nonce: str | None = None,
        sent_at: datetime | None = None,
        voucher: Voucher | IssuedVoucher | None = None,
    ) -> None:
        super().__init__(message)
        self.operation = operation
        self.batch_key = batch_key
        self.code = code
        self.attempt_id = attempt_id
        self.nonce = nonce
        self.sent_at = sent_at
        self.voucher = voucher
        self.codes: tuple[str, ...] = ()
        self.vouchers: tuple[Voucher, ...] = ()
        self.redeemed: tuple[Voucher, ...] = ()


class APIError(VoucherError):
    """The server answered with an error; this class itself is raised for codes nobody listed.

    Attributes:
        code: RM's error code as the server spelled it; ``""`` when the body was not RM's own,
            or when the client refused the input before sending.
        message: the server's own text. It may repeat a code, so neither ``str(error)`` nor a
            pickle has it.
        http_status: the HTTP status, or None when nothing was sent.
        hint: a remedy, in our words.
        retry_after_s: the wait that the server asked for, in seconds.
    """

    _private: ClassVar = {"message": ""}

    def __init__(
        self,
        code: str = "",
        message: str = "",
        http_status: int | None = None,
        hint: str = "",
        *,
        retry_after_s: float | None = None,
    ) -> None:
        subject = code or ("not RM's error format" if http_status else "refused before sending")
        status = f" (HTTP {http_status})" if http_status else ""
        super().__init__(f"{subject}{status}{': ' if hint else ''}{hint}")
        self.code = code
        self.message = message
        self.http_status = http_status
        self.hint = hint
        self.retry_after_s = retry_after_s

    @classmethod
    def refused(cls, reason: str) -> Self:
        """Return the error for input that the client itself refuses. Nothing was sent."""
        return cls(hint=reason)


class AuthenticationError(APIError):
    """The token or the client's identity is not accepted."""


class SignatureError(APIError):
    """The signature or its timestamp is not accepted.

    RM's sandbox says what it expected. The error compares that with what was sent, and its text
    says what differs.

    Attributes:
        differs: what RM read otherwise or refuses, in part: ``"method"``, ``"url"``, ``"nonce"``,
            ``"timestamp"``, ``"body"``, ``"signature"``, ``"key"``. Empty where nothing tells.
        expected: the text that RM expected the signature of, without the body; None where it does
            not say. Its URL may have a code, so neither ``str(error)`` nor a pickle has it.
    """

    _private: ClassVar = {"message": "", "expected": None}
    differs: tuple[str, ...] = ()
    expected: str | None = None

    def explain(self, *, differs: tuple[str, ...], expected: str | None, hint: str) -> None:
        """Take what the answer tells; ``hint`` has neither a code nor a body in it."""
        self.args: tuple[Any, ...] = (f"{self.args[0].removesuffix(self.hint)}{hint}",)
        self.differs, self.expected = differs, expected
        self.hint: str = hint


class PermissionDeniedError(APIError):
    """The application, account or store may not do this."""


class NotFoundError(APIError):
    """The voucher, batch or member does not exist for this merchant."""


class VoucherStateError(APIError):
    """The voucher or batch is not in a state that allows the operation."""


class OutOfStockError(VoucherStateError):
    """The batch has no voucher left."""


class ExpiredError(VoucherStateError):
    """The voucher or batch has expired."""


class InvalidRequestError(APIError):
    """The request is malformed, or the client refused its input before sending anything."""


class DuplicateRequestError(APIError):
    """The server had this very request before, so an earlier copy of it arrived.

    A proxy in between may have sent it twice. After anything but a read the outcome is unknown.
    """


class RateLimitError(APIError):
    """The server takes no more for now. Nothing was done."""


class ServerError(APIError):
    """The server failed or refused for load."""
