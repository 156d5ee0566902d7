"""``rm-voucher webhook``: which step of a delivery fails and why, and what arrives."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from support.answers import payload
from support.command import PATIENCE_S, Emulating
from support.files import PUBLIC_KEY_FILE

from rm_voucher.signing import RsaSigner, canonical_json, format_signature, string_to_sign

URL = "https://shop.example/callbacks/rm"
SENT_AT = datetime(2026, 11, 20, 10, tzinfo=UTC)
AT = "2026-11-20T10:04:00Z"
CODE = "NAklEfbVdV"


@attrs.frozen
class Kept:
    """A delivery that was kept in two files, and what checks it."""

    folder: Path

    @property
    def headers(self) -> Path:
        return self.folder / "headers.txt"

    @property
    def body(self) -> Path:
        return self.folder / "body.json"

    def arguments(self, *more: object) -> tuple[object, ...]:
        files = ("--headers", self.headers, "--body", self.body)
        return ("webhook", "verify", *files, "--public-key", PUBLIC_KEY_FILE, *more)


def signed(signer: RsaSigner, body: bytes, url: str | None = URL) -> dict[str, str]:
    """Return the headers of a delivery."""
    nonce, timestamp = "n" * 32, str(int(SENT_AT.timestamp()))
    text = string_to_sign(
        method="POST",
        url=url,
        nonce=nonce,
        timestamp=timestamp,
        body=canonical_json(orjson.loads(body)),
    )
    return {
        "X-Signature": format_signature(signer.sign(text.encode())),
        "X-Nonce-Str": nonce,
        "X-Timestamp": timestamp,
    }


@pytest.fixture
def kept(tmp_path: Path, signer: RsaSigner) -> Kept:
    kept = Kept(tmp_path)
    kept.body.write_bytes(orjson.dumps(payload("webhook-callback")))
    lines = [f"{name}: {value}" for name, value in signed(signer, kept.body.read_bytes()).items()]
    kept.headers.write_text("\r\n".join(["POST /callbacks/rm HTTP/1.1", "Host: x", *lines, ""]))
    return kept


def test_verify_says_ok_to_each_step(rm: Callable[..., Any], kept: Kept) -> None:
    """A good delivery passes each step, and its event is shown without the code."""
    ended = rm(*kept.arguments("--url", URL, "--at", AT))
    *steps, event = ended.out.splitlines()
    assert steps == [
        f"{step}: ok"
        for step in ("size", "headers", "timestamp", "body", "signature", "clock", "event")
    ]
    assert event.startswith("VOID of 'NA…', event ")
    assert event.endswith(", sent 2026-11-20T10:00:00Z")
    assert (ended.code, ended.err) == (0, "")
    assert CODE not in ended.out


def test_verify_in_json(rm: Callable[..., Any], kept: Kept) -> None:
    """The event, or the step that failed with the reason, is one line."""
    (event,) = rm(*kept.arguments("--url", URL, "--at", AT, "--json")).json
    assert {**event, "id": ""} == {
        "id": "",
        "status": "VOID",
        "code": "NA…",
        "sent_at": "2026-11-20T10:00:00Z",
    }
    ended = rm(*kept.arguments("--url", URL, "--json"))
    assert (ended.code, [line["failed"] for line in ended.json]) == (1, ["clock"])


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_verify_shows_nothing_that_a_terminal_obeys(
    rm: Callable[..., Any], kept: Kept, signer: RsaSigner, options: tuple[str, ...]
) -> None:
    """What is signed may hold what moves a cursor or turns the text; it is escaped."""
    example = payload("webhook-callback")
    status, code = "\x1b[2J\x9b2J\x7f\u202e\n", "\x9b2" + CODE
    kept.body.write_bytes(
        orjson.dumps({"item": {**example["item"], "status": status, "code": code}})
    )
    headers = signed(signer, kept.body.read_bytes()).items()
    kept.headers.write_text("".join(f"{name}: {value}\n" for name, value in headers))
    ended = rm(*kept.arguments("--url", URL, "--at", AT, *options))
    assert ended.code == 0
    assert all(line.isprintable() for line in ended.out.removesuffix("\n").split("\n"))
    assert len(ended.out.splitlines()) == (1 if options else 8)


def test_verify_shows_the_step_that_fails(rm: Callable[..., Any], kept: Kept) -> None:
    """The steps before it are ok, and those after it were not looked at."""
    ended = rm(*kept.arguments("--at", AT))
    assert ended.out.splitlines() == [
        "size: ok",
        "headers: ok",
        "timestamp: ok",
        "body: ok",
        (
            "signature: FAILED, X-Signature is by the server's key, but of something else: "
            "another body, nonce or timestamp, or it names a URL, and none is set here"
        ),
    ]
    assert (ended.code, ended.err) == (1, "")


def test_verify_without_at_asks_this_clock(rm: Callable[..., Any], kept: Kept) -> None:
    """A delivery of long ago is refused with a sentence that names the clock."""
    ended = rm(*kept.arguments("--url", URL))
    assert (ended.code, ended.out.splitlines()[-1].split(",")[0]) == (1, "clock: FAILED")
    assert "this machine's clock" in ended.out


def test_verify_takes_several_keys(
    rm: Callable[..., Any], kept: Kept, tmp_path: Path, other_key: Path
) -> None:
    """Any of the keys may have signed; another alone is told apart from another text."""
    arguments = ("--url", URL, "--at", AT)
    assert rm(*kept.arguments(*arguments, "--public-key", other_key)).code == 0
    swapped = [other_key if one == PUBLIC_KEY_FILE else one for one in kept.arguments(*arguments)]
    ended = rm(*swapped)
    assert ended.out.endswith("signature: FAILED, X-Signature is by none of the public keys\n")


@pytest.fixture
def other_key(tmp_path: Path) -> Path:
    from rm_voucher.emulator.keys import new_private_key

    path = tmp_path / "other.pem"
    path.write_bytes(RsaSigner.from_pem(new_private_key()).public_key_pem())
    return path


def test_doubled_header_in_the_file_is_seen(rm: Callable[..., Any], kept: Kept) -> None:
    """Lines are not merged: a header that stands twice fails."""
    kept.headers.write_text(kept.headers.read_text() + "x-timestamp: 1\n")
    ended = rm(*kept.arguments("--url", URL, "--at", AT))
    assert ended.out.endswith("headers: FAILED, X-Timestamp came twice\n")


@pytest.mark.parametrize("value", [b"\xc3\x85bc", b"\x85X-Timestamp: 1", b"a\x0bb", b"a\x1cb"])
def test_header_of_other_bytes_in_the_file_is_one_line(
    rm: Callable[..., Any], kept: Kept, value: bytes
) -> None:
    """A line ends where HTTP ends it, and not at what else Python takes for an end."""
    kept.headers.write_bytes(kept.headers.read_bytes() + b"User-Agent: " + value + b"\n")
    ended = rm(*kept.arguments("--url", URL, "--at", AT))
    assert (ended.code, ended.err) == (0, "")


def test_header_needs_no_space_after_its_colon(rm: Callable[..., Any], kept: Kept) -> None:
    """HTTP wants none."""
    kept.headers.write_bytes(kept.headers.read_bytes().replace(b": ", b":"))
    assert rm(*kept.arguments("--url", URL, "--at", AT)).code == 0


def test_header_is_cut_as_servers_cut_it(rm: Callable[..., Any], kept: Kept) -> None:
    """A no-break space is part of a header, here as in the application."""
    content = kept.headers.read_bytes().replace(b"n" * 32, b"n" * 32 + b"\xa0 \t")
    kept.headers.write_bytes(content)
    ended = rm(*kept.arguments("--url", URL, "--at", AT))
    assert ended.out.splitlines()[-1].startswith("headers: FAILED, X-Nonce-Str is not")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda kept: kept.headers.unlink(), "headers.txt can't be read: No such file"),
        (lambda kept: kept.headers.write_text("a: b\nnonsense\n"), "line 2 is no header"),
        (lambda kept: kept.body.write_bytes(b" " * 2**21), "body.json is too large"),
    ],
)
def test_verify_mistakes(
    rm: Callable[..., Any], kept: Kept, change: Callable[[Kept], object], said: str
) -> None:
    """A file that can't be used gets a sentence, and exit code 2."""
    change(kept)
    ended = rm(*kept.arguments())
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--at", "yesterday"), "--at 'yesterday' is not an RFC 3339 time"),
        (("--public-key", __file__), "The public key can't be parsed"),
        (("--public-key", "missing.pem"), "The public key file missing.pem can't be read"),
    ],
)
def test_verify_option_mistakes(
    rm: Callable[..., Any], kept: Kept, arguments: tuple[str, str], said: str
) -> None:
    """An option that can't be used gets a sentence, and exit code 2."""
    ended = rm(*kept.arguments(*arguments))
    assert (ended.code, ended.out) == (2, "")
    assert said in ended.err


