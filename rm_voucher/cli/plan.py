"""The plan of an issue: what will happen, said before anything does, and what keeps it from it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from contextlib import nullcontext
from datetime import UTC, datetime

import attrs
import typer

from rm_voucher import (
    ConfigurationError,
    DecodeError,
    Environment,
    LedgerError,
    VoucherBatch,
    VoucherClient,
)
from rm_voucher.cli.asking import confirm
from rm_voucher.cli.connect import in_words, is_real
from rm_voucher.cli.interrupts import run_until_interrupted
from rm_voucher.cli.options import without_password
from rm_voucher.cli.repeats import Holders, InLedger, look_into_ledger
from rm_voucher.cli.screen import can_draw, is_quiet, say, write_err
from rm_voucher.cli.screen import note as note_unless_quiet
from rm_voucher.converters import format_time
from rm_voucher.shared import SharedStore
from rm_voucher.text import counted, printable, typeable

_FEW = 10  # where less than one in these of a list is known, it may be of other people
_MANY = 100  # recipients, from which a run without a ledger deserves a word

Connect = Callable[[], tuple[VoucherClient, SharedStore | None]]
"""Makes the client for an event loop, and the store that it shares."""


@attrs.frozen(kw_only=True)
class IssuePlan:
    """What an issue will do, as far as can be known before."""

    environment: Environment
    profile: str | None
    client_id: str
    batch_key: str
    batch: VoucherBatch
    """As the server shows it; without anything where that can't be read."""
    recipients: int
    ledger: str | None
    """Its URL, without a password."""
    unseen: str = ""
    """Why the ledger could not be looked into: nobody counts as served then."""
    served: int
    """How many of the recipients have their voucher in the ledger."""
    held: int
    """Of how many others the ledger has an attempt whose outcome is unknown."""
    given_up: int = 0
    """How many get nothing, because a person decided so."""
    elsewhere: int = 0
    """How many fail, because the ledger has their ids for another batch."""
    stop_reason: str | None = None
    """Why the ledger issues nothing from the batch."""
    known: int = 0
    """For how many of the recipients the ledger has a request, whatever came of it."""
    others: int = 0
    """How many others have a voucher of the batch in the ledger."""
    rate_per_s: float | None
    is_rate_given: bool
    """Whether that is the command's own, and not the one that processes share."""

    @property
    def is_real(self) -> bool:
        """Whether the vouchers are real."""
        return is_real(self.environment)

    @property
    def to_issue(self) -> int:
        """How many vouchers it asks for at once."""
        return self.most - self.held

    @property
    def most(self) -> int:
        """How many it may issue: an unknown outcome may turn out to be none."""
        return self.recipients - self.served - self.given_up - self.elsewhere

    @property
    def label(self) -> str:
        """What a person calls the batch, as it can be typed: its label, or else the key."""
        return _label(self.batch, self.batch_key)

    @property
    def expected_s(self) -> float | None:
        """How long it takes at the known rate."""
        return None if self.rate_per_s is None else self.to_issue / self.rate_per_s

    def as_object(self) -> dict[str, object]:
        """Return it for a program."""
        batch, expiry = self.batch, self.batch.expiry
        return {
            "environment": in_words(self.environment),
            "is_real": self.is_real,
            "url": self.environment.api_url,
            "profile": self.profile,
            "client_id": self.client_id,
            "batch": self.batch_key,
            "label": batch.label,
            "status": batch.status,
            "type": batch.type,
            "amount_sen": batch.amount_sen,
            "discount_rate_bp": batch.discount_rate_bp,
            "minimum_spend_sen": batch.minimum_spend_sen,
            "expires_at": expiry and expiry.expires_at and format_time(expiry.expires_at),
            "expires_days": expiry and expiry.days,
            "quantity": batch.quantity,
            "balance": batch.balance_quantity,
            "is_static": batch.is_static,
            "recipients": self.recipients,
            "served": self.served,
            "held": self.held,
            "given_up": self.given_up,
            "elsewhere": self.elsewhere,
            "others": self.others,
            "to_issue": self.to_issue,
            "ledger": self.ledger,
            "ledger_unseen": self.unseen or None,
            "stopped": self.stop_reason,
            "rate_per_s": self.rate_per_s,
            "expected_s": self.expected_s,
        }

    def show(self, *, always: bool = False) -> None:
        """Say it to a person, on standard error.

        With ``--quiet``, only that they are real, unless it is said ``always``.
        """
        _say_environment(self, always=always)
        note = say if always else note_unless_quiet
        profile = "" if self.profile is None else f", profile {self.profile!r}"
        note(f"Merchant: client id {self.client_id}{profile}")
        key = "" if self.label == self.batch_key else f" (key {self.batch_key})"
        note(f"Batch: {self.label}{key}; {'; '.join(_of_batch(self.batch))}")
        note(f"Recipients: {_of_recipients(self)}")
        note(f"Ledger: {_of_ledger(self)}")
        note(f"Duration: {_of_duration(self)}")

    def refuse_shortage(self) -> None:
        """Raise `ConfigurationError` where the batch has fewer vouchers than are wanted."""
        balance = self.batch.balance_quantity
        if balance is not None and not self.batch.is_static and balance < self.to_issue:
            raise ConfigurationError(
                f"The batch has {balance:,} left, and {self.to_issue:,} are to be issued. Nothing "
                "was issued. --partial issues as many as there are."
            )

    def refuse_other_people(self) -> None:
        """Raise `ConfigurationError` where the list seems to name the ledger's people otherwise.

        By another column, say. A list that goes on with a run has most of those who are served.
        """
        if self.others and self.known * _FEW < min(self.recipients, self.served + self.others):
            few = f"only {self.known:,}" if self.known else "none"
            raise ConfigurationError(
                f"The ledger has {counted(self.others, 'other')} served from this batch, and {few} "
                f"of the {self.recipients:,} on this list. If they are the same people under other "
                "names, by another column, say, each would get a second voucher: give the list and "
                "the column of the first run. Nothing was issued. --other-people says that they "
                "are others."
            )

    def confirm(self, *, yes: bool) -> None:
        """Return if it may issue: to more than one real voucher a person must agree, or a script.

        Raises `ConfigurationError`, or ends the command.
        """
        if self.is_real and self.most > 1:
            confirm(
                f"To issue {self.most:,} real vouchers, type the batch's label", self.label, yes=yes
            )


