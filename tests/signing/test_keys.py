"""Keys in the forms that people have them in, and what is said of those that are of no use."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    KeySerializationEncryption,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from support.files import KEY_FILE, PUBLIC_KEY_FILE

from rm_voucher import ConfigurationError, Credentials, VoucherClient
from rm_voucher.emulator import Emulator
from rm_voucher.signing import RsaSigner, RsaVerifier
from rm_voucher.webhooks import CallbackVerifier

RSA = rsa.generate_private_key(65537, 2048)
PUBLIC = RSA.public_key()
PEM = Encoding.PEM
TRADITIONAL, PKCS8, OPENSSH = (
    PrivateFormat.TraditionalOpenSSL,
    PrivateFormat.PKCS8,
    PrivateFormat.OpenSSH,
)


def private(
    form: PrivateFormat = PKCS8,
    key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey = RSA,
    encryption: KeySerializationEncryption | None = None,
    encoding: Encoding = PEM,
) -> bytes:
    return key.private_bytes(encoding, form, encryption or NoEncryption())


def bare(pem: bytes) -> bytes:
    """Return what stands between a key's lines of dashes."""
    return b"\n".join(line for line in pem.splitlines() if not line.startswith(b"-----"))


def escaped(pem: bytes) -> bytes:
    return pem.replace(b"\n", b"\\n")


def on_one_line(pem: bytes) -> bytes:
    return b" ".join(pem.split(b"\n"))


SPKI = PUBLIC.public_bytes(PEM, PublicFormat.SubjectPublicKeyInfo)
PKCS1_PUBLIC = PUBLIC.public_bytes(PEM, PublicFormat.PKCS1)
SSH_PUBLIC = PUBLIC.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH) + b" me@desk\n"
EC = ec.generate_private_key(ec.SECP256R1())
_CURVE = bytes.fromhex("06082a8648ce3d030107")


def on_unknown_curve(der: bytes) -> bytes:
    """Return the base64 of an EC key, changed to a curve that nobody knows."""
    return base64.b64encode(der.replace(_CURVE, _CURVE[:-1] + b"\x63"))


@pytest.mark.parametrize("reads", [RsaSigner.from_pem, RsaVerifier.from_pem])
@pytest.mark.parametrize("is_public", [True, False])
def test_key_of_an_unknown_kind(reads: Callable[[bytes], object], *, is_public: bool) -> None:
    """It gets a sentence, and no error of the library below."""
    der = (
        EC.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if is_public
        else private(PKCS8, EC, encoding=Encoding.DER)
    )
    with pytest.raises(ConfigurationError):
        reads(on_unknown_curve(der))


ED = ed25519.Ed25519PrivateKey.generate()
SECRET = BestAvailableEncryption(b"x")
CERTIFICATE = b"-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----\n"
EC_PARAMETERS = b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"

PRIVATE_FORMS = {
    "pkcs8": private(),
    "pkcs1": private(TRADITIONAL),
    "openssh": private(OPENSSH),
    "escaped breaks": escaped(private()),
    "escaped breaks, of openssh": escaped(private(OPENSSH)),
    "breaks of Windows": private().replace(b"\n", b"\r\n"),
    "escaped breaks of Windows": private().replace(b"\n", b"\\r\\n"),
    "on one line": on_one_line(private(TRADITIONAL)),
    "in quotes": b'"%b"' % escaped(private()),
    "of an editor with a mark": b"\xef\xbb\xbf" + private(),
    "base64 alone, pkcs8": bare(private()),
    "base64 alone, pkcs1": bare(private(TRADITIONAL)),
    "base64 alone, on one line": bare(private()).replace(b"\n", b""),
    "beside its public half": SPKI + private(),
    "behind words": b"Bag Attributes\n    friendlyName: key\n" + private(),
}
PUBLIC_FORMS = {
    "spki": SPKI,
    "pkcs1": PKCS1_PUBLIC,
    "openssh": SSH_PUBLIC,
    "escaped breaks": escaped(SPKI),
    "on one line": on_one_line(SPKI),
    "in quotes": b"'%b'" % escaped(SPKI),
    "base64 alone": bare(SPKI),
    "base64 alone, pkcs1": bare(PKCS1_PUBLIC),
}


@pytest.mark.parametrize("form", PRIVATE_FORMS)
def test_private_key_is_taken(form: str) -> None:
    """Its signature is that of the key, whatever form it came in."""
    signature = RsaSigner.from_pem(PRIVATE_FORMS[form]).sign(b"text")
    assert signature == RsaSigner(RSA).sign(b"text")


@pytest.mark.parametrize("form", PUBLIC_FORMS)
def test_public_key_is_taken(form: str) -> None:
    """It verifies, and is PEM to those who ask for it."""
    verifier = RsaVerifier.from_pem(PUBLIC_FORMS[form])
    signature = base64.b64encode(RsaSigner(RSA).sign(b"text")).decode()
    assert verifier.verify(b"text", f"sha256 {signature}")
    assert verifier.public_key_pem() == SPKI


def encrypted_openssh() -> bytes:
    """Return what ssh-keygen makes, up to what is encrypted; cryptography needs bcrypt for it."""
    fields = (b"aes256-ctr", b"bcrypt", b"0123456789abcdef")
    body = b"openssh-key-v1\0" + b"".join(len(f).to_bytes(4, "big") + f for f in fields)
    label = b"OPENSSH PRIVATE KEY"
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (label, base64.encodebytes(body), label)


