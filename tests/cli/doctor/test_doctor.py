"""``rm-voucher doctor`` names the fault of an installation that does not work, and the remedy."""

from __future__ import annotations

import functools
import shutil
import socket
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import attrs
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from support.answers import rm_error
from support.certificates import certificate
from support.command_runs import Ended
from support.files import KEY_FILE, PUBLIC_KEY_FILE
from support.forward_proxies import TUNNEL, forward_proxy, tls_front
from support.http_servers import http, raw_server
from support.threads import in_thread

from rm_voucher import Credentials, Environment, Response
from rm_voucher.cli.doctor.command import CHECKS
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.keys import new_private_key
from rm_voucher.emulator.reply import Reply
from rm_voucher.emulator.server import serve
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.ledger.sql.guard import FileGuard
from rm_voucher.signing import RsaSigner

SECRET = "hush-hush-secret"
ME = Credentials("my-client-id", SECRET, KEY_FILE.read_bytes())
ANOTHER = Credentials("my-client-id", SECRET, new_private_key())
WELL = {
    "settings": True,
    "environment": True,
    "key": True,
    "proxy": None,
    "dns": True,
    "connection": True,
    "tls": None,
    "server": True,
    "clock": True,
    "token": True,
    "signature": True,
    "scope": True,
    "batches": True,
    "ledger": None,
    "callback_key": None,
}


@attrs.frozen
class Found:
    """What the doctor found."""

    code: int
    shown: str
    marks: dict[str, bool | None]
    faults: dict[str, str]
    """What each fault says, and its remedy behind it."""


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def set_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., None]:
    """Set the variables of an installation; None unsets one."""

    def set_up(url: str, **changed: str | None) -> None:
        key = tmp_path / "key.pem"
        key.write_bytes(KEY_FILE.read_bytes())
        key.chmod(0o600)
        variables = {
            "RM_CLIENT_ID": ME.client_id,
            "RM_CLIENT_SECRET": SECRET,
            "RM_PRIVATE_KEY_FILE": str(key),
            "RM_ENVIRONMENT": url,
            **changed,
        }
        for name, value in variables.items():
            if value is None:
                monkeypatch.delenv(name, raising=False)
            else:
                monkeypatch.setenv(name, value)

    return set_up


@pytest.fixture
def shop(stack: ExitStack) -> Callable[..., str]:
    """Serve an emulator; return its URL."""

    def shop(emulator: Emulator | None = None, **options: object) -> str:
        if emulator is None:
            emulator = Emulator(**{"credentials": ME, "batches": {"B": 3}, **options})  # type: ignore[arg-type] # a test's own
        return stack.enter_context(in_thread(functools.partial(serve, emulator))).url

    return shop


@pytest.fixture
def doctor(rm) -> Callable[..., Found]:
    def doctor(*arguments: object) -> Found:
        ended: Ended = rm("doctor", "--json", *arguments)
        lines = ended.json
        assert [line["check"] for line in lines] == list(CHECKS)
        faults = {
            str(line["check"]): f"{line['says']} {line['remedy']}"
            for line in lines
            if line["ok"] is False
        }
        shown = rm("doctor", *arguments)
        assert shown.code == ended.code
        for text in (ended.out, ended.err, shown.out, shown.err):
            assert SECRET not in text
            assert "PRIVATE KEY" not in text
            assert "Traceback" not in text
        marks = {str(line["check"]): line["ok"] for line in lines}
        return Found(ended.code, shown.out, marks, faults)  # type: ignore[arg-type] # JSON's

    return doctor


def test_all_is_well(rm, set_up, shop) -> None:
    """Each thing that a call needs has a line; what was not asked says what asks for it."""
    url = shop()
    set_up(url)
    ended = rm("doctor")
    assert (ended.code, ended.err) == (0, "All is well, as far as it was checked.\n")
    lines = ended.out.splitlines()
    assert [line[0] for line in lines] == [
        {True: "✔", False: "✘", None: "–"}[mark] for mark in WELL.values()
    ]
    assert lines[2].startswith("✔ key: RSA, 2048 bits; public half SHA256:")
    assert lines[-2] == "– ledger: not asked: give --ledger URL to check one"
    assert lines[-1] == (
        "– callback key: not asked: give --server-key FILE or RM_CALLBACK_PUBLIC_KEY_FILE to "
        "check it"
    )
    assert SECRET not in ended.out


