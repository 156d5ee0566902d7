"""Checks of what was set: variables and profile, the environment, the keys. Nothing is sent."""

from __future__ import annotations

import base64
import hashlib
import os
from pathlib import Path

from yarl import URL

from rm_voucher import ConfigurationError, Environment
from rm_voucher.cli.connect import Settings, find_settings, in_words, is_real
from rm_voucher.cli.doctor.patient import MISTAKE, Fault, Patient, Unasked
from rm_voucher.settings import is_loopback, is_open_file, read_pem, words_of_open_file
from rm_voucher.signing.rsa import RsaSigner, RsaVerifier
from rm_voucher.webhooks import CallbackVerifier

_ID, _SECRET = "RM_CLIENT_ID", "RM_CLIENT_SECRET"
_KEY, _KEY_FILE = "RM_PRIVATE_KEY", "RM_PRIVATE_KEY_FILE"
_PLACES = ("RM_API_URL", "RM_OAUTH_URL")
_SERVER_KEY = "RM_CALLBACK_PUBLIC_KEY_FILE"
_SET_THEM = "Set what is missing as variables, or save all of it with 'rm-voucher login NAME'."


async def check_settings(patient: Patient) -> str:
    """Who the command is, and where that was found: all that is missing is said at once."""
    try:
        settings = patient.settings = find_settings(patient.option)
    except ConfigurationError as exc:
        raise Fault(str(exc), "Set or unset what the sentence names.", exit_code=MISTAKE) from None
    missing = [name for name in (_ID, _SECRET) if not _value(settings, name)]
    if not (_value(settings, _KEY) or _value(settings, _KEY_FILE)):
        missing.append(f"{_KEY_FILE} (or {_KEY})")
    if missing:
        *first, last = missing
        names = f"{', '.join(first)} and {last}" if first else last
        verb = "are" if first else "is"
        blank = [name for name in (_ID, _SECRET, _KEY, _KEY_FILE) if name in os.environ]
        blank = [name for name in blank if not os.environ[name].strip()]
        empty = f" Set to nothing: {', '.join(blank)}." if blank else ""
        raise Fault(f"{names} {verb} not set.{empty}", _SET_THEM, exit_code=MISTAKE)
    try:
        patient.credentials = settings.credentials()
    except ConfigurationError as exc:
        raise Fault(str(exc), _SET_THEM, exit_code=MISTAKE) from None
    key = _KEY if _value(settings, _KEY) else _KEY_FILE
    told = ("client id", "secret", "key")
    parts = [
        f"{what} by {settings.found[name].source}"
        for what, name in zip(told, (_ID, _SECRET, key), strict=True)
    ]
    return " ".join([f"{', '.join(parts)}.", *settings.notes])


def _value(settings: Settings, name: str) -> str:
    setting = settings.found.get(name)
    return (setting.value or "").strip() if setting else ""


async def check_environment(patient: Patient) -> str:
    """Which servers it is, and whether they belong together."""
    settings = patient.settings
    if settings is None:
        raise Unasked("the settings can't be read")
    try:
        environment = settings.environment()
    except ConfigurationError as exc:
        raise Fault(
            str(exc),
            "Write sandbox, production or a URL, or unset the variable.",
            exit_code=MISTAKE,
        ) from None
    _refuse_mixed(settings, environment)
    patient.environment = environment
    what = in_words(environment)
    real = "vouchers are real" if is_real(environment) else "vouchers are not real"
    urls = dict.fromkeys((environment.api_url, environment.oauth_url))
    where = ", ".join(url for url in urls if url not in what)
    source = settings.found["RM_ENVIRONMENT"].source or "the default"
    return f"{what}, where {real}, by {source}{': ' if where else ''}{where}."


