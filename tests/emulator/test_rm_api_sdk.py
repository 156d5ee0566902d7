"""Revenue Monster's own SDK for JavaScript against the emulator's command. npm installs it as the
lock file says, with the digest of each file; nothing of it is changed but the URL."""

import json
from pathlib import Path

import pytest
from support.answers import payload
from support.deliveries import NONCE, NOW
from support.files import KEY_FILE, TESTS
from support.npm import install
from support.sdk_processes import SDKProcess, SDKRefusedError, assert_documented

from rm_voucher.emulator.keys import new_private_key
from rm_voucher.signing import RsaSigner, format_signature, string_to_sign

pytestmark = pytest.mark.long  # it has to be installed

HERE = Path(__file__).parent / "rm_api_sdk"
VECTORS = json.loads((TESTS / "vectors" / "go-bodies.json").read_text())
UNKNOWN_PATH = "API_ENDPOINT_NOT_FOUND"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """The folder that the SDK is installed in."""
    folder = tmp_path_factory.mktemp("rm_api_sdk")
    install(HERE, folder)
    return folder / "node_modules" / "rm-api-sdk"


@pytest.fixture
def sdk_command(folder):
    return ["node", HERE / "process.js", folder]


def refusal_of(sdk, name, *arguments):
    """Return the code of the error that a call ends with."""
    with pytest.raises(SDKRefusedError) as refused:
        sdk.call(name, *arguments)
    (content,) = refused.value.args
    assert_documented(content, payload("error"))
    return content["error"]["code"]


def test_sdk_every_voucher_method(connected):
    """Tokens and the voucher methods work, signatures verified, and answer as RM's pages show.

    Two methods of this version go to paths that RM never had: a void to that of an issue, a batch
    to one without a slash. They are answered as paths that there are not, and change nothing.
    """
    emulator, sdk = connected("--batch", "TEA=2", "--batch", "NONE=0")
    token, refresh_token = sdk.login()
    issued = sdk.call("issueVoucher", token, "TEA")
    assert_documented(issued, payload("issue-voucher"))
    code = issued["item"]["code"]
    got = sdk.call("getVoucherByCode", token, code)
    assert_documented(got, payload("get-voucher"))
    assert [got["item"]["code"], got["item"]["status"]] == [code, "ISSUED"]
    assert refusal_of(sdk, "voidVoucher", token, code) == UNKNOWN_PATH

    newer = sdk.call("refreshToken", refresh_token)
    assert_documented(newer, payload("token-refresh"))
    batches = sdk.call("getVoucherBatches", newer["accessToken"])
    assert_documented(batches, payload("list-batches"))
    assert [batch["key"] for batch in batches["items"]] == ["TEA", "NONE"]
    assert refusal_of(sdk, "getVoucherBatchByKey", token, "TEA") == UNKNOWN_PATH

    assert [batch["issued"] for batch in emulator.control("batches")] == [1, 0]
    assert [batch["void"] for batch in emulator.control("batches")] == [0, 0]
    masked = f"{code[:2]}…"
    log = emulator.end()
    assert [line for line in log if " 200" in line] == [
        "POST /v1/token 200",
        "POST /v3/voucher-batch/TEA/issue 200",
        f"GET /v3/voucher/{masked} 200",
        "POST /v1/token 200",
        "GET /v3/voucher-batches 200",
    ]


def test_sdk_signs_every_operation(connected):
    """So do the operations that it has no method for, as it would sign and send them: with a body,
    a query, characters that Go escapes, and names out of order."""
    emulator, sdk = connected("--batch", "TEA=3")
    token, _ = sdk.login()
    codes = [sdk.call("issueVoucher", token, "TEA")["item"]["code"] for _ in range(3)]
    redeemed = sdk.call("request", token, "post", "vouchers/redeem", {"codes": codes[:2]})
    assert_documented(redeemed, payload("redeem-vouchers"))
    assert [item["code"] for item in redeemed["item"]] == codes[:2]
    used = {"usedAt": "2026-11-20T10:00:00.123456Z", "note": {"b": "<é>", "a": "&"}}
    void = sdk.call("request", token, "post", f"voucher/{codes[2]}/void", used)
    assert_documented(void, payload("void-voucher"))
    assert [void["item"]["status"], void["item"]["usedAt"]] == ["VOID", used["usedAt"]]
    why = {"reason": "till 3 <again> & again", "pin": "123456"}
    again = sdk.call("request", token, "patch", f"voucher/{codes[2]}/reinstate", why)
    assert [again["item"]["status"], again["item"]["usedAt"]] == ["REDEEMED", used["usedAt"]]
    listing = sdk.call("request", token, "get", "voucher-batch/TEA/vouchers?cursor=", None)
    assert {item["code"] for item in listing["items"]} == set(codes)
    one = sdk.call("request", token, "get", "voucher-batch/TEA", None)
    assert [one["item"]["key"], one["item"]["balanceQuantity"]] == ["TEA", 0]
    (counted,) = emulator.control("batches")
    assert (counted["redeemed"], counted["void"]) == (3, 0)


def test_sdk_with_another_key(connected, tmp_path):
    """Signed with another key nothing is done, and the SDK gets RM's error."""
    other = tmp_path / "other.pem"
    other.write_bytes(new_private_key())
    emulator, sdk = connected("--batch", "TEA=2")
    token, _ = sdk.login(privateKey=str(other))
    assert refusal_of(sdk, "issueVoucher", token, "TEA") == "INVALID_REQUEST_SIGNATURE"
    assert [batch["issued"] for batch in emulator.control("batches")] == [0]


def test_sdk_signs_the_vectors(sdk_command):
    """Its signer signs each awkward body as the vectors have it, but where they say how it differs;
    there it does."""
    sdk = SDKProcess([*sdk_command, "http://127.0.0.1:9"], {})
    signer = RsaSigner.from_pem(KEY_FILE.read_bytes())
    parts = {"method": "post", "requestUrl": "u", "nonceStr": NONCE, "timestamp": str(NOW)}
    try:
        for vector in VECTORS:
            signed = (vector["signed"] or "").encode()
            text = string_to_sign(
                method="POST", url="u", nonce=NONCE, timestamp=str(NOW), body=signed
            )
            wanted = format_signature(signer.sign(text.encode()))
            try:
                given = "sha256 " + sdk.call("sign", str(KEY_FILE), vector["body"], parts)
            except SDKRefusedError:
                given = None
            assert (given == wanted) == ("javascript_differs" not in vector), vector["rule"]
    finally:
        sdk.end()