def test_nothing_is_changed(doctor, set_up, shop) -> None:
    """It buys a token and lists the first page of batches, and that is all."""
    emulator = Emulator(credentials=ME, batches={"B": 3})
    set_up(shop(emulator))
    assert doctor().marks == WELL
    # Twice, as a person and as a program: a batch's listing without a token, too.
    assert emulator.requests == {"token": 2, "batches": 4}


def test_what_is_missing_is_said_at_once(doctor, set_up, shop) -> None:
    """All variables that are not set are in one sentence: exit 2."""
    names = ("RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY_FILE")
    set_up(shop(), **dict.fromkeys(names))
    found = doctor()
    assert found.code == 2
    assert found.faults.keys() == {"settings"}
    assert found.faults["settings"].startswith(
        "RM_CLIENT_ID, RM_CLIENT_SECRET and RM_PRIVATE_KEY_FILE (or RM_PRIVATE_KEY) are not set. "
    )
    assert (found.marks["server"], found.marks["token"]) == (True, None)


def test_secret_with_a_line_break(doctor, set_up, shop) -> None:
    """What was copied with a line break in it is named."""
    set_up(shop(), RM_CLIENT_SECRET="hush\nhush")
    assert "client_secret must be text without line breaks" in doctor().faults["settings"]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"RM_ENVIRONMENT": "prod"}, "'prod' is no environment"),
        ({"RM_ENVIRONMENT": ""}, "RM_ENVIRONMENT is set to nothing"),
        ({"RM_ENVIRONMENT": "http://rm.example"}, "is plain http to another machine"),
    ],
)
def test_environment_that_is_none(doctor, set_up, changed: dict[str, str], words: str) -> None:
    """It is a mistake in the settings: exit 2, and nothing is asked of any server."""
    set_up(**{"url": "sandbox", **changed})
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["environment"])
    assert words in found.faults["environment"]
    assert found.marks["dns"] is None


@pytest.mark.parametrize("name", ["production", "sandbox"])
def test_url_of_an_emulator_is_left_in_production(doctor, set_up, shop, name: str) -> None:
    """A URL that a trial left behind wins over the environment, and is named with the remedy."""
    url = shop()
    set_up(name, RM_API_URL=url, RM_OAUTH_URL=url)
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["environment"])
    assert (
        f"The environment is {name}, and RM_API_URL and RM_OAUTH_URL lead to this machine"
        in (found.faults["environment"])
    )
    assert "Unset RM_API_URL and RM_OAUTH_URL" in found.faults["environment"]


def test_servers_of_two_environments(doctor, set_up) -> None:
    """The API of one and the tokens of another can't work together."""
    set_up("production", RM_OAUTH_URL=Environment.SANDBOX.oauth_url)
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["environment"])
    assert "not of one environment" in found.faults["environment"]
    assert "Unset RM_OAUTH_URL." in found.faults["environment"]


def written(folder: Path, pem: bytes) -> str:
    path = folder / "another-key.pem"
    path.write_bytes(pem)
    path.chmod(0o600)
    return str(path)


