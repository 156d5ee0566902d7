"""Scenarios: every mistake has its sentence, and each of the package does what it says."""

import re
import tomllib
from pathlib import Path

import attrs
import pytest
from support.doubles import FakeTime
from support.files import KEY_FILE

from rm_voucher import (
    ConfigurationError,
    Credentials,
    OutcomeUnknownError,
    OutOfStockError,
    PermissionDeniedError,
    VoucherStatus,
    bulk_issue,
)
from rm_voucher.emulator import Fault, FaultPlan
from rm_voucher.emulator.scenario import model, read
from rm_voucher.emulator.scenario.apply import emulator_of
from rm_voucher.emulator.scenario.read import load_scenario, scenario_names, scenario_of

ME = Credentials("client-id", "client-secret", KEY_FILE.read_bytes())
DOCS = Path(__file__).parents[2] / "docs" / "scenarios.md"


@pytest.fixture
def clock():
    return FakeTime()


@pytest.fixture
def play(clock):
    def play(scenario, **options):
        return emulator_of(scenario, credentials=ME, clock=clock.clock, **options)

    return play


@pytest.mark.parametrize(
    ("tables", "sentences"),
    [
        ({"batchs": []}, ["the file has no batchs: did you mean batches?"]),
        ({"xyz": 1}, ["the file has no xyz: there are client_id, client_secret"]),
        ({"seed": "1"}, ["seed is a whole number"]),
        ({"seed": True}, ["seed is a whole number"]),
        ({"title": 5}, ["title is text, in quotes"]),
        ({"batches": [{"quantity": 1}]}, ["batches[0].key is missing"]),
        ({"batches": [{"key": "A", "quantity": -1}]}, ["batches[0]", "quantity"]),
        ({"batches": [{"key": "A", "quantity": 2_000_000}]}, ["batches[0]", "quantity"]),
        ({"batches": [5]}, ["batches[0] is a table or a list"]),
        ({"batches": {"key": "A"}}, ["batches"]),
        ({"batches": [{"key": "A", "redeemed": 1}]}, ["redeemed and used are together"]),
        (
            {"batches": [{"key": "A", "expiry": {"type": "FIXED", "expires_at": "2026"}}]},
            ["is a time"],
        ),
        (
            {"stores": [{"id": "S", "is_authorised": 1}]},
            ["stores[0].is_authorised is true or false"],
        ),
        ({"faults": {"rate": "high"}}, ["faults.rate is a number"]),
        ({"faults": {"rate": True}}, ["faults.rate is a number"]),
        (
            {"faults": {"windows": [{}]}},
            ["faults.windows[0].fault is missing", "start_s is missing"],
        ),
        ({"merchants": {"cafe": {"seed": 1}}}, ["merchants.cafe has no seed"]),
        ({"merchants": {"cafe": {"batches": [{}]}}}, ["merchants.cafe.batches[0].key is missing"]),
        ({"seed": "x", "title": 1}, ["seed is", "title is"]),
        ({"rate_limits": [{"per_s": 1, "at_s": -1}]}, ["rate_limits[0]", "at_s"]),
    ],
)
def test_mistakes(tables, sentences):
    """Each mistake is told with its place, all of them at once."""
    with pytest.raises(ValueError, match=r"\w") as caught:
        scenario_of(tables)
    for sentence in sentences:
        assert sentence in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a = ", "is no TOML"),
        (b"\xff", "is not UTF-8"),
        (b"seed = 'x'", "seed is a whole number"),
        (b"#" * 100, "is over 0 MB"),
    ],
)
def test_files_that_are_refused(tmp_path, monkeypatch, text, words):
    monkeypatch.setattr(read, "_MAX_BYTES", 50)
    path = tmp_path / "x.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigurationError, match=words):
        load_scenario(path)


def test_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigurationError, match="first-steps"):
        load_scenario(str(tmp_path / "none"))


@pytest.mark.parametrize(
    "tables",
    [
        {"guesses": {"no_such": 1}},
        {"guesses": {"listing_delay": 1.0}},
        {"guesses": {"listing_delay_s": "x"}},
        {"guesses": {"page_size": 0}},
        {"guesses": {"used_from": "NEVER", "used_at_digits": 9}},
        {"disabled_checks": ["everything"]},
        {"batches": [{"key": "A"}]},
        {"batches": [{"key": "A", "quantity": 1, "issued": 2}]},
        {"batches": [{"key": "A", "quantity": 1, "type": "CASHH"}]},
        {"faults": {"kinds": ["none such"]}},
        {"faults": {"operations": ["none such"]}},
        {"callbacks": {"url": "x"}},
        {"members": [{"country_code": "x", "phone_number": "1"}]},
        {"members": [{"country_code": "6", "phone_number": "1", "vouchers": {"A": 1}}]},
        {"client_id": ""},
    ],
)
def test_what_can_not_be_played(tables):
    """What only the emulator can refuse is a sentence, too."""
    with pytest.raises(ConfigurationError):
        emulator_of(scenario_of(tables))


