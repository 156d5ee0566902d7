"""The interface that gives a call its access token, and a source with one token."""

from __future__ import annotations

from abc import ABC, abstractmethod

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.redaction import hide_locals
from rm_voucher.wire.operations import fits_header


class TokenSource(ABC):
    """Gives the access token that a request is sent with."""

    trouble: str = ""
    """What keeps a token from coming, for the errors of calls that wait in vain; no secret."""

    @abstractmethod
    async def token(self) -> str:
        """Return a token that should be accepted. Cancelling is safe."""

    @property
    def is_ready(self) -> bool:
        """Whether `token` returns at once. Unless a source says so, it may wait.

        A ledger notes a request before a wait.
        """
        return False

    @abstractmethod
    def refuse(self, token: str) -> bool:
        """Take note that the server refused ``token``; return whether another can be had."""

    async def aclose(self) -> None:  # noqa: B027 - many sources hold nothing
        """Release what the source holds. It may be called more than once."""


class StaticToken(TokenSource):
    """A token that the user looks after. Raises `ConfigurationError` if it fits no header."""

    @hide_locals
    def __init__(self, token: str) -> None:
        if not isinstance(token, str) or not fits_header(token):
            raise ConfigurationError(
                "A token is ASCII text without spaces or line breaks, and not empty."
            )
        self._token = token

    async def token(self) -> str:
        """Return the token."""
        return self._token

    @property
    def is_ready(self) -> bool:
        """Return True: it is there."""
        return True

    def refuse(self, token: str) -> bool:
        """Return False: there is no other."""
        return False
