"""``rm-voucher worker``: what a newcomer sees, and what a mistake is told."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import orjson
import pytest

VARIABLES = ("RM_WORKER_BROKER", "RM_WORKER_LEDGER", "RM_WORKER_BATCH", "RM_SHARED_URL")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


def test_a_hundred_messages_become_a_hundred_vouchers(rm: Callable[..., Any]) -> None:
    """In one command, without an account, a broker or a database."""
    ended = rm("worker", "--environment", "memory", "--batch", "TEA")
    assert ended.code == 0, ended.err
    messages = [orjson.loads(line) for line in ended.out.splitlines()]
    assert {each["request_id"] for each in messages} == {f"order {n}" for n in range(1, 101)}
    assert len({each["code"] for each in messages}) == 100
    assert "not real vouchers" in ended.err
    assert "100 messages: 100 vouchers, 0 parked." in ended.err


def test_sample_of_another_size(rm: Callable[..., Any]) -> None:
    ended = rm("worker", "-e", "memory", "--batch", "TEA", "--sample", 3, "--rate", 1000)
    assert len(ended.out.splitlines()) == 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-e", "memory", "--broker", "amqp://x"), "takes no --broker, --ledger or --shared"),
        (("-e", "memory", "--ledger", "sqlite:///x"), "takes no --broker, --ledger or --shared"),
        (("-e", "memory", "--shared", "redis://x"), "takes no --broker, --ledger or --shared"),
        ((), "The broker is in the variable RM_WORKER_BROKER, which is not set"),
        (("--broker", "kafka://x", "--ledger", "sqlite:///x.db"), "begins with amqp://"),
        (("--broker", "amqp://x", "--ledger", "env:NOTHING"), "The ledger is in the variable"),
        (
            (
                *("--requests", "a", "--vouchers", "a"),
                *("--broker", "amqp://x", "--ledger", "sqlite:///x.db"),
            ),
            "different names",
        ),
    ],
)
def test_mistakes_get_a_sentence(
    rm: Callable[..., Any], served: Any, arguments: tuple[str, ...], said: str
) -> None:
    ended = rm("worker", "--batch", "TEA", *arguments)
    assert ended.code == 2, ended.err
    assert said in ended.err
    assert "Traceback" not in ended.err


def test_broker_that_does_not_answer(
    rm: Callable[..., Any], served: Any, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends with a sentence: whatever runs it starts it again."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    served.emulator.add_batch("TEA", key="TEA", quantity=1)
    monkeypatch.setenv("RM_WORKER_BROKER", f"amqp://guest:secret@127.0.0.1:{port}/")
    ended = rm("worker", "--batch", "TEA", "--ledger", f"sqlite:///{tmp_path}/ledger.db")
    assert ended.code == 2, ended.err
    assert "The broker can't be used" in ended.err
    assert "secret" not in ended.err
