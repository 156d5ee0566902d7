"""How many functions of the package one warm issue enters: each layer costs every call."""

import sys
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest
from support.answers import ISSUED, ok

import rm_voucher
from rm_voucher import StaticToken

MOST = 32  # of a call and of its token, two functions cut tracebacks; one reads JSON
PACKAGE = str(Path(rm_voucher.__file__).parent)
TOKEN = ok({"accessToken": "token", "expiresIn": 10_000})


def is_ours(code: CodeType) -> bool:
    """Return whether a function is in the package, or attrs made it for one of its classes."""
    return code.co_filename.startswith((PACKAGE, "<attrs generated methods rm_voucher."))


@pytest.mark.parametrize("token_source", [StaticToken("token"), None], ids=["given", "bought"])
async def test_warm_issue_enters_few_functions(make_client, signer, token_source):
    """With a real signature, without hooks or a log, over the memory transport: at most 32, each
    counted once however often its coroutine goes on."""
    client = make_client(
        lambda request: TOKEN if request.operation == "token" else ISSUED,
        token_source=token_source,
        signer=signer,
    )
    for _ in range(3):
        await client.issue("KEY")
    entered: dict[CodeType, str] = {}

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and is_ours(frame.f_code):
            entered[frame.f_code] = f"{frame.f_code.co_filename}: {frame.f_code.co_qualname}"

    sys.setprofile(note)
    try:
        await client.issue("KEY")
    finally:
        sys.setprofile(None)
    await client.aclose()
    assert 20 < len(entered) <= MOST, "\n".join(entered.values())
