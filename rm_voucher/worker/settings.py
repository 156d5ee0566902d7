"""The settings of a worker, and how many messages it takes at once."""

from __future__ import annotations

import math

import attrs

from rm_voucher.exceptions import ConfigurationError
from rm_voucher.settings import positive, whole

_FEWEST, _MOST = 8, 1_000
_MARGIN_S = 15.0


def prefetch_for(rate_per_s: float, latency_s: float = 1.0) -> int:
    """Return how many messages to take at once, by Little's law: rate × latency.

    ``latency_s`` is from the delivery of a message to its acknowledgement: RM's answer, two commits
    and a confirmed message. Twice the product, so that neither side waits for the other; never less
    than 8, nor more than 1,000.
    """
    return max(_FEWEST, min(math.ceil(2 * rate_per_s * latency_s), _MOST))


@attrs.frozen(kw_only=True)
class WorkerSettings:
    """How many messages a worker takes, and how patiently it tries them again.

    Attributes:
        prefetch: how many messages it takes at once; see `prefetch_for`.
        attempt_s: how long one delivery of a message may take. What is not issued by then comes
            back later; what is in flight goes on in the ledger.
        first_delay_s: after how long a message that can't be served now comes back. Each further
            time it is twice as long, up to ``longest_delay_s``. Chance takes off up to half.
        longest_delay_s: the longest of these delays.
        max_attempts: after so many deliveries a message is parked for a person. With the other
            defaults that is after some ten hours.

    Raises `ConfigurationError`.
    """

    prefetch: int = attrs.field(default=64, validator=whole)
    attempt_s: float = attrs.field(default=30.0, validator=positive)
    first_delay_s: float = attrs.field(default=5.0, validator=positive)
    longest_delay_s: float = attrs.field(default=900.0, validator=positive)
    max_attempts: int = attrs.field(default=50, validator=whole)

    def __attrs_post_init__(self) -> None:
        if self.longest_delay_s < self.first_delay_s:
            raise ConfigurationError("longest_delay_s must be first_delay_s or more.")

    @property
    def redeliver_s(self) -> float:
        """After how long a broker may take a worker for dead that has not acknowledged a message.

        A living one is done by then: the attempt, the place held after it, and a margin.
        """
        return self.attempt_s + self.first_delay_s + _MARGIN_S