def private_pem(
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, password: bytes = b""
) -> bytes:
    encryption = BestAvailableEncryption(password) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (PUBLIC_KEY_FILE.read_bytes, "This is a public key; signing needs the private key"),
        (
            lambda: private_pem(rsa.generate_private_key(65537, 1024)),
            "The private key has 1024 bits; use 2048 or more.",
        ),
        (lambda: private_pem(ec.generate_private_key(ec.SECP256R1())), "is not an RSA key"),
        (lambda: private_pem(rsa.generate_private_key(65537, 2048), b"x"), "key is encrypted"),
        (lambda: KEY_FILE.read_bytes()[:900], "can't be parsed: is it whole?"),
        (lambda: b"my key", "is not PEM text"),
    ],
)
def test_key_that_is_none(
    doctor, set_up, shop, tmp_path: Path, make: Callable[[], bytes], words: str
) -> None:
    """The wrong file in the key's place is named: exit 2; the credentials are tried."""
    set_up(shop(), RM_PRIVATE_KEY_FILE=written(tmp_path, make()))
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["key"])
    assert words in found.faults["key"]
    assert (found.marks["token"], found.marks["signature"]) == (True, None)


def test_key_file_that_is_not_there(doctor, set_up, shop, tmp_path: Path) -> None:
    """A path that leads nowhere is named."""
    set_up(shop(), RM_PRIVATE_KEY_FILE=str(tmp_path / "missing.pem"))
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["key"])
    assert f"{tmp_path / 'missing.pem'} can't be read: No such file" in found.faults["key"]


def test_key_file_that_others_can_read(doctor, set_up, shop, tmp_path: Path) -> None:
    """It is a fault, and does not keep the other checks from being made."""
    set_up(shop())
    (tmp_path / "key.pem").chmod(0o644)
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["key"])
    assert "can be read by other users: chmod 600 it" in found.faults["key"]
    assert found.marks["batches"] is True


def test_name_that_has_no_address(doctor, set_up, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown host is a fault of the names, and nothing behind it is tried."""

    def nobody(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", nobody)
    set_up("https://rm.example")
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["dns"])
    assert "The name rm.example has no address (Name or service not known)." in found.faults["dns"]
    assert {found.marks[name] for name in ("connection", "tls", "server", "token")} == {None}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_nothing_listens(doctor, set_up) -> None:
    """A port of this machine that nobody has is that of an emulator that does not run."""
    port = free_port()
    set_up(f"http://127.0.0.1:{port}")
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["connection"])
    assert f"Nothing listens at 127.0.0.1:{port}." in found.faults["connection"]
    assert "set RM_ENVIRONMENT to sandbox or production" in found.faults["connection"]


PROXIED = "https://rm.example"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(403), "refuses to connect to rm.example:443 (HTTP 403)"),
        (http(407), "asks for a user and a password, or refuses them (HTTP 407)"),
        (http(502), "refuses to connect to rm.example:443 (HTTP 502)"),
        (b"SSH-2.0-x\r\n\r\n", "does not answer as a proxy does"),
    ],
)
def test_proxy_refuses(
    doctor, set_up, stack: ExitStack, monkeypatch, answer: bytes, words: str
) -> None:
    """It is asked for a tunnel to the servers, as the client would; its user is not shown."""
    proxy = stack.enter_context(in_thread(lambda: forward_proxy(answer)))
    monkeypatch.setenv("HTTPS_PROXY", f"http://joe:{SECRET}@{proxy.address}")
    set_up(PROXIED)
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["proxy"])
    assert words in found.faults["proxy"]
    assert proxy.received[0].method == "CONNECT"
    assert proxy.received[0].headers["proxy-authorization"].startswith("Basic ")


def test_proxy_that_is_not_there(doctor, set_up, monkeypatch: pytest.MonkeyPatch) -> None:
    """The proxy, and not the server, is what nobody listens at."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{(port := free_port())}")
    set_up(PROXIED)
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["proxy"])
    assert f"Nothing listens at the proxy 127.0.0.1:{port}." in found.faults["proxy"]


