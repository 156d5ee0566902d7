"""The journal: the last requests and what became of them, bounded, and what caused what."""

import pytest
from yarl import URL

from rm_voucher import Request, Response
from rm_voucher.emulator import exchange as module
from rm_voucher.emulator.exchange import Exchange, Journal
from rm_voucher.emulator.reply import Reply


def told(journal, body=b""):
    """Let one exchange come and go; return it."""
    request = Request(operation="served", method="GET", url=URL("http://h/x"), body=body)
    found = Exchange(journal.begin(), 0.0, "main", "get", request, Reply(Response(status=200)))
    journal.end(found)
    return found


def numbers(journal):
    return [exchange.number for exchange in journal]


def test_oldest_are_forgotten_by_number(monkeypatch):
    monkeypatch.setattr(module, "_MOST", 3)
    journal = Journal()
    for _ in range(5):
        told(journal)
    assert numbers(journal) == [3, 4, 5]
    assert [exchange.number for exchange in journal.since(3)] == [4, 5]
    assert journal.since(5) == []


def test_oldest_are_forgotten_by_bytes(monkeypatch):
    """However large bodies are, what is kept is bounded; what was forgotten counts no more."""
    monkeypatch.setattr(module, "_MOST_BYTES", 100)
    journal = Journal()
    for _ in range(9):
        told(journal, b"x" * 40)
    assert numbers(journal) == [8, 9]
    told(journal, b"x" * 101)
    assert numbers(journal) == []


def test_find_and_forget():
    journal = Journal()
    first, second = told(journal), told(journal)
    assert journal.find(2) is second
    assert journal.find(9) is None
    assert first.size == 0
    journal.forget()
    assert numbers(journal) == []
    assert told(journal).number == 3


def test_observers_are_told_of_each():
    journal = Journal()
    heard: list[Exchange] = []
    journal.observers.append(heard.append)
    first, second = told(journal), told(journal)
    assert heard == [first, second]


def test_cause_is_the_request_that_is_worked_for():
    journal = Journal()
    assert journal.cause == 0
    number = journal.begin()
    assert journal.cause == number == 1
    with pytest.raises(ValueError, match="x"), journal.because_of(7):
        assert journal.cause == 7
        raise ValueError("x")
    assert journal.cause == 1
