"""An answer belongs to its question where it names what was asked for.

*Get*, *void*, *reinstate* and the member's two name one voucher, a bulk redeem names each of them:
an answer that shows another code is none, in whatever case the code is written. An *issue*, a
token and a page of a listing name nothing that was asked for: there only the connection keeps
another's answer away (`test_idle_connections`).
"""

from typing import Any

import pytest
from support.answers import ok, voucher, voucher_item
from support.scripted_server import ScriptedServer

from rm_voucher import DecodeError, OutcomeUnknownError, RetryPolicy, Voucher

ASKED, OTHER = "BBBBBBBB", "STOLEN01"
LOOK_UPS = {
    "get": lambda client: client.get(ASKED),
    "member get": lambda client: client.member("60", "1").get(ASKED),
}
CHANGES = {
    "void": (lambda client: client.void(ASKED), "VOID"),
    "reinstate": (lambda client: client.reinstate(ASKED, pin="1"), "REDEEMED"),
    "member redeem": (lambda client: client.member("60", "1").redeem(ASKED), "VOID"),
}
ONCE = RetryPolicy(max_attempts=1)


@pytest.mark.parametrize("call", LOOK_UPS.values(), ids=LOOK_UPS)
async def test_look_up_of_another_voucher_is_no_answer(make_client, call):
    """`get` of one code returned the voucher of another."""
    with pytest.raises(DecodeError, match="the code that was asked for") as caught:
        await call(make_client(ScriptedServer([voucher("ISSUED", code=OTHER)]), retry=ONCE))
    assert OTHER not in str(caught.value)


@pytest.mark.parametrize("call", LOOK_UPS.values(), ids=LOOK_UPS)
async def test_look_up_is_asked_again(make_client, call):
    """It is a read, and the next answer may be its own."""
    server = ScriptedServer([voucher("VOID", code=OTHER), voucher("ISSUED", code=ASKED.lower())])
    found: Voucher = await call(make_client(server))
    assert (found.code, found.status) == (ASKED.lower(), "ISSUED")


@pytest.mark.parametrize("call", LOOK_UPS.values(), ids=LOOK_UPS)
async def test_look_up_without_a_code_is_no_answer(make_client, call):
    """What names no voucher names not this one."""
    item = {**voucher_item("ISSUED"), "code": None}
    server = ScriptedServer([ok({"item": item, "code": "SUCCESS"})])
    with pytest.raises(DecodeError):
        await call(make_client(server, retry=ONCE))


@pytest.mark.parametrize(("call", "status"), CHANGES.values(), ids=CHANGES)
async def test_change_of_another_voucher_is_unknown(make_client, call, status):
    """Neither its answer nor the voucher that is read back may be another's."""
    other = voucher(status, code=OTHER)
    with pytest.raises(OutcomeUnknownError) as caught:
        await call(make_client(ScriptedServer([other] * 2), retry=ONCE))
    assert caught.value.voucher is None


async def test_redeem_of_another_voucher_is_unknown(make_client):
    """Each code that was asked for must be there; another proves nothing of them."""
    items = [voucher_item("REDEEMED", OTHER), voucher_item("REDEEMED", "AAAAAAAA")]
    script = [ok({"item": items, "code": "SUCCESS"}), voucher("REDEEMED", code=OTHER)]
    with pytest.raises(OutcomeUnknownError) as caught:
        await make_client(ScriptedServer(script), retry=ONCE).redeem([ASKED, "AAAAAAAA"])
    assert caught.value.codes == (ASKED,)
    redeemed: Any = caught.value.redeemed
    assert [one.code for one in redeemed] == ["AAAAAAAA"]