def test_all_that_a_scenario_can_say(play):
    """The page's example holds: batches with their counts, members, faults, limits, a merchant."""
    (block,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    emulator = play(scenario_of(tomllib.loads(block)))
    counts = emulator.state.stock.batch("TEA").counts
    assert (counts[VoucherStatus.REDEEMED], counts[VoucherStatus.VOID]) == (5, 2)
    assert len(emulator.issued("TEA")) == 11
    assert emulator.rate_limit == 50
    assert emulator.guesses.listing_delay_s == 5
    assert emulator.state.stores() == {"KL-1": True}
    assert emulator.callbacks.url == "http://127.0.0.1:8000/callback"
    assert emulator.find_merchant("cafe").client_id == "cafe"
    assert emulator.find_merchant("cafe").batch("TEA").quantity == 20
    assert [batch.key for batch in emulator.state.stock.ours()] == ["TEA"]
    emulator.advance(130)
    assert [batch.key for batch in emulator.state.stock.ours()] == ["TEA", "LATER"]
    assert emulator.rate_limit is None
    first = list(emulator.issued("TEA"))
    emulator.reset()
    assert emulator.rate_limit == 50
    assert [batch.key for batch in emulator.state.stock.ours()] == ["TEA"]
    assert list(emulator.issued("TEA")) == first


def test_batch_with_an_end(play):
    """A time without a zone is in UTC."""
    tables = tomllib.loads(
        '[[batches]]\nkey = "A"\nquantity = 1\n'
        'expiry = { type = "FIXED", expires_at = 2090-01-01T00:00:00 }'
    )
    expiry = play(scenario_of(tables)).batch("A").expiry
    assert expiry is not None
    assert str(expiry.expires_at) == "2090-01-01 00:00:00+00:00"


def test_keys_are_those_of_the_page():
    """The table of keys on the page is that of the model."""
    rows = dict(
        re.findall(r"^\| (?:`(\w+)`|a merchant|the file) \| (.*) \|$", DOCS.read_text(), re.M)
    )
    shown = {name: re.findall(r"`(\w+)`", keys) for name, keys in rows.items() if name}
    tables = {
        "batches": model.BatchTable,
        "expiry": model.ExpiryTable,
        "members": model.MemberTable,
        "stores": model.StoreTable,
        "faults": model.FaultsTable,
        "windows": model.WindowTable,
        "rate_limits": model.RateTable,
        "callbacks": model.CallbacksTable,
    }
    for name, table in tables.items():
        assert sorted(shown[name]) == sorted(field.name for field in attrs.fields(table))
    text = DOCS.read_text()
    for field in attrs.fields(model.Scenario):
        assert f"`{field.name}`" in text
    assert all(f"`{name}`" in text for name in scenario_names())


@pytest.mark.parametrize(
    "name", ["first-steps", "bad-day", "sells-out", "till-rush", "slow-listing"]
)
def test_packaged_ones_are_whole(name):
    assert name in scenario_names()
    assert load_scenario(name).title


def without_waits(emulator):
    """Return a runtime whose waits set the emulator's clock ahead."""

    async def sleep(seconds):
        emulator.advance(seconds)

    return attrs.evolve(emulator.runtime, sleep=sleep, monotonic=emulator.virtual_clock.now)


async def test_first_steps(play):
    emulator = play("first-steps")
    member = emulator.state.member("60", "123456789")
    assert [record.batch.key for record in member.vouchers] == ["BREAKFAST", "BREAKFAST"]
    async with emulator.client() as client:
        for key in ("BREAKFAST", "RAYA", "TEA"):
            voucher = await client.void((await client.issue(key)).code)
            assert voucher.status == "VOID"


async def test_bad_day(play):
    """A bulk issue through it loses none and issues none twice."""
    emulator = play("bad-day")
    async with (
        emulator.client(runtime=without_waits(emulator)) as client,
        bulk_issue(client, "BREAKFAST", range(300), concurrency=8) as run,
    ):
        results = [result async for result in run]
    codes = [result.voucher.code for result in results if result.voucher]
    assert len(set(codes)) == len(codes)
    assert set(codes) | set(emulator.undelivered) >= set(emulator.issued("BREAKFAST"))
    assert sum(emulator.faults_met.values()) > 20


async def test_sells_out(play):
    emulator = play("sells-out")
    async with emulator.client() as client:
        for _ in range(20):
            await client.issue("BREAKFAST")
        with pytest.raises(OutOfStockError):
            await client.issue("BREAKFAST")
        emulator.advance(30)
        assert (await client.issue("BREAKFAST-2")).code


async def test_till_rush(play):
    """A void whose answer is lost is unknown until it is looked up; a store that may not can't."""
    emulator = play("till-rush", seed=3)
    codes = emulator.issued("LUNCH")
    assert emulator.callbacks.interval_s == 2
    emulator.fail_next("void", Fault.DROP_AFTER_COMMIT)
    async with emulator.client(runtime=without_waits(emulator)) as client:
        with pytest.raises(OutcomeUnknownError):
            await client.void(codes[0], store_id="KL-1")
        assert (await client.get(codes[0])).status == "VOID"
        emulator.faults = FaultPlan()
        with pytest.raises(PermissionDeniedError):
            await client.void(codes[1], store_id="JB-1")


async def test_slow_listing(play):
    """What is issued is listed after 20 seconds only, and an answer that is lost stays unknown."""
    emulator = play("slow-listing")
    emulator.fail_next("issue", Fault.DROP_AFTER_COMMIT)
    async with emulator.client() as client:
        with pytest.raises(OutcomeUnknownError):
            await client.issue("BREAKFAST")
        assert [found async for found in client.vouchers("BREAKFAST")] == []
        emulator.advance(21)
        assert len([found async for found in client.vouchers("BREAKFAST")]) == 1