def test_proxy_of_another_kind(doctor, set_up, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that names none is a mistake in the settings."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://127.0.0.1:1")
    set_up(PROXIED)
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["proxy"])
    assert "HTTPS_PROXY can't be used" in found.faults["proxy"]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({}, "Its authority is not trusted."),
        ({"begins": -9, "ends": -2}, "certificate has expired"),
        ({"name": "portal.example"}, "a captive portal, or a proxy"),
    ],
)
@pytest.mark.parametrize("proxied", [False, True])
def test_certificate_is_refused(
    doctor,
    set_up,
    stack: ExitStack,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    given: dict[str, object],
    words: str,
    proxied: bool,
) -> None:
    """An unknown authority, a certificate that has ended, and one of another name are three."""
    made = certificate(tmp_path, **given)  # type: ignore[arg-type] # of a row
    port = stack.enter_context(in_thread(lambda: tls_front(free_port(), made.context)))
    url = f"https://127.0.0.1:{port}"
    if proxied:
        proxy = stack.enter_context(in_thread(lambda: forward_proxy(TUNNEL, port=port)))
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
        url = "https://rm.example"
        monkeypatch.setattr("rm_voucher.cli.doctor.way.is_loopback", lambda _: False)
    if given:
        trusting = made.trusting()
        monkeypatch.setattr("ssl.create_default_context", lambda **_: trusting)
    set_up(url)
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["tls"])
    if not (proxied and given):  # there, the name is another one in each case
        assert words in found.faults["tls"]
    assert "certificate that is refused" in found.faults["tls"]


def test_no_tls_where_there_should_be(doctor, set_up, shop) -> None:
    """A server that speaks plain http behind https is said to speak no TLS."""
    set_up(shop().replace("http://", "https://"))
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["tls"])
    assert "speaks no TLS with us" in found.faults["tls"]


def test_tls_and_proxy_that_work(
    doctor, set_up, shop, stack: ExitStack, tmp_path: Path, monkeypatch
) -> None:
    """Through a proxy, with an authority that is trusted, all is well."""
    made = certificate(tmp_path)
    plain = int(shop().rpartition(":")[2])
    port = stack.enter_context(in_thread(lambda: tls_front(plain, made.context)))
    proxy = stack.enter_context(in_thread(lambda: forward_proxy(TUNNEL, port=port)))
    monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.address}")
    monkeypatch.setattr("rm_voucher.transport.proxy.is_loopback", lambda _: False)
    trusting = made.trusting()
    monkeypatch.setattr("ssl.create_default_context", lambda **_: trusting)
    set_up(f"https://localhost:{port}")
    found = doctor()
    assert found.faults.keys() <= {"signature"}  # of the URL that the front has changed
    assert (found.marks["proxy"], found.marks["dns"], found.marks["tls"]) == (True, None, True)
    assert "localhost by TLSv1.3" in found.shown


@pytest.mark.parametrize(
    ("content", "why"), [(None, "No such file"), (b"no certificate", "it has no certificate")]
)
def test_authorities_that_are_not_there(
    doctor, set_up, shop, tmp_path: Path, monkeypatch, content: bytes | None, why: str
) -> None:
    """A file of authorities that is missing, or is none, would let TLS trust nobody."""
    path = tmp_path / "authorities.pem"
    if content is not None:
        path.write_bytes(content)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    set_up(shop().replace("http://", "https://"))
    found = doctor()
    assert (found.code, list(found.faults)) == (2, ["tls"])
    assert f"SSL_CERT_FILE is {path}" in found.faults["tls"]
    assert why in found.faults["tls"]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (http(200, b"<html>Log in", "Content-Type: text/html"), "captive portal"),
        (http(302, b"", "Location: http://portal.example/"), "captive portal"),
        (http(503, b"<html>", "Content-Type: text/html"), "the server or its gateway is down"),
        (http(200, b"{}"), "not as Revenue Monster's API does"),
    ],
)
def test_another_answers_in_its_place(
    doctor, set_up, stack: ExitStack, answer: bytes, words: str
) -> None:
    """A page in the API's place is a portal's or a gateway's; no secret is sent there."""
    server = stack.enter_context(in_thread(lambda: raw_server(forever=answer)))
    set_up(server.url)
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["server"])
    assert words.lower() in found.faults["server"].lower()
    assert not any("authorization" in request.headers for request in server.received)


