"""Awkward bodies, and what RM's servers, which are written in Go, sign of each: by hand.

The client, the emulator and the verifier of callbacks are each held against the same vectors, and
so is Go's own encoder, where there is one. `tests/emulator/test_rm_api_sdk.py` asks RM's SDK for
JavaScript.
"""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import attrs
import orjson
import pytest
from support.deliveries import NONCE, NOW, SIGNER, deliver, verifier
from support.files import PUBLIC_KEY_FILE, TESTS
from support.raw_requests import (
    GOOD,
    UNSIGNED,
    access_token,
    known,
    request_to,
    send,
    with_header,
)
from support.rm_signature import public_numbers, verifies

from rm_voucher import CallbackError, InvalidRequestError, Request, Response, StaticToken
from rm_voucher.emulator import Emulator
from rm_voucher.signing import canonical_json, format_signature
from rm_voucher.transport.memory import MemoryTransport

VECTORS: list[dict[str, Any]] = json.loads((TESTS / "vectors" / "go-bodies.json").read_text())
NUMBERS = public_numbers(PUBLIC_KEY_FILE)
URL = "https://shop.invalid/callback?shop=1%2B1"
ISSUE = "/v3/voucher-batch/K/issue"


def signed_texts(vector: dict[str, Any]) -> list[str | None]:
    """Return what is signed of a body: one text, or one for newer Go and one for older."""
    return list(
        dict.fromkeys([vector["signed"], vector.get("signed_by_older_go", vector["signed"])])
    )


each_vector = pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["rule"])
each_text = pytest.mark.parametrize(
    ("vector", "signed"),
    [
        pytest.param(vector, signed, id=f"{vector['rule']}, {number}")
        for vector in VECTORS
        for number, signed in enumerate(signed_texts(vector))
    ],
)


def text_to_sign(signed: str | None, nonce: str, url: str | None) -> bytes:
    """Return the string to sign of a POST, put together by hand."""
    data = "" if signed is None else f"data={base64.b64encode(signed.encode()).decode()}&"
    named = "" if url is None else f"&requestUrl={url}"
    return f"{data}method=post&nonceStr={nonce}{named}&signType=sha256&timestamp={NOW}".encode()


def emulated_request(emulator: Emulator, body: bytes, signed: str | None) -> Request:
    """Return a request to issue with a body, whose signature is of a text that is given."""
    token, nonce = access_token(emulator), NONCE
    request = request_to(
        "POST",
        ISSUE,
        body,
        Authorization=f"Bearer {token}",
        X_Nonce_Str=nonce,
        X_Timestamp=f"{NOW}",
    )
    text = text_to_sign(signed, nonce, str(request.url))
    return with_header(request, "X-Signature", format_signature(SIGNER.sign(text)))


def emulator_at_now() -> Emulator:
    emulator = known(clock=lambda: float(NOW))
    emulator.add_batch("x", key="K", quantity=9)
    return emulator


@each_vector
async def test_client_sends_and_signs_as_go_writes(vector: dict[str, Any]) -> None:
    """The client sends what Go would write, and signs that; what Go may write as another value or
    in another way it refuses."""
    sent: list[Request] = []

    def answer(request: Request) -> Response:
        sent.append(request)
        return Response(status=200, body=b'{"code":"SUCCESS"}')

    emulator = emulator_at_now()
    value = orjson.loads(vector["body"]) if vector["body"] else None
    async with emulator.client(
        transport=MemoryTransport(answer), token_source=StaticToken("t")
    ) as client:
        call = client.request("POST", ISSUE, json=value)
        if "client_refuses" in vector:
            with pytest.raises(InvalidRequestError):
                await call
            assert sent == []
            return
        await call
    (request,) = sent
    headers = request.headers
    signed = vector["signed"]
    assert orjson.loads(request.body or b"null") == value
    assert signed is None or request.body == signed.encode()
    text = text_to_sign(signed, headers["X-Nonce-Str"], str(request.url)).decode()
    text = text.replace(str(NOW), headers["X-Timestamp"])
    assert verifies(NUMBERS, text, headers["X-Signature"])


@each_text
def test_emulator_takes_what_go_signed(vector: dict[str, Any], signed: str | None) -> None:
    """The emulator takes the signature of what Go writes for the body that came, by either of its
    spellings."""
    emulator = emulator_at_now()
    assert send(emulator, emulated_request(emulator, vector["body"].encode(), signed)) == GOOD


