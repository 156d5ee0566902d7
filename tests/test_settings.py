"""Settings: what is read from the environment, and what is refused with a sentence."""

import math
import traceback

import pytest
from support.files import KEY_FILE

from rm_voucher import ConfigurationError, Credentials, Environment, Limits, RetryPolicy, Timeout

VARIABLES = {"RM_CLIENT_ID": "id", "RM_CLIENT_SECRET": "hush", "RM_PRIVATE_KEY": "-----BEGIN"}


def test_credentials_repr_hides_secrets():
    """Neither the secret nor the key is in the repr."""
    text = repr(Credentials("id", "hush", "-----BEGIN PRIVATE KEY-----"))
    assert text == "Credentials(client_id='id')"


@pytest.mark.parametrize("value", ["", " ", "a\nb", "a\r", "\x00", None, 5, b"id"])
@pytest.mark.parametrize("field", ["client_id", "client_secret"])
def test_credentials_refuse_what_fits_no_header(field, value):
    """An identity with a line break, or none at all, is a copying mistake."""
    good = {"client_id": "id", "client_secret": "hush", "private_key": "k"}
    with pytest.raises(ConfigurationError, match=field):
        Credentials(**{**good, field: value})


def test_credentials_from_env_key_text():
    r"""RM_PRIVATE_KEY holds PEM; a written \n stands for a line break."""
    credentials = Credentials.from_env({**VARIABLES, "RM_PRIVATE_KEY": r"-----BEGIN\nx\n"})
    assert credentials.private_key_pem() == b"-----BEGIN\nx\n"
    assert (credentials.client_id, credentials.client_secret) == ("id", "hush")


def test_credentials_from_env_key_file(tmp_path, monkeypatch):
    """RM_PRIVATE_KEY_FILE names a file, also below the home folder."""
    monkeypatch.setenv("HOME", str(tmp_path))
    key_file = tmp_path / "key.pem"
    key_file.write_bytes(KEY_FILE.read_bytes())
    key_file.chmod(0o600)
    variables = {
        "RM_CLIENT_ID": "id",
        "RM_CLIENT_SECRET": "hush",
        "RM_PRIVATE_KEY_FILE": "~/key.pem",
    }
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert Credentials.from_env().private_key_pem() == KEY_FILE.read_bytes()


def test_credentials_from_env_home_of_nobody():
    """A home folder of nobody's is a mistake in the variable."""
    variables = {
        "RM_CLIENT_ID": "id",
        "RM_CLIENT_SECRET": "hush",
        "RM_PRIVATE_KEY_FILE": "~no-such-user/key.pem",
    }
    with pytest.raises(ConfigurationError, match="RM_PRIVATE_KEY_FILE"):
        Credentials.from_env(variables)


@pytest.mark.parametrize("missing", VARIABLES)
def test_credentials_from_env_says_what_is_missing(missing):
    """The sentence names the variable."""
    with pytest.raises(ConfigurationError, match=missing):
        Credentials.from_env({**VARIABLES, missing: " "})


def test_credentials_from_env_do_not_come_from_a_profile():
    """Whoever chose a profile for the command is told that it is the command's alone."""
    with pytest.raises(
        ConfigurationError,
        match=r"are not set\. RM_PROFILE is, but only the command reads profiles\.$",
    ):
        Credentials.from_env({"RM_PROFILE": "acme"})
    assert Credentials.from_env({**VARIABLES, "RM_PROFILE": "acme"}).client_id == "id"


@pytest.mark.parametrize(
    ("variables", "is_said"),
    [
        ({}, False),
        ({"RM_PROFILE": " "}, False),
        ({"RM_PROFILE": "acme"}, True),
        ({"RM_PROFILE": "acme", "RM_ENVIRONMENT": "sandbox"}, False),
        ({"RM_PROFILE": "acme", "RM_API_URL": "https://a.example"}, False),
    ],
)
def test_environment_from_env_does_not_come_from_a_profile(variables, is_said, caplog):
    """The profile may be of production, and the sandbox is nobody's choice then: that is logged."""
    Environment.from_env(variables)
    said = (
        "RM_PROFILE is set, but only the command reads profiles: without RM_ENVIRONMENT the server "
        "is the sandbox"
    )
    assert caplog.messages == ([said] if is_said else [])


def test_credentials_from_env_says_all_that_is_missing():
    """One sentence for all: nobody mends a deployment variable by variable."""
    with pytest.raises(ConfigurationError) as caught:
        Credentials.from_env({})
    assert str(caught.value) == (
        "RM_CLIENT_ID, RM_CLIENT_SECRET and RM_PRIVATE_KEY_FILE (or RM_PRIVATE_KEY) are not set."
    )


@pytest.mark.parametrize("key", [5, None, ["-----BEGIN"]])
def test_private_key_of_another_type_is_refused(key):
    """Only text, bytes and a path can be a key."""
    with pytest.raises(ConfigurationError, match="PEM text, PEM bytes"):
        Credentials("id", "hush", key).private_key_pem()


