"""The form of a saved emulator: what is of another form is refused before it is used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import attrs


@attrs.frozen
class Form:
    """What a value must be: of one of the kinds, or null where it is ``optional``."""

    kinds: tuple[type, ...]
    optional: bool = False
    least: float = -math.inf

    def check(self, value: object, path: str) -> None:
        """Raise `ValueError` with the place of a value of another form."""
        if object in self.kinds or (value is None and self.optional):
            return
        if not isinstance(value, self.kinds) or (
            isinstance(value, bool) and bool not in self.kinds
        ):
            raise ValueError(f"{path} is of another type")
        if isinstance(value, int | float) and not self.least <= value < _MOST:
            raise ValueError(f"{path} is too large, or too small")


_MOST = 2.0**63
TEXT = Form((str,))
TEXT_OR_NONE = Form((str,), optional=True)
WHOLE = Form((int,), least=0)
NUMBER = Form((int, float))
NUMBER_OR_NONE = Form((int, float), optional=True)
TRUTH = Form((bool,))
ANY = Form((object,), optional=True)


@attrs.frozen
class Each:
    """A list, or an object with any keys, whose values are all of one form."""

    of: Any
    kind: type = list


@attrs.frozen
class Row:
    """A list of so many values, each of its form; ``optional`` may be null."""

    forms: Sequence[Any]
    optional: bool = False


_VOUCHER = Row(
    [
        TEXT,
        TEXT,
        NUMBER,
        NUMBER_OR_NONE,
        NUMBER_OR_NONE,
        TEXT_OR_NONE,
        NUMBER_OR_NONE,
        Row([TEXT, TEXT], optional=True),
        Each(Form((str, int, float))),
    ]
)
_BATCH = {
    **dict.fromkeys(("id", "key", "label", "status", "type", "origin"), TEXT),
    **dict.fromkeys(
        (
            "quantity",
            "amount_sen",
            "discount_rate_bp",
            "minimum_spend_sen",
            "next_made",
            "first_open",
            "issued",
            "made",
        ),
        WHOLE,
    ),
    "static_code": TEXT_OR_NONE,
    "is_ours": TRUTH,
    "created_at": NUMBER,
    "updated_at": NUMBER,
    "expiry": Row([TEXT, Form((int,), optional=True), TEXT_OR_NONE]),
    "counts": Each(Form((int,)), dict),  # of changes: VALID goes below nothing
}
_MERCHANT = {
    "name": TEXT,
    "number": WHOLE,
    "options": {
        "client_id": TEXT,
        "client_secret": TEXT,
        "private_key": TEXT_OR_NONE,
        "public_key": TEXT,
        "guesses": Each(ANY, dict),
        "seed": TEXT_OR_NONE,
        "batches": Each(WHOLE, dict),
        "merchant_pin": TEXT,
        "token_lifetime_s": WHOLE,
        "disabled_checks": Each(TEXT),
    },
    "books": {
        "members": Each(Row([TEXT, TEXT, TEXT, TRUTH])),
        "stores": Each(TRUTH, dict),
        "random": Row([WHOLE, Each(WHOLE), NUMBER_OR_NONE]),
        "batches": Each(_BATCH),
    },
    "tokens": {
        "tokens": Each(NUMBER, dict),
        "refresh_tokens": Each(NUMBER, dict),
        "revoked": Each(TEXT, dict),
    },
    "callbacks": {
        "url": TEXT_OR_NONE,
        "interval_s": NUMBER,
        "signs_url": TRUTH,
        "delivered": WHOLE,
        "given_up": WHOLE,
        "deliveries": Each(
            {
                "body": TEXT,
                "due": NUMBER_OR_NONE,
                "headers": Each(TEXT, dict),
                "attempts": Each(Row([NUMBER, Form((int,), optional=True), TEXT])),
            }
        ),
    },
    "faults": {
        "plan": Each(ANY, dict),
        "since": NUMBER,
        "seed": TEXT,
        "met": Each(Row([TEXT, TEXT, WHOLE])),
        "queued": Each(Each(Row([TEXT, WHOLE])), dict),
    },
    "rate_limit": NUMBER_OR_NONE,
    "requests": Each(WHOLE, dict),
    "undelivered": Each(TEXT),
    "begun_at": NUMBER,
    "now": NUMBER,
    "vouchers": Each(Each(_VOUCHER), dict),
}
EMULATOR: dict[str, Any] = {
    "version": WHOLE,
    "ahead_s": NUMBER,
    "requests": WHOLE,
    "callback_key": TEXT_OR_NONE,
    "merchants": Each(_MERCHANT),
}


def check(value: object, form: Any = EMULATOR, path: str = "$") -> None:
    """Raise `ValueError` with the place where a value is of another form."""
    match form:
        case Form():
            form.check(value, path)
        case Each(of=of):
            if not isinstance(value, form.kind):
                raise ValueError(f"{path} is of another type")  # noqa: TRY004 - of JSON
            items = value.items() if isinstance(value, Mapping) else enumerate(value)  # type: ignore[arg-type]
            for name, inner in items:
                check(inner, of, f"{path}.{name}")
        case Row(forms=forms):
            if value is None and form.optional:
                return
            if not isinstance(value, list | tuple) or len(value) != len(forms):
                raise ValueError(f"{path} is of another length")
            for number, (inner, its) in enumerate(zip(value, forms, strict=True)):
                check(inner, its, f"{path}.{number}")
        case _:
            if not isinstance(value, Mapping) or value.keys() != form.keys():
                raise ValueError(f"{path} has other fields")
            for name, its in form.items():
                check(value[name], its, f"{path}.{name}")