@pytest.mark.parametrize(("off_s", "way"), [(180, "behind"), (-180, "ahead of")])
def test_clock_that_is_off(doctor, set_up, shop, off_s: int, way: str) -> None:
    """Three minutes either way are named before the signature is refused for them."""
    set_up(shop(clock=lambda: time.time() + off_s))
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["clock", "signature"])
    assert f"{way} the server's; RM refuses what is more than 120 s off" in found.faults["clock"]
    assert "timestamp" in found.faults["signature"]
    assert "Upload" not in found.faults["signature"]


@pytest.mark.parametrize("date", [(), ("Date: yesterday",)])
def test_server_without_a_clock(doctor, set_up, stack: ExitStack, date: tuple[str, ...]) -> None:
    """Without its time nothing is said of ours."""
    answer = http(401, b'{"error": {"code": "INVALID_CLIENT"}}', *date)
    server = stack.enter_context(in_thread(lambda: raw_server(forever=answer)))
    set_up(server.url)
    found = doctor()
    assert (found.marks["clock"], list(found.faults)) == (None, ["token"])


def test_wrong_secret(doctor, set_up, shop) -> None:
    """Credentials that are refused: exit 3, and what that may mean."""
    set_up(shop(), RM_CLIENT_SECRET="another")
    found = doctor()
    assert (found.code, list(found.faults)) == (3, ["token"])
    assert "INVALID_CLIENT (HTTP 401). The client id or secret is wrong" in found.faults["token"]
    assert found.marks["signature"] is None


@pytest.mark.parametrize("is_tried", [False, True])
@pytest.mark.parametrize("name", ["production", "sandbox"])
def test_credentials_of_the_other_environment(
    doctor, set_up, shop, monkeypatch, name: str, is_tried: bool
) -> None:
    """Whose they are is found out only where a person lets the secret be shown there."""
    other = "sandbox" if name == "production" else "production"
    here = Emulator(credentials=Credentials("x", "y", ME.private_key))
    there = Emulator(credentials=ME)
    for each, emulator in ((name, here), (other, there)):
        monkeypatch.setattr(Environment, each.upper(), Environment.at(shop(emulator)))
    set_up(name)
    found = doctor(*["--try-other-environment"] * is_tried)
    assert (found.code, list(found.faults)) == (3, ["token"])
    said = f"They are the {other}'s: set RM_ENVIRONMENT={other}"
    assert (said in found.faults["token"]) is is_tried
    assert there.requests == ({"token": 2} if is_tried else {})


def test_credentials_of_neither_environment(doctor, set_up, shop, monkeypatch) -> None:
    """Where both refuse them, it says so."""
    for each in ("PRODUCTION", "SANDBOX"):
        emulator = Emulator(credentials=Credentials("x", "y", ME.private_key))
        monkeypatch.setattr(Environment, each, Environment.at(shop(emulator)))
    set_up("sandbox")
    assert (
        "The production refuses them as well." in doctor("--try-other-environment").faults["token"]
    )


def test_key_of_another_application(doctor, set_up, shop) -> None:
    """The signature is refused although the credentials are right: the public half is another's."""
    set_up(shop(credentials=ANOTHER))
    found = doctor()
    assert (found.code, list(found.faults)) == (3, ["signature"])
    assert "INVALID_REQUEST_SIGNATURE" in found.faults["signature"]
    assert "Upload the public half of this key in the portal" in found.faults["signature"]


def answering(emulator: Emulator, path: str, answer: Response) -> Emulator:
    """Let signed requests to a path get this answer."""
    reply = emulator.reply
    emulator.reply = lambda request: (  # type: ignore[method-assign] # so that it plays a part
        Reply(answer)
        if path in request.url.path and "Authorization" in request.headers
        else reply(request)
    )
    return emulator


