"""A stand-in for Revenue Monster's voucher server, in memory and over HTTP. Not real vouchers."""

from rm_voucher.emulator.app import Emulator

__all__ = ["Emulator"]
