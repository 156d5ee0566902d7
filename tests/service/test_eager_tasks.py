"""An event loop whose tasks begin at once, as Python 3.12's eager task factory makes them."""

import asyncio

import pytest
from support.answers import LOST, ok, rm_error, voucher, voucher_item

from rm_voucher import BulkStatus, OutcomeUnknownError, Timeout, Voucher, bulk_issue

pytestmark = pytest.mark.skipif(
    not hasattr(asyncio, "eager_task_factory"), reason="Python 3.11 has no eager tasks"
)


@pytest.fixture
async def eager():
    asyncio.get_running_loop().set_task_factory(getattr(asyncio, "eager_task_factory"))  # noqa: B009 - not in 3.11


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("count", [1, 300])
async def test_bulk_each_recipient_has_one_result(make_client, count):
    """A worker that has ended before its task is known has delivered, once."""
    sold_out = make_client(lambda request: rm_error("VOUCHER_SOLD_OUT", 400))
    async with bulk_issue(sold_out, "KEY", range(count), concurrency=4) as run:
        results = [result async for result in run]
    assert sorted(result.recipient for result in results) == list(range(count))
    assert {result.status for result in results} == {BulkStatus.FAILED}
    assert (run.summary.asked, run.summary.in_flight) == (count, 0)


@pytest.mark.usefixtures("eager")
async def test_redeem_in_doubt_is_looked_up(make_client):
    """Look-ups that end before the next one begins are all counted."""

    def serve(request):
        if request.operation == "redeem":
            if not sent:
                sent.append(request)
                raise LOST
            return ok({"item": [voucher_item("REDEEMED", "B")], "code": "SUCCESS"})
        code = request.url.name
        return voucher("REDEEMED" if code == "A" else "ISSUED", code=code)

    sent = []
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(serve).redeem(["A", "B"])
    assert caught.value.codes == ("A",)
    (redeemed,) = caught.value.redeemed
    assert isinstance(redeemed, Voucher)
    assert redeemed.code == "B"


@pytest.mark.usefixtures("eager")
async def test_redeem_look_ups_that_end_at_once(make_client, time):
    """Look-ups for which there is no time left end before the next one begins: all in doubt."""

    def serve(request):
        time.now += 1.5
        raise LOST

    timeout = Timeout(connect_s=1, attempt_s=2, total_s=2)
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(serve, timeout=timeout).redeem(["A", "B", "C"])
    assert caught.value.codes == ("A", "B", "C")


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("error", [ValueError, SystemExit])
async def test_bulk_that_breaks_in_its_first_step_ends(make_client, error):
    """What is raised before the run has got hold of its own tasks ends it all the same."""

    def broken(summary):
        raise error

    sold_out = make_client(lambda request: rm_error("VOUCHER_SOLD_OUT", 400))
    with pytest.raises(error):
        async with bulk_issue(sold_out, "KEY", range(9), on_progress=broken) as run:
            async for _ in run:
                pass
