"""The seams of a campaign: how what surrounds ledgers gives way, on the network and at the disk.

What the server did is true; what it is said to have done need not be.
"""

from __future__ import annotations

import enum
import math
from random import Random
from typing import Any

import attrs
import orjson

from rm_voucher import Response
from rm_voucher.emulator.reply import Reply, json_response

_REFUSALS = (
    (400, "DUPLICATE_REQUEST", "The request is a duplicate"),
    (401, "NONCE_USED", "X-Nonce-Str was used"),
    (403, "REPEATED_REQUEST", "Forbidden"),
    (400, "E1042", "This request was already processed"),
)
"""RM documents that a repeated nonce is refused as a duplicate request, and not by which code."""
_LONGEST_BEFORE_AGAIN_S = 3.0
_TROUBLE_LASTS_S = (3.0, 20.0, 100.0)


class Trouble(enum.Enum):
    """What may be the matter with a ledger's database for a while."""

    AWAY = enum.auto()
    """Nobody can reach it. It is waited for."""
    READ_ONLY = enum.auto()
    """Another one takes over, and only reads so far. It is waited for."""
    FULL = enum.auto()
    """Nothing that is written finds space. It is waited for, and may be so for ever."""
    BROKEN = enum.auto()
    """Most of what is written fails, and at once: to wait is of no use."""


@attrs.frozen(kw_only=True)
class Seams:
    """How often each gives way.

    Attributes:
        resent: the share of executed issues whose bytes are sent a second time by what is between:
            the first answer is lost, and that to the second is a refusal.
        codes_in_errors: the share of issues that are answered by a 500 which holds a voucher.
        rolled_back: how many of those issued nothing: the voucher is nobody's.
        troubles: so many processes meet one trouble of the database each.
        kinds: which ones.
        cuts: how often, in each process, the connection by which a ledger shows that it lives ends.
        cut_s: the longest time until it can have another.
        clock_off_s: by so much the process's clock is ahead of the server's, all the time.
        shows_date: whether the server says what time it is.
    """

    resent: float = 0.0
    codes_in_errors: float = 0.0
    rolled_back: float = 0.5
    troubles: int = 0
    kinds: tuple[Trouble, ...] = tuple(Trouble)
    cuts: int = 0
    cut_s: float = 60.0
    clock_off_s: float = 0.0
    shows_date: bool = True

    def trouble(self, chance: Random) -> tuple[Trouble, float, float]:
        """Return a trouble, when it begins, and how long it lasts: perhaps for ever."""
        kind = chance.choice(self.kinds)
        stays = kind in (Trouble.FULL, Trouble.BROKEN)
        lasts = (*_TROUBLE_LASTS_S, math.inf) if stays else _TROUBLE_LASTS_S
        return kind, chance.uniform(0.2, 5), chance.choice(lasts)

    def is_resent(self, chance: Random) -> bool:
        """Return whether what is between sends a request's bytes again."""
        return bool(self.resent) and chance.random() < self.resent

    def errs_with_code(self, chance: Random) -> bool:
        """Return whether an issue is answered by an error that holds a voucher."""
        return bool(self.codes_in_errors) and chance.random() < self.codes_in_errors

    def is_rolled_back(self, chance: Random) -> bool:
        """Return whether such an issue was undone."""
        return chance.random() < self.rolled_back


def without_date(reply: Reply) -> Reply:
    """Return an answer that does not say what time it is."""
    headers = {name: value for name, value in reply.response.headers.items() if name != "date"}
    return attrs.evolve(reply, response=attrs.evolve(reply.response, headers=headers))


def duplicate(reply: Reply, chance: Random) -> Reply:
    """Return the answer to the second copy of a request, whose first answer is lost."""
    reply.on_loss()
    status, code, message = chance.choice(_REFUSALS)
    answer = json_response(status, {"error": {"code": code, "message": message}})
    return Reply(answer, lasts_s=chance.uniform(0, _LONGEST_BEFORE_AGAIN_S), fault=reply.fault)


def failed_with(item: Any) -> Response:
    """Return a server's error that holds a voucher."""
    error = {"code": "INTERNAL_ERROR", "message": "something went wrong on the way out"}
    return json_response(500, {"item": item, "error": error})


def item_of(response: Response) -> Any:
    """Return the voucher of an answer to issue, or None."""
    try:
        item = orjson.loads(response.body).get("item")
    except (orjson.JSONDecodeError, AttributeError):
        return None
    return item if isinstance(item, dict) and isinstance(item.get("code"), str) else None


def item_of_nobody(chance: Random) -> dict[str, str]:
    """Return a voucher that is not issued."""
    return {"code": f"UNDONE{chance.getrandbits(40):010x}", "qrUrl": "https://qr.invalid/undone"}
