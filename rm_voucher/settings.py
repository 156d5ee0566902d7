r"""What a user decides once: who, where, how long, how much, how fast. Opens no connection.

Variables: ``RM_CLIENT_ID``, ``RM_CLIENT_SECRET``, ``RM_PRIVATE_KEY`` (PEM text; ``\n`` may stand
for a line break) or ``RM_PRIVATE_KEY_FILE``, ``RM_ENVIRONMENT`` (``sandbox``, ``production`` or a
URL), ``RM_API_URL`` and ``RM_OAUTH_URL`` (these two win over ``RM_ENVIRONMENT``), and
``RM_ALLOW_PLAIN_HTTP`` (the one host, with its port, to which these may be plain ``http`` though it
is not this machine). The way there has variables of its own: `rm_voucher.Proxy.from_env`. The
profiles of ``rm-voucher login``, and so ``RM_PROFILE``, are the command's alone.
"""

from __future__ import annotations

import functools
import hashlib
import ipaddress
import logging
import math
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self
from urllib.parse import urlsplit

import attrs
from yarl import URL

from rm_voucher.arguments import check_type
from rm_voucher.exceptions import ConfigurationError
from rm_voucher.files import open_plain
from rm_voucher.redaction import hide_locals

_log = logging.getLogger("rm_voucher")

_IDENTITY = ("RM_CLIENT_ID", "RM_CLIENT_SECRET", "RM_PRIVATE_KEY", "RM_PRIVATE_KEY_FILE")
_PLACE = ("RM_ENVIRONMENT", "RM_API_URL", "RM_OAUTH_URL")
_OTHERS_READ = stat.S_IRGRP | stat.S_IROTH
_MAX_KEY_FILE_BYTES = 64 * 1024
_LONGEST_ENVIRONMENT = 20
_LONGEST_NAME = 250  # the shortest RSA key in use is longer, however it is written
_LEAST_FAILING_CALLS = 20
PLAIN_HTTP = "RM_ALLOW_PLAIN_HTTP"
"""The variable that names the one host, with its port, to which plain http may go."""
PROFILE = "RM_PROFILE"
"""The variable that names a profile for the command. Nothing else reads profiles."""
_RM_DOMAIN = "revenuemonster.my"


def _identifier(instance: object, attribute: attrs.Attribute[str], value: str) -> None:
    # Both go into a header, and a line break in them is a copying mistake.
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ConfigurationError(
            f"{attribute.name} must be text without line breaks, and not empty."
        )


@attrs.frozen
class Credentials:
    """An application's identity: client id, client secret and RSA private key.

    ``private_key`` is PEM, as text or bytes, or a `pathlib.Path` to a PEM file (PKCS#1 or
    PKCS#8); OpenSSH's format, and PEM's base64 alone, are taken as well. Its public half must be
    uploaded in the merchant portal. Nothing of it appears in the repr. Raises `ConfigurationError`.
    """

    client_id: str = attrs.field(validator=_identifier)
    client_secret: str = attrs.field(validator=_identifier, repr=False)
    private_key: str | bytes | Path = attrs.field(repr=False)

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.private_key, str | bytes | Path):
            raise ConfigurationError("A private key is PEM text, PEM bytes or a pathlib.Path.")

    @classmethod
    @hide_locals
    def from_env(cls, env: Mapping[str, str] | None = None) -> Self:
        """Return the credentials in the ``RM_…`` variables; see the module.

        Raises one `ConfigurationError` that names all variables that are missing.
        """
        env = os.environ if env is None else env
        check_type("env", env, Mapping)
        given = {name: value for name in _IDENTITY if (value := env.get(name, "").strip())}
        missing = [name for name in _IDENTITY[:2] if name not in given]
        if given.keys().isdisjoint(_IDENTITY[2:]):
            missing.append(f"{_IDENTITY[3]} (or {_IDENTITY[2]})")
        if missing:
            *others, last = missing
            names = f"{', '.join(others)} and {last} are" if others else f"{last} is"
            is_chosen = env.get(PROFILE, "").strip()
            but = f" {PROFILE} is, but only the command reads profiles." if is_chosen else ""
            raise ConfigurationError(f"{names} not set.{but}")
        key: str | Path
        if "RM_PRIVATE_KEY" in given:
            key = env["RM_PRIVATE_KEY"].replace("\\n", "\n")
        else:
            try:
                key = Path(env["RM_PRIVATE_KEY_FILE"]).expanduser()
            except RuntimeError as exc:
                raise ConfigurationError("RM_PRIVATE_KEY_FILE names no home folder.") from exc
        return cls(given["RM_CLIENT_ID"], given["RM_CLIENT_SECRET"], key)

    @hide_locals
    def private_key_pem(self) -> bytes:
        """Return the key's bytes, reading the file if it is one. Reads the disk at each call.

        Logs a warning, once, when other users of the machine can read the file.
        """
        return read_pem(self.private_key, "private")


