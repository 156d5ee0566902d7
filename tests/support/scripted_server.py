"""Servers that answer by a script, and keep what they were sent."""

from __future__ import annotations

from collections.abc import Iterable

from support.answers import Answer, ok, payload, rm_error

from rm_voucher import Request, Response, Transport
from rm_voucher.transport.memory import MemoryTransport


class ScriptedServer:
    """Answers requests in the order of a script, and keeps what it was sent."""

    def __init__(self, answers: Iterable[Answer]) -> None:
        self.answers = list(answers)
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        assert self.answers, f"one request too many: {request.method} {request.url}"
        answer = self.answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return answer if isinstance(answer, Response) else answer(request)

    @property
    def paths(self) -> list[str]:
        return [f"{r.method} {r.url.raw_path}" for r in self.requests]

    @property
    def transport(self) -> Transport:
        return MemoryTransport(self)


class Recorder:
    """Gives tokens, knows no voucher, and keeps what it was asked."""

    def __init__(self) -> None:
        self.requests: list[Request] = []

    def __call__(self, request: Request) -> Response:
        self.requests.append(request)
        if request.operation == "token":
            return ok(payload("token-client-credentials"))
        return rm_error("VOUCHER_NOT_FOUND", 404)
