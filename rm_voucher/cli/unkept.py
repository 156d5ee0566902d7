"""Codes that a worker's ledger could not keep: in a private file, until a worker gives them back.

A worker that must end while its database is away has them in its memory alone.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

import attrs
import orjson

from rm_voucher import IssuedVoucher, LedgerError
from rm_voucher.cli.screen import say
from rm_voucher.files import open_plain, replace_private
from rm_voucher.ledger import Ledger

_PATTERN = "rm-voucher-unkept-*.jsonl"


@attrs.frozen
class UnkeptCodes:
    """The files of such codes in a folder: one of each worker that had some."""

    folder: Path
    batch_key: str

    async def give_back(self, ledger: Ledger) -> None:
        """Give the ledger what earlier workers left. Workers may do so at once, and again.

        Raises `LedgerError` where the ledger does not take one; the file stays.
        """
        for path in sorted(self.folder.glob(_PATTERN)):
            try:
                with os.fdopen(open_plain(path), "rb") as file:
                    rows = [orjson.loads(line) for line in file]
                vouchers = [
                    (row["request_id"], IssuedVoucher(code=row["code"], qr_url=row["qr_url"] or ""))
                    for row in rows
                    if row["batch"] == self.batch_key
                ]
            except FileNotFoundError:  # another worker has just given it back
                continue
            except (OSError, ValueError, KeyError, TypeError) as exc:
                raise LedgerError(
                    f"{path} has codes that a worker could not keep, and can't be read "
                    f"({type(exc).__name__}): look at it, and move it away."
                ) from exc
            for request_id, voucher in vouchers:
                await ledger.keep(self.batch_key, request_id, voucher)
            if vouchers:  # a file is of one batch
                path.unlink(missing_ok=True)
                say(f"{len(vouchers):,} code(s) of {path} are in the ledger now.")

    def save(self, ledger: Ledger) -> None:
        """Write what a closed ledger could not keep.

        Raises `LedgerError`, with what a person must know, if there was something.
        """
        left = ledger.unkept
        if not left:
            return
        path = self.folder / _PATTERN.replace("*", f"{time.time_ns()}-{os.getpid()}")
        lines = [
            {
                "batch": self.batch_key,
                "request_id": request_id,
                "code": voucher.code,
                "qr_url": voucher.qr_url,
            }
            for request_id, voucher in left.items()
        ]
        count = f"{len(left):,} code(s) arrived that the ledger could not keep"
        try:
            replace_private(path, b"".join(orjson.dumps(line) + b"\n" for line in lines))
        except OSError as exc:
            raise LedgerError(
                f"{count}, and {path} can't be written ({exc.strerror}): they are lost to this "
                "machine. In the ledger their outcomes are unknown; RM's listing has them."
            ) from exc
        raise LedgerError(f"{count}. They are in {path}: the next worker there gives them to it.")
