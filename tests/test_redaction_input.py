"""What is refused before it is sent shows nothing of itself; and the search finds what leaks."""

import base64
import logging
import pickle
from datetime import datetime
from typing import cast
from urllib.parse import quote

import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from support.canaries import (
    CANARIES,
    CODE,
    ECHO,
    PEM,
    Leak,
    Watching,
    found_in,
    in_error,
    in_metrics,
    in_reprs,
    in_spans,
    in_text,
)
from support.files import KEY_FILE
from support.troubles import PHONE, PIN, World, outcome_of

from rm_voucher import (
    APIError,
    ConfigurationError,
    ConnectError,
    Credentials,
    Environment,
    InvalidRequestError,
    Safety,
    StaticToken,
    VoucherClient,
    exceptions,
)
from rm_voucher.otel import OpenTelemetryHook
from rm_voucher.signing import RsaSigner

SLASH, CONTROL, HALF = CODE + "/", CODE + "\n", CODE + "\ud800"
REFUSED = {
    "issue": lambda c: c.issue(SLASH),
    "get": lambda c: c.get(CONTROL),
    "get, too long": lambda c: c.get(CODE * 99),
    "get, bytes": lambda c: c.get(CODE.encode()),
    "void": lambda c: c.void(SLASH),
    "void, store": lambda c: c.void(CODE, store_id=""),
    "void, instant": lambda c: c.void(CODE, used_at=datetime(2026, 1, 1)),
    "void, unwritable store": lambda c: c.void(CODE, store_id=HALF),
    "reinstate": lambda c: c.reinstate(HALF, pin=PIN),
    "reinstate, pin": lambda c: c.reinstate(CODE, pin=PIN.encode()),
    "reinstate, unwritable pin": lambda c: c.reinstate(CODE, pin=PIN + "\ud800"),
    "reinstate, reason": lambda c: c.reinstate(CODE, pin=PIN, reason=PIN.encode()),
    "redeem, one text": lambda c: c.redeem(CODE),
    "redeem, twice": lambda c: c.redeem([CODE, CODE.upper()]),
    "redeem, too many": lambda c: c.redeem(f"{CODE}{n}" for n in range(999)),
    "redeem": lambda c: c.redeem([CODE, CONTROL]),
    "redeem, none": lambda c: c.redeem([]),
    "batch": lambda c: c.batch(SLASH),
    "vouchers": lambda c: c.vouchers(SLASH),
    "vouchers, cursor": lambda c: c.vouchers("KEY", cursor=HALF),
    "batches, status": lambda c: c.batches(status=HALF),
    "batches, cursor": lambda c: c.batches(cursor=HALF),
    "request, path": lambda c: c.request("POST", f"/v3/{CODE}/?pin={PIN}"),
    "request, method": lambda c: c.request(CODE, f"/v3/{CODE}"),
    "request, body": lambda c: c.request("GET", "/v3/x", json={"pin": PIN}),
    "request, query": lambda c: c.request("GET", "/v3/x", query=[PIN]),
    "request, query of numbers": lambda c: c.request("GET", "/v3/x", query={"pin": PIN, "n": 5}),
    "request, fraction": lambda c: c.request("POST", "/v3/x", json={"pin": PIN, "a": 0.5}),
    "request, object": lambda c: c.request("POST", "/v3/x", json={"pin": PIN, "a": object()}),
    "request, safety": lambda c: c.request("POST", f"/v3/{CODE}", safety=Safety.RECONCILABLE),
    "member, country": lambda c: c.member(CODE, PHONE).get(CODE),
    "member, phone": lambda c: c.member("60", "+" + PHONE).get(CODE),
    "member get": lambda c: c.member("60", PHONE).get(SLASH),
    "member redeem": lambda c: c.member("60", PHONE).redeem(CONTROL),
    "member vouchers": lambda c: c.member("60", PHONE + " ").vouchers(),
    "member vouchers, limit": lambda c: c.member("60", PHONE).vouchers(limit=0),
    "member vouchers, cursor": lambda c: c.member("60", PHONE).vouchers(cursor=HALF),
}


