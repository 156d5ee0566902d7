"""What an application sent, for a test to look at."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, overload

import attrs

if TYPE_CHECKING:
    from rm_voucher.emulator import Emulator
    from rm_voucher.emulator.exchange import Exchange

_MOST = 100_000
_SHOWN = 20


@attrs.frozen
class RecordedRequest:
    """One request that came, and how it was answered."""

    operation: str
    """The client's name of it: ``issue``, ``get``, …; empty for a path that there is not."""
    merchant: str
    """The name of the emulator's merchant whose request it was."""
    method: str
    path: str = attrs.field(repr=False)
    query: str = attrs.field(repr=False)
    headers: Mapping[str, str] = attrs.field(repr=False)
    """With names in lower case."""
    body: bytes = attrs.field(repr=False)
    status: int | None
    """The answer's, None where no answer got out."""
    code: str | None
    """RM's error code, None for none."""
    fault: str | None
    """The fault that it met, None for none."""

    @property
    def json(self) -> Any:
        """The body's value. Raises `ValueError` for one that is no JSON."""
        from rm_voucher.jsontext import read_json

        return read_json(self.body)


def _recorded(exchange: Exchange) -> RecordedRequest:
    from rm_voucher.emulator.reply import Ending

    request, reply = exchange.request, exchange.reply
    gets_out = reply.ending in (Ending.WHOLE, Ending.SLOW, Ending.CUT)
    return RecordedRequest(
        operation=exchange.operation,
        merchant=exchange.merchant,
        method=request.method,
        path=request.url.raw_path,
        query=request.url.raw_query_string,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=request.body,
        status=reply.response.status if gets_out else None,
        code=reply.code,
        fault=None if reply.fault is None else str(reply.fault),
    )


class RecordedRequests:
    """The requests that came, in their order: all of them, or those that were chosen.

    What is chosen follows what comes: ``issues = rm_requests.of("issue")`` has later ones, too.
    To look at them raises `OverflowError` after 100,000.
    """

    def __init__(
        self,
        exchanges: list[Exchange],
        wanted: Callable[[RecordedRequest], bool] = lambda request: True,
    ) -> None:
        self._exchanges = exchanges
        self._wanted = wanted

    @classmethod
    def of_emulator(cls, emulator: Emulator) -> RecordedRequests:
        """Return the requests that come to an emulator from now on, to whichever merchant."""
        exchanges: list[Exchange] = []

        def note(exchange: Exchange) -> None:
            if len(exchanges) <= _MOST:  # one more says that there are too many
                exchanges.append(exchange)

        emulator.journal.observers.append(note)
        return cls(exchanges)

    def of(self, operation: str) -> RecordedRequests:
        """Return those of an operation. Raises `ValueError` for one that there is not."""
        from rm_voucher.emulator.routes import OPERATIONS

        if operation not in OPERATIONS:
            raise ValueError(f"{operation!r} is no operation; they are {', '.join(OPERATIONS)}")
        return self._of(lambda request: request.operation == operation)

    def to(self, merchant: str) -> RecordedRequests:
        """Return those of one of the emulator's merchants, by its name."""
        return self._of(lambda request: request.merchant == merchant)

    @property
    def failed(self) -> RecordedRequests:
        """Those that were refused, or met a fault."""
        return self._of(lambda request: request.code is not None or request.fault is not None)

    @property
    def count(self) -> int:
        """How many there are."""
        return len(self)

    @property
    def last(self) -> RecordedRequest:
        """The newest. Raises `IndexError` where there is none."""
        return self[-1]

    def clear(self) -> None:
        """Forget all that came, also of the other choices."""
        self._exchanges.clear()

    def _of(self, wanted: Callable[[RecordedRequest], bool]) -> RecordedRequests:
        before = self._wanted
        return RecordedRequests(
            self._exchanges, lambda request: before(request) and wanted(request)
        )

    def _all(self) -> list[RecordedRequest]:
        if len(self._exchanges) > _MOST:
            raise OverflowError(f"more than {_MOST:,} requests came: clear them in between")
        return [one for one in map(_recorded, list(self._exchanges)) if self._wanted(one)]

    def __iter__(self) -> Iterator[RecordedRequest]:
        return iter(self._all())

    def __len__(self) -> int:
        return len(self._all())

    @overload
    def __getitem__(self, index: int) -> RecordedRequest: ...
    @overload
    def __getitem__(self, index: slice) -> list[RecordedRequest]: ...
    def __getitem__(self, index: int | slice) -> RecordedRequest | list[RecordedRequest]:
        return self._all()[index]

    def __repr__(self) -> str:
        """Return a line about each, with codes masked: what pytest shows where an assert fails."""
        from rm_voucher.emulator.masking import mask_path

        found = self._all()
        lines = [
            f"  {one.method} {mask_path(one.path)} {one.status or 'no answer'}"
            + "".join(f", {word}" for word in dict.fromkeys((one.code, one.fault)) if word)
            for one in found[:_SHOWN]
        ]
        more = [f"  and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else []
        return "\n".join([f"<{len(found)} requests>", *lines, *more])
