"""Finds callbacks that never came: looks their vouchers up (RM's page "Voucher").

RM gives a callback up after five minutes; the page says to call *get by code* then.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection
from typing import NoReturn

from rm_voucher.arguments import check_type
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.exceptions import (
    ConfigurationError,
    EventStoreError,
    SharedStoreError,
    VoucherError,
)
from rm_voucher.models import VoucherStatus
from rm_voucher.runtime import Runtime
from rm_voucher.service.client import VoucherClient
from rm_voucher.shared.lease import Lease
from rm_voucher.webhooks.events import VoucherEvent
from rm_voucher.webhooks.router import WebhookRouter

_log = logging.getLogger("rm_voucher.webhooks")

_AT_ONCE = 100
_LEASE_S = 60.0


class CallbackPoller:
    """Looks up the vouchers that the application waits for, when no event of theirs came in time.

    The event of a look-up has the same id as its callback, and goes through the same router: it is
    handled once, whichever comes first. A voucher is looked up when nothing came for six minutes
    (RM's five deliveries and a margin), and then after waits that double up to a day. An event that
    comes starts its six minutes anew; one of a ``final`` status ends the waiting.

    A look-up shows the voucher as it is: after several changes whose callbacks were lost, it shows
    the last change only. The router's store knows the vouchers that are waited for. It also knows
    the events that RM delivered and no handler took; each round runs them too. Let each process of
    an application `run` one.

    Args:
        client: looks up. It is not closed.
        router: gets the events. It must be open.
        final: statuses after which no further event is waited for.
        rate_per_s: how many vouchers are looked up in a second at most, one after the other.
        interval_s: how long `run` waits when nothing is due.
        runtime: waits, and has the clock of the rate.
    """

    def __init__(
        self,
        client: VoucherClient,
        router: WebhookRouter,
        *,
        final: Collection[VoucherStatus] = (VoucherStatus.VOID, VoucherStatus.EXPIRED),
        rate_per_s: float = 5.0,
        interval_s: float = 30.0,
        runtime: Runtime | None = None,
    ) -> None:
        check_type("client", client, VoucherClient)
        check_type("router", router, WebhookRouter)
        if isinstance(final, str) or not isinstance(final, Collection):
            raise ConfigurationError("final must be several statuses, such as a list.")
        for status in final:
            check_type("A status of final", status, str)
        check_type("rate_per_s", rate_per_s, float)
        check_type("interval_s", interval_s, float)
        check_type("runtime", runtime, Runtime, optional=True)
        if not (rate_per_s > 0 and interval_s > 0):
            raise ConfigurationError("rate_per_s and interval_s must be more than 0.")
        self._client = client
        self._router = router
        self._final = frozenset(final)
        self._rate_per_s = rate_per_s
        self._interval_s = interval_s
        self._runtime = runtime or Runtime()
        self._next_at = self._runtime.monotonic()

    async def expect(self, *codes: str) -> None:
        """Wait for events of these vouchers from now on; durable if the store is.

        It may be repeated: a voucher that is waited for stays so. Raises `EventStoreError`.
        """
        await self._router.store.expect(codes)

    async def forget(self, *codes: str) -> None:
        """Wait for these vouchers no more. It may be repeated. Raises `EventStoreError`."""
        await self._router.store.forget(codes)

    async def poll(self) -> int:
        """Look up and run what is due now; return how many vouchers were looked up, at most 100.

        It does not ask whether another process polls: no voucher is looked up twice, but the rate
        is each one's. Cancelling it is safe: a voucher that was not looked up is due again later.
        It raises `EventStoreError`, also where the store belongs to another account than the
        client's.
        """
        return await self._poll()

    async def run(self) -> NoReturn:
        """Poll until cancelled, which is safe. After an error, which is logged, it goes on.

        Of the processes whose stores share their events, one polls at a time. The others stand by:
        one of them goes on when that one ends, or when nothing was heard of it for a minute.
        """
        lease = self._router.store.lease("poller", duration_s=_LEASE_S)
        try:
            while True:
                try:
                    looked_up = await self._poll(lease) if await lease.acquire() else 0
                except (EventStoreError, SharedStoreError) as exc:
                    _log.error(
                        "missed callbacks can't be looked for: %s",
                        exc,
                        extra=log_fields(operation="callback", client=self._client.name),
                    )
                    looked_up = 0
                if not looked_up:
                    await self._runtime.sleep(self._interval_s)
        finally:
            with contextlib.suppress(SharedStoreError):  # then it runs out
                await lease.release()

    async def _poll(self, lease: Lease | None = None) -> int:
        """Make one round, or as much of it as the lease allows."""
        await self._router.store.claim(self._client.account)
        await self._router.run_due(_AT_ONCE)
        codes = await self._router.store.take_missed(_AT_ONCE, final=self._final)
        for number, code in enumerate(codes):
            await self._pace()
            if lease is not None and not await lease.renew():
                return number  # this process stood still, and another one polls
            await self._look_up(code)
        return len(codes)

    async def _pace(self) -> None:
        now = self._runtime.monotonic()
        at = max(now, self._next_at)
        self._next_at = at + 1 / self._rate_per_s
        if at > now:
            await self._runtime.sleep(at - now)

    async def _look_up(self, code: str) -> None:
        try:
            event = VoucherEvent.of(await self._client.get(code))
        except VoucherError as exc:
            _log.warning(
                "a voucher that is waited for can't be looked up: %s",
                exc,
                extra=log_fields(operation="callback", client=self._client.name),
            )
            return
        outcome = await self._router.dispatch(event)
        if event.status in self._final and outcome.http_status == 200:
            await self._router.store.forget([code])
