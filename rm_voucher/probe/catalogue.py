"""All experiments, in the order in which they are made, and why some guesses have none."""

from __future__ import annotations

from collections.abc import Mapping

from rm_voucher.probe.access import ACCESS, ANSWERS, BATCH, SIGNED_PATH, TOKEN, TOKENS
from rm_voucher.probe.experiment import Experiment
from rm_voucher.probe.listing import ISSUE, LISTING, OTHER_BATCHES, STOCK, UPLOADED
from rm_voucher.probe.rate import RATE
from rm_voucher.probe.using import GET, USING

EXPERIMENTS: tuple[Experiment, ...] = (
    TOKEN,
    BATCH,
    *ACCESS,
    LISTING,
    UPLOADED,
    ISSUE,
    GET,
    SIGNED_PATH,
    *USING,
    STOCK,
    *OTHER_BATCHES,
    *TOKENS,
    RATE,
    ANSWERS,
)

_CALLBACKS = (
    "RM sends callbacks to the URL in the portal, and the probe receives none: look at a delivery "
    "with rm-voucher webhook."
)
WITHOUT_EXPERIMENT: Mapping[str, str] = {
    "rate_burst_s": "A burst can be told only from a rate that is known exactly, and the probe "
    "finds the rate between two steps.",
    "callback_statuses": _CALLBACKS,
    "callback_signs_url": _CALLBACKS,
    "callback_signs_again": _CALLBACKS,
    "callback_timeout_s": _CALLBACKS,
}
"""Each option of `Guesses` that no experiment decides, and why."""

_OURS = "It is a choice of this library, and nothing of RM's."
_OUTAGE = "An outage can't be made to order."
QUESTIONS: Mapping[str, str] = {
    "its value before redeeming is": "get",
    "Which status goes with a code is": "answers",
    "how many requests a second are taken": "rate",
    "which requests are counted together": "It would take two applications at the limit at once.",
    "`Retry-After`": "rate",
    "when to send again after a throttle or failure": _OURS,
    "when an outage begins and ends": _OUTAGE,
    "the code that refuses a repeated nonce": "nonce",
    "how soon a new token is accepted": "token",
    "how far RM's clock is off": "answers",
    "how long an answer may take": "It would take a call that RM is slow to answer.",
    "the size of an answer": "Nothing that the probe may do makes RM's answers large.",
    "how the last page of a listing is marked": "issue",
    "the life of a token that does not say, or not in seconds": "RM's tokens say it.",
    "when to renew a token": _OURS,
    "the deadline of a call": _OURS,
    "whether a new token ends the earlier ones": "token-ends",
    "how many codes a bulk redeem takes": "redeem-limit",
    "whether a bulk redeem that is refused has redeemed some": "redeem",
    "whether codes are case-sensitive": "case",
    "the status after a member's redeem": "member",
    "the status after reinstating": "reinstate",
    "how a country code and phone number are written": "It would take a member whose number can "
    "be written in several ways.",
    "whether `usedAt` of a void is accepted": "void",
    "how far a callback's timestamp may be off": _CALLBACKS,
    "how many bits RM's server key has": "The portal shows the key: rm-voucher webhook reads it.",
    "how large a callback is": _CALLBACKS,
    "how long RM waits for the answer to a callback": _CALLBACKS,
    "which changes cause a callback, and whether `updatedAt` moves without one": _CALLBACKS,
    "when a callback is lost for good": _CALLBACKS,
}
"""What docs/api.md calls unknown, and the experiment that finds it out, or why there is none."""
