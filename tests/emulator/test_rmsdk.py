"""Revenue Monster's own Python SDK against the emulator's command: nothing of it is changed but the
URL, so what it signs, sends and reads is RM's own."""

import re
import sys
from pathlib import Path

import pytest
from support.answers import payload
from support.sdk_processes import SDKRefusedError, assert_documented

from rm_voucher.emulator.keys import new_private_key

PROCESS = Path(__file__).with_name("rmsdk_process.py")


@pytest.fixture
def sdk_command():
    return [sys.executable, PROCESS]


def test_sdk_every_voucher_method(connected):
    """Tokens and every voucher method work, signatures verified, and answer as RM's pages show."""
    emulator, sdk = connected("--batch", "TEA=2", "--batch", "NONE=0")
    token, refresh_token = sdk.login()
    issued = sdk.call("voucher.issueVoucher", token, "TEA")
    assert_documented(issued, payload("issue-voucher"))
    code = issued["item"]["code"]
    assert issued["item"]["qrUrl"].endswith(f"/{code}")

    got = sdk.call("voucher.getVoucherByCode", token, code)
    assert_documented(got, payload("get-voucher"))
    assert [got["code"], got["item"]["code"], got["item"]["status"]] == ["SUCCESS", code, "ISSUED"]
    assert got["item"]["voucherBatchKey"] == "TEA"

    void = sdk.call("voucher.voidVoucher", token, code)
    assert_documented(void, payload("void-voucher"))
    assert [void["code"], void["item"]["code"], void["item"]["status"]] == ["SUCCESS", code, "VOID"]

    newer, newer_refresh_token = sdk.call("auth.getRefreshToken", refresh_token)
    assert len({token, refresh_token, newer, newer_refresh_token}) == 4
    batches = sdk.call("voucher.getVoucherBatches", newer)
    assert_documented(batches, payload("list-batches"))
    assert batches["meta"] == {"count": 2}
    one = sdk.call("voucher.getVoucherBatchByKey", newer, "TEA")
    assert one == {"item": batches["items"][0], "code": "SUCCESS"}
    keys = ("key", "quantity", "balanceQuantity", "usedQuantity", "status")
    assert [one["item"][key] for key in keys] == ["TEA", 2, 1, 1, "COMPLETED"]

    counted = {"quantity": 2, "balance": 1, "issued": 1, "redeemed": 0, "void": 1}
    assert emulator.control("batches") == [
        {"key": "TEA", **counted},
        {"key": "NONE", **dict.fromkeys(counted, 0)},
    ]
    masked = f"{code[:2]}…"
    assert emulator.end() == [
        "POST /v1/token 200",
        "POST /v3/voucher-batch/TEA/issue 200",
        f"GET /v3/voucher/{masked} 200",
        f"POST /v3/voucher/{masked}/void 200",
        "POST /v1/token 200",
        "GET /v3/voucher-batches 200",
        "GET /v3/voucher-batch/TEA 200",
    ]


def test_sdk_with_another_key(connected, tmp_path):
    """Signed with another key nothing is done, and the log has the text that should be signed."""
    other = tmp_path / "other.pem"
    other.write_bytes(new_private_key())
    emulator, sdk = connected("--batch", "TEA=2")
    token, _ = sdk.login(privateKey=str(other))
    for name, argument in (("issueVoucher", "TEA"), ("getVoucherBatchByKey", "TEA")):
        with pytest.raises(SDKRefusedError) as refused:
            sdk.call(f"voucher.{name}", token, argument)
        (content,) = refused.value.args
        assert content["error"]["code"] == "INVALID_REQUEST_SIGNATURE"
    assert [batch["issued"] for batch in emulator.control("batches")] == [0]
    _, *log = emulator.end()
    for method, path in (("post", "/issue"), ("get", "")):
        line, expected = log.pop(0), log.pop(0)
        assert line == (
            f"{method.upper()} /v3/voucher-batch/TEA{path} 401 INVALID_REQUEST_SIGNATURE "
            "(X-Signature is not by the client's key)"
        )
        # As the SDK makes it: no data, 64 hex digits, and a fraction of a second.
        assert re.fullmatch(
            rf"  expected the signature of: method={method}&nonceStr=[0-9a-f]{{64}}&requestUrl="
            rf"{re.escape(emulator.url)}/v3/voucher-batch/TEA{path}"
            r"&signType=sha256&timestamp=\d{10}\.\d+",
            expected,
        )
    assert log == []


def test_sdk_sees_refusals(connected):
    """A refusal is RM's error in an `RMSDKAPIException`, as the SDK gets it from RM."""
    emulator, sdk = connected("--batch", "TEA=1")
    token, refresh_token = sdk.login()
    code = sdk.call("voucher.issueVoucher", token, "TEA")["item"]["code"]
    sdk.call("voucher.voidVoucher", token, code)
    sdk.call("auth.getRefreshToken", refresh_token)
    refused = []
    for name, *arguments in (
        ("voucher.issueVoucher", token, "TEA"),
        ("voucher.issueVoucher", token, "NO"),
        ("voucher.getVoucherByCode", token, "NO"),
        ("voucher.getVoucherByCode", "no token", code),
        ("voucher.getVoucherBatches", "no token"),
        ("voucher.voidVoucher", token, code),
        ("voucher.getVoucherBatchByKey", token, "NO"),
        ("auth.getRefreshToken", refresh_token),
        ("RMSDK", {**sdk.settings, "clientSecret": "no"}),
    ):
        with pytest.raises(SDKRefusedError) as caught:
            sdk.call(name, *arguments)
        (content,) = caught.value.args
        assert_documented(content, payload("error"))
        assert content.keys() == {"error"}
        assert content["error"]["message"]
        refused.append(content["error"]["code"])
    assert refused == [
        "VOUCHER_BATCH_NOT_ENOUGH_QUANTITY",
        "VOUCHER_BATCH_NOT_FOUND",
        "VOUCHER_NOT_FOUND",
        "TOKEN_INVALID",
        "TOKEN_INVALID",
        "VOUCHER_NOT_ALLOW_VOID",
        "VOUCHER_BATCH_NOT_FOUND",
        "InvalidGrant",
        "INVALID_CLIENT",
    ]
    assert [batch["void"] for batch in emulator.control("batches")] == [1]


def test_sdk_sees_a_gateway_page(connected):
    """What is not RM's reaches the SDK as lines of text, as a gateway's page does."""
    _, sdk = connected("--batch", "TEA=1", "--fault-rate", 1, "--fault-kinds", "html-page")
    token, _ = sdk.login()
    with pytest.raises(SDKRefusedError, match="502 Bad Gateway"):
        sdk.call("voucher.issueVoucher", token, "TEA")
