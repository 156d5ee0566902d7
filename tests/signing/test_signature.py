"""Signing: golden vectors, openssl's own word, and every key that can't be used."""

import base64
import json
import math
import re
import struct
import subprocess

import orjson
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from hypothesis import given
from hypothesis import strategies as st
from support.files import KEY_FILE, PUBLIC_KEY_FILE, TESTS
from support.rm_signature import canonical, expected_text, public_numbers, verifies

from rm_voucher import ConfigurationError
from rm_voucher.signing import (
    RsaSigner,
    RsaVerifier,
    canonical_json,
    format_signature,
    string_to_sign,
)

VECTORS = json.loads((TESTS / "vectors" / "signing.json").read_text())
SIGNER = RsaSigner.from_pem(KEY_FILE.read_bytes())
NUMBERS = public_numbers(PUBLIC_KEY_FILE)
each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda v: v["name"])


def text_of(vector):
    body = vector["body"]
    return string_to_sign(
        method=vector["method"],
        url=vector["url"],
        nonce=vector["nonce"],
        timestamp=vector["timestamp"],
        body=b"" if body is None else canonical_json(body),
    )


@each_vector
def test_vector_text(vector):
    """The canonical body and the string to sign are those of the vectors, byte for byte."""
    if vector["body"] is not None:
        assert canonical_json(vector["body"]) == vector["canonical_body"].encode()
    assert text_of(vector) == vector["string_to_sign"]


@each_vector
@pytest.mark.parametrize("form", ["pkcs1", "pkcs8"])
def test_vector_signature(vector, form):
    """Both forms of the key give the signature that openssl gave."""
    signer = RsaSigner.from_pem((TESTS / "vectors" / f"throwaway-{form}.pem").read_bytes())
    assert format_signature(signer.sign(text_of(vector).encode())) == vector["x_signature"]


@each_vector
def test_vector_openssl_verifies(vector, tmp_path):
    """The openssl command finds each vector's signature good, and a changed text bad."""
    signature = tmp_path / "signature"
    signature.write_bytes(base64.b64decode(vector["x_signature"].removeprefix("sha256 ")))
    command = ["openssl", "dgst", "-sha256", "-verify", str(PUBLIC_KEY_FILE)]
    for text, verdict in (
        (vector["string_to_sign"], "Verified OK"),
        (vector["string_to_sign"] + "0", "Verification failure"),
    ):
        done = subprocess.run(
            [*command, "-signature", str(signature)],
            input=text.encode(),
            capture_output=True,
            check=False,
        )
        assert done.stdout.decode().strip() == verdict


@each_vector
def test_vector_verifier(vector):
    """The package's verifier takes each vector, and no other text, scheme or encoding for it."""
    verifier = RsaVerifier.from_pem(PUBLIC_KEY_FILE.read_bytes())
    text, good = vector["string_to_sign"].encode(), vector["x_signature"]
    assert verifier.verify(text, good)
    assert not verifier.verify(text + b" ", good)
    for bad in (
        "",
        good.removeprefix("sha256 "),
        good.replace("sha256", "sha1"),
        "sha256 " + good.removeprefix("sha256 ")[:-4],
        "sha256 !!!!",
        "sha256 é",
        good + "\n",
        good.replace("/", "_").replace("+", "-") + "-",
    ):
        assert not verifier.verify(text, bad)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=30,
)


@given(json_values)
def test_canonical_json_agrees_with_the_rules(value):
    """Any JSON value is written as the published rules, implemented once more, write it."""
    written = canonical_json(value)
    assert written == canonical(value)
    assert orjson.loads(written) == value


# By Go's documentation of encoding/json: a float64 is written as ES6 does, with the fewest digits
# that tell it from all others; with an exponent below 1e-6 and from 1e21 on, which has a sign but
# no zero before it.
GO_WRITES = [
    (0.0, "0"),
    (-0.0, "-0"),
    (1.0, "1"),
    (-2.5, "-2.5"),
    (0.1, "0.1"),
    (1e2, "100"),
    (1e15, "1000000000000000"),
    (9007199254740993.0, "9007199254740992"),
    (9999999999999998.0, "9999999999999998"),
    (1e16, "10000000000000000"),
    (-1e16, "-10000000000000000"),
    (1.2345678901234567e17, "123456789012345660"),
    (1e20, "100000000000000000000"),
    (math.nextafter(1e21, 0), "999999999999999900000"),
    (1e21, "1e+21"),
    (-1.5e21, "-1.5e+21"),
    (1.2345678901234568e22, "1.2345678901234568e+22"),
    (1e100, "1e+100"),
    (1.7976931348623157e308, "1.7976931348623157e+308"),
    (0.001, "0.001"),
    (0.0001, "0.0001"),
    (0.00001, "0.00001"),
    (0.000012345, "0.000012345"),
    (1e-6, "0.000001"),
    (-1.5e-6, "-0.0000015"),
    (math.nextafter(1e-6, 0), "9.999999999999997e-7"),
    (1e-7, "1e-7"),
    (-1.5e-9, "-1.5e-9"),
    (1e-10, "1e-10"),
    (2.2250738585072014e-308, "2.2250738585072014e-308"),
    (5e-324, "5e-324"),
]


