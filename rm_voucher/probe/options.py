"""What a person allows and names for a probe."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Options:
    """What a probe may do, and what it may use beside its batch. Nothing is needed.

    Attributes:
        production: allows a server that is not RM's sandbox, with ``batch_label``.
        batch_label: the label of the batch, as the portal shows it; for ``production``.
        static_batch, sold_out_batch, expired_batch, uploaded_batch: keys of batches of these
            kinds; a voucher of the static one is issued, and one of the uploaded one redeemed.
        store_id: a store at which vouchers may be voided.
        pin: the PIN of a user of the portal; voided vouchers are reinstated with it.
        member: country code and phone number of a loyalty member with a voucher of the batch, which
            is used.
        measure_rate: allows requests at a rising rate, until the first throttle.
        measure_idle: allows one connection of its own that waits until the server closes it.
        max_s: the longest time that the probe takes, in seconds.
    """

    production: bool = False
    batch_label: str = attrs.field(default="", repr=False)
    static_batch: str = attrs.field(default="", repr=False)
    sold_out_batch: str = attrs.field(default="", repr=False)
    expired_batch: str = attrs.field(default="", repr=False)
    uploaded_batch: str = attrs.field(default="", repr=False)
    store_id: str = attrs.field(default="", repr=False)
    pin: str = attrs.field(default="", repr=False)
    member: tuple[str, str] | None = attrs.field(default=None, repr=False)
    measure_rate: bool = False
    measure_idle: bool = False
    max_s: float = 900.0

    def private(self) -> tuple[str, ...]:
        """Return what must not be in a report."""
        return (
            self.batch_label,
            self.static_batch,
            self.sold_out_batch,
            self.expired_batch,
            self.uploaded_batch,
            self.store_id,
            self.pin,
            *(self.member or ()),
        )


def option_in_words(name: str) -> str:
    """Return an option as it is given on the command line and in code."""
    return f"--{name.replace('_', '-')}, in code Options.{name}"