@pytest.mark.parametrize(
    ("answer", "check", "code", "words"),
    [
        (rm_error("INVALID_SCOPE", 403), "scope", 3, "need the scope manage_loyalty_voucher"),
        (rm_error("NOT_PERMITTED", 403), "scope", 3, "need the scope manage_loyalty_voucher"),
        (rm_error("LOYALTY_NOT_SUBSCRIBED", 403), "scope", 3, "not subscribed"),
        (rm_error("CLIENT_NOT_SET_PUBLIC_KEY", 400), "signature", 3, "no public key yet"),
        (rm_error("TOKEN_INVALID", 401), "signature", 3, "of one environment: RM_API_URL"),
        (rm_error("INTERNAL_ERROR", 500), "batches", 1, "try again later"),
        (Response(status=502, body=b"<html>"), "batches", 1, "gateway"),
    ],
)
def test_signed_call_is_refused(
    doctor, set_up, shop, answer: Response, check: str, code: int, words: str
) -> None:
    """A scope, a key that is missing in the portal, a token of elsewhere, a server that fails."""
    set_up(shop(answering(Emulator(credentials=ME), "/v3/voucher-batches", answer)))
    found = doctor()
    assert (found.code, list(found.faults)) == (code, [check])
    assert words in found.faults[check]


def test_server_of_tokens_is_none(doctor, set_up, shop, stack: ExitStack) -> None:
    """A page in the place of a token is no refusal of the credentials."""
    server = stack.enter_context(in_thread(lambda: raw_server(forever=http(200, b"<html>"))))
    set_up(shop(), RM_OAUTH_URL=server.url)
    found = doctor()
    assert (found.code, list(found.faults)) == (1, ["token"])
    assert "does not answer as Revenue Monster's does" in found.faults["token"]


# Ledgers.


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "campaign.db"


@pytest.fixture
def issued(rm, set_up, shop, file: Path) -> None:
    """An installation with a ledger that two vouchers were issued through."""
    set_up(shop())
    assert rm("issue", "B", "--count", 2, "--ledger", f"sqlite:///{file}", "--settle", 0).code == 0


@pytest.fixture
def ledger(doctor, file: Path) -> Callable[[], Found]:
    return lambda: doctor("--ledger", f"sqlite:///{file}")


def test_ledger_that_is_well(issued, ledger, file: Path) -> None:
    """Its figures are shown, and nothing of it is changed."""
    before = file.read_bytes(), file.with_name("campaign.db.lock").read_bytes()
    found = ledger()
    assert found.marks == {**WELL, "ledger": True}
    assert "✔ ledger: 2 requests, nothing is held or stopped." in found.shown
    assert before == (file.read_bytes(), file.with_name("campaign.db.lock").read_bytes())


def test_ledger_that_another_process_uses(issued, ledger, file: Path) -> None:
    """It is said, and the lock is left to that process."""
    guard = FileGuard(file)
    guard.acquire()
    found = ledger()
    assert (found.code, list(found.faults)) == (1, ["ledger"])
    assert "Another process uses it" in found.faults["ledger"]
    guard.release()
    assert ledger().faults == {}


@pytest.mark.parametrize("how", ["older", "without its lock", "copied"])
def test_ledger_that_was_put_back(rm, issued, ledger, file: Path, how: str) -> None:
    """An older copy is named before anything is issued from it."""
    lock = file.with_name("campaign.db.lock")
    copy = file.with_name("copy")
    shutil.copy(file, copy)
    if how == "older":
        count = ("--count", 3, "--ledger", f"sqlite:///{file}", "--settle", 0)
        assert rm("issue", "B", *count).code == 0
        shutil.copy(copy, file)
    elif how == "without its lock":
        lock.unlink()
    else:
        copy.replace(file)
    found = ledger()
    assert (found.code, list(found.faults)) == (1, ["ledger"])
    assert "It is stopped: the ledger's file is an older copy" in found.faults["ledger"]
    assert "rm-voucher ledger baseline" in found.faults["ledger"]
    status = rm("ledger", "status", f"sqlite:///{file}")
    assert "each batch is stopped until its new baseline: the ledger's file is" in status.out


