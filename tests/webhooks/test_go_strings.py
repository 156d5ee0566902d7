"""The body that RM signs is written by Go's encoder: its rules for texts, by hand."""

from __future__ import annotations

import json
from typing import Any

import attrs
import pytest
from support.deliveries import NONCE, NOW, SIGNER, deliver, verifier
from support.files import TESTS
from support.rm_signature import expected_text

from rm_voucher.signing import canonical_json, format_signature

VECTORS: list[dict[str, Any]] = json.loads((TESTS / "vectors" / "go-strings.json").read_text())


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["rule"])
@pytest.mark.parametrize("url", [None, "https://shop.invalid/callback?shop=1%2B1"])
def test_delivery_that_go_signed(vector: dict[str, Any], url: str | None) -> None:
    """A delivery is accepted whose signature is of the text as Go writes it, URL or not."""
    signed = vector["signed"].encode()
    assert canonical_json(vector["value"]) == signed
    text = expected_text("POST", url or "", NONCE, str(NOW), signed)
    if url is None:
        text = text.replace("&requestUrl=", "")
    delivery = attrs.evolve(
        deliver(vector["value"]), signature=format_signature(SIGNER.sign(text.encode()))
    )
    assert verifier().authenticate(*delivery) == vector["value"]
