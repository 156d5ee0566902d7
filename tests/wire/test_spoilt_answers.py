"""Spoilt answers: whatever a server sends, a parser returns its model or raises one of our errors.

A few thousand are tried with the other tests; ``nox -s fuzz`` tries 200,000, and says how they end.
"""

import functools
import json
import math
import os
import random
import sys
import typing
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from support.answers import finished
from support.files import PAYLOADS
from support.mutations import mutate

from rm_voucher import (
    APIError,
    IssuedVoucher,
    Page,
    Response,
    Token,
    Voucher,
    VoucherBatch,
    VoucherError,
)
from rm_voucher.wire import operations as p

CASES = int(os.environ.get("FUZZ_CASES", "8000"))
FEW_CASES = 2000
SEED = int(os.environ.get("FUZZ_SEED", "20261121"))
BODIES = {path.stem: path.read_bytes() for path in sorted(PAYLOADS.iterdir())}
BATCH = json.loads(BODIES["list-batches"])["items"][0]
BODIES["batch"] = json.dumps({"item": BATCH, "code": "SUCCESS"}).encode()
# Each parser, what it returns, and the payload that is its own.
PARSERS: dict[str, tuple[Any, type, str]] = {
    "parse_issue": (p.parse_issue, IssuedVoucher, "issue-voucher"),
    "parse_get": (functools.partial(p.parse_get, code="NAklEfbVdV"), Voucher, "get-voucher"),
    "parse_void": (functools.partial(p.parse_void, code="NAklEfbVdV"), Voucher, "void-voucher"),
    "parse_reinstate": (
        functools.partial(p.parse_reinstate, code="8JwpM3BC"),
        *(Voucher, "reinstate-voucher"),
    ),
    "parse_member_redeem": (
        functools.partial(p.parse_member_redeem, code="rms@xR43u4bRhUU"),
        *(Voucher, "member-redeem"),
    ),
    "parse_redeem": (p.parse_redeem, tuple, "redeem-vouchers"),
    "parse_vouchers": (p.parse_vouchers, Page, "list-batch-vouchers"),
    "parse_batch": (
        functools.partial(p.parse_batch, batch_key=BATCH["key"]),
        VoucherBatch,
        "batch",
    ),
    "parse_batches": (p.parse_batches, Page, "list-batches"),
    "parse_token": (p.parse_token, Token, "token-client-credentials"),
    "parse_any": (p.parse_any, Response, "error"),
}
CODES = ("NAklEfbVdV", "8JwpM3BC", "rms@xR43u4bRhUU", "32zSv2W8", "UUEra22VSy2", "accesstoken")
HINTS = {
    model: typing.get_type_hints(model)
    for model in (IssuedVoucher, Token, Voucher, VoucherBatch, Page)
}
OPAQUE = {"extra", "address", "member_profile", "redemption_rule", "payload", "items", "expiry"}


def test_parsers_are_all_here():
    """A new parser has its row."""
    assert set(PARSERS) == {name for name in vars(p) if name.startswith("parse_")}


def check_model(model):
    """Hold each field against its annotation: exact types, amounts whole and not negative."""
    if isinstance(model, Response):
        return
    if isinstance(model, tuple):
        for item in model:
            check_model(item)
        return
    for name in attrs.fields_dict(type(model)):
        value = getattr(model, name)
        if name == "items":
            assert type(value) is tuple
            check_model(value)
        elif name == "expiry" and value is not None:
            assert value.days is None or (type(value.days) is int and value.days >= 0)
            assert value.expires_at is None or value.expires_at.tzinfo is UTC
        elif name not in OPAQUE and value is not None:
            kinds = typing.get_args(HINTS[type(model)][name]) or (HINTS[type(model)][name],)
            assert type(value) in kinds, name
            assert not isinstance(value, datetime) or value.tzinfo is UTC
            if type(value) is int and name != "count":
                assert value >= 0, name


def check_change(name, model):
    """A change that is said to have been made is shown by the voucher itself."""
    if name == "parse_void":
        assert model.status == "VOID"
    if name == "parse_member_redeem":
        assert model.status in ("VOID", "REDEEMED")
    if name == "parse_reinstate":
        assert model.status is not None
        assert model.status != "VOID"
    if name in ("parse_void", "parse_member_redeem", "parse_reinstate"):
        wanted = PARSERS[name][0].keywords["code"]
        assert model.code is None or model.code.casefold() == wanted.casefold()
    if name == "parse_batch":
        assert model.key == BATCH["key"]
    if name == "parse_issue":
        assert model.code.strip()
    if name == "parse_token":
        assert model.access_token.isascii()
        assert model.access_token.isprintable()


def try_one(name, answer):
    """Return how the parser took the answer, by class."""
    parse, model, _ = PARSERS[name]
    try:
        result = finished(parse(answer))
    except VoucherError as exc:
        text = str(exc)
        if isinstance(exc, APIError):
            text = text.removeprefix(exc.code)  # what stands there is taken for an error code
            assert exc.http_status == answer.status
            asked_s = exc.retry_after_s
            assert asked_s is None or (math.isfinite(asked_s) and asked_s >= 0)
        assert not any(code in text for code in CODES)
        return f"raised {type(exc).__name__}"
    assert isinstance(result, model)
    assert 200 <= answer.status < 300
    check_model(result)
    check_change(name, result)
    return f"returned {model.__name__}"


@pytest.mark.parametrize("cases", [FEW_CASES, pytest.param(CASES, marks=pytest.mark.long)])
def test_mutated_answers(cases):
    """Of thousands of spoilt answers, each gives its parser's model with every field of its type,
    or an error of ours that shows no code; a status that is no success never gives a model."""
    rng = random.Random(SEED)
    names, payloads = list(PARSERS), list(BODIES.values())
    ends: Counter[str] = Counter()
    for number in range(cases):
        name = names[number % len(names)]
        # Mostly its own payload, else what another operation answers.
        payload = BODIES[PARSERS[name][2]] if rng.random() < 0.85 else rng.choice(payloads)
        answer = mutate(rng, payload)
        try:
            ends[try_one(name, answer)] += 1
        except Exception as exc:
            raise AssertionError(
                f"{name} of HTTP {answer.status} {answer.headers} {answer.body[:3000]!r}"
            ) from exc
    returned = sum(count for end, count in ends.items() if end.startswith("returned"))
    # Neither spoils it everything nor nothing, or it would prove little.
    assert 0.1 < returned / sum(ends.values()) < 0.6
    if "FUZZ_CASES" in os.environ:
        sys.stdout.write(f"\n{cases:8} answers of seed {SEED}\n")
        for end, count in ends.most_common():
            sys.stdout.write(f"{count:8} {end}\n")


def test_payloads_unspoilt_are_returned():
    """Each parser returns its model for its own payload as it is."""
    for name in set(PARSERS) - {"parse_any"}:
        body = BODIES[PARSERS[name][2]]
        assert try_one(name, Response(status=200, body=body)).startswith("returned")