IS_PUBLIC = "This is a public key; signing needs the private key"
IS_PRIVATE = "This is a private key; checking a signature needs the signer's public key"
IS_ENCRYPTED = "The private key is encrypted: decrypt it first, for example with 'openssl pkey"
IS_ENCRYPTED_SSH = "The private key is encrypted: decrypt a copy of it first, with 'ssh-keygen -p"
IS_NO_RSA = "The private key is not an RSA key; Revenue Monster uses RSA"
IS_BROKEN = "The private key can't be parsed: is it whole?"
IS_NOTHING = "The private key is not PEM text. If it is a file name, pass pathlib.Path(name)."

UNUSABLE = {
    "public": (SPKI, IS_PUBLIC),
    "public, escaped": (escaped(PKCS1_PUBLIC), IS_PUBLIC),
    "public, base64 alone": (bare(SPKI), IS_PUBLIC),
    "public, openssh": (SSH_PUBLIC, IS_PUBLIC),
    "encrypted pkcs8": (private(encryption=SECRET), IS_ENCRYPTED),
    "encrypted pkcs1": (private(TRADITIONAL, encryption=SECRET), IS_ENCRYPTED),
    "encrypted, base64 alone": (bare(private(encryption=SECRET)), IS_ENCRYPTED),
    "encrypted openssh": (encrypted_openssh(), IS_ENCRYPTED_SSH),
    "ec": (private(TRADITIONAL, EC), IS_NO_RSA),
    "ec behind its parameters": (EC_PARAMETERS + private(TRADITIONAL, EC), IS_NO_RSA),
    "ec, base64 alone": (bare(private(key=EC)), IS_NO_RSA),
    "ed25519 of openssh": (private(OPENSSH, ED), IS_NO_RSA),
    "certificate": (CERTIFICATE, "This is a certificate, and no private key is beside it."),
    "cut": (private()[:400], IS_BROKEN),
    "cut, base64 alone": (bare(private())[:400], IS_BROKEN),
    "der": (private(encoding=Encoding.DER), "If it is DER, make PEM of it: 'openssl pkey"),
    "base64 of something else": (base64.b64encode(b"no key at all"), IS_NOTHING),
    "nothing": (b"", IS_NOTHING),
}


@pytest.mark.parametrize("form", UNUSABLE)
def test_private_key_of_no_use_is_named(form: str) -> None:
    """The sentence says what it is and what to do, and shows nothing of it."""
    key, sentence = UNUSABLE[form]
    with pytest.raises(ConfigurationError) as caught:
        RsaSigner.from_pem(key)
    assert sentence in str(caught.value)
    assert "MII" not in str(caught.value)
    assert caught.value.__context__ is None or caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("key", "sentence"),
    [
        (private(), IS_PRIVATE),
        (escaped(private(OPENSSH)), IS_PRIVATE),
        (bare(private(TRADITIONAL)), IS_PRIVATE),
        (bare(private(encryption=SECRET)), IS_PRIVATE),
        (private()[:400], IS_PRIVATE),
        (CERTIFICATE, "This is a certificate; take the public key out of it: 'openssl x509"),
        (
            EC.public_key().public_bytes(PEM, PublicFormat.SubjectPublicKeyInfo),
            "The public key is not an RSA key.",
        ),
        (SPKI[:200], "The public key can't be parsed"),
        (base64.b64encode(b"0 no key at all"), "The public key can't be parsed"),
        (b"ssh-rsa AAAA", "The public key can't be parsed"),
    ],
)
def test_public_key_of_no_use_is_named(key: bytes, sentence: str) -> None:
    """So it is where a public key is meant."""
    with pytest.raises(ConfigurationError) as caught:
        RsaVerifier.from_pem(key)
    assert sentence in str(caught.value)


@pytest.mark.parametrize("form", ["openssh", "escaped breaks", "base64 alone, on one line"])
def test_every_door_takes_a_private_key(form: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of text, the variable, and an emulator, whose variables have it as well."""
    text = PRIVATE_FORMS[form].decode()
    monkeypatch.setenv("RM_CLIENT_ID", "id")
    monkeypatch.setenv("RM_CLIENT_SECRET", "hush")
    monkeypatch.setenv("RM_PRIVATE_KEY", text)
    expected = RsaSigner(RSA).sign(b"text")
    assert VoucherClient.from_env().caller.signer.sign(b"text") == expected
    credentials = Credentials("id", "hush", text)
    assert VoucherClient(credentials).caller.signer.sign(b"text") == expected
    emulator = Emulator(credentials=credentials)
    assert emulator.public_key_pem == SPKI
    again = Credentials.from_env(emulator.variables)
    assert RsaSigner.from_pem(again.private_key_pem()).sign(b"text") == expected


@pytest.mark.parametrize("form", PUBLIC_FORMS)
def test_every_door_takes_a_public_key(form: str) -> None:
    """An emulator that has only that, which saves it as PEM, and the verifier of callbacks."""
    emulator = Emulator(public_key=PUBLIC_FORMS[form], client_id="id", client_secret="hush")
    assert emulator.export()["merchants"][0]["options"]["public_key"] == SPKI.decode()
    CallbackVerifier(PUBLIC_FORMS[form].decode())


def test_files_of_the_tests_are_a_pair() -> None:
    """Keys of openssl's own making are taken as well as those that cryptography writes."""
    made = subprocess.run(["openssl", "genrsa", "-traditional", "2048"], capture_output=True)
    assert RsaSigner.from_pem(made.stdout).signature_bytes == 256
    pem = RsaSigner.from_pem(KEY_FILE.read_bytes()).public_key_pem()
    assert pem == PUBLIC_KEY_FILE.read_bytes()
