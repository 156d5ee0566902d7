"""A stand-in for Revenue Monster's voucher server, in memory and over HTTP. Not real vouchers."""

from rm_voucher.emulator.app import Emulator
from rm_voucher.emulator.faults import Fault, FaultPlan, Window
from rm_voucher.emulator.guesses import Guesses, Rule
from rm_voucher.emulator.stock import RefusedError

__all__ = ["Emulator", "Fault", "FaultPlan", "Guesses", "RefusedError", "Rule", "Window"]
