"""The options of a client, with the clock and chance of tests."""

from __future__ import annotations

from typing import Any

import attrs

from rm_voucher import Runtime

_NAMES = [field.name for field in attrs.fields(Runtime)]


def with_runtime(options: dict[str, Any]) -> dict[str, Any]:
    """Return a client's options, with ``clock``, ``sleep`` and so on in its `Runtime`."""
    given = {name: options[name] for name in _NAMES if name in options}
    rest = {name: value for name, value in options.items() if name not in given}
    return {**rest, "runtime": attrs.evolve(rest.get("runtime", Runtime()), **given)}
