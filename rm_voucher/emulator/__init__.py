"""A stand-in for Revenue Monster's voucher server, in memory and over HTTP. Not real vouchers.

Over HTTP it is served by `rm_voucher.emulator.server.serve`.
"""

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.faults import Fault, FaultPlan, Window
from rm_voucher.emulator.guesses import Check, Guesses, LastPage, SignedPath
from rm_voucher.emulator.stock import RefusedError

__all__ = [
    "Check",
    "Emulator",
    "Fault",
    "FaultPlan",
    "Guesses",
    "LastPage",
    "RefusedError",
    "SignedPath",
    "Window",
]
