"""A finding: what an experiment shows about one guess of this library."""

from __future__ import annotations

import enum
from typing import Any

import attrs

from rm_voucher.emulator import Guesses


class Verdict(enum.StrEnum):
    """What a probe says about a guess."""

    DOCUMENTED = "documented"
    """RM documents it, and the probe saw it so."""
    CONFIRMED = "confirmed"
    """This library guessed it, and the probe saw it so."""
    REFUTED = "refuted"
    """The probe saw something else than is documented or guessed."""
    NOT_DECIDED = "not decided"


@attrs.frozen
class NotDecided:
    """Why an experiment does not decide."""

    why: str


@attrs.frozen(kw_only=True)
class Finding:
    """What a probe found out about one thing.

    Attributes:
        experiment: the name of the experiment that decides it.
        subject: the option of `Guesses`, or ``check:…`` for a documented check, or ``fact:…``.
        verdict: the verdict.
        value: what was seen, as JSON; None where it is not decided.
        assumed: what this library assumes.
        why: the reason where it is not decided.
        setting: what to change in this library if it is refuted.
    """

    experiment: str
    subject: str
    verdict: Verdict
    value: Any = None
    assumed: Any = None
    why: str = ""
    setting: str = ""


def conclude(
    experiment: str, subject: str, seen: object, *, setting: str, expects: object
) -> Finding:
    """Return the finding of what was ``seen``, or of `NotDecided`.

    ``expects`` is the assumption for what is no option of `Guesses`.
    """
    is_documented = subject.startswith("check:")
    assumed = True if is_documented else expects
    if ":" not in subject:
        assumed = plain(getattr(Guesses(), subject))
    if isinstance(seen, NotDecided):
        return Finding(
            experiment=experiment,
            subject=subject,
            verdict=Verdict.NOT_DECIDED,
            assumed=assumed,
            why=seen.why,
        )
    agreed = Verdict.DOCUMENTED if is_documented else Verdict.CONFIRMED
    return Finding(
        experiment=experiment,
        subject=subject,
        verdict=agreed if seen == assumed else Verdict.REFUTED,
        value=seen,
        assumed=assumed,
        setting="" if seen == assumed else setting,
    )


def plain(value: object) -> Any:
    """Return an option's value as JSON has it."""
    if isinstance(value, enum.StrEnum):
        return str(value)
    if isinstance(value, tuple | list):
        return [plain(inner) for inner in value]
    return value


def shown(value: object) -> str:
    """Return a value as a page has it: as Python writes it, a text without its quotes."""
    return value if isinstance(value, str) and value else repr(value)
