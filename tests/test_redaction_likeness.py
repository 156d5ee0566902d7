"""A likeness of an error: what an error reporter may be shown of a user's function that failed."""

import asyncio
import traceback

import pytest
from support.canaries import CODE, in_error

from rm_voucher import ConnectError
from rm_voucher.redaction import likeness


def mask(text):
    return text.replace(CODE, "…")


def caught(function):
    try:
        function()
    except BaseException as exc:  # noqa: BLE001 - whatever it is
        return exc
    raise AssertionError("nothing was raised")


def plain():
    code = CODE
    raise KeyError(code)


def caused():
    try:
        plain()
    except KeyError as exc:
        raise ValueError(f"no {CODE}") from exc


def hidden():
    try:
        plain()
    except KeyError:
        raise ValueError(CODE) from None


def noted():
    error = ValueError("x")
    error.add_note(f"of {CODE}")
    raise error


def group():
    raise ExceptionGroup(f"all of {CODE}", [caught(plain), caught(caused)])


def base_group():
    raise BaseExceptionGroup("x", [asyncio.CancelledError(CODE)])


def in_a_circle():
    first, second = ValueError(CODE), KeyError(CODE)
    first.__context__, second.__context__ = second, first
    raise first


class MuteError(Exception):
    def __str__(self):
        raise ZeroDivisionError(CODE)


def mute():
    raise MuteError


def ours():
    raise ConnectError("no connection")


def deep(left=30):
    return deep(left - 1) if left else plain()


@pytest.mark.parametrize(
    "function",
    [plain, caused, hidden, noted, group, base_group, in_a_circle, mute, ours, deep],
    ids=lambda one: one.__name__,
)
def test_likeness_has_the_class_and_the_lines_and_no_code(function):
    """In text, notes, causes, members, frames and locals; a reporter can write it all the same."""
    error = caught(function)
    like = likeness(error, mask)
    assert in_error(like) == []
    assert type(like).__name__ == type(error).__name__
    assert type(like).__module__ == type(error).__module__
    assert CODE not in "".join(traceback.format_exception(like))
    lines, kept = (
        [(one.filename, one.lineno, one.name) for one in traceback.extract_tb(each.__traceback__)]
        for each in (error, like)
    )
    assert kept == lines
    link = like.__traceback__
    while link is not None:
        assert link.tb_frame.f_locals == {}
        assert link.tb_frame.f_back is None
        assert link.tb_frame.f_globals["__name__"] == __name__
        link = link.tb_next


def test_likeness_shows_causes_as_they_were():
    """One that was hidden stays hidden, and members stay members."""
    assert likeness(caught(caused), mask).__cause__ is not None
    assert likeness(caught(hidden), mask).__suppress_context__
    like = likeness(caught(group), mask)
    assert isinstance(like, ExceptionGroup)
    assert [type(each).__name__ for each in like.exceptions] == ["KeyError", "ValueError"]
    assert like.message == "all of …"
    assert str(likeness(caught(mute), mask)) == "its text can't be had"