def label_of(connect: Callable[[], VoucherClient], batch_key: str) -> str:
    """Return what a person calls a batch, to be typed. Raises what `VoucherClient.batch` raises."""
    found: list[VoucherBatch] = []

    async def look() -> None:
        async with connect() as client:
            found.append(await _read(client, batch_key))

    run_until_interrupted(look())
    return _label(found[0], batch_key)


def make_plan(
    connect: Connect,
    environment: Environment,
    batch_key: str,
    recipients: Iterable[str],
    total: int,
    *,
    client_id: str,
    profile: str | None = None,
    ledger: str | None = None,
    namespace: str | None = None,
    holders: Holders | None = None,
    rate_per_s: float | None = None,
) -> IssuePlan:
    """Buy a token, read the batch, look into the ledger; nothing is changed.

    Of ``holders`` those whom the ledger knows are struck out.

    Raises what those raise: then nothing can be issued.
    """
    made: list[IssuePlan] = []

    async def look() -> None:
        client, shared = connect()
        async with shared or nullcontext(), client:
            batch = await _read(client, batch_key)
            shared_rate_per_s = client.flow.rate_per_s
        found, unseen = InLedger(), ""
        try:
            found = await look_into_ledger(ledger, namespace, batch_key, recipients, holders)
        except LedgerError as exc:  # the run makes one, or says what is wrong with it
            unseen = str(exc)
        made.append(
            IssuePlan(
                environment=environment,
                profile=profile,
                client_id=client_id,
                batch_key=batch_key,
                batch=batch,
                recipients=total,
                ledger=None if ledger is None else without_password(ledger),
                unseen=unseen,
                served=found.served,
                held=found.held,
                given_up=found.given_up,
                elsewhere=found.elsewhere,
                stop_reason=found.stop_reason,
                known=found.known,
                others=found.others,
                rate_per_s=rate_per_s if rate_per_s is not None else shared_rate_per_s,
                is_rate_given=rate_per_s is not None,
            )
        )

    run_until_interrupted(look())
    return made[0]


async def _read(client: VoucherClient, batch_key: str) -> VoucherBatch:
    try:
        return await client.batch(batch_key)
    except DecodeError as exc:
        say(f"What the server says of the batch can't be read: {exc}")
        return VoucherBatch()