@pytest.mark.parametrize("name", REFUSED)
async def test_refused_input_shows_nothing(name):
    """What the client refuses is named by its place, never quoted, and no frame shows it."""
    world = World()
    ended = await outcome_of(REFUSED[name](world.client()))
    assert isinstance(ended, InvalidRequestError)
    assert in_error(ended) + in_reprs(ended) == []
    spans = world.exporter.get_finished_spans()
    assert [(span.attributes or {})["error.type"] for span in spans] == ["InvalidRequestError"]
    assert in_spans(spans) + in_metrics(world.reader) == []


def pem(kind):
    return PEM.replace("PRIVATE KEY", kind)


def environ(monkeypatch, **variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


SECRET = CANARIES["client secret"]
MADE = {
    "Credentials, secret": lambda: Credentials("id", SECRET + "\n", PEM),
    "Credentials, id": lambda: Credentials("", SECRET, PEM),
    "StaticToken": lambda: StaticToken(CANARIES["access token"] + "\n"),
    "from_pem": lambda: RsaSigner.from_pem(PEM.encode()),
    "from_pem, no PEM": lambda: RsaSigner.from_pem(CANARIES["private key"].encode()),
    "from_pem, public": lambda: RsaSigner.from_pem(pem("PUBLIC KEY").encode()),
    "from_pem, encrypted": lambda: RsaSigner.from_pem(pem("ENCRYPTED PRIVATE KEY").encode()),
    "VoucherClient": lambda: VoucherClient(Credentials("id", SECRET, PEM)),
    "VoucherClient, bytes": lambda: VoucherClient(Credentials("id", SECRET, PEM.encode())),
    "VoucherClient, a name": lambda: VoucherClient(
        Credentials("id", SECRET, CANARIES["private key"])
    ),
    "VoucherClient, another type": lambda: VoucherClient(Credentials("id", SECRET, [PEM])),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", MADE)
def test_construction_error_shows_nothing(name):
    """A secret or key that can't be used is refused without a word of it."""
    with pytest.raises(ConfigurationError) as caught:
        MADE[name]()
    assert in_error(caught.value) == []


VARIABLES = {
    "RM_CLIENT_ID": "client-id",
    "RM_CLIENT_SECRET": SECRET,
    "RM_PRIVATE_KEY": PEM.replace("\n", "\\n"),
}
FROM_ENV = {
    "whole": {},
    "no id": {"RM_CLIENT_ID": " "},
    "no secret": {"RM_CLIENT_SECRET": ""},
    "secret of two lines": {"RM_CLIENT_SECRET": f"{SECRET}\n{SECRET}"},
    "no home": {"RM_PRIVATE_KEY": "", "RM_PRIVATE_KEY_FILE": "~nobody-at-all/key.pem"},
    "no file": {"RM_PRIVATE_KEY": "", "RM_PRIVATE_KEY_FILE": "/nonexistent/key.pem"},
    "no key": {"RM_PRIVATE_KEY": ""},
    "no PEM": {"RM_PRIVATE_KEY": CANARIES["private key"]},
    "wrong environment": {"RM_ENVIRONMENT": "nowhere"},
    "wrong URL": {"RM_API_URL": f"https://user:{quote(SECRET, safe='')}@host:port"},
    "URL with a user": {"RM_API_URL": f"https://user:{quote(SECRET, safe='')}@host"},
}


@pytest.mark.parametrize("name", FROM_ENV)
def test_from_env_error_shows_nothing(monkeypatch, name):
    """Settings of the environment that can't be used are named, never quoted."""
    environ(monkeypatch, **VARIABLES | FROM_ENV[name])
    with pytest.raises(ConfigurationError) as caught:
        VoucherClient.from_env()
    assert in_error(caught.value) == []


def test_key_that_is_no_text_shows_nothing(monkeypatch):
    """A key with a byte that is not UTF-8 (os.environ escapes it) is refused without a word."""
    environ(monkeypatch, **VARIABLES | {"RM_PRIVATE_KEY": PEM + "\udce9"})
    with pytest.raises(ConfigurationError) as caught:
        VoucherClient.from_env()
    assert in_error(caught.value) == []


async def test_own_signer_that_fails_shows_nothing():
    """The client's own signer, whose key fails, shows no code as a local either."""

    class Broken:
        def sign(self, *args):
            raise ZeroDivisionError

    signer = RsaSigner(cast("RSAPrivateKey", Broken()))
    ended = await outcome_of(World().client(signer=signer).get(CODE))
    assert isinstance(ended, ConfigurationError)
    assert in_error(ended) == []


def test_environment_with_a_password_shows_nothing():
    """A password in a URL, which is refused, is no local of a frame."""
    with pytest.raises(ConfigurationError, match="no user") as caught:
        Environment.at(f"https://user:{quote(SECRET, safe='')}@host")
    assert in_error(caught.value) == []


def leaky():
    raise ConnectError(f"no connection for {CODE}")


def test_search_finds_every_form():
    """Each canary is found as it is, escaped, quoted, in base64 at any offset, and in bytes."""
    for name, text in CANARIES.items():
        assert name in found_in(f"x{text}y")
        assert name in found_in(repr({"a": text}))
        assert name in found_in(pickle.dumps([text]))
        for before in range(4):
            coded = base64.b64encode(b"x" * before + text.encode() + b"yz").decode()
            assert name in found_in(coded)
    assert set(found_in(ECHO)) == set(CANARIES)
    assert found_in("nothing of the kind") == []


def test_search_finds_an_error_that_leaks():
    """Text and pickle, of a cause, a suppressed context and a group's member too."""
    cause = ConnectError(CODE)
    for nested in (
        exceptions.VoucherError("x"),
        ExceptionGroup("x", [cause]),
        exceptions.VoucherError("x"),
    ):
        nested.__context__ = cause
        nested.__suppress_context__ = True
        found = in_error(nested)
        assert Leak("code", "text of ConnectError") in found
        assert Leak("code", "pickle 0 of ConnectError") in found
        assert Leak("code", "pickle 5 of ConnectError") in found
    error = APIError("X")
    error.hint = CODE
    assert {leak.where for leak in in_text(error)} == {f"pickle {n} of APIError" for n in range(6)}


def test_search_finds_a_local(monkeypatch):
    """A local of this package's frame is found where `bare` does not cut it off."""
    from_env = vars(Credentials)["from_env"].__func__.__wrapped__
    variables = VARIABLES | {"RM_CLIENT_SECRET": ""}
    with pytest.raises(ConfigurationError) as caught:
        from_env(Credentials, variables)
    wheres = {leak.where for leak in in_error(caught.value)}
    assert "settings.py:from_env local given" in wheres


def test_search_finds_a_log_a_span_and_a_repr():
    """A log record's text, arguments and error are found, and so are a span and a repr."""
    logs = Watching()
    log = logging.getLogger("leaky")
    log.setLevel(logging.DEBUG)
    log.addHandler(logs)
    log.debug("of %s", CODE)
    try:
        leaky()
    except ConnectError:
        log.exception("x")
    assert {leak.where for leak in logs.leaks} >= {
        "log leaky 'of %s'",
        "log leaky 'x'",
        "text of ConnectError",
    }
    world = World()
    (hook,) = world.client().caller.hooks
    assert isinstance(hook, OpenTelemetryHook)
    hook._tracer.start_span(f"x {CODE}").end()
    assert in_spans(world.exporter.get_finished_spans()) != []
    assert in_reprs([CODE]) != []


def test_key_that_is_right_is_not_shown(monkeypatch):
    """A client that was made keeps its key to itself, with all that it made of it."""
    key = KEY_FILE.read_text()
    client = VoucherClient(Credentials("id", SECRET, key), environment=Environment.SANDBOX)
    shown = repr(client) + repr(client.caller) + repr(client.caller.signer)
    assert not any(line in shown for line in key.splitlines()[1:-1])
    assert found_in(shown) == []
