"""What a probe found out about a server, as `rm-voucher probe` writes it: settings to begin with.

`rm_voucher.probe` makes such a report. A client takes its `Profile` from one, the emulator its
guesses.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_plain
from rm_voucher.jsontext import read_json
from rm_voucher.settings import positive, whole

FORMAT = "rm-voucher-probe/1"
_DECIDED = ("documented", "confirmed", "refuted")
_MAX_REPORT_BYTES = 1024 * 1024


def read_report(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the report in a file, as JSON.

    Raises `ConfigurationError`, also for a report that decided nothing: it would be taken for one
    that found everything as it is assumed.
    """
    try:
        with os.fdopen(open_plain(Path(path)), "rb") as file:
            text = file.read(_MAX_REPORT_BYTES + 1)
    except (OSError, ValueError, TypeError) as exc:
        why = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigurationError(f"The probe's report {path} can't be read: {why}.") from exc
    try:
        report = read_json(text) if len(text) <= _MAX_REPORT_BYTES else None
    except ValueError:
        report = None
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise ConfigurationError(
            f"{path} is no report of a probe: write one with rm-voucher probe --output FILE."
        )
    findings = report.get("findings")
    findings = findings if isinstance(findings, list) else []
    if not any(isinstance(one, dict) and one.get("verdict") in _DECIDED for one in findings):
        raise ConfigurationError(
            f'The probe\'s report {path} decided nothing: its "stopped" says why the probe ended.'
        )
    return report


def part_of(report: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Return an object in a report, by its name. Raises `ConfigurationError`."""
    part = report.get(name)
    if not isinstance(part, dict):
        raise ConfigurationError(f"The probe's report has no {name!r}.")
    return part


def _method(instance: object, attribute: attrs.Attribute[str], value: object) -> None:
    if value not in ("POST", "GET"):
        raise ConfigurationError(f"{attribute.name} must be POST or GET.")


def _yes_or_no(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    if not isinstance(value, bool):
        raise ConfigurationError(f"{attribute.name} must be true or false.")


@attrs.frozen(kw_only=True)
class Profile:
    """The settings that fit a server. The defaults are those of a client that knows nothing.

    Attributes:
        get_method: the method that *get by code* tries first.
        has_batch_path: whether *one batch* is asked for by its path, or looked for in the list.
        escapes_paths: see `Environment`.
        rate_per_s: see `FlowPolicy`; None for no limit until the server throttles.
        max_redeem_codes: see `Limits`.
        settle_s: for `Ledger.open`; the client has no use for it.

    Raises `ConfigurationError`.
    """

    get_method: str = attrs.field(default="POST", validator=_method)
    has_batch_path: bool = attrs.field(default=True, validator=_yes_or_no)
    escapes_paths: bool = attrs.field(default=False, validator=_yes_or_no)
    rate_per_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    max_redeem_codes: int = attrs.field(default=100, validator=whole)
    settle_s: float = attrs.field(default=300.0, validator=positive)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Return the profile in a report's file. Raises `ConfigurationError`."""
        settings = part_of(read_report(path), "settings")
        unknown = settings.keys() - {field.name for field in attrs.fields(cls)}
        if unknown:
            raise ConfigurationError(f"The probe's report has unknown settings: {len(unknown)}.")
        return cls(**settings)