def test_private_key_as_bytes():
    """Bytes are taken as they are."""
    assert Credentials("id", "hush", b"pem").private_key_pem() == b"pem"


def test_private_key_file_missing(tmp_path):
    """A missing file gets a sentence with its name."""
    with pytest.raises(ConfigurationError, match=r"no\.pem can't be read: No such file"):
        Credentials("id", "hush", tmp_path / "no.pem").private_key_pem()


@pytest.mark.parametrize("form", ["pem", "on one line", "without dashes", "cut"])
def test_private_key_in_the_place_of_its_file(form, monkeypatch):
    """The key in the other variable: no sentence shows it, and no cause."""
    pem = KEY_FILE.read_text()
    inside = "".join(line for line in pem.splitlines() if "-----" not in line)
    forms = {
        "pem": pem,
        "on one line": pem.replace("\n", "\\n"),
        "without dashes": inside,
        "cut": f"-----BEGIN PRIVATE KEY-----{inside[:60]}",
    }
    monkeypatch.setenv("RM_CLIENT_ID", "id")
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush")
    monkeypatch.setenv("RM_PRIVATE_KEY_FILE", forms[form])
    with pytest.raises(ConfigurationError, match="its name is a key itself") as caught:
        Credentials.from_env().private_key_pem()
    assert inside[20:40] not in "".join(traceback.format_exception(caught.value))


def test_what_may_be_a_secret_is_no_environment():
    """A long text in that place is not quoted."""
    with pytest.raises(ConfigurationError, match=r"^That is no environment"):
        Environment.named("hush" * 8)


def test_private_key_file_too_large(tmp_path):
    """Not everything that a path names is read into memory."""
    large = tmp_path / "large.pem"
    large.write_bytes(b"x" * 70_000)
    large.chmod(0o600)
    with pytest.raises(ConfigurationError, match="too large"):
        Credentials("id", "hush", large).private_key_pem()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644])
def test_private_key_file_world_readable_is_logged(tmp_path, mode, caplog):
    """A key that other users can read still works, where warnings are errors too. The log says it
    once, however often the file is read."""
    shared = tmp_path / "key.pem"
    shared.write_bytes(b"pem")
    shared.chmod(mode)
    for _ in range(2):
        assert Credentials("id", "hush", shared).private_key_pem() == b"pem"
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("rm_voucher", "WARNING")
    assert record.getMessage().endswith("can be read by other users: chmod 600 it.")


def test_environment_as_settings_give_it():
    """As it is, by its name, or by its URL."""
    assert Environment.of("sandbox") == Environment.SANDBOX
    assert Environment.of(Environment.SANDBOX) is Environment.SANDBOX
    assert Environment.of("Production") == Environment.PRODUCTION
    assert Environment.of("https://rm.example") == Environment.at("https://rm.example")
    with pytest.raises(ConfigurationError, match="'prod' is no environment"):
        Environment.of("prod")
    with pytest.raises(ConfigurationError, match="environment must be of type Environment or text"):
        Environment.of(5)  # type: ignore[arg-type] # on purpose


def test_environment_of_rm():
    """The seeds' hosts."""
    assert Environment.SANDBOX.api_url == "https://sb-open.revenuemonster.my"
    assert Environment.SANDBOX.oauth_url == "https://sb-oauth.revenuemonster.my"
    assert Environment.PRODUCTION.api_url == "https://open.revenuemonster.my"
    assert Environment.PRODUCTION.oauth_url == "https://oauth.revenuemonster.my"


