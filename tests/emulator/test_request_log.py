"""The request log: codes masked, nothing for a terminal to obey, and no secrets."""

import base64
import logging
from typing import Any

import aiohttp
import pytest
from support.doubles import FakeTime
from support.files import KEY_FILE
from support.rm_signature import expected_text

from rm_voucher import Credentials, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.authenticator import SignatureRefusedError
from rm_voucher.emulator.guesses import Check
from rm_voucher.emulator.reply import Ending, Reply
from rm_voucher.emulator.request_log import LOGGER, log_bad_request, log_reply
from rm_voucher.emulator.server import serve
from rm_voucher.emulator.stock import RefusedError
from rm_voucher.signing import RsaSigner
from rm_voucher.transport.base import Response

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
CODE = "NAklEfbVdV"
OK = Reply(Response(status=200))


@pytest.fixture
def lines(caplog):
    """Return the lines of the log so far."""
    caplog.set_level(logging.INFO, logger=LOGGER.name)
    return lambda: [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize(
    "path",
    [
        "/v3/voucher/{}",
        "/v3/voucher/{}/void",
        "/v3/voucher/{}/reinstate",
        "/v3/voucher/{}/",
        "/v3/voucher//{}",
        "/v3/voucher/{}/{}",
        "/v3/voucher/void/{}",
        "/v3/Voucher/{}",
        "/v3/%76oucher/{}/void",
        "/v3/%56OUCHER/{}/void",
        "/v3%2Fvoucher%2F{}",
        "/v3/vouchers%2f{}",
        "/v3/voucher%2f{}/void",
        "/v3/vouchers/{}",
        "/v3/loyalty/me/voucher/{}",
        "/v3/loyalty/me/voucher/{}/redeem?countryCode=60&code={}",
        "/_emulator/vouchers/{}/redeem",
        "/_emulator/vouchers/{}/expire",
        "/qr/1/voucher/{}",
        "/v3/voucher/{}?x=/voucher/{}",
    ],
)
@pytest.mark.parametrize(
    "code",
    [CODE, "%4E%41klEfbVdV", "rms%40xR43u4bRhUU", "short", "a%2523bcdefgh", "%C3%A4%C3%B6xyzzyxyz"],
)
def test_codes_are_masked(lines, path, code):
    """Nothing but a hint of a code is shown, wherever it stands and however it is written."""
    log_reply("POST", path.replace("{}", code), OK)
    (line,) = lines()
    assert line.endswith(" 200")
    assert code[-5:] not in line
    assert code[3:8] not in line
    assert "…" in line


@pytest.mark.parametrize(
    "path",
    [
        "/v1/token",
        "/v3/voucher-batch/EhQKCE1lcmNo/issue",
        "/v3/voucher-batch/EhQKCE1lcmNo/vouchers",
        "/v3/voucher-batches",
        "/v3/vouchers/redeem",
        "/v3/loyalty/me/vouchers",
        "/nowhere/at/all",
        "/",
    ],
)
def test_other_paths_are_shown(lines, path):
    """Paths without a code are shown as they are, without their queries."""
    log_reply("GET", f"{path}?phoneNumber=123456789", OK)
    assert lines() == [f"GET {path} 200"]


def test_line(lines):
    """A line is method, path, and what came of the request: status and RM's code, or the end."""
    log_reply("POST", f"/v3/voucher/{CODE}/void", OK)
    refused = RefusedError("VOUCHER_NOT_FOUND")
    log_reply("GET", "/v3/voucher/short", Reply(Response(status=404), refused=refused))
    log_reply("GET", "/v1/token", Reply(ending=Ending.RESET))
    log_bad_request("LineTooLong")
    assert lines() == [
        "POST /v3/voucher/NA…/void 200",
        "GET /v3/voucher/… 404 VOUCHER_NOT_FOUND",
        "GET /v1/token (reset)",
        "400 LineTooLong",
    ]


@pytest.mark.parametrize(
    "text", ["\x1b[31m", "\n", "\r\n", "\0", "\x7f", "\x9b", "\u202e", "\udc80", "\t"]
)
def test_no_control_characters(lines, text):
    """What a terminal would obey, or a log take for another line, is escaped wherever it comes."""
    quoted = "".join(f"%{byte:02X}" for byte in text.encode(errors="surrogateescape"))
    log_reply(f"GE{text}T", f"/x{text}/voucher/{text}12345678", OK)
    log_reply("GET", f"/v3/voucher/{quoted}12345678", OK)
    refused = SignatureRefusedError(f"method=post{text}", "because")
    log_reply("GET", "/", Reply(Response(status=401), refused=refused))
    assert len(lines()) == 4
    assert all(line.replace("…", "").isascii() and line.isprintable() for line in lines())


class Untouchable:
    """Whoever looks at it fails."""

    def __getattribute__(self, name):
        raise AssertionError(f"looked at {name}")


def test_nothing_is_computed_when_it_is_off(caplog):
    """A log that is off costs nothing: neither path nor reply is looked at."""
    caplog.set_level(logging.WARNING, logger=LOGGER.name)
    untouchable: Any = Untouchable()
    log_reply(untouchable, untouchable, untouchable)
    log_bad_request("x")
    assert caplog.records == []
    caplog.set_level(logging.INFO, logger=LOGGER.name)
    with pytest.raises(AssertionError):
        log_reply("GET", untouchable, OK)


async def test_expected_string_is_what_the_server_expected(lines):
    """For a refused signature the log has the string that would have verified, to the byte."""
    emulator = Emulator(
        credentials=ME, disabled_checks=[Check.TOKEN, Check.NONCE], clock=FakeTime().clock
    )
    body = '{"storeId":"<ä>","a":[1,{"c":2,"b":null}]}'.encode()
    headers = {"X-Nonce-Str": "n" * 32, "X-Timestamp": "1700000000"}
    async with serve(emulator) as server, aiohttp.ClientSession() as session:
        url = f"{server.url}/v3/voucher/{CODE}/void?a=b&c="
        async with session.post(url, data=body, headers=headers) as answer:
            assert answer.status == 401
        text = expected_text("POST", url, headers["X-Nonce-Str"], headers["X-Timestamp"], body)
        assert lines()[-2:] == [
            "POST /v3/voucher/NA…/void 401 INVALID_REQUEST_SIGNATURE (X-Signature is missing)",
            f"  expected the signature of: {text}",
        ]
        shown = lines()[-1].removeprefix("  expected the signature of: ").encode()
        signature = RsaSigner.from_pem(ME.private_key_pem()).sign(shown)
        headers["X-Signature"] = "sha256 " + base64.b64encode(signature).decode()
        async with session.post(url, data=body, headers=headers) as answer:
            assert answer.status == 404
    assert lines()[-1].endswith("404 VOUCHER_NOT_FOUND")


async def test_no_secrets(lines, caplog):
    """Neither token nor client secret, PIN, phone number or code comes into a line over HTTP."""
    emulator = Emulator(credentials=ME, batches={"K": 2}, merchant_pin="987654")
    emulator.add_member("60", "123456789")
    async with (
        serve(emulator) as server,
        VoucherClient(ME, environment=server.environment) as client,
    ):
        code = (await client.issue("K")).code
        await client.void(code)
        await client.reinstate(code, pin="987654", reason="why")
        await client.member("60", "123456789").vouchers()
    text = caplog.text
    assert len(lines()) == 5
    assert code[:2] in text
    (access,), (refresh,) = emulator.authenticator._tokens, emulator.authenticator._refresh_tokens
    secrets = [code, code[2:], "client-secret", "987654", "123456789", access, refresh]
    assert not [secret for secret in secrets if secret in text]
    assert "Y2xpZW50" not in text  # base64 of the client's identity