@pytest.mark.parametrize(("version", "words"), [(99, "a newer version"), (1, "an older version")])
def test_ledger_of_another_version(issued, ledger, file: Path, version: int, words: str) -> None:
    """A newer one needs a newer command; an older one is brought up to date when it is used."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE rm_schema_versions SET version = ?", (version,))
    found = ledger()
    assert (found.code, list(found.faults)) == (1, ["ledger"])
    assert f"was written by {words}" in found.faults["ledger"]


def test_ledger_of_another_account(issued, ledger, set_up, shop, file: Path) -> None:
    """Its codes are another merchant's: exit 2."""
    set_up(shop())  # another URL is another account
    found = ledger()
    assert (found.code, list(found.faults)) == (2, ["ledger"])
    assert "It belongs to another account" in found.faults["ledger"]


def test_ledger_with_an_outcome_that_is_held(
    issued, ledger, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a person must decide is counted: exit 4."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute(
            "INSERT INTO rm_ledger_attempts (namespace, id, batch, owner, state, sent_at) "
            "VALUES ('', 'a', 'B', 'me', ?, 1700000000)",
            (AttemptState.UNRESOLVED.value,),
        )
    found = ledger()
    assert (found.code, list(found.faults)) == (4, ["ledger"])
    assert "1 outcome in it can't be settled by itself." in found.faults["ledger"]


def test_ledger_with_a_batch_that_is_stopped(issued, ledger, file: Path) -> None:
    """The reason of the first is shown."""
    with closing(sqlite3.connect(file)) as database, database:
        database.execute("UPDATE rm_ledger_batches SET alarm = 'a code of others'")
    found = ledger()
    assert (found.code, list(found.faults)) == (1, ["ledger"])
    assert "1 of its batches stopped, the first because a code of others." in found.faults["ledger"]


def test_ledger_that_is_not_there(doctor, set_up, shop, file: Path) -> None:
    """A file that is missing is not made."""
    set_up(shop())
    found = doctor("--ledger", f"sqlite:///{file}")
    assert (found.code, list(found.faults)) == (1, ["ledger"])
    assert f"There is no file {file}." in found.faults["ledger"]
    assert not file.exists()


def test_ledger_at_no_url(doctor, set_up, shop) -> None:
    """It is a mistake: exit 2."""
    set_up(shop())
    found = doctor("--ledger", "nowhere")
    assert (found.code, list(found.faults)) == (2, ["ledger"])


async def test_look_is_no_write(file: Path) -> None:
    """A ledger that nothing is wrong with has no doubt about it, while it is used as well."""
    async with (
        Ledger.open(f"sqlite:///{file}"),
        Ledger.open(f"sqlite:///{file}", read_only=True) as looking,
    ):
        assert await looking.stop_reason() is None


# The key of callbacks.


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: RsaSigner.from_pem(ME.private_key_pem()).public_key_pem(), "of your own key"),
        (new_private_key, "This is a private key"),
        (lambda: b"nothing", "can't be parsed"),
    ],
)
@pytest.mark.parametrize("how", ["option", "variable"])
def test_callback_key_that_is_wrong(
    doctor,
    set_up,
    shop,
    tmp_path: Path,
    monkeypatch,
    make: Callable[[], bytes],
    words: str,
    how: str,
) -> None:
    """Another key in the place of RM's server key is named: exit 2."""
    set_up(shop())
    path = written(tmp_path, make())
    if how == "variable":
        monkeypatch.setenv("RM_CALLBACK_PUBLIC_KEY_FILE", path)
    found = doctor(*["--server-key", path] if how == "option" else [])
    assert (found.code, list(found.faults)) == (2, ["callback_key"])
    assert words in found.faults["callback_key"]


def test_callback_key_that_can_be_one(doctor, set_up, shop, tmp_path: Path) -> None:
    """More can't be said of it before a delivery comes."""
    set_up(shop())
    path = written(tmp_path, RsaSigner.from_pem(new_private_key()).public_key_pem())
    assert doctor("--server-key", path).marks == {**WELL, "callback_key": True}


def test_memory_has_nothing_to_check(rm) -> None:
    """An emulator in the command is no installation: exit 2."""
    ended = rm("doctor", "--environment", "memory")
    assert (ended.code, ended.out) == (2, "")
