"""Who of a list has a voucher already, by an earlier output and by the ledger; what that forbids.

A plain repeat of a command never gives a second voucher: what it can't tell from one is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import attrs

from rm_voucher.cli.earlier import NoResultsError, results_in
from rm_voucher.cli.options import ledger_to_read
from rm_voucher.cli.recipients import SERVED, Recipient, Recipients
from rm_voucher.cli.resume import ids_in_ledger
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.ledger import Ledger, RequestState
from rm_voucher.text import counted

_NO, _MAYBE, _YES = range(3)


class Holders:
    """Which of the recipients have a voucher, or may have one, by the output that is there."""

    def __init__(self, recipients: Iterable[str], total: int, *, has_ledger: bool) -> None:
        self._recipients = recipients
        self._has_ledger = has_ledger
        size = len(recipients.table) if isinstance(recipients, Recipients) else total
        self._marks = bytearray(size)
        self.path: Path | None = None
        self.is_partial: bool = False

    @property
    def count(self) -> int:
        """How many of those who are asked for."""
        if not any(self._marks):
            return 0
        return sum(bool(self._marks[n]) for name in self._recipients for n in self._numbers(name))

    def look_into(self, path: Path, column: str, *, is_partial: bool = False) -> None:
        """Take note of those in a file of results; any other file says nothing.

        In a partial file a row without a status is torn, and says nothing either.

        Raises `ConfigurationError` for one that can't be read.
        """
        try:
            for row in results_in(path, is_partial=is_partial, column=column):
                word, code = row.get("voucher_status"), row.get("code")
                mark = _YES if code and word != "unresolved" else _MAYBE
                counts = word in SERVED or (code and not is_partial)
                if not counts or (self._has_ledger and word == "unkept"):
                    continue  # the ledger is given what is unkept before anything is issued
                for number in self._numbers_like(row.get("recipient", "")):
                    self._marks[number] = max(mark, self._marks[number])
                    self.path, self.is_partial = path, is_partial
        except (FileNotFoundError, NoResultsError):
            return
        except OSError as exc:
            raise ConfigurationError(f"{path} can't be read: {exc.strerror}.") from exc

    def strike_out(self, name: str, *, has_voucher: bool) -> None:
        """Leave those out whom the ledger knows: with a voucher, or by an open call at least."""
        if self.path is None:
            return
        for number in self._numbers_like(name):
            if has_voucher or self._marks[number] == _MAYBE:
                self._marks[number] = _NO

    def _numbers(self, name: str) -> list[int]:
        return [name.number] if isinstance(name, Recipient) else []

    def _numbers_like(self, name: str) -> list[int]:
        recipients = self._recipients
        if isinstance(recipients, Recipients):
            found = recipients.rows_like(name) if name else []
            if self._has_ledger:  # of a list that is an output `refuse_codes_of_others` asks more
                found = [number for number in found if not recipients.has_voucher(number)]
            return found
        is_number = name.isascii() and name.isdigit() and name[0] != "0"
        return [int(name) - 1] if is_number and int(name) <= len(self._marks) else []


@attrs.frozen(kw_only=True)
class InLedger:
    """What a ledger knows of a batch, and of those who are to have a voucher of it."""

    served: int = 0
    """How many of them have their voucher."""
    held: int = 0
    """Of how many others it has a call with an unknown outcome."""
    given_up: int = 0
    """How many of them a person gave up."""
    elsewhere: int = 0
    """How many have the id of a request for another batch, and fail."""
    stop_reason: str | None = None
    """Why nothing is issued from the batch."""
    known: int = 0
    """How many of them it was asked for, whatever came of it."""
    others: int = 0
    """How many others have a voucher of the batch."""


async def look_into_ledger(
    url: str | None,
    namespace: str | None,
    batch_key: str,
    recipients: Iterable[str],
    holders: Holders | None = None,
) -> InLedger:
    """Return what the ledger knows, and strike those out of the ``holders`` whom it knows.

    Raises `LedgerError`, and `ConfigurationError`.
    """
    kept = None if url is None else ledger_to_read(url, namespace)
    if kept is None:
        return InLedger()
    served = held = given_up = elsewhere = known = 0
    async with kept as ledger:
        ids = await ids_in_ledger(ledger, recipients) if isinstance(recipients, Recipients) else {}
        async for request in ledger.find(ids.get(name) or str(name) for name in recipients):
            is_served = request.state is RequestState.ASSIGNED
            if holders is not None:  # the request of another batch fails, and issues nothing
                holders.strike_out(request.id, has_voucher=is_served or request.batch != batch_key)
            if request.batch != batch_key:
                elsewhere += 1
                continue
            known += 1
            if is_served:
                served += 1
            elif request.state is RequestState.CANCELLED:
                given_up += 1
            elif request.state is RequestState.UNRESOLVED or request.attempt_id is not None:
                held += 1
        assigned = (await ledger.counts(batch_key)).assigned
        stop_reason = await stop_reason_of(ledger, batch_key)
    return InLedger(
        served=served,
        held=held,
        given_up=given_up,
        elsewhere=elsewhere,
        stop_reason=stop_reason,
        known=known,
        others=max(0, assigned - served),
    )


async def stop_reason_of(ledger: Ledger, batch_key: str) -> str | None:
    """Return why nothing is issued from a batch, by its ledger; None where that is not so."""
    stopped = {each.key: each.stop_reason for each in await ledger.batches()}
    return stopped.get(batch_key) or await ledger.stop_reason()


def refuse_holders(holders: Holders, *, has_ledger: bool, unseen: str = "") -> None:
    """Raise `ConfigurationError` where who has a voucher in the output would get a second one.

    ``unseen`` is why the ledger could not be asked for them, where it could not.
    """
    if not (count := holders.count):
        return
    who = f"{counted(count, 'recipient')} of this list {'has' if count == 1 else 'have'} a voucher"
    unknown = helps = ""
    if unseen:
        unknown = f", and the ledger could not be looked into: {unseen.rstrip('.')}"
        helps = "See to the ledger first. "
    elif has_ledger:
        unknown = ", which the ledger does not know"
        helps = "Give the ledger of that run. "
    if not holders.is_partial:
        begin = "Or go on without a ledger, with" if has_ledger else "To go on with that run, give"
        helps += f"{begin} its output as the list: --recipients {holders.path}. "
    raise ConfigurationError(
        f"{who} in {holders.path} already, or may have one{unknown}. Nothing was issued. {helps}If "
        "it is of another campaign, or of a trial, name another --output. --again issues a second "
        "one to each."
    )
