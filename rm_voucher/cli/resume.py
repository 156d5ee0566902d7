"""What a run with a ledger does before it issues: it picks up what earlier runs left.

A code that an earlier run received, and could not keep, is in its output. A recipient may be in
the ledger in another form: the file was saved by another program, or a name was copied from a page.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from rm_voucher import ConfigurationError, IssuedVoucher, LedgerError, VoucherError
from rm_voucher.cli.recipients import Recipients
from rm_voucher.ledger import Ledger
from rm_voucher.text import comparable


async def keep_codes(
    ledger: Ledger, batch: str, rows: Iterable[tuple[Path, dict[str, str]]]
) -> None:
    """Give the ledger the codes that stand in an earlier output, by rows and their files.

    May be repeated. Raises `LedgerError`: then nothing may overwrite that output.
    """
    found = list(rows)
    if not found:
        return
    forms = {comparable(row["recipient"]) for _, row in found}
    stored = await _ids_by_form(ledger, lambda name: comparable(name) in forms)
    for path, row in found:
        name, ids = row["recipient"], stored[comparable(row["recipient"])]
        request_id = ids[0] if len(ids) == 1 else name
        voucher = IssuedVoucher(code=row["code"], qr_url=row["qr_url"])
        try:
            await ledger.keep(batch, request_id, voucher)
        except VoucherError as exc:
            raise LedgerError(
                f"{path} has a code for {name!r} that the ledger does not take: {exc} Nothing was "
                "issued. Move the file away once somebody knows who has that code."
            ) from exc


async def ids_in_ledger(ledger: Ledger, recipients: Recipients) -> Mapping[str, str]:
    """Return, of recipients that are in the ledger in another form only, the ids there.

    Raises `ConfigurationError` where that is ambiguous.
    """
    others = await _ids_by_form(ledger, recipients.has_another_form_of)
    if not others:
        return {}
    stored = await _ids_by_form(ledger, lambda name: comparable(name) in others)
    ids: dict[str, str] = {}
    for line, name in recipients.lines():
        form = comparable(name)
        if form not in others or name in stored[form]:
            continue
        if recipients.allow_similar or len(others[form]) > 1:
            raise ConfigurationError(
                f"{recipients.title}, line {line}: {name!a} is not in the ledger, and "
                f"{others[form][0]!a}, which looks the same, is: write it as it stands there if it "
                "is the same person, or else so that it can be told from it."
            )
        ids[name] = others[form][0]
    return ids


async def refuse_codes_of_others(ledger: Ledger, recipients: Recipients) -> None:
    """Raise `TableError` where the output of an earlier run has codes that are not in the ledger.

    Who has one of those would get a second.
    """
    if recipients.table.results is None:
        return
    in_ledger = bytearray(len(recipients.table))
    async for request, voucher in ledger.requests():
        for number in recipients.rows_like(request.id):
            code = recipients.before(number)["code"]
            in_ledger[number] |= not code or (voucher is not None and voucher.code == code)
    for line, name in recipients.lines():
        if not in_ledger[name.number] and recipients.has_voucher(name.number):
            recipients.table.problem(
                line,
                "has a code, or may have one, that is not in the ledger: run it without --ledger, "
                "or with the ledger that has it",
            )
    recipients.table.refuse_problems()


async def _ids_by_form(
    ledger: Ledger, is_wanted: Callable[[str], bool]
) -> defaultdict[str, list[str]]:
    found = defaultdict[str, list[str]](list)
    async for request, _ in ledger.requests():
        if is_wanted(request.id):
            found[comparable(request.id)].append(request.id)
    return found
