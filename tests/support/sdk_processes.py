"""Revenue Monster's own SDKs, each in a process of its own, as clients of the emulator."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What sends a request elsewhere than to the emulator.
_PROXIES = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")


class SDKRefusedError(Exception):
    """An SDK's word for an answer other than 200; it carries the answer's JSON, or lines."""


class SDKProcess:
    """An SDK that takes calls as JSON lines. ``settings`` are those of its constructor."""

    def __init__(self, command: Sequence[str | Path], settings: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name not in _PROXIES},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.given, self.said = self.process.stdin, self.process.stdout
        self.settings = settings

    def end(self) -> None:
        """End the process."""
        self.given.close()
        self.process.wait()
        self.said.close()

    def login(self, **changes: str) -> Any:
        """Construct it, which buys a token; return that and the refresh token."""
        return self.call("RMSDK", {**self.settings, **changes})

    def call(self, name: str, *arguments: object) -> Any:
        """Return the answer to a call. Raises `SDKRefusedError`."""
        self.given.write(json.dumps([name, arguments]) + "\n")
        self.given.flush()
        (outcome,) = json.loads(self.said.readline()).items()
        match outcome:
            case "answer", answer:
                return answer
            case _, content:
                raise SDKRefusedError(content)


def assert_documented(answer: Any, documented: Any, path: str = "$") -> None:
    """Hold that all that RM's example has is there, and of its type where it is not null there."""
    if documented is None:
        return
    assert type(answer) is type(documented), path
    if isinstance(documented, dict):
        assert documented.keys() <= answer.keys(), path
        for name, value in documented.items():
            assert_documented(answer[name], value, f"{path}.{name}")
    elif isinstance(documented, list):
        for item in answer:
            assert_documented(item, documented[0], f"{path}[]")
