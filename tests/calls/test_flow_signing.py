"""The flow and signatures that take their time, as those of a bulk run do."""

import asyncio

import pytest
from simulation.clock import VirtualClock
from simulation.loop import VirtualLoop
from support.answers import ISSUED, THROTTLED

from rm_voucher import IssuedVoucher, RateLimitError, RetryPolicy
from rm_voucher.service.client import issue_call


@pytest.mark.parametrize("signing_s", [0.0, 0.004, 0.03])
def test_calls_that_were_let_pass_before_a_throttle_cut_the_rate_once(make_client, signing_s):
    """Sixty calls are let pass together, and signed one after the other; twenty are accepted. The
    others are throttled one by one: five may be chance, and those after the sixth say no more about
    the rate than that."""
    clock = VirtualClock()
    sent = []

    def answer(request):
        sent.append(clock.now)
        return ISSUED if len(sent) <= 20 else THROTTLED

    client = make_client(
        answer,
        clock=clock.wall,
        monotonic=clock.monotonic,
        sleep=asyncio.sleep,
        retry=RetryPolicy(max_attempts=1),
    )

    def issue(number):
        async def sign(text):
            await asyncio.sleep(number * signing_s)
            return b"signature"

        call = issue_call(client.caller, "KEY")
        call.sign = sign
        return client.caller.execute(call)

    async def main():
        return await asyncio.gather(*map(issue, range(60)), return_exceptions=True)

    ended = VirtualLoop(clock).run(main)
    assert [type(end) for end in ended] == [IssuedVoucher] * 20 + [RateLimitError] * 40
    assert client.flow.throttled == 40
    accepted_per_s = 20 / max(0.5, 25 * signing_s)
    assert client.flow.rate_per_s == pytest.approx(accepted_per_s, rel=0.05)
