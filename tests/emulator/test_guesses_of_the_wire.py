"""The guesses at what the wire looks like: marks of a last page, statuses, throttles, paths."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from support.doubles import FakeTime

from rm_voucher import NotFoundError, RateLimitError, RetryPolicy, SignatureError
from rm_voucher.emulator import Emulator, Guesses
from rm_voucher.transport.base import Request, Response, Transport


class Recording(Transport):
    """Keeps the answers of an emulator."""

    def __init__(self, emulator: Emulator) -> None:
        self._inner = emulator.transport()
        self.answers: list[Response] = []

    async def send(self, request: Request) -> Response:
        self.answers.append(await self._inner.send(request))
        return self.answers[-1]


def emulator(**guesses: Any) -> Emulator:
    return Emulator(batches={"K": 5}, guesses=Guesses(**guesses), clock=FakeTime().clock)


@pytest.mark.parametrize(
    ("last_page", "metas"),
    [
        ("no-cursor", [True, "none"]),
        ("null", [True, None]),
        ("empty-text", [True, ""]),
        ("empty-page", [True, True, "none"]),
    ],
)
async def test_last_page(last_page, metas):
    """Whatever marks the last page, the client reads each voucher once and comes to an end."""
    there = emulator(last_page=last_page, page_size=2)
    for _ in range(3):
        there.state.issue("K")
    seen = Recording(there)
    async with there.client(transport=seen) as client:
        codes = [voucher.code async for voucher in client.vouchers("K")]
    assert codes == list(there.issued("K"))
    pages = [orjson.loads(answer.body) for answer in seen.answers[1:]]
    cursors = [page["meta"].get("cursor", "none") for page in pages]
    assert [(cursor not in (None, "", "none")) or cursor for cursor in cursors] == metas


async def test_statuses():
    """A code's status is the option's, and the code decides all the same."""
    there = emulator(statuses={"VOUCHER_NOT_FOUND": 418})
    async with there.client() as client:
        with pytest.raises(NotFoundError) as caught:
            await client.get("none")
    assert caught.value.http_status == 418


@pytest.mark.parametrize("retry_after_s", [None, 7])
async def test_throttle(retry_after_s):
    """A request over the rate limit is answered as the options say."""
    there = emulator(
        throttle_code="EXCEEDED_LIMIT", throttle_status=403, throttle_retry_after_s=retry_after_s
    )
    async with there.client(retry=RetryPolicy(max_attempts=1)) as client:
        await client.batch("K")
        there.rate_limit = 1
        await client.batch("K")
        with pytest.raises(RateLimitError) as caught:
            await client.batch("K")
    assert (caught.value.code, caught.value.http_status) == ("EXCEEDED_LIMIT", 403)
    assert caught.value.retry_after_s == retry_after_s


@pytest.mark.parametrize("sends", [True, False])
async def test_date(sends):
    """Without it the client knows nothing of the server's clock."""
    there = emulator(sends_date=sends)
    async with there.client() as client:
        await client.batch("K")
    assert (client.clock_offset_s is not None) is sends


@pytest.mark.parametrize(
    ("signed_path", "raw", "escaped"),
    [("as-sent", True, True), ("raw", True, False), ("escaped", False, True)],
)
async def test_signed_path(signed_path, raw, escaped):
    """The signature is good only for the spelling of the path that the option names."""
    there = emulator(signed_path=signed_path)
    environment = there.environment
    for escapes, is_good in ((False, raw), (True, escaped)):
        there.environment = type(environment)(
            environment.api_url, environment.oauth_url, escapes_paths=escapes
        )
        async with there.client() as client:
            with pytest.raises(NotFoundError if is_good else SignatureError):
                await client.get("a@b:c")