@pytest.mark.parametrize("as_json", [False, pytest.param(True, marks=pytest.mark.long)])
def test_listen_shows_what_the_emulator_delivers(
    start: Callable[..., subprocess.Popen[str]],
    emulated: Callable[..., Emulating],
    tmp_path: Path,
    as_json: bool,
) -> None:
    """Two commands: one plays RM, the other shows its callback once, and says what is refused."""
    emulator = emulated("--batch", "TEA=5", "--quiet", "--callback-interval", "0.2")
    key = tmp_path / "rm.pem"
    key.write_text(emulator.control("callbacks")["public_key"])
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/rm"  # which the emulator signs
    options = ["--port", port, "--url", url, *(["--json"] if as_json else [])]
    listening = start("webhook", "listen", "--public-key", key, *options)
    assert listening.stderr is not None
    assert listening.stdout is not None
    line = listening.stderr.readline()
    assert line == f"Listening at http://127.0.0.1:{port}. Ctrl-C ends it.\n"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(url, b"{}")
    assert (refused.value.code, refused.value.read()) == (400, b"")
    assert listening.stderr.readline() == (
        "a delivery was refused at the step 'headers': X-Signature is missing\n"
    )
    change = orjson.dumps({"url": url})
    callbacks = f"{emulator.url}/_emulator/callbacks"
    urllib.request.urlopen(urllib.request.Request(callbacks, change, method="PUT")).close()
    code = asyncio.run(void_one(emulator))
    shown = listening.stdout.readline()
    if as_json:
        assert orjson.loads(shown)["status"] == "VOID"
    else:
        assert shown.startswith(f"VOID of '{code[:2]}…', event ")
    listening.terminate()
    out, err = listening.communicate(timeout=PATIENCE_S)
    assert (out, err, listening.returncode) == ("", "", 130)
    assert code not in shown


