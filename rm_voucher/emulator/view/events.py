"""What a page is told while it is open: samples, however much happens."""

from __future__ import annotations

from typing import Any

import attrs

from rm_voucher.emulator.app import Emulator


@attrs.define(eq=False)
class Watch:
    """What one open page was told last."""

    _emulator: Emulator
    _told: tuple[object, ...] = ()

    def news(self) -> dict[str, Any] | None:
        """Return the counts by which a page knows that it must look, None where nothing changed."""
        site, merchants = self._emulator.site, self._emulator.merchants
        now = (
            site.journal.number,
            site.changes,
            site.clock.ahead_s,
            *(
                (one.callbacks.delivered, one.callbacks.given_up, one.callbacks.waiting)
                for one in merchants
            ),
        )
        if now == self._told:
            return None
        self._told = now
        return overview(self._emulator)


def overview(emulator: Emulator) -> dict[str, Any]:
    """Return the time, the number of requests so far, and the merchants' names."""
    site = emulator.site
    return {
        "now": site.clock.now(),
        "ahead_s": site.clock.ahead_s,
        "requests": site.journal.number,
        "merchants": [merchant.name for merchant in emulator.merchants],
    }
