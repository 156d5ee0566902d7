"""The worker: each message that asks for a voucher brings one, and always the same one."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable

from rm_voucher.arguments import check_callable
from rm_voucher.calls.log_fields import log_fields
from rm_voucher.exceptions import ConfigurationError, VoucherError
from rm_voucher.ledger import Ledger
from rm_voucher.models import IssuedVoucher, without_bearer_values
from rm_voucher.redaction import hide_locals, likeness
from rm_voucher.runtime import Runtime
from rm_voucher.service.client import VoucherClient
from rm_voucher.settings import Timeout
from rm_voucher.worker.broker import Broker
from rm_voucher.worker.dispositions import (
    KINDS,
    Delivery,
    Disposition,
    HandOn,
    Kind,
    Leave,
    Park,
    judge,
)
from rm_voucher.worker.messages import VoucherRequest, parse_request, voucher_message
from rm_voucher.worker.settings import WorkerSettings

_log = logging.getLogger("rm_voucher.worker")

HandOnFunction = Callable[[VoucherRequest, IssuedVoucher], Awaitable[None]]


class Worker:
    """Issues a voucher for each message of a queue: exactly one code for each request id.

    A message is JSON, ``{"request_id": "order 1", "content": …}``, in any order and any number of
    times; `messages.parse_request` says more. Its voucher is handed on as a message with the same
    ``request_id`` and ``content``. Delivery is at least once: whoever reads the vouchers takes a
    second message with the same id for the same voucher.

    The order makes that hold. A request is durable in the ledger before anything is sent to RM, and
    its code before it is handed on. The message is acknowledged last, when the broker has confirmed
    the voucher. What can't be served now comes back later; what never can is parked for a person,
    with the reason.

    Args:
        client: the account. It stays open after the worker.
        ledger: open, with the mode that its owner declares, and with ``sweeps``: it settles what is
            unknown while the worker works, of other processes too. See `Ledger`.
        batch_key: the batch that all vouchers come from.
        settings: how many messages at once, and how patiently.
        hand_on: gets each voucher, in place of the queue for them, and may be called again for the
            same request: see `Outbox.once`. If it raises, the message comes back later.
        on_error: is given what ``hand_on`` raised, and each defect, such as
            ``sentry_sdk.capture_exception``: a likeness, of a class with the same name, with the
            voucher's code masked, and a traceback without locals. It must not block; that it fails
            is logged.
        runtime: its clocks, its chance, and how it waits.

    Raises `ConfigurationError` for a ledger that does not sweep.
    """

    def __init__(
        self,
        client: VoucherClient,
        ledger: Ledger,
        batch_key: str,
        *,
        settings: WorkerSettings | None = None,
        hand_on: HandOnFunction | None = None,
        on_error: Callable[[Exception], object] | None = None,
        runtime: Runtime | None = None,
    ) -> None:
        if not ledger.settings.sweeps:
            raise ConfigurationError(
                "A worker's ledger must settle what is unknown by itself: open it with sweeps=True."
            )
        self.client = client
        self.ledger = ledger
        self.batch_key = batch_key
        self.settings: WorkerSettings = settings or WorkerSettings()
        self.processed: Counter[Kind] = Counter()
        """How many deliveries ended in each way, since this object was made."""
        if on_error is not None:
            check_callable("on_error", on_error)
        self._hand_on = hand_on
        self._on_error = on_error
        self._runtime = runtime or Runtime()
        self._fields = log_fields(operation="work", batch=batch_key, client=client.name)
        self._issuing: set[asyncio.Task[Disposition]] = set()
        self._is_stopping = asyncio.Event()
        self._is_drained = asyncio.Event()
        self._is_drained.set()

    @property
    def in_flight(self) -> int:
        """How many messages are being worked on."""
        return len(self._issuing)

    @property
    def is_stopping(self) -> bool:
        """Whether it takes no more messages."""
        return self._is_stopping.is_set()

    @contextlib.asynccontextmanager
    async def working(self, broker: Broker, *, stop_s: float = 20.0) -> AsyncIterator[None]:
        """Work while the block runs. Its end takes no more messages, and waits for those at work.

        After ``stop_s`` they are given up: the calls go on in the ledger, and the broker delivers
        the messages again. Raises what the broker raises where it can't be reached at the start.
        """
        await self.ledger.prepare(self.client, self.batch_key)
        self._is_stopping.clear()
        try:
            await broker.start(self.handle)
            yield
        finally:
            self._is_stopping.set()
            try:
                await broker.pause()
                await self._drain(stop_s)
            finally:
                await broker.close()

    async def handle(self, delivery: Delivery) -> Disposition:
        """Return what is to become of a message. Raises nothing but a cancellation.

        May be repeated, also at once and in other processes; cancelling is safe.
        """
        if self.is_stopping:
            return Leave()
        task = asyncio.create_task(self._issue(delivery), name="rm-voucher worker, a message")
        self._issuing.add(task)
        self._is_drained.clear()
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            self._issuing.discard(task)
            if not self._issuing:
                self._is_drained.set()
        disposition = Leave() if task.cancelled() else task.result()
        self.processed[KINDS[type(disposition)]] += 1
        return disposition

    @hide_locals
    async def _issue(self, delivery: Delivery) -> Disposition:
        if delivery.attempt > self.settings.max_attempts:  # it may be what ends the process
            return self._parked(Park(f"delivered {delivery.attempt} times, and never to the end"))
        try:
            request = parse_request(delivery.body)
            voucher = await self.ledger.issue(
                self.client,
                self.batch_key,
                request.id,
                content=request.canonical,
                timeout=Timeout(total_s=self.settings.attempt_s),
            )
            if self._hand_on is None:
                return HandOn(voucher_message(request, voucher))
        except VoucherError as exc:
            return await self._judged(exc, delivery.attempt)
        except Exception as exc:  # noqa: BLE001 - a defect
            return await self._failed(exc, None, delivery.attempt)
        try:
            await self._hand_on(request, voucher)
        except Exception as exc:  # noqa: BLE001 - the user's own function, which may have a client
            return await self._failed(exc, voucher, delivery.attempt)
        return HandOn(None)

    async def _failed(
        self, error: Exception, voucher: IssuedVoucher | None, attempt: int
    ) -> Disposition:
        """Report an error whose text may have the code, and judge by its class alone."""
        self._report(error, voucher)
        return await self._judged(VoucherError(type(error).__name__), attempt)

    def _report(self, error: Exception, voucher: IssuedVoucher | None) -> None:
        if self._on_error is None:
            return
        try:
            self._on_error(likeness(error, functools.partial(_masked, voucher=voucher)))
        except Exception as exc:  # noqa: BLE001 - the user's own function
            _log.warning("on_error failed (%s)", type(exc).__name__, extra=self._fields)

    async def _judged(self, error: VoucherError, attempt: int) -> Disposition:
        if self.is_stopping:  # the next one may have more time
            return Leave()
        found = judge(
            error,
            attempt,
            self.settings,
            settle_s=self.ledger.settings.settle_s,
            chance=self._runtime.random(),
        )
        if isinstance(found, Park):
            return self._parked(found)
        _log.warning(
            "a message comes back in %.0f s: %s", found.delay_s, found.reason, extra=self._fields
        )
        if found.holds:  # its place is held, so that the queue does not pass by in vain
            await self._wait(min(self.settings.first_delay_s, found.delay_s))
        return found

    def _parked(self, found: Park) -> Park:
        _log.error("parked for a person: %s", found.reason, extra=self._fields)
        return found

    async def _drain(self, within_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_drained.wait()
        if left := tuple(self._issuing):
            _log.warning("%d message(s) are left to another worker", len(left), extra=self._fields)
            for task in left:
                task.cancel()
            await self._is_drained.wait()

    async def _wait(self, delay_s: float) -> None:
        """Wait, at most until the worker stops."""
        waiting = asyncio.ensure_future(self._runtime.sleep(delay_s))
        stopping = asyncio.create_task(self._is_stopping.wait())
        try:
            await asyncio.wait([waiting, stopping], return_when=asyncio.FIRST_COMPLETED)
        finally:
            waiting.cancel()
            stopping.cancel()


def _masked(text: str, *, voucher: IssuedVoucher | None) -> str:
    # Where nothing tells which code may be in it, nothing of it is shown.
    return "…" if voucher is None else without_bearer_values(text, voucher)
