"""The experiment that measures the rate: requests at a rising rate, until the first throttle."""

from __future__ import annotations

import asyncio

from rm_voucher.calls.outcomes import Outcome
from rm_voucher.probe.budget import Cost
from rm_voucher.probe.experiment import Decision, Experiment, Notes
from rm_voucher.probe.findings import NotDecided
from rm_voucher.probe.session import Answer, Session

RATES_PER_S = (1, 2, 5, 10, 20, 50, 100)
_STEP_S = 2


async def _rate(session: Session) -> None:
    notes, request = session.notes, session.some_read()
    for per_s in RATES_PER_S:
        await session.pause(1.0)  # a burst of the step before is over
        answers: list[Answer] = []

        async def send(into: list[Answer]) -> None:
            into.append(await session.once(request, unpaced=True))

        async with asyncio.TaskGroup() as group:
            begun_at = session.runtime.monotonic()
            for number in range(per_s * _STEP_S):
                at = begun_at + number / per_s
                await session.pause(at - session.runtime.monotonic())
                if any(map(_is_throttle, answers)):
                    break
                group.create_task(send(answers))
        throttled = [one for one in answers if _is_throttle(one)]
        if throttled:
            notes["rate.throttled_per_s"] = per_s
            notes["rate.code"] = throttled[0].code
            notes["rate.status"] = throttled[0].status
            asked_s = throttled[0].retry_after_s
            notes["rate.retry_after_s"] = (
                round(asked_s) if "retry-after" in throttled[0].headers else None
            )
            return
        notes["rate.good_per_s"] = per_s


def _is_throttle(answer: Answer) -> bool:
    # Here a 503 says the same, whatever its code: RM has just answered fewer requests.
    return answer.outcome is Outcome.THROTTLED or answer.status == 503


def _steps(notes: Notes) -> object:
    good = notes.get("rate.good_per_s", 0)
    if "rate.throttled_per_s" not in notes:
        return {"taken_per_s": notes["rate.good_per_s"], "throttled_per_s": None}
    return {"taken_per_s": good, "throttled_per_s": notes["rate.throttled_per_s"]}


_UNLIMITED = {"taken_per_s": RATES_PER_S[-1], "throttled_per_s": None}


def _of_throttle(name: str) -> Decision:
    def seen(notes: Notes) -> object:
        if "rate.throttled_per_s" not in notes and "rate.good_per_s" in notes:
            return NotDecided(f"{RATES_PER_S[-1]} requests a second were not throttled")
        return notes[f"rate.{name}"]

    return Decision(f"throttle_{name}", seen)


def _code(notes: Notes) -> object:
    seen = _of_throttle("code").conclude(notes)
    return seen or NotDecided("a throttle has no code of RM's")


RATE = Experiment(
    name="rate",
    asks="At which rate does the first throttle come, and how does it look?",
    observe=_rate,
    decides=(
        Decision("fact:rate", _steps, "FlowPolicy.rate_per_s, as the profile has it", _UNLIMITED),
        Decision("throttle_code", _code),
        _of_throttle("status"),
        _of_throttle("retry_after_s"),
    ),
    cost=Cost(calls=sum(RATES_PER_S) * _STEP_S),
    needs="measure_rate",
)
