"""A call that was given up while it was out is not sent again."""

import asyncio

from simulation.clock import VirtualClock
from support.answers import rm_error
from support.limited_server import client_at, in_virtual_time

from rm_voucher import BulkStatus, TokenSource, bulk_issue


class Tokens(TokenSource):
    """Has another token whenever one is refused."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    async def token(self) -> str:
        return f"t{len(self.refused)}"

    def refuse(self, token: str) -> bool:
        self.refused.append(token)
        return True


def test_refused_token_after_the_block_was_left():
    """A call whose token is refused after the block was left is not sent again with another one,
    and the refused token is discarded all the same."""

    async def main(clock: VirtualClock) -> None:
        came: list[float] = []

        async def serve(request):
            came.append(clock.now)
            await asyncio.sleep(1)
            return rm_error("UNAUTHORIZED", 401)

        tokens = Tokens()
        client = client_at(clock, serve, token_source=tokens)
        async with bulk_issue(client, "B", range(100), concurrency=1) as run:
            await asyncio.sleep(0.5)
        (result,) = run.undelivered
        assert (result.status, result.attempts) == (BulkStatus.FAILED, 1)
        assert came == [1000]
        assert tokens.refused == ["t0"]

    in_virtual_time(main)
