"""The one place that reads and writes JSON, held against another library and the standard one."""

import decimal
import enum
import json
import math
import uuid
from datetime import UTC, date, datetime
from typing import NamedTuple

import orjson
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rm_voucher import jsontext
from rm_voucher.jsontext import indented, read_json, write_json, write_strictly

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(-1e15, 1e15).filter(lambda number: not number or abs(number) > 1e-4)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner)
    ),
    max_leaves=20,
)


def told(read, text):
    """Return what a reader makes of a text, types too, or that it refuses it."""
    try:
        return repr(read(text))
    except ValueError:
        return "refused"


@given(VALUES)
@example({"b": 1, "a": '<\u2028\x7f\x00\b\f\n\r\t"\\/é\U0001f600', "é": [], "\uffff": {}})
def test_what_is_written(value):
    """The bytes are those of the standard library, and of another one; ids are digests of them."""
    plain = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    assert write_json(value) == orjson.dumps(value)
    assert json.loads(write_json(value)) == value
    in_order = orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
    assert write_json(value, sort_keys=True) == write_strictly(value) == in_order
    assert indented(write_json(value)) == orjson.dumps(value, option=orjson.OPT_INDENT_2)
    assert repr(read_json(plain)) == repr(orjson.loads(plain))


@given(VALUES)
def test_what_was_written_is_read(value):
    """Nothing of a value is lost on the way."""
    assert read_json(write_json(value)) == value


NUMBERS = "0123456789-+.eE"


@given(st.text(NUMBERS) | st.integers(-(2**70), 2**70).map(str) | st.floats().map(repr))
@example("9223372036854775807")
@example("-9223372036854775808")
@example("-9223372036854775809")
@example("18446744073709551615")
@example("18446744073709551616")
@example("9" * 308)
@example("9" * 309)
@example("9" * 5000)
@example("1e999")
@example("-0")
@example("NaN")
@example("-Infinity")
def test_numbers(number):
    """An integer of more than 64 bits is a float; none is infinite, and none begins with a zero."""
    for text in (number, f'{{"a": [{number}, "x"]}}'):
        assert told(read_json, text.encode()) == told(orjson.loads, text.encode())


@given(st.binary() | st.text('[]{}:,"\\ud8dD0 \x00\x1f\ufeff').map(lambda text: text.encode()))
@example(b"")
@example(b" 1 ")
@example(b"1\x00")
@example(b"1 2")
@example(b"\xef\xbb\xbf1")
@example(b'"\\ud800"')
@example(b'"\\ud83d\\ude00"')
@example(b'"\xed\xa0\x80"')
@example(b'{"\xff": 1}')
@example(b'{"a": 1, "a": 2}')
@example(b'"a\x00b"')
@example(b"[1,]")
@example(b"'a'")
@example('{"n": 1}'.encode("utf-16"))
def test_strange_bytes(text):
    """Of bytes that are no JSON, nothing is read; of a key that comes twice, the last value."""
    assert told(read_json, text) == told(orjson.loads, text)
    assert told(read_json, bytearray(text)) == told(read_json, text)


@pytest.mark.parametrize("text", ["\ud800", '"\ud800"', "secret", "[" * 100_000])
def test_text_that_is_no_json(text):
    """Text is read as bytes are. The error does not quote it, nor do its causes."""
    with pytest.raises(ValueError) as caught:
        read_json(text)
    if "\ud800" not in text:
        assert str(caught.value) == "no JSON"
        assert caught.value.__suppress_context__
    assert read_json(' {"a": "é"} ') == {"a": "é"}


@pytest.mark.parametrize(("labels", "copies"), [(10, 0), (2_000, 1)])
def test_labels_with_long_numbers_cost_nothing(labels, copies, monkeypatch):
    """A page of them is not copied, unless there are too many to look at."""
    copied = []

    def copy(value):
        copied.append(value)
        return value

    monkeypatch.setattr(jsontext, "_with_floats", copy)
    page = [{"label": "card 1234567890123456789", "key": "9876543210987654321"}] * labels
    assert read_json(json.dumps(page)) == page
    assert len(copied) == copies


class Text(str):
    """Such as a template engine's, which is marked as safe."""

    __slots__ = ()


class Pair(NamedTuple):
    a: int


class Colour(enum.Enum):
    RED = "red"


class Odd(enum.Enum):
    LARGE = 2**70
    TIME = datetime(2026, 11, 30, tzinfo=UTC)
    TUPLE = (1, b"x")


@pytest.mark.parametrize("member", Odd)
def test_member_is_refused_as_its_value_is(member):
    """What can't be signed can't be by way of an enum."""
    with pytest.raises(TypeError):
        write_strictly(member.value)
    with pytest.raises(TypeError):
        write_strictly([member])


class Number(enum.IntEnum):
    ONE = 1


ID = uuid.UUID(int=1)
THEMSELVES = [
    (Text("a"), b'"a"'),
    ({"a": (1, [Text("<")], {"b": None})}, b'{"a":[1,["<"],{"b":null}]}'),
    (Colour.RED, b'"red"'),
    (Number.ONE, b"1"),
    (type("Mine", (int,), {})(7), b"7"),
    (ID, b'"00000000-0000-0000-0000-000000000001"'),
    ([math.nan, math.inf], b"[null,null]"),
]


@pytest.mark.parametrize(("value", "text"), THEMSELVES)
def test_values_that_are_text_or_numbers(value, text):
    """What is text or a number by its class is written as one."""
    assert write_json(value) == write_strictly(value) == text


HIMSELF: list[object] = []
HIMSELF.append(HIMSELF)


@pytest.mark.parametrize(
    "value",
    [
        object(),
        date(2026, 1, 1),
        datetime(2026, 1, 1, tzinfo=UTC),
        decimal.Decimal("1.5"),
        b"secret",
        {"secret"},
        frozenset(),
        Pair(1),
        type("Mine", (float,), {})(1.5),
        {1: 2},
        {None: 2},
        {Text("a"): 2},
        2**64,
        -(2**63) - 1,
        "\ud800",
        HIMSELF,
    ],
)
def test_what_is_no_json(value):
    """What would be text by a convention alone is refused; the words name types, and no value."""
    for inside in (value, [value], {"a": value}, ("b", value)):
        with pytest.raises(TypeError) as caught:
            write_strictly(inside)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize("value", [object(), "\ud800", HIMSELF])
def test_what_can_not_be_written(value):
    """Not even what is ours is written, if there is no JSON for it."""
    with pytest.raises(TypeError):
        write_json(value)


def test_numbers_as_somebody_else_writes_them():
    """Floats alone are written so, at every depth; what is no number stays null."""
    inner = (2.5, 3, "4.5", math.nan)
    value = {"b": [1.5, inner], "a": True}
    assert write_strictly(value, number=lambda number: f"{number:.0e}") == (
        b'{"a":true,"b":[2e+00,[2e+00,3,"4.5",null]]}'
    )
    assert write_strictly(0.5, number=lambda _: "7") == b"7"
    assert value == {"b": [1.5, inner], "a": True}
