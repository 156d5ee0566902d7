"""What a source of tokens need not say."""

from rm_voucher.calls.token_source import TokenSource


class Own(TokenSource):
    async def token(self) -> str:
        return "token"

    def refuse(self, token: str) -> bool:
        return False


def test_source_that_does_not_say_may_wait() -> None:
    """So a ledger notes a request before it asks for one."""
    assert not Own().is_ready
