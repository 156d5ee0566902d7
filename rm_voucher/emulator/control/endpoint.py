"""One endpoint of the control API, and what it is given."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import attrs

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.merchant import Merchant
from rm_voucher.emulator.schema import Field, Schema, as_fields


@attrs.frozen
class Asked:
    """What an endpoint is given: whom it is about, the names in its path, its body's fields."""

    emulator: Emulator
    merchant: Merchant
    names: Mapping[str, str]
    given: dict[str, Any]
    is_one: bool = attrs.field(default=False, kw_only=True)
    """Whether the path names the merchant."""

    @property
    def code(self) -> str:
        """The voucher of the path."""
        return self.names["code"]

    @property
    def reveals(self) -> bool:
        """Whether codes are to be shown."""
        return bool(self.given.get("reveal"))


@attrs.frozen
class Endpoint:
    """A method at a path.

    A part of the path in braces is a name. One that is not ``is_shared`` is about a merchant:
    it is also under ``/merchants/{name}``, for the merchants beside the first.
    """

    method: str
    path: str
    summary: str
    do: Callable[[Asked], object]
    fields: Mapping[str, Field] | None = attrs.field(
        factory=dict, kw_only=True, converter=attrs.converters.optional(as_fields)
    )
    """Of the body; a type stands for a field of it. Only what is needed must be there. None for
    any."""
    query: Mapping[str, Field] = attrs.field(factory=dict, kw_only=True, converter=as_fields)
    """Of the URL, likewise."""
    answer: Schema = attrs.field(factory=dict, kw_only=True)
    """The form of the answer; an empty one is any JSON."""
    can_conflict: bool = attrs.field(default=False, kw_only=True)
    """Whether a voucher's or batch's state may refuse it: 409."""
    is_shared: bool = attrs.field(default=False, kw_only=True)
