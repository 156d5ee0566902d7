"""The vouchers of one loyalty member, in a merchant's own app."""

from __future__ import annotations

import functools
from datetime import UTC, datetime

from rm_voucher.calls.caller import Caller
from rm_voucher.calls.outcomes import Safety
from rm_voucher.calls.recovery import Verdict, judge_member_redeem
from rm_voucher.models import Page, Voucher
from rm_voucher.service.operation import operation
from rm_voucher.service.pager import Pager
from rm_voucher.settings import Environment, Timeout
from rm_voucher.wire import operations


class Member:
    """A loyalty member, by phone number: the vouchers in the member's account.

    `VoucherClient.member` makes it. The first call raises `InvalidRequestError` for a number that
    is not made of digits, and `NotFoundError` or `VoucherStateError` for a member that is not the
    merchant's.
    """

    def __init__(self, caller: Caller, country_code: str, phone_number: str) -> None:
        self.caller = caller
        self._country_code = country_code
        self._phone_number = phone_number

    def vouchers(
        self,
        *,
        limit: int | None = None,
        cursor: str | None = None,
        timeout: Timeout | None = None,
    ) -> Pager[Voucher]:
        """List the member's vouchers (RM's page "Get Loyalty Member Vouchers"). A read.

        ``limit`` is the size of a page, whose maximum is not documented.
        """
        return Pager(functools.partial(self._page, limit, timeout), cursor)

    @operation("member vouchers")
    async def _page(
        self, limit: int | None, timeout: Timeout | None, cursor: str | None
    ) -> Page[Voucher]:
        request = operations.build_member_vouchers(*self._who(), limit=limit, cursor=cursor)
        parse = operations.parse_vouchers
        return await self.caller.execute(self.caller.call(request, parse, Safety.READ, timeout))

    @operation("member get")
    async def get(self, code: str, *, timeout: Timeout | None = None) -> Voucher:
        """Look up one (RM's page "Get Loyalty Member Voucher"). A read: it may be repeated.

        Raises `NotFoundError`, and `VoucherStateError` when the member does not own it.
        """
        return await self._get(code, timeout, None)

    @operation("member redeem")
    async def redeem(self, code: str, *, timeout: Timeout | None = None) -> Voucher:
        """Redeem one (RM's page "Redeem Loyalty Member Voucher").

        In the page's example this turns a REDEEMED voucher VOID, that is, it uses it up. When
        the answer is lost, the voucher is read back. If it is unchanged, the call is sent again. If
        it is void, or was redeemed in the last minutes, it raises `OutcomeUnknownError` with the
        voucher attached, because nothing on the voucher proves that this call redeemed it.
        Cancelling it after it was sent leaves its outcome unknown; `get` shows it.
        """
        begun_at = datetime.fromtimestamp(self.caller.runtime.clock(), UTC)
        request = operations.build_member_redeem(*self._who(), code)
        parse = functools.partial(operations.parse_member_redeem, code=code)
        call = self.caller.call(request, parse, Safety.RECONCILABLE, timeout, code=code)

        async def read_back() -> tuple[Verdict, Voucher]:
            voucher = await self._get(code, timeout, call.deadline)
            return judge_member_redeem(voucher, begun_at=begun_at), voucher

        call.read_back = read_back
        return await self.caller.execute(call)

    async def _get(self, code: str, timeout: Timeout | None, deadline: float | None) -> Voucher:
        request = operations.build_member_get(*self._who(), code)
        parse = functools.partial(operations.parse_get, code=code)
        call = self.caller.call(request, parse, Safety.READ, timeout, deadline=deadline, code=code)
        return await self.caller.execute(call)

    def _who(self) -> tuple[Environment, str, str]:
        return self.caller.environment, self._country_code, self._phone_number
