"""Transports move bytes. The interface is here; the implementations are modules beside it."""

from rm_voucher.transport.base import Request, Response, Transport

__all__ = ["Request", "Response", "Transport"]