def _refuse_mixed(settings: Settings, environment: Environment) -> None:
    """Refuse servers of two environments, which is what a forgotten variable leaves."""
    urls = (environment.api_url, environment.oauth_url)
    replaced = " and ".join(name for name in _PLACES if _value(settings, name))
    kinds = {_kind(url) for url in urls}
    is_named = _value(settings, "RM_ENVIRONMENT").lower() in ("production", "sandbox")
    if len(kinds) > 1:
        raise Fault(
            f"The two servers are not of one environment: {', '.join(urls)}.",
            f"Unset {replaced or ' and '.join(_PLACES)}.",
            exit_code=MISTAKE,
        )
    if replaced and is_named and kinds == {"this machine"}:
        name = _value(settings, "RM_ENVIRONMENT").lower()
        verb = "lead" if " and " in replaced else "leads"
        raise Fault(
            f"The environment is {name}, and {replaced} {verb} to this machine ({urls[0]}), "
            "where an emulator may be.",
            f"Unset {replaced}: then it is Revenue Monster's {name}.",
            exit_code=MISTAKE,
        )


def _kind(url: str) -> str:
    for name, environment in (
        ("sandbox", Environment.SANDBOX),
        ("production", Environment.PRODUCTION),
    ):
        if url in (environment.api_url, environment.oauth_url):
            return name
    return "this machine" if is_loopback(URL(url).host or "") else "another"


async def check_key(patient: Patient) -> str:
    """The private key: what it is, how long, and whether others can read it."""
    if patient.credentials is None:
        raise Unasked("the settings are not complete")
    try:
        pem = patient.credentials.private_key_pem()
        signer = patient.signer = RsaSigner.from_pem(pem)
    except ConfigurationError as exc:
        raise Fault(str(exc), _KEY_REMEDY, exit_code=MISTAKE) from None
    key = patient.credentials.private_key
    if isinstance(key, Path) and is_open_file(key):
        words = words_of_open_file(key)
        raise Fault(words, "Until then the key is no secret.", exit_code=MISTAKE)
    public = signer.public_key_pem()
    return f"RSA, {signer.signature_bytes * 8} bits; public half {_fingerprint(public)}."


_KEY_REMEDY = (
    "Make a pair with 'openssl genrsa -out key.pem 2048' and 'openssl rsa -in key.pem -pubout', "
    "put the public half into the merchant portal, and name the private one."
)


def _fingerprint(public_pem: bytes) -> str:
    """Return a short name of a public key: of its DER, so that ``openssl`` can give the same."""
    body = b"".join(line for line in public_pem.splitlines() if not line.startswith(b"-----"))
    return f"SHA256:{hashlib.sha256(base64.b64decode(body)).hexdigest()[:32]}"


async def check_callback_key(patient: Patient) -> str:
    """RM's server key, by which callbacks are checked."""
    named = os.environ.get(_SERVER_KEY, "").strip()
    paths = patient.server_keys or ([Path(named)] if named else [])
    if not paths:
        raise Unasked(f"give --server-key FILE or {_SERVER_KEY} to check it")
    try:
        CallbackVerifier(paths)
    except ConfigurationError as exc:
        raise Fault(
            str(exc),
            "Copy the server's public key from the merchant portal into the file.",
            exit_code=MISTAKE,
        ) from None
    if patient.signer is not None:
        text = b"whose key is this?"
        signature = base64.b64encode(patient.signer.sign(text)).decode()
        for path in paths:
            if _is_pair(path, text, f"sha256 {signature}"):
                raise Fault(
                    f"{path} is the public half of your own key, and not Revenue Monster's.",
                    "Copy the server's public key from the merchant portal: it is another one "
                    "than the key that you uploaded there.",
                    exit_code=MISTAKE,
                )
    keys = "1 key" if len(paths) == 1 else f"{len(paths)} keys"
    return f"{keys} that can check callbacks; whether RM signs with it, a delivery shows."


def _is_pair(path: Path, text: bytes, signature: str) -> bool:
    return RsaVerifier.from_pem(read_pem(path, "public")).verify(text, signature)


def other_environment(environment: Environment) -> tuple[str, Environment] | None:
    """Return RM's other environment and its name, or None for a server that is not RM's."""
    if environment == Environment.PRODUCTION:
        return "sandbox", Environment.SANDBOX
    return ("production", Environment.PRODUCTION) if environment == Environment.SANDBOX else None
