"""A bulk redeem: one request for many vouchers, each with an outcome of its own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping

import attrs

from rm_voucher.calls.call import Call
from rm_voucher.calls.caller import Caller
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.calls.outcomes import Safety
from rm_voucher.calls.recovery import Verdict, judge_redeem
from rm_voucher.exceptions import DecodeError, InvalidRequestError, OutcomeUnknownError
from rm_voucher.models import Voucher, VoucherStatus
from rm_voucher.settings import Timeout
from rm_voucher.transport.base import Response
from rm_voucher.wire import operations
from rm_voucher.wire.requests import segment

_log = logging.getLogger("rm_voucher")

_LOOK_UPS_AT_ONCE = 8


class Redemption:
    """The codes of a bulk redeem, and what is known of each.

    After an unknown outcome every code that is not known to be redeemed is looked up. The unchanged
    ones are sent again, without the others. Those that have changed, or can't be looked up, stay
    unknown, because nothing on a redeemed voucher tells which call redeemed it.
    """

    def __init__(
        self,
        caller: Caller,
        codes: Iterable[str],
        *,
        max_codes: int,
        look_up: Callable[[str, Timeout | None, float | None], Awaitable[Voucher]],
        timeout: Timeout | None,
    ) -> None:
        self._caller = caller
        self._look_up = look_up
        self._timeout = timeout
        # By folded code: whether codes are case-sensitive is not documented.
        self._codes = _checked(codes, max_codes)
        self._left = dict(self._codes)
        self._redeemed: dict[str, Voucher] = {}
        self._seen: dict[str, Voucher | None] = {}

    async def run(self) -> list[Voucher]:
        """Redeem all, or raise. The vouchers come in the order of their codes."""
        request = operations.build_redeem(self._caller.environment, list(self._left.values()))
        call = self._caller.call(request, self._parse, Safety.RECONCILABLE, self._timeout)
        call.read_back = lambda: self._read_back(call)
        try:
            await self._caller.execute(call)
        except OutcomeUnknownError as exc:
            self._explain(exc)
            raise
        if len(self._redeemed) < len(self._codes) and call.unknown_cause is not None:
            error = self._caller.unknown(call, call.unknown_cause)
            self._explain(error)
            raise error from call.unknown_cause
        return [self._redeemed[folded] for folded in self._codes]

    def _parse(self, response: Response) -> None:
        vouchers = operations.parse_redeem(response)
        shown = {(voucher.code or "").casefold(): voucher for voucher in vouchers}
        if len(shown) < len(vouchers):
            raise DecodeError("expected each code once @ $.item")
        for folded, voucher in shown.items():
            if folded in self._left and voucher.status is VoucherStatus.REDEEMED:
                self._redeemed[folded] = voucher
                del self._left[folded]
        if self._left:
            raise DecodeError("expected every voucher that was asked for, redeemed @ $.item")

    async def _read_back(self, call: Call[None]) -> tuple[Verdict, None]:
        at_once = asyncio.Semaphore(_LOOK_UPS_AT_ONCE)

        async def look(folded: str, code: str) -> None:
            voucher: Voucher | None
            try:
                async with at_once:
                    voucher = await self._look_up(code, self._timeout, call.deadline)
            except Exception as exc:  # noqa: BLE001 - whatever it is, the outcome stays unknown
                _log.warning(
                    "redeem: a code can't be looked up (%s)",
                    type(exc).__name__,
                    extra=log_fields(
                        operation="redeem", attempt=call.attempt_id, client=self._caller.name
                    ),
                )
                voucher = None
            self._seen[folded] = voucher
            if voucher is None or judge_redeem(voucher) is not Verdict.UNCHANGED:
                del self._left[folded]

        for folded in self._left:
            self._seen.pop(folded, None)
        async with asyncio.TaskGroup() as group:
            for folded, code in list(self._left.items()):
                group.create_task(look(folded, code), name="rm-voucher look-up")
        # A look-up that was cancelled, but by nobody here, has seen nothing.
        self._left = {folded: code for folded, code in self._left.items() if self._seen.get(folded)}
        if not self._left:
            return Verdict.UNPROVEN, None
        request = operations.build_redeem(self._caller.environment, list(self._left.values()))
        call.request = attrs.evolve(request, timeout=call.timeout)
        return Verdict.UNCHANGED, None

    def _explain(self, error: OutcomeUnknownError) -> None:
        in_doubt = [folded for folded in self._codes if folded not in self._redeemed]
        seen = [self._seen.get(folded) for folded in in_doubt]
        error.codes = tuple(self._codes[folded] for folded in in_doubt)
        error.vouchers = tuple(voucher for voucher in seen if voucher is not None)
        error.redeemed = tuple(
            self._redeemed[folded] for folded in self._codes if folded in self._redeemed
        )
        many = f"{len(in_doubt)} of {len(self._codes)} voucher(s) of unknown outcome"
        error.args = (f"{error}; {many}",)


def _checked(codes: Iterable[str], max_codes: int) -> dict[str, str]:
    if isinstance(codes, str | bytes | Mapping) or not isinstance(codes, Iterable):
        raise InvalidRequestError.refused("codes must be several codes, such as a list.")
    checked: dict[str, str] = {}
    for position, code in enumerate(codes, start=1):
        segment("code", code)  # it must be possible to look it up
        if code.casefold() in checked:
            raise InvalidRequestError.refused(
                f"The code at position {position} is there twice (perhaps in another case)."
            )
        checked[code.casefold()] = code
        if len(checked) > max_codes:
            raise InvalidRequestError.refused(
                f"More than {max_codes} codes at once: see Limits.max_redeem_codes."
            )
    if not checked:
        raise InvalidRequestError.refused("No code is given.")
    return checked