def test_listen_says_a_line_of_what_is_no_http(start: Callable[..., subprocess.Popen[str]]) -> None:
    """A request that aiohttp can't read gets one line, which shows nothing of what came."""
    listening = start("webhook", "listen", "--public-key", PUBLIC_KEY_FILE)
    assert listening.stderr is not None
    port = int(listening.stderr.readline().split(":")[2].split(".")[0])
    for request in (
        b"POST /Canary\x1b HTTP/1.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nX-Signature: Canary\x1b[2J\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE_S) as sender:
            sender.sendall(request)
            assert sender.recv(99).startswith(b"HTTP/1.0 400 ")
    listening.terminate()
    out, err = listening.communicate(timeout=PATIENCE_S)
    assert (out, listening.returncode) == ("", 130)
    assert "Canary" not in err
    assert [line.split(":")[0] for line in err.splitlines()] == ["a delivery was refused"] * 2


async def void_one(emulator: Emulating) -> str:
    """Let the emulator call back; return the code of the voucher that it tells of."""
    async with emulator.client() as client:
        voucher = await client.issue("TEA")
        await client.void(voucher.code)
    return voucher.code


def test_listen_where_nobody_can(rm: Callable[..., Any]) -> None:
    """An address that is not this machine's gets a sentence."""
    key = ("--public-key", PUBLIC_KEY_FILE)
    ended = rm("webhook", "listen", *key, "--host", "192.0.2.1", "--port", 9)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith("Error: Nobody can listen on 192.0.2.1:9: ")


def test_commands_are_in_the_help(rm: Callable[..., Any]) -> None:
    """Both are found where a person looks."""
    shown = rm("webhook", "--help")
    assert shown.code == 0
    assert all(word in shown.out for word in ("verify", "listen"))