def _label(batch: VoucherBatch, key: str) -> str:
    return typeable(batch.label or "") or key


def _say_environment(plan: IssuePlan, *, always: bool) -> None:
    if is_quiet() and not (plan.is_real or always):
        return
    words = in_words(plan.environment)
    kind = "real vouchers" if plan.is_real else "no real vouchers"
    colours = ("white", "red") if plan.is_real else ("black", "green")
    text = printable(f"{words}: {kind}")
    if can_draw():
        text = typer.style(f" {text} ", fg=colours[0], bg=colours[1], bold=True)
    try:
        write_err(f"Environment: {text}\n")
    except OSError:  # nobody reads it
        return


def _of_batch(batch: VoucherBatch) -> list[str]:
    """Return what is known of a batch, and what is not and should be, a line each."""
    parts = [f"{batch.type or 'type not known'}{_worth(batch)}", _expiry(batch)]
    if batch.is_static:
        parts.append("static: one code for everybody")
    elif batch.balance_quantity is None:
        parts.append("how many are left is not known")
    else:
        of_all = "" if batch.quantity is None else f" of {batch.quantity:,}"
        parts.append(f"{batch.balance_quantity:,}{of_all} left")
    if batch.status is not None and batch.status != "COMPLETED":
        parts.append(f"its status is {batch.status}")
    return parts


def _worth(batch: VoucherBatch) -> str:
    worth = ""
    if batch.amount_sen:
        worth = f", RM {batch.amount_rm:,}"
    elif batch.discount_rate_bp:
        worth = f", {batch.discount_rate_bp / 100:g} %"
    if batch.minimum_spend_sen:
        worth += f" from a spend of RM {batch.minimum_spend_rm:,}"
    return worth


def _expiry(batch: VoucherBatch) -> str:
    expiry, now = batch.expiry, datetime.now(UTC)
    if expiry is not None and expiry.type == "DYNAMIC" and expiry.days:
        return f"expires {expiry.days:,} days after redemption"
    if expiry is not None and expiry.expires_at is not None:
        ends = "expired" if expiry.expires_at < now else "expires"
        return f"{ends} at {format_time(expiry.expires_at)}"
    return (
        "when it expires is not known"
        if expiry is None or expiry.type != "PERMANENT"
        else ("never expires")
    )


def _of_recipients(plan: IssuePlan) -> str:
    if not (plan.served or plan.held or plan.given_up or plan.elsewhere):
        return f"{plan.recipients:,}"
    parts = [f"{plan.recipients:,}, of whom {plan.served:,} have a voucher in the ledger"]
    if plan.held:
        parts.append(f"{plan.held:,} wait for a person or for the proof of an outcome")
    if plan.given_up:
        parts.append(f"{plan.given_up:,} were given up by a person")
    if plan.elsewhere:
        parts.append(
            f"{plan.elsewhere:,} stand in it for another batch and will fail (give each campaign a "
            "ledger of its own)"
        )
    return f"{', '.join(parts)}; {plan.to_issue:,} to issue"


def _of_ledger(plan: IssuePlan) -> str:
    if plan.ledger is not None:
        others = f"; {counted(plan.others, 'other')} served from this batch" if plan.others else ""
        if plan.stop_reason is not None:
            others += f"; the batch is STOPPED in it, nothing is issued: {plan.stop_reason}"
        return f"{plan.ledger}{others}{plan.unseen and f' (not looked into: {plan.unseen})'}"
    if plan.recipients <= _MANY:
        return "none"
    return "none. Add --ledger sqlite:///FILE, and it can be run again safely"


def _of_duration(plan: IssuePlan) -> str:
    if plan.rate_per_s is None or plan.expected_s is None:
        return "not known: the server's rate is learned on the way. --rate sets one"
    whose = "--rate" if plan.is_rate_given else "shared by its processes"
    return (
        f"{in_minutes(plan.expected_s)} at {plan.rate_per_s:,.4g} calls a second ({whose}), more "
        "if answers are slow"
    )


def in_minutes(seconds: float) -> str:
    """Return a span of time in words, rounded up."""
    if seconds < 60:
        return f"about {max(1, math.ceil(seconds))} s"
    minutes = math.ceil(seconds / 60)
    if minutes < 60:
        return f"about {minutes} min"
    return f"about {minutes // 60} h {minutes % 60} min"
