"""The base of all errors, and the one that a model raises. `exceptions` has the tree."""

from __future__ import annotations

import enum
import importlib
from typing import Any, ClassVar


class Retryable(enum.StrEnum):
    """Whether the same call may be made again after an error, for whoever writes a worker."""

    NEVER = "never"
    """It would meet the same again: first somebody has to change something, or to look."""
    AFTER_WAIT = "after a wait"
    """Nothing was changed, and a wait may help: `APIError.retry_after_s` where there is one."""
    READ_BACK = "read back first"
    """It may have been executed: find out by a look-up, a listing or the ledger. Until then neither
    a repeat nor "failed" is right."""


class VoucherError(Exception):
    """The base of every error that this library raises on purpose."""

    _is_final = False

    def __init__(self, *args: object, is_final: bool = False) -> None:
        super().__init__(*args)
        self._is_final = is_final  # whether it is a mistake, where others of its class may pass

    _private: ClassVar[dict[str, object]] = {}
    """Attributes that may hold a code, with their values in a pickle."""

    @property
    def retryable(self) -> Retryable:
        """Whether the call that raised it may be made again, as a whole.

        The client has made all its own attempts by then. It is a property of errors as the public
        methods raise them: there, whatever a change may have done is an `OutcomeUnknownError`.
        """
        if self._is_final:
            return Retryable.NEVER
        # By its name, when it is asked: what errors prove is a table of the errors, so above them.
        outcomes = importlib.import_module("rm_voucher.calls.outcomes")
        found: Retryable = outcomes.retryable_of(self)
        return found

    def __reduce__(self) -> tuple[Any, ...]:
        # Subclasses take keywords, which BaseException's own reduce would lose.
        cls = type(self)
        return cls.__new__, (cls, *self.args), {**self.__dict__, **self._private}


class DecodeError(VoucherError):
    """An answer is not what the API documents. The message says where (``$.item.amount``).

    ``voucher`` is what an answer to an *issue* shows all the same: an error with an `IssuedVoucher`
    in it. Bearer value; neither in the message nor in a pickle.
    """

    _private: ClassVar = {"voucher": None}

    def __init__(
        self, message: str, *, voucher: object | None = None, is_final: bool = False
    ) -> None:
        super().__init__(message, is_final=is_final)
        self.voucher = voucher