@pytest.mark.parametrize(("number", "text"), GO_WRITES)
def test_canonical_json_has_floats_as_go_writes_them(number, text):
    """Wherever they stand; what is whole, and within 64 bits, is written as the same integer."""
    assert canonical_json(number) == text.encode()
    body = canonical_json({"b": [number, ({"n": number},)], "a": "1.0 <1e16>", "c": 10**16})
    assert (
        body
        == (
            rf'{{"a":"1.0 \u003c1e16\u003e","b":[{text},[{{"n":{text}}}]],"c":10000000000000000}}'
        ).encode()
    )


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_canonical_json_of_any_float(number):
    """The same value is read again, and its form is the one of its size."""
    text = canonical_json(number).decode()
    assert struct.pack("d", float(text)) == struct.pack("d", number)
    size = abs(number)
    has_exponent = bool(size) and not 1e-6 <= size < 1e21
    form = r"-?\d(\.\d*[1-9])?e(\+|-)[1-9]\d*" if has_exponent else r"-?(0|[1-9]\d*)(\.\d*[1-9])?"
    assert re.fullmatch(form, text)


@given(json_values, st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=30))
def test_signature_verifies_independently(value, url):
    """A signature verifies with an implementation that shares no code with the package."""
    body = canonical_json(value)
    text = string_to_sign(method="POST", url=url, nonce="n", timestamp="1", body=body)
    assert text == expected_text("POST", url, "n", "1", body)
    signature = format_signature(SIGNER.sign(text.encode()))
    assert verifies(NUMBERS, text, signature)
    assert not verifies(NUMBERS, text + "x", signature)


@pytest.mark.parametrize("body", [b"", b"null", b"{}"])
def test_string_to_sign_empty_body_has_no_data(body):
    """With no body, null or {} the data parameter is left out."""
    text = string_to_sign(method="POST", url="u", nonce="n", timestamp="1", body=body)
    assert text == "method=post&nonceStr=n&requestUrl=u&signType=sha256&timestamp=1"


@pytest.mark.parametrize("body", [b"[]", b"0", b'""', b"false"])
def test_string_to_sign_other_falsy_bodies_are_signed(body):
    """Only those three say nothing; an empty list says something."""
    text = string_to_sign(method="POST", url="u", nonce="n", timestamp="1", body=body)
    assert text.startswith("data=" + base64.b64encode(body).decode() + "&method")


@pytest.mark.parametrize("value", [object(), {1: 2}, b"bytes", {"a": {1, 2}}, "\ud800"])
def test_canonical_json_refuses_what_is_not_json(value):
    """What is not JSON is refused instead of guessed."""
    with pytest.raises(TypeError):
        canonical_json(value)


def openssl(*arguments: str) -> bytes:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True).stdout


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (PUBLIC_KEY_FILE.read_bytes, "public key"),
        (lambda: b"private.pem", r"pathlib.Path\(name\)"),
        (lambda: b"", "not PEM"),
        (lambda: openssl("genrsa", "1024"), "1024 bits"),
        (lambda: openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout"), "not an RSA"),
        (
            lambda: openssl("pkey", "-in", str(KEY_FILE), "-aes256", "-passout", "pass:x"),
            "encrypted",
        ),
        (
            lambda: openssl(
                "rsa", "-in", str(KEY_FILE), "-traditional", "-aes256", "-passout", "pass:x"
            ),
            "encrypted",
        ),
        (lambda: KEY_FILE.read_bytes()[:400], "is it whole"),
        (lambda: KEY_FILE.read_bytes().replace(b"M", b"?", 9), "is it whole"),
    ],
    ids=["public", "path", "empty", "1024", "ec", "pkcs8-encrypted", "pkcs1-encrypted", "cut", "x"],
)
def test_signer_unusable_key_gets_a_sentence(make, sentence):
    """A key that can't be used is refused with a sentence that helps, and without the key."""
    pem = make()
    with pytest.raises(ConfigurationError, match=sentence) as caught:
        RsaSigner.from_pem(pem)
    assert b"MII" not in str(caught.value).encode()


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: b"x", "can't be parsed"),
        (KEY_FILE.read_bytes, "This is a private key"),
        (
            lambda: openssl("pkey", "-pubout", "-in", str(TESTS / "vectors" / "throwaway-ec.pem")),
            "not an RSA",
        ),
        (lambda: RsaSigner(generate_private_key(65537, 1024)).public_key_pem(), "1024 bits"),
    ],
    ids=["garbage", "private", "ec", "1024"],
)
def test_verifier_unusable_key_gets_a_sentence(make, sentence):
    """A public key that can't be used is refused."""
    with pytest.raises(ConfigurationError, match=sentence):
        RsaVerifier.from_pem(make())


def test_signer_public_half():
    """The public half is what openssl says it is."""
    assert SIGNER.public_key_pem() == PUBLIC_KEY_FILE.read_bytes()


def test_verifier_tells_a_wrong_key_from_a_wrong_text():
    """A signature that is refused may still be by the key; what is no signature never is."""
    verifier = RsaVerifier.from_pem(PUBLIC_KEY_FILE.read_bytes())
    mine = format_signature(SIGNER.sign(b"one text"))
    assert not verifier.verify(b"another text", mine)
    assert verifier.is_by_this_key(mine)
    for other in (mine[:-8] + "AAAAAA==", "sha256 AAAA", "sha256 *", "", mine.removeprefix("sha")):
        assert not verifier.is_by_this_key(other)
