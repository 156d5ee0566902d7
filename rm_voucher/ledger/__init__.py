"""Issuing that survives a crash, a lost answer and a duplicate message: see `Ledger`."""

from rm_voucher.ledger.ledger import Ledger
from rm_voucher.ledger.reconcile import HeldAttempt, Reconciliation
from rm_voucher.ledger.rules.records import AttemptState, Backlog, Counts, Mode, RequestState
from rm_voucher.ledger.store import LedgerStore

__all__ = [
    "AttemptState",
    "Backlog",
    "Counts",
    "HeldAttempt",
    "Ledger",
    "LedgerStore",
    "Mode",
    "Reconciliation",
    "RequestState",
]