@each_vector
def test_emulator_refuses_what_was_signed_as_it_came(vector: dict[str, Any]) -> None:
    """A client that signs another text than Go writes is told so, as it would be by RM."""
    emulator, body = emulator_at_now(), vector["body"]
    is_written_so = body in signed_texts(vector)
    wanted = GOOD if is_written_so else UNSIGNED
    assert send(emulator, emulated_request(emulator, body.encode(), body)) == wanted


@each_text
@pytest.mark.parametrize("url", [None, URL])
def test_verifier_takes_what_go_signed(
    vector: dict[str, Any], signed: str | None, url: str | None
) -> None:
    """A delivery of such a body is accepted, URL or not; only an object is one."""
    body = vector["body"].encode()
    signature = format_signature(SIGNER.sign(text_to_sign(signed, NONCE, url)))
    delivery = attrs.evolve(deliver(), signature=signature, body=body)
    value = orjson.loads(body or b"null")
    if isinstance(value, dict):
        assert verifier().authenticate(*delivery) == value
    else:
        with pytest.raises(CallbackError, match=r"the body is not (JSON|a JSON object)"):
            verifier().authenticate(*delivery)


@pytest.mark.parametrize(
    "body",
    [
        *(rb'{"label":"\ud800"}', rb'{"label":"\udfab\ud83c"}', rb'{"\udc00":1}'),
        *(b'{"label":"\xed\xa0\x80"}', b'{"label":"\xff"}', b"\xef\xbb\xbf{}"),
        *(b'{"n":1e999}', b'{"n":NaN}', b'{"n":01}', b'{"n":1.}', b'{"label":"\x01"}'),
    ],
)
def test_body_without_one_reading_is_refused(body: bytes) -> None:
    """Go reads half a surrogate pair and bad UTF-8 as another character, so nobody can tell what
    was meant; what is no JSON it refuses too. Neither is taken, whatever was signed."""
    text = body.decode("utf-8", "replace")
    emulator = emulator_at_now()
    assert send(emulator, emulated_request(emulator, body, text)) == (400, "INVALID_REQUEST")
    signature = format_signature(SIGNER.sign(text_to_sign(text, NONCE, None)))
    with pytest.raises(CallbackError, match="the body is not JSON"):
        verifier().authenticate(*attrs.evolve(deliver(), signature=signature, body=body))


@pytest.mark.parametrize("value", ["\ud800", "\udfab\ud83c", {"\udc00": 1}], ids=ascii)
async def test_client_refuses_half_a_surrogate_pair(value: Any) -> None:
    """Nothing is sent that Go would read as another text."""
    async with emulator_at_now().client(token_source=StaticToken("t")) as client:
        with pytest.raises(InvalidRequestError, match="surrogate"):
            await client.request("POST", ISSUE, json=[value])


@pytest.fixture(scope="session")
def go_writes(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Build the program that lets Go's encoder write a JSON text anew."""
    go = shutil.which("go")
    if go is None:
        pytest.skip("there is no Go")
    folder: Path = tmp_path_factory.mktemp("go")
    source = TESTS / "vectors" / "rewrite.go"
    subprocess.run([go, "build", "-o", "rewrite", source], cwd=folder, check=True)

    def write(texts: list[str]) -> list[str]:
        lines = "".join(json.dumps(text) + "\n" for text in texts)
        done = subprocess.run([folder / "rewrite"], input=lines, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    return write


@pytest.mark.long
def test_go_writes_the_vectors(go_writes: Any) -> None:
    """Go's own encoder writes each body as the vectors have it, by its version's spelling."""
    bodies = [vector for vector in VECTORS if vector["body"]]
    written = go_writes([vector["body"] for vector in bodies])
    for vector, text in zip(bodies, written, strict=True):
        assert text in (signed_texts(vector) if vector["signed"] else ["{}", "null"]), vector[
            "rule"
        ]


def test_canonical_json_of_a_value_is_what_go_writes_for_what_is_sent() -> None:
    """What the client would refuse aside, the function that signs gives each vector's text."""
    for vector in VECTORS:
        if vector["signed"] is not None and "client_refuses" not in vector:
            assert canonical_json(orjson.loads(vector["body"])) == vector["signed"].encode()
