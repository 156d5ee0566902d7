"""Random input, in memory: only answers come of it, never an exception, never a 500."""

import functools

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.doubles import FakeTime
from support.raw_connection import ME
from yarl import URL

from rm_voucher import Request, Response
from rm_voucher.emulator import Emulator
from rm_voucher.emulator.control.dispatch import control
from rm_voucher.emulator.guesses import Check
from rm_voucher.emulator.masking import mask_path

RULES = [Check.TOKEN, Check.SIGNATURE, Check.TIMESTAMP, Check.NONCE]
WORDS = "v1 v3 token voucher-batch voucher-batches voucher vouchers issue void reinstate redeem "
WORDS += "loyalty me K X STATIC members clock callbacks reset faults batches expire _emulator"
NAMES = "pin reason codes storeId usedAt grantType refreshToken key label quantity type amount_sen "
NAMES += "discount_rate_bp minimum_spend_sen expiry static_code rate kinds seed operations windows "
NAMES += "fault start_s length_s slow_body_s stall_s listing_delay_s late_s retry_after_s "
NAMES += "advance_s url interval_s signs_url "
NAMES += "country_code phone_number name day expiredAt"
VALUES = "K X STATIC 60 1 123456 CASH FIXED DYNAMIC client_credentials refresh_token closed issue "
VALUES += "late-commit 2030-01-01T00:00:00Z http://["
raw_path = st.from_regex(r"[!$-;=@-~]{0,12}", fullmatch=True).map(
    lambda text: text.replace("?", "")
)
paths = st.lists(st.one_of(st.sampled_from(WORDS.split()), raw_path), max_size=6).map("/".join)
leaves = st.one_of(
    st.none(), st.booleans(), st.floats(), st.integers(-(2**63), 2**64 - 1), st.integers(-5, 5),
    st.sampled_from(VALUES.split()), st.text(max_size=5),
)  # fmt: skip
values = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from(NAMES.split()), inner, max_size=3),
    ),
    max_leaves=8,
)
objects = st.dictionaries(
    st.one_of(st.sampled_from(NAMES.split()), st.text(max_size=3)), values, max_size=4
)
bodies = st.one_of(st.binary(max_size=30), values.map(orjson.dumps), objects.map(orjson.dumps))
names = st.sampled_from(["cursor", "limit", "filter", "countryCode", "phoneNumber", "x"])
queries = st.one_of(raw_path, st.lists(st.tuples(names, raw_path), max_size=4).map(
    lambda pairs: "&".join(f"{name}={value}" for name, value in pairs)
))  # fmt: skip
methods = st.sampled_from(["GET", "POST", "PUT", "PATCH", "DELETE", "X"])
headers = st.dictionaries(
    st.sampled_from(["Authorization", "X-Signature", "X-Nonce-Str", "X-Timestamp", "Content-Type"]),
    st.one_of(
        st.text(max_size=12), st.sampled_from(["Bearer x", "Basic x", "sha256 AAAA", "1700000000"])
    ),
)


@functools.cache
def made(disabled):
    """Make an emulator once: a key takes its time to parse."""
    clock = FakeTime().clock
    return Emulator(seed=1, credentials=ME, batches={"K": 5}, disabled_checks=disabled, clock=clock)


def emulator_with(disabled):
    emulator = made(tuple(disabled))
    emulator.reset()
    emulator.callbacks.url = None
    emulator.add_batch("x", codes=["X"])
    emulator.add_batch("y", static_code="STATIC", quantity=2)
    emulator.add_member("60", "1")
    return emulator


@pytest.mark.parametrize("disabled", [(), RULES, list(Check)], ids=["none", "access", "all"])
@given(st.lists(st.tuples(methods, paths, queries, headers, bodies), min_size=1, max_size=5))
def test_api(disabled, requests):
    """Whatever is asked of the API gets an answer of RM's shape."""
    emulator = emulator_with(disabled)
    for method, path, query, given_headers, body in requests:
        request = Request(
            operation="x",
            method=method,
            url=URL(f"https://emulator.invalid/{path}?{query}", encoded=True),
            headers=given_headers,
            body=body,
        )
        answer = emulator.handle(request)
        assert answer.status < 500
        assert {"code", "error", "accessToken"} & orjson.loads(answer.body).keys()


@given(st.lists(st.tuples(methods, paths, bodies), min_size=1, max_size=5))
def test_control(requests):
    """Whatever is asked of the control API gets an answer in JSON; a problem has a sentence."""
    emulator = emulator_with(list(Check))
    for method, path, body in requests:
        answer = control(emulator, method, f"/_emulator/{path}", body)
        assert isinstance(answer, Response)
        assert answer.status in (200, 400, 404, 405, 409)
        wire = orjson.loads(answer.body)
        assert answer.status == 200 or wire["error"]


FIELDS = {
    ("POST", "fail-next"): ["operation", "fault", "times"],
    ("PUT", "rate-limit"): ["per_s"],
    ("POST", "batches"): [
        "key",
        "quantity",
        "type",
        "amount_sen",
        "expiry",
        "codes",
        "static_code",
    ],
    ("PUT", "faults"): [
        "rate",
        "kinds",
        "seed",
        "operations",
        "windows",
        "late_s",
        "retry_after_s",
    ],
    ("POST", "vouchers/X/redeem"): ["country_code", "phone_number"],
    ("POST", "members"): ["country_code", "phone_number", "name"],
    ("POST", "clock"): ["advance_s"],
    ("PUT", "callbacks"): ["url", "interval_s"],
}


@pytest.mark.parametrize(("method", "path"), FIELDS)
@given(st.data())
def test_control_fields(method, path, data):
    """Fields that there are, with values of all kinds, get an answer, and all can be read."""
    emulator = emulator_with(list(Check))
    fields = st.dictionaries(st.sampled_from(FIELDS[method, path]), values, max_size=4)
    body = orjson.dumps(data.draw(fields))
    answer = control(emulator, method, f"/_emulator/{path}", body)
    assert answer.status in (200, 400, 404, 409)
    for name in ("batches", "faults", "callbacks"):
        assert control(emulator, "GET", f"/_emulator/{name}", b"").status == 200
    request = Request(
        operation="x", method="GET", url=URL("https://emulator.invalid/v3/voucher-batches")
    )
    if not emulator.faults.rate and not emulator.faults.windows:
        assert emulator.handle(request).status == 200


@given(st.text())
def test_log_shows_any_path(path):
    """Any path can be shown, and nothing of it but printable ASCII."""
    shown = mask_path(path)
    assert shown.isascii()
    assert not shown or shown.isprintable()
