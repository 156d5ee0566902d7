"""Bodies with more inside than anybody's, and deeper: to write these could crash the process."""

import time

import orjson
import pytest
from support.files import PUBLIC_KEY_FILE

from rm_voucher import CallbackError
from rm_voucher.webhooks import (
    CallbackStep,
    CallbackVerifier,
    MemoryEventStore,
    WebhookRouter,
    verify,
)

HEADERS = {
    "X-Signature": "sha256 AAAA",
    "X-Nonce-Str": "nonce",
    "X-Timestamp": str(int(time.time())),
}


def objects(depth):
    return b'{"a":' * depth + b"1" + b"}" * depth


def lists(depth):
    return b'{"a":[1,"x",' + b"[" * (depth - 2) + b"]" * (depth - 2) + b"]}"


def step_of(body):
    """Return the step at which a stranger's body is refused."""
    with pytest.raises(CallbackError) as caught:
        CallbackVerifier(PUBLIC_KEY_FILE).verify(HEADERS, body)
    return caught.value.step


@pytest.mark.parametrize("make", [objects, lists])
@pytest.mark.parametrize("depth", [33, 100, 254, 255, 999])
def test_deep_body_is_refused(make, depth):
    """What is nested deeper than 32 is refused before it is written again to be signed."""
    assert step_of(make(depth)) == CallbackStep.BODY


@pytest.mark.parametrize("make", [objects, lists])
def test_body_that_is_not_too_deep(make):
    """32 levels go on to the signature."""
    assert step_of(make(32)) == CallbackStep.SIGNATURE


@pytest.mark.parametrize("value", ["[{" * 499, [[]] * 998, [{"a": [1]}] * 499])
def test_many_brackets_are_not_deep(value):
    """A thousand brackets, in strings or side by side, are not taken for depth."""
    assert step_of(orjson.dumps({"a": value})) == CallbackStep.SIGNATURE


@pytest.mark.parametrize("value", [[[]] * 999, [{}] * 999, [[]] * 21_000])
def test_too_many_brackets(value):
    """More are refused, before they are made objects."""
    assert step_of(orjson.dumps({"a": value})) == CallbackStep.BODY


@pytest.mark.parametrize("signature", ["sha256 AAAA", "sha256 *"])
def test_long_body_of_a_stranger_is_not_written_again(monkeypatch, signature):
    """Whoever has no key can't have 64 KiB sorted, escaped to six times that, and hashed."""

    def writes(value, body):
        pytest.fail("it was written again")

    monkeypatch.setattr(verify, "spellings", writes)
    body = b'{"a":"' + b"<" * 65_000 + b'"}'
    with pytest.raises(CallbackError) as caught:
        CallbackVerifier(PUBLIC_KEY_FILE).verify({**HEADERS, "X-Signature": signature}, body)
    assert caught.value.step == CallbackStep.SIGNATURE
    assert ("none of the public keys" in str(caught.value)) == (signature == "sha256 AAAA")


def test_body_that_overruns_the_buffer_of_orjson():
    """Lists that corrupt the memory of a process that writes them with orjson 3.13 are refused."""
    nest = b"[" * 240 + b"]" * 240
    for before in range(480):  # so that the buffer ends at each place
        body = b'{"item":"' + b"x" * before + b'","note":[' + b",".join([nest] * 8) + b"]}"
        assert step_of(body) == CallbackStep.BODY


async def test_deep_body_is_answered_400():
    """A stranger can't make the router raise by how deep a body is."""
    router = WebhookRouter(CallbackVerifier(PUBLIC_KEY_FILE), store=MemoryEventStore())
    async with router:
        assert await router.receive(HEADERS, objects(300)) == 400
