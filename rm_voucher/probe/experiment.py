"""An experiment: what it asks, what it costs, how it looks, and what it concludes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import attrs

from rm_voucher.probe.budget import Cost
from rm_voucher.probe.findings import Finding, NotDecided, conclude
from rm_voucher.probe.options import Options
from rm_voucher.probe.session import Session

Notes = Mapping[str, Any]
GRID_S = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0)
"""When something that may come late is looked for, in seconds."""
_MARGIN_S = 0.02


@attrs.frozen
class Decision:
    """One thing that an experiment decides.

    ``conclude`` is pure: it returns what the notes show, as JSON, or `NotDecided`. A note that is
    missing raises `KeyError`: the experiment failed before it.
    """

    subject: str
    conclude: Callable[[Notes], object]
    setting: str = ""
    expects: object = True


@attrs.frozen(kw_only=True)
class Experiment:
    """One experiment.

    Attributes:
        name: its name.
        asks: the question, in a sentence.
        observe: makes its requests, and writes what they show into the session's notes.
        decides: what can be concluded from the notes.
        cost: the most that it takes, but for repeats of what got no answer.
        undoes: what it leaves as it was, in a sentence, or an empty text.
        needs: the option of `Options` without which it is left out, or an empty text.
    """

    name: str
    asks: str
    observe: Callable[[Session], Awaitable[None]]
    decides: tuple[Decision, ...]
    cost: Cost = attrs.field(factory=Cost)
    undoes: str = ""
    needs: str = ""

    def is_chosen(self, options: Options) -> bool:
        """Return whether the options ask for it."""
        return not self.needs or bool(getattr(options, self.needs))

    def findings(self, notes: Notes, why_not: str) -> list[Finding]:
        """Return what the notes show; ``why_not`` is why the experiment did not end well."""
        found = []
        for decision in self.decides:
            try:
                seen = decision.conclude(notes)
            except KeyError:
                seen = NotDecided(why_not or "what it stands on was not seen")
            found.append(
                conclude(
                    self.name,
                    decision.subject,
                    seen,
                    setting=decision.setting,
                    expects=decision.expects,
                )
            )
        return found


class Watch:
    """Looks again and again for something that may come late, at the times of `GRID_S`.

    Use it as an async iterator. It tells the time at which something was first there only if it
    was certainly not there at the time before.
    """

    def __init__(self, session: Session, *, since: float) -> None:
        self._session = session
        self._since = since
        self._absent: int | None = None
        self._turn = 0

    async def __aiter__(self) -> AsyncIterator[None]:
        """Wait for each time in turn."""
        for self._turn, at in enumerate(GRID_S):
            due = self._since + at + _MARGIN_S
            await self._session.pause(due - self._session.runtime.monotonic())
            yield

    def is_absent(self) -> None:
        """Take note that it is not there yet, for certain."""
        self._absent = self._turn

    def seen(self, what: str) -> object:
        """Return the time at which it was first there, now being one, or `NotDecided`."""
        after_s = self._session.runtime.monotonic() - self._since
        following = GRID_S[self._turn + 1 :]
        is_late = bool(following) and after_s >= following[0]
        if is_late or (self._turn and self._absent != self._turn - 1):
            return NotDecided(f"{what} was looked for too late, because answers were missing")
        return GRID_S[self._turn]