@pytest.mark.parametrize(
    ("text", "normalised"),
    [
        ("https://API.Example.com:443/", "https://api.example.com"),
        ("https://api.example.com/base/", "https://api.example.com/base"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:9000", "http://[::1]:9000"),
        ("http://api.localhost", "http://api.localhost"),
    ],
)
def test_environment_url_is_what_will_be_signed(text, normalised):
    """The text that is signed is the one that goes on the wire: lower case, no default port."""
    assert Environment.at(text) == Environment(normalised, normalised)
    assert Environment.at(text).api_url == normalised


@pytest.mark.parametrize(
    "text",
    [
        "",
        "api.example.com",
        "ftp://api.example.com",
        "https://",
        "https://user:pass@api.example.com",
        "https://api.example.com/?x=1",
        "https://api.example.com/#x",
        "https://api.example.com:99999",
        "http://api.example.com",
        "http://10.0.0.1",
        None,
        5,
    ],
)
def test_environment_bad_url_gets_a_sentence(text):
    """A URL that would break or leak is refused; the sentence does not repeat it."""
    with pytest.raises(ConfigurationError, match="api_url") as caught:
        Environment(text, "https://oauth.example.com")
    assert "pass" not in str(caught.value)


def test_environment_plain_http_when_allowed():
    """A development server in another container is a deliberate exception."""
    assert Environment("http://emulator:80", "http://emulator", allow_plain_http=True).api_url == (
        "http://emulator"
    )


def test_environment_plain_http_never_to_rm():
    """RM's servers are real, whoever allows what."""
    for host in ("open.revenuemonster.my", "sb-open.revenuemonster.my", "revenuemonster.my:80"):
        with pytest.raises(ConfigurationError, match="plain http to Revenue Monster"):
            Environment(f"http://{host}", f"http://{host}", allow_plain_http=True)
        named = {"RM_ENVIRONMENT": f"http://{host}", "RM_ALLOW_PLAIN_HTTP": host}
        with pytest.raises(ConfigurationError, match="plain http to Revenue Monster"):
            Environment.from_env(named)


@pytest.mark.parametrize(
    "url", ["http://emulator:8000", "http://EMULATOR:8000/", "http://emulator:8000/base"]
)
def test_environment_plain_http_to_the_host_that_a_variable_names(url):
    """It is that host with that port, and both servers may be there."""
    environment = Environment.from_env(
        {"RM_ENVIRONMENT": url, "RM_ALLOW_PLAIN_HTTP": " Emulator:8000 "}
    )
    assert environment == Environment(url, url, allow_plain_http=True)


@pytest.mark.parametrize(
    "allowed",
    [
        "",
        "emulator",
        "emulator:80",
        "other:8000",
        "http://emulator:8000",
        "1",
        "*",
        "*:8000",
        "emulator:8000,other:1",
        "x.emulator:8000",
    ],
)
def test_environment_plain_http_to_no_other_host(allowed):
    """The error says what to set, whatever it is set to."""
    variables = {"RM_ENVIRONMENT": "http://emulator:8000", "RM_ALLOW_PLAIN_HTTP": allowed}
    with pytest.raises(ConfigurationError, match="RM_ALLOW_PLAIN_HTTP=emulator:8000 "):
        Environment.from_env(variables)


def test_environment_plain_http_for_both_servers():
    """An allowed one does not open the other."""
    variables = {
        "RM_API_URL": "http://emulator:8000",
        "RM_OAUTH_URL": "http://other:8000",
        "RM_ALLOW_PLAIN_HTTP": "emulator:8000",
    }
    with pytest.raises(ConfigurationError, match="plain http to another machine"):
        Environment.from_env(variables)
    environment = Environment.from_env({**variables, "RM_OAUTH_URL": "https://o.example"})
    assert environment.allow_plain_http


@pytest.mark.parametrize("url", ["http://emulator:99999", "http://[", "http://"])
def test_environment_plain_http_to_no_url(url):
    """A variable that is no URL gets the sentence of any other."""
    with pytest.raises(ConfigurationError, match="api_url"):
        Environment.from_env({"RM_ENVIRONMENT": url, "RM_ALLOW_PLAIN_HTTP": "emulator:99999"})


def test_environment_needs_no_plain_http():
    """The variable changes nothing where nothing is plain http to another machine."""
    for name in ("sandbox", "production", "http://127.0.0.1:8000"):
        variables = {"RM_ENVIRONMENT": name, "RM_ALLOW_PLAIN_HTTP": "emulator:8000"}
        assert Environment.from_env(variables) == Environment.named(name)


@pytest.mark.parametrize(
    ("variables", "api_url", "oauth_url"),
    [
        ({}, "https://sb-open.revenuemonster.my", "https://sb-oauth.revenuemonster.my"),
        (
            {"RM_ENVIRONMENT": "Production"},
            "https://open.revenuemonster.my",
            "https://oauth.revenuemonster.my",
        ),
        (
            {"RM_ENVIRONMENT": "http://127.0.0.1:1"},
            "http://127.0.0.1:1",
            "http://127.0.0.1:1",
        ),
        (
            {"RM_API_URL": "https://a.example", "RM_OAUTH_URL": "https://o.example"},
            "https://a.example",
            "https://o.example",
        ),
        (
            {"RM_ENVIRONMENT": "production", "RM_API_URL": "https://a.example"},
            "https://a.example",
            "https://oauth.revenuemonster.my",
        ),
    ],
)
def test_environment_from_env(variables, api_url, oauth_url):
    """The two URLs win over the named environment; sandbox is the default."""
    assert Environment.from_env(variables) == Environment(api_url, oauth_url)


def test_environment_unknown_name():
    """A name that is none gets the names that are."""
    with pytest.raises(ConfigurationError, match="write sandbox, production or a URL"):
        Environment.named("prod")


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "5", [5]])
@pytest.mark.parametrize(
    ("cls", "field"),
    [
        (Timeout, "connect_s"),
        (Timeout, "attempt_s"),
        (Limits, "max_connections"),
        (Limits, "max_response_bytes"),
        (RetryPolicy, "max_attempts"),
        (RetryPolicy, "initial_wait_s"),
        (RetryPolicy, "max_wait_s"),
        (RetryPolicy, "max_retry_after_s"),
    ],
)
def test_numbers_must_be_positive(cls, field, value):
    """Zero connections, seconds or attempts would hang or do nothing, and text is no number."""
    with pytest.raises(ConfigurationError, match=field):
        cls(**{field: value})


def test_timeout_connect_must_be_the_shorter():
    """Else a time-out could not tell what was not sent from what was lost."""
    with pytest.raises(ConfigurationError, match="less than"):
        Timeout(connect_s=5, attempt_s=5)
