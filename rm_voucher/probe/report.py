"""The report: findings, settings for the client, guesses for the emulator. It holds no secret."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import attrs

from rm_voucher._version import __version__
from rm_voucher.emulator import Guesses
from rm_voucher.jsontext import indented, write_json
from rm_voucher.probe.budget import Cost
from rm_voucher.probe.findings import Finding, Verdict, plain, shown
from rm_voucher.profile import FORMAT, Profile
from rm_voucher.text import counted, printable

ENDED_EARLY = "the probe ended early: "
"""So begins the reason where nothing was tried any more."""
_HIDDEN = "…"
_LEAST_CHARS = 6  # of a secret that is looked for inside of other text
_SETTLES_AFTER = 10  # times what was seen once


@attrs.frozen(kw_only=True)
class Report:
    """What a probe found out.

    Attributes:
        findings: one for each thing that an experiment decides.
        environment: ``sandbox``, ``production``, ``memory`` for an emulator, or ``other``.
        stated, used: the cost as it was stated, and as it came.
        stopped: why the probe ended early, or an empty text.
        refuses_credentials: whether it ended early because the server refuses the credentials, or
            what is signed with them. It is not in the report's JSON: ``stopped`` says it.
        headers: the names of the headers that RM's answers have.
    """

    findings: tuple[Finding, ...]
    environment: str
    stated: Cost
    used: Cost
    stopped: str = ""
    refuses_credentials: bool = False
    headers: tuple[str, ...] = ()

    def finding(self, subject: str) -> Finding:
        """Return the finding about a subject. Raises `KeyError`."""
        for finding in self.findings:
            if finding.subject == subject:
                return finding
        raise KeyError(subject)

    @property
    def decided(self) -> Mapping[str, Any]:
        """What was seen, by subject."""
        return {
            one.subject: one.value
            for one in self.findings
            if one.verdict is not Verdict.NOT_DECIDED
        }

    @property
    def not_decided(self) -> Mapping[str, list[str]]:
        """What was not decided, as lists of subjects by the reason; an early end is the last."""
        reasons: dict[str, list[str]] = {}
        for one in self.findings:
            if one.verdict is Verdict.NOT_DECIDED:
                reasons.setdefault(one.why, []).append(one.subject)
        return dict(sorted(reasons.items(), key=lambda each: each[0].startswith(ENDED_EARLY)))

    @property
    def guesses(self) -> Guesses:
        """The options with which the emulator does as RM does."""
        return Guesses(**self._guesses())

    @property
    def guesses_source(self) -> str:
        """The same as Python, without what is as by default."""
        lines = [
            f"    {name}={value!r},"
            for name, value in self._guesses().items()
            if value != plain(getattr(Guesses(), name))
        ]
        return "\n".join(["Guesses(", *lines, ")"]) if lines else "Guesses()"

    @property
    def disabled_checks(self) -> list[str]:
        """The documented checks that RM does not make."""
        return [
            subject.removeprefix("check:")
            for subject, value in self.decided.items()
            if subject.startswith("check:") and value is False
        ]

    @property
    def profile(self) -> Profile:
        """The settings that fit the server."""
        decided, settings = self.decided, {}
        if "get_methods" in decided:
            settings["get_method"] = decided["get_methods"][0]
        if "older_batch_path" in decided:
            settings["has_batch_path"] = decided["older_batch_path"]
        if "signed_path" in decided:
            settings["escapes_paths"] = decided["signed_path"] == "escaped"
        if "max_redeem_codes" in decided:
            settings["max_redeem_codes"] = decided["max_redeem_codes"]
        if "listing_delay_s" in decided:
            slow_s = _SETTLES_AFTER * decided["listing_delay_s"]
            settings["settle_s"] = max(Profile().settle_s, slow_s)
        if self._rate_limit() is not None:
            settings["rate_per_s"] = self._rate_limit()
        return Profile(**settings)

    def _rate_limit(self) -> float | None:
        rate = self.decided.get("fact:rate")
        if rate is None or rate["throttled_per_s"] is None:
            return None
        # Half of the rate that was throttled, where none was taken.
        return float(rate["taken_per_s"] or rate["throttled_per_s"] / 2)

    def _guesses(self) -> dict[str, Any]:
        return {name: value for name, value in self.decided.items() if ":" not in name}

    def to_json(self) -> bytes:
        """Return it as JSON, for a file: `Emulator.like` and ``from_env(profile=…)`` read it."""
        rate = self.decided.get("fact:rate") or {}
        return indented(
            write_json(
                {
                    "format": FORMAT,
                    "version": __version__,
                    "environment": self.environment,
                    "stopped": self.stopped,
                    "cost": {"stated": attrs.asdict(self.stated), "used": attrs.asdict(self.used)},
                    "headers": self.headers,
                    "findings": [attrs.asdict(finding) for finding in self.findings],
                    "settings": attrs.asdict(self.profile),
                    "emulator": {
                        "guesses": self._guesses(),
                        "disabled_checks": self.disabled_checks,
                        "rate_limit": rate.get("throttled_per_s") and self._emulated_rate(rate),
                    },
                },
            )
        )

    @staticmethod
    def _emulated_rate(rate: Mapping[str, Any]) -> float:
        """Return a limit between the rate that was taken and the one that was not."""
        return float((rate["taken_per_s"] + rate["throttled_per_s"]) / 2)

    def to_markdown(self) -> str:
        """Return it as Markdown, for a person or a bug report."""
        lines = [
            "# What the probe found out",
            "",
            (
                f"rm-voucher {__version__}, environment {self.environment}. Used: {self.used}. "
                f"At most, as was stated: {self.stated}."
            ),
            "",
        ]
        if self.stopped:
            lines += [f"**It ended early:** {self.stopped}.", ""]
        if self.decided:
            lines += ["| about | verdict | seen | assumed | to do |", "|---|---|---|---|---|"]
        lines += [
            f"| `{one.subject}` | {one.verdict} | `{shown(one.value)}` | `{shown(one.assumed)}` | "
            f"{one.setting} |"
            for one in self.findings
            if one.verdict is not Verdict.NOT_DECIDED
        ]
        lines += ["", "## Not decided", ""]
        for why, subjects in self.not_decided.items():
            names = ", ".join(f"`{subject}`" for subject in subjects)
            lines.append(f"- {counted(len(subjects), 'finding')} not decided: {why}: {names}")
        lines += ["", f"Headers of answers: {', '.join(self.headers) or 'none'}."]
        lines += ["", "## For the emulator", "", "```python", self.guesses_source, "```", ""]
        lines += ["## For the client", ""]
        default = Profile()
        for field in attrs.fields(Profile):
            value = getattr(self.profile, field.name)
            changed = "" if value == getattr(default, field.name) else " (changed)"
            lines.append(f"- `{field.name}`: `{shown(value)}`{changed}")
        return "\n".join([*lines, ""])


def without_secrets(findings: Collection[Finding], secret: Collection[str]) -> tuple[Finding, ...]:
    """Return the findings with all that is secret cut out."""
    return tuple(
        attrs.evolve(
            one,
            value=_cleaned(one.value, secret),
            why=_cleaned(one.why, secret),
        )
        for one in findings
    )


def _cleaned(value: Any, secret: Collection[str]) -> Any:
    if isinstance(value, str):
        return clean_text(value, secret)
    if isinstance(value, list):
        return [_cleaned(inner, secret) for inner in value]
    if isinstance(value, dict):
        return {clean_text(name, secret): _cleaned(inner, secret) for name, inner in value.items()}
    return value


def clean_text(text: str, secret: Collection[str]) -> str:
    """Return text without what is secret, and without what a terminal would obey."""
    for word in sorted(secret, key=len, reverse=True):
        if text == word or len(word) >= _LEAST_CHARS:
            text = text.replace(word, _HIDDEN)
    return printable(text)
