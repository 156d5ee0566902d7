"""A whole emulator as JSON: exported, imported, kept in a file, put back after a test."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from rm_voucher.emulator.guesses import guesses_of
from rm_voucher.emulator.merchant import Merchant, MerchantOptions
from rm_voucher.emulator.records import save_record
from rm_voucher.emulator.site import Site
from rm_voucher.settings import Credentials
from rm_voucher.signing.rsa import RsaSigner

VERSION = 1
"""Of the form. Another one can't be read."""


def save(site: Site, merchants: Sequence[Merchant]) -> dict[str, Any]:
    """Return an emulator as JSON can hold it, without the vouchers: see `vouchers_of`."""
    signer = site.callback_signer
    key = None if signer is None else base64.b64encode(signer.private_key_der()).decode()
    return {
        "version": VERSION,
        "ahead_s": site.clock.ahead_s,
        "requests": site.journal.number,
        "callback_key": key,
        "merchants": [
            {
                "name": merchant.name,
                "number": merchant.number,
                "options": save_options(merchant),
                **merchant.dump(),
            }
            for merchant in merchants
        ],
    }


def vouchers_of(merchant: Merchant) -> dict[str, list[Any]]:
    """Return a merchant's vouchers as they are saved, by their batch."""
    stock = merchant.books.stock
    return {
        batch.key: [save_record(record) for record in stock.rows(batch)] for batch in stock.all()
    }


def callback_signer_of(saved: Mapping[str, Any]) -> RsaSigner | None:
    """Return the key that signed callbacks, if any was made."""
    key = saved["callback_key"]
    if key is None:
        return None
    lines = f"-----BEGIN PRIVATE KEY-----\n{key}\n-----END PRIVATE KEY-----\n"
    return RsaSigner.from_pem(lines.encode())


def options_of(saved: Mapping[str, Any]) -> MerchantOptions:
    """Return the options that a merchant was made with."""
    given = dict(saved["options"])
    guesses = dict(given.pop("guesses"))
    private_key, public_key = given.pop("private_key"), given.pop("public_key")
    seed = given.pop("seed")
    identity = given.pop("client_id"), given.pop("client_secret")
    options: MerchantOptions = {**given, "guesses": guesses_of(guesses), "seed": seed and int(seed)}  # type: ignore[typeddict-item]
    if private_key is None:
        options["client_id"], options["client_secret"] = identity
        options["public_key"] = public_key.encode()
    else:
        options["credentials"] = Credentials(*identity, private_key.encode())
    return options


def save_options(merchant: Merchant) -> dict[str, Any]:
    """Return what a merchant was made with, as it is saved."""
    credentials, options = merchant.known_credentials, merchant.options
    return {
        "client_id": merchant.client_id,
        "client_secret": merchant.client_secret,
        "private_key": None if credentials is None else credentials.private_key_pem().decode(),
        "public_key": merchant.public_key_pem.decode(),
        "guesses": attrs.asdict(merchant.guesses),
        **options,
    }