def read_pem(key: object, kind: str) -> bytes:
    """Return a key of a kind, ``private`` or ``public``, as bytes, reading its file if any."""
    if isinstance(key, bytes):
        return key
    if isinstance(key, str):
        return key.encode(errors="replace")  # whose parser says what is wrong
    if not isinstance(key, Path):
        raise ConfigurationError(f"A {kind} key is PEM text, PEM bytes or a pathlib.Path.")
    try:
        with os.fdopen(open_plain(key), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            pem = file.read(_MAX_KEY_FILE_BYTES + 1)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the name
        if _may_be_key(str(key)):
            why = "its name is a key itself: RM_PRIVATE_KEY takes that, and in code a text"
            raise ConfigurationError(f"The {kind} key file can't be read: {why}.") from None
        reason = exc.strerror if isinstance(exc, OSError) else exc
        raise ConfigurationError(f"The {kind} key file {key} can't be read: {reason}.") from exc
    if len(pem) > _MAX_KEY_FILE_BYTES:
        raise ConfigurationError(f"{key} is too large to be a {kind} key.")
    if kind == "private" and mode & _OTHERS_READ:
        _tell_of_open_file(key)
    return pem


def _may_be_key(name: str) -> bool:
    """Return whether a file's name may be a key, which stands in no sentence."""
    return "-----" in name or len(name) > _LONGEST_NAME or "\n" in name


@functools.cache  # once a file: it is read again and again
def _tell_of_open_file(path: Path) -> None:
    _log.warning("%s", words_of_open_file(path))


def words_of_open_file(path: Path) -> str:
    """Return what is said of a private key's file that others can read."""
    return f"The private key file {path} can be read by other users: chmod 600 it."


def is_open_file(path: Path) -> bool:
    """Return whether other users of the machine can read a file."""
    return bool(path.stat().st_mode & _OTHERS_READ)


Credentials.__init__ = hide_locals(Credentials.__init__)  # type: ignore[method-assign] # attrs made it


@attrs.frozen
class Environment:
    """Where the API and its OAuth server are.

    `Environment.SANDBOX` and `Environment.PRODUCTION` are RM's. Another pair of URLs may be
    ``https``, or ``http`` to a loopback address; ``allow_plain_http`` lifts the latter limit, for
    an emulator in another container, but never for RM's own servers. ``localhost`` and the names
    below it must lead to loopback, which the transport checks at the connection.

    ``escapes_paths`` is whether ``$&+,:=@`` of a code or key are percent-encoded in a path. RM's
    documented paths show ``@`` as it is, and Go's rules leave all seven so. If RM refuses the
    signatures for such codes alone, try the other way:
    ``attrs.evolve(Environment.PRODUCTION, escapes_paths=True)``.
    """

    SANDBOX: ClassVar[Environment]
    PRODUCTION: ClassVar[Environment]

    api_url: str
    oauth_url: str
    allow_plain_http: bool = attrs.field(default=False, kw_only=True)
    escapes_paths: bool = attrs.field(default=False, kw_only=True)

    def __attrs_post_init__(self) -> None:
        for name in ("allow_plain_http", "escapes_paths"):
            check_type(name, getattr(self, name), bool)
        for name in ("api_url", "oauth_url"):
            check_type(name, getattr(self, name), str)
            text = base_url(name, getattr(self, name), allow_plain_http=self.allow_plain_http)
            object.__setattr__(self, name, text)  # frozen; still under construction

    @classmethod
    @hide_locals
    def at(cls, url: str) -> Self:
        """Return an environment with both servers at one URL, as the emulator's are."""
        return cls(url, url)

    @classmethod
    @hide_locals
    def from_env(cls, env: Mapping[str, str] | None = None) -> Environment:
        """Return the environment in the ``RM_…`` variables; sandbox by default.

        ``RM_ALLOW_PLAIN_HTTP=emulator:8000`` lets a URL be ``http://emulator:8000``, and no other.
        Raises `ConfigurationError`, also for a variable that is set to nothing.
        """
        env = os.environ if env is None else env
        check_type("env", env, Mapping)
        if env.get(PROFILE, "").strip() and env.keys().isdisjoint(_PLACE):
            _log.warning(
                "%s is set, but only the command reads profiles: without RM_ENVIRONMENT the server "
                "is the sandbox",
                PROFILE,
            )
        api_url, oauth_url = cls._urls_of(_place(env, "RM_ENVIRONMENT", "sandbox"))
        api_url = _place(env, "RM_API_URL", api_url)
        oauth_url = _place(env, "RM_OAUTH_URL", oauth_url)
        allowed = env.get(PLAIN_HTTP, "").strip().lower()
        hosts = {plain_http_elsewhere(api_url), plain_http_elsewhere(oauth_url)} - {None}
        return Environment(api_url, oauth_url, allow_plain_http=hosts == {allowed})

    @classmethod
    @hide_locals
    def named(cls, name: str) -> Environment:
        """Return the environment called ``sandbox`` or ``production``, or the one at a URL."""
        check_type("name", name, str)
        return Environment(*cls._urls_of(name))

    @classmethod
    @hide_locals
    def of(cls, given: Environment | str) -> Environment:
        """Return an environment as settings give it: as it is, or by its name or URL."""
        check_type("environment", given, Environment, str)
        return given if isinstance(given, Environment) else cls.named(given)

    @classmethod
    def _urls_of(cls, name: str) -> tuple[str, str]:
        known = {"sandbox": cls.SANDBOX, "production": cls.PRODUCTION}
        if name.lower() in known:
            return known[name.lower()].api_url, known[name.lower()].oauth_url
        if "://" in name:
            return name, name
        shown = repr(name) if len(name) <= _LONGEST_ENVIRONMENT else "That"  # a secret, say
        raise ConfigurationError(f"{shown} is no environment: write sandbox, production or a URL.")


def account_namespace(environment: Environment, client_id: str) -> str:
    """Return a short name of an account: an application at one environment.

    It is of 16 hexadecimal digits, the same in every process, and hides the client id, so that it
    may stand in keys, logs and names of files.
    """
    account = f"{environment.api_url}\n{client_id}"
    return hashlib.sha256(account.encode()).hexdigest()[:16]


def _place(env: Mapping[str, str], name: str, default: str) -> str:
    """Return a variable that names a server, or the default if it is not set.

    Who set it to nothing, mostly from another variable, did not mean the default: real vouchers
    would be issued in a test, or the sandbox's to customers.
    """
    value = env.get(name, default).strip()
    if not value:
        raise ConfigurationError(f"{name} is set to nothing: set it to something, or unset it.")
    return value


def plain_http_elsewhere(url: str) -> str | None:
    """Return the host and port of a URL that is plain http to another machine, None for others.

    That is what `PLAIN_HTTP` is set to where the URL may be used.
    """
    try:
        parsed = URL(url)
    except ValueError:  # `base_url` says so
        return None
    if parsed.scheme != "http" or not parsed.host or is_loopback(parsed.host):
        return None
    return parsed.host_port_subcomponent


def base_url(name: str, text: str, *, allow_plain_http: bool) -> str:
    """Return the base URL as it will be signed: lower-case host, no default port, no last slash.

    Raises `ConfigurationError` that calls the URL by its ``name``.
    """
    try:
        parts = urlsplit(text)
        url = URL(text)
        port = url.explicit_port
    except (ValueError, TypeError, AttributeError) as exc:
        raise ConfigurationError(f"{name} is not a URL.") from exc
    if url.scheme not in ("http", "https") or not url.host:
        raise ConfigurationError(f"{name} must start with https:// (or http:// for loopback).")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError(f"{name} must be a bare URL: no user, query or fragment.")
    elsewhere = plain_http_elsewhere(text)
    if elsewhere is not None and f".{url.host}".endswith(f".{_RM_DOMAIN}"):
        raise ConfigurationError(
            f"{name} is plain http to Revenue Monster: secrets would travel unprotected. Use https."
        )
    if elsewhere is not None and not allow_plain_http:
        raise ConfigurationError(
            f"{name} is plain http to another machine: secrets would travel unprotected. Use "
            f"https; only for an emulator, {PLAIN_HTTP}={elsewhere} (in code, allow_plain_http) "
            "allows it."
        )
    if port is not None and url.is_default_port():
        url = url.with_port(None)
    return str(url).rstrip("/")


def is_loopback(host: str) -> bool:
    """Return whether a host's name or address says that it is this machine's own loopback.

    A name only says so: where it leads, the transport looks at.
    """
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_in_memory(host: str) -> bool:
    """Return whether a host's name says that no network has it, as that of an `Emulator`."""
    return host.endswith(".invalid")


def is_harmless(environment: Environment) -> bool:
    """Return whether a server is RM's sandbox, or an emulator's: no real voucher is there.

    Neither may its tokens be those of another one.
    """
    sandbox = Environment.SANDBOX
    return _is_made_up(environment.api_url, sandbox.api_url) and _is_made_up(
        environment.oauth_url, sandbox.oauth_url
    )


def _is_made_up(url: str, of_sandbox: str) -> bool:
    host = URL(url).host or ""
    return url == of_sandbox or is_loopback(host) or is_in_memory(host)


Environment.__init__ = hide_locals(Environment.__init__)  # type: ignore[method-assign] # attrs made it
Environment.SANDBOX = Environment(
    "https://sb-open.revenuemonster.my", "https://sb-oauth.revenuemonster.my"
)
Environment.PRODUCTION = Environment(
    "https://open.revenuemonster.my", "https://oauth.revenuemonster.my"
)


def positive(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse anything but a finite number more than 0."""
    check_positive(attribute.name, value)


def whole(instance: object, attribute: attrs.Attribute[Any], value: object) -> None:
    """Refuse anything but a whole number more than 0."""
    positive(instance, attribute, value)
    check_type(attribute.name, value, int)


def check_positive(name: str, value: object) -> None:
    """Refuse anything but a finite number more than 0."""
    # The text of an environment variable can't be compared, and True is no number of anything.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise ConfigurationError(f"{name} must be a number more than 0, and finite.")


@attrs.frozen(kw_only=True, init=False)
class Timeout:
    """How long a call may take, in seconds.

    ``connect_s`` covers the wait for a free connection, DNS, TCP and TLS; when it passes, nothing
    was sent. ``attempt_s`` covers one whole attempt of a read or for a token, ``change_s`` one of a
    call that changes something; when that passes, the outcome is unknown, so both must be the
    longer. RM's own clients wait 60 to 95 s. ``total_s`` is the deadline of the whole call, with
    its token, attempts, waits and reading back; None for none. It cuts the last attempt short, and
    no attempt begins with ``connect_s`` or less left.

    What is not given fits itself to what is: ``attempt_s`` is 30, but three times ``connect_s`` at
    least and ``total_s`` at most; ``change_s`` is ``attempt_s`` where that is given, and else 60
    within the same bounds; ``connect_s`` is 10, but a third of ``attempt_s`` and of ``change_s`` at
    most.
    """

    connect_s: float
    attempt_s: float
    total_s: float | None
    change_s: float

    def __init__(
        self,
        *,
        connect_s: float | None = None,
        attempt_s: float | None = None,
        total_s: float | None = None,
        change_s: float | None = None,
    ) -> None:
        given = {
            "connect_s": connect_s,
            "attempt_s": attempt_s,
            "total_s": total_s,
            "change_s": change_s,
        }
        for name, seconds in given.items():
            if seconds is not None:
                check_positive(name, seconds)
        least_s, most_s = 3 * (connect_s or 0.0), total_s or math.inf
        if change_s is None:
            change_s = attempt_s or min(max(60.0, least_s), most_s)
        if attempt_s is None:
            attempt_s = min(max(30.0, least_s), most_s)
        if connect_s is None:
            connect_s = min(10.0, attempt_s / 3, change_s / 3)
        for name, seconds in (("attempt_s", attempt_s), ("change_s", change_s)):
            if seconds > most_s:
                raise ConfigurationError(f"total_s must not be less than {name}.")
            if connect_s >= seconds:
                longer = "total_s" if seconds == total_s else name
                raise ConfigurationError(f"connect_s must be less than {longer}.")
        self.__attrs_init__(
            connect_s=connect_s, attempt_s=attempt_s, total_s=total_s, change_s=change_s
        )


def of_changes(timeout: Timeout) -> Timeout:
    """Return the time-out of a call that changes something: its attempts take ``change_s``."""
    if timeout.attempt_s == timeout.change_s:
        return timeout
    return Timeout(connect_s=timeout.connect_s, attempt_s=timeout.change_s, total_s=timeout.total_s)


@attrs.frozen(kw_only=True)
class Limits:
    """How many connections, how large an answer and how many codes a client takes.

    ``max_connections`` at once, and ``max_response_bytes`` of an answer's body, decompressed, bound
    the client's own transport; the answer with one voucher or token is never longer than 64 KiB.
    ``max_redeem_codes`` bounds one bulk redeem; RM's limit is not documented.
    """

    max_connections: int = attrs.field(default=100, validator=whole)
    max_response_bytes: int = attrs.field(default=16 * 1024 * 1024, validator=whole)
    max_redeem_codes: int = attrs.field(default=100, validator=whole)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How often and how patiently a call is attempted. Whether it may be, its operation decides.

    The wait after attempt n is ``initial_wait_s`` · 2ⁿ⁻¹, at most ``max_wait_s``. Chance takes off
    up to half, so that many callers don't return at once. A longer wait that the server asks for
    (``Retry-After``) is kept, up to ``max_retry_after_s``.
    """

    max_attempts: int = attrs.field(default=6, validator=whole)
    initial_wait_s: float = attrs.field(default=0.5, validator=positive)
    max_wait_s: float = attrs.field(default=20.0, validator=positive)
    max_retry_after_s: float = attrs.field(default=120.0, validator=positive)


def _enough_calls(instance: object, attribute: attrs.Attribute[int], value: object) -> None:
    # Fewer may fail by bad luck, where they are in flight together.
    if not isinstance(value, int | float) or not _LEAST_FAILING_CALLS <= value < math.inf:
        raise ConfigurationError(
            f"{attribute.name} must be {_LEAST_FAILING_CALLS} or more, and finite."
        )


def _yes_or_no(instance: object, attribute: attrs.Attribute[bool], value: object) -> None:
    check_type(attribute.name, value, bool)  # "no" would be taken for a yes


@attrs.frozen(kw_only=True)
class FlowPolicy:
    """How fast a client may send, and how it behaves while the server fails.

    Attributes:
        rate_per_s: never more requests a second than this, give or take those of 20 ms; None for
            no limit until the server throttles. A throttle (HTTP 429, or an error code of class
            *retry*) lowers the rate in both cases, and time raises it again. RM documents no limit.
        adaptive: whether a throttle lowers the rate for all calls. Set False where a server
            throttles more than one request in two hundred at any rate: there it would lower the
            rate to a few a second in the end. Then each call waits by itself.
        failure_threshold: an outage begins when so many calls in a row fail, 20 or more. A call
            fails when it gets no answer, an answer that says that the server failed, or an answer
            that is not RM's. In an outage all calls wait.
        probe_interval_s: the seconds between two half-open probes, that is, calls that are sent
            during an outage to see whether it is over. The first come sooner, after one second and
            then two. In a long outage the interval is a twelfth of the outage so far, up to a
            minute, because the outcome of each probe may be unknown.
        max_outage_wait_s: for how many seconds calls wait in an outage. After that they fail at
            once with `ConnectTimeoutError`, until a probe succeeds; they are provably unsent, so
            each may be repeated. In a bulk run, throttled attempts don't count towards
            ``max_attempts`` for as long, but two minutes at most.

    Raises `ConfigurationError`.
    """

    rate_per_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    adaptive: bool = attrs.field(default=True, validator=_yes_or_no)
    failure_threshold: int = attrs.field(default=_LEAST_FAILING_CALLS, validator=_enough_calls)
    probe_interval_s: float = attrs.field(default=5.0, validator=positive)
    max_outage_wait_s: float = attrs.field(default=120.0, validator=positive)
