"""Schemathesis calls a served emulator as its description says, and otherwise: no 5xx, and no
answer that is not described. OPENAPI_REQUESTS is about how many requests; `nox -s openapi` makes
more than 5,000."""

import base64
import math
import os
import secrets
import time
from collections import Counter

import orjson
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from support.raw_connection import ME, SIGNER
from support.threads import in_thread

from rm_voucher.emulator import Check, Emulator, Guesses
from rm_voucher.emulator.control.endpoints import ENDPOINTS
from rm_voucher.emulator.control.openapi import VOUCHERS, describe
from rm_voucher.emulator.server import serve
from rm_voucher.signing import format_signature, string_to_sign
from rm_voucher.signing.signature import go_json

pytestmark = pytest.mark.long

SCHEMA = schemathesis.openapi.from_dict(orjson.loads(orjson.dumps(describe(ENDPOINTS, Guesses()))))
OPERATIONS = {
    found.ok().label: found.ok()
    for found in SCHEMA.get_all_operations()
    if isinstance(found, Ok)  # of a valid description all are
}
REQUESTS = int(os.environ.get("OPENAPI_REQUESTS", "1500"))
EACH = math.ceil(REQUESTS / len(OPERATIONS))
MANY = 50
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
NUMBER = ("60", "123456789")
PIN = "123456"
SIGNINGS = st.sampled_from(["right", "right", "right", "other", "none"])
NOBODY = "http://127.0.0.1:9/"  # where nothing listens


def granting(merchant):
    """Return the header with which a merchant's client asks for a token."""
    identity = f"{merchant.client_id}:{merchant.client_secret}".encode()
    return {"authorization": f"Basic {base64.b64encode(identity).decode()}"}


def furnish(merchant):
    """Give a merchant a voucher in each status, a member with one, stores, and a delivery."""
    merchant.callbacks.url = NOBODY
    member = merchant.add_member(*NUMBER)
    state = merchant.state
    codes = {name: state.issue("K")[0] for name in ("issued", "redeemed", "void", "theirs")}
    state.redeem([codes["redeemed"]])
    state.void(codes["void"])
    state.collect(codes["theirs"], member)
    return codes


def known(operation, merchant, codes):
    """Return values that exist, for a path, a query and a body of an operation."""
    path = operation.path
    code = "theirs" if "/me/" in path else "void" if "reinstate" in path else "issued"
    names = {
        "key": "K",
        "code": codes[code],
        "place": "0",
        "number": ("1" if merchant.name == "main" else "2")
        if "exchanges" in path
        else str(merchant.callbacks.newest()[0].number),
        "merchant": merchant.name,
        "name": "other" if operation.method == "delete" else merchant.name,
        "action": "void",
    }
    # A batch has a new key each time, and a number of vouchers or codes.
    body = {"pin": PIN, "codes": [codes["issued"]], "fault": "throttle", "quantity": 3}
    body |= {"key": secrets.token_hex(8), "name": secrets.token_hex(8)}
    body |= {"country_code": NUMBER[0], "phone_number": NUMBER[1], "batches": {}}
    body |= {"grantType": "client_credentials", "url": NOBODY, "callback_url": NOBODY}
    return names, dict(zip(("countryCode", "phoneNumber"), NUMBER, strict=True)), body


def put_known(case, operation, merchant, codes):
    """Put what exists into the place of what was made up."""
    names, query, body = known(operation, merchant, codes)
    for name in case.path_parameters or ():
        case.path_parameters[name] = names[name]
    case.query = {
        name: query.get(name, value)
        for name, value in (case.query or {}).items()
        if name in query or name not in ("cursor", "filter")
    }
    if operation.path.endswith("/import"):
        case.body = merchant.export()
    elif isinstance(case.body, dict):
        case.body = {name: body.get(name, value) for name, value in case.body.items()}
        if operation.path.endswith("/batches"):
            case.body = {"quantity": 3, "key": body["key"]}


def signed(prepared, signing, token):
    """Return the headers of a signed request, or of one that is signed with another text."""
    body = prepared.body or b""
    body = body.encode() if isinstance(body, str) else body
    try:
        canonical = go_json(body) if body and orjson.loads(body) is not None else b""
    except orjson.JSONDecodeError:
        canonical = b""
    nonce, timestamp = secrets.token_hex(8), str(int(time.time()))
    text = string_to_sign(
        method=prepared.method, url=prepared.url, nonce=nonce, timestamp=timestamp, body=canonical
    )
    if signing == "other":
        text += " "
    return {
        "authorization": f"Bearer {token}",
        "x-nonce-str": nonce,
        "x-timestamp": timestamp,
        "x-signature": format_signature(SIGNER.sign(text.encode())),
    }


@pytest.mark.parametrize("disabled", [(), (Check.SIGNATURE,)], ids=["", "unsigned"])
@pytest.mark.parametrize("label", OPERATIONS)
def test_every_answer_is_described(label, disabled, record_property):
    operation = OPERATIONS[label]
    is_voucher_api = operation.tags == [VOUCHERS]
    if disabled and not is_voucher_api:
        return  # the control API is never signed
    emulator = Emulator(seed=1, credentials=ME, batches={"K": 10_000}, disabled_checks=disabled)
    other = emulator.merchant("other", batches={"K": 10_000})
    met: Counter[int] = Counter()
    with in_thread(lambda: serve(emulator)) as server, requests.Session() as session:
        server_url = server.url
        for each in (emulator, other):  # something for the journal
            grant = each.authenticator.grant(granting(each), {"grantType": "client_credentials"})
            bearer = {"authorization": f"Bearer {grant['accessToken']}"}
            session.get(f"{server_url}/v3/voucher-batches", headers=bearer)

        @settings(
            max_examples=EACH,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(
            case=st.one_of(
                operation.as_strategy(schemathesis.GenerationMode.POSITIVE),
                operation.as_strategy(schemathesis.GenerationMode.NEGATIVE),
            ),
            signing=SIGNINGS,
            is_known=st.booleans(),
        )
        def run(case, signing, is_known):
            merchant = other if "{merchant}" in operation.path else emulator
            if is_known:
                put_known(case, operation, merchant, furnish(merchant))
            prepared = session.prepare_request(
                requests.Request(**case.as_transport_kwargs(base_url=server_url))
            )
            if operation.path == "/v1/token":
                prepared.headers.update(granting(emulator) if signing == "right" else {})
            elif is_voucher_api and signing != "none":
                grant = emulator.authenticator.grant(
                    granting(emulator), {"grantType": "client_credentials"}
                )
                prepared.headers.update(signed(prepared, signing, grant["accessToken"]))
            answer = session.send(prepared, timeout=10)
            met[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        run()
    record_property("answers", dict(met))
    if EACH >= MANY:  # with fewer it may be by chance
        assert met[200], "no request of it came through"
