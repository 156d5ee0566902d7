"""The check of a ledger: it is there, of this version and account, and nothing in it waits."""

from __future__ import annotations

from rm_voucher import ConfigurationError, LedgerError
from rm_voucher.cli.doctor.patient import MISTAKE, UNKNOWN, Fault, Patient, Unasked
from rm_voucher.cli.options import named_url, without_password
from rm_voucher.ledger import AttemptState, Ledger
from rm_voucher.settings import account_namespace
from rm_voucher.text import counted

_PATIENCE_S = 5.0
_NEWER = "newer version"


async def check_ledger(patient: Patient) -> str:
    """Look at the ledger of ``--ledger``, also while another process uses it."""
    if patient.ledger is None:
        raise Unasked("give --ledger URL to check one")
    try:
        url = named_url("ledger", patient.ledger)
        ledger = Ledger.open(
            url, namespace=patient.namespace, read_only=True, patience_s=_PATIENCE_S
        )
    except ConfigurationError as exc:
        raise Fault(str(exc), "See 'rm-voucher issue --help'.", exit_code=MISTAKE) from None
    try:
        async with ledger:
            faults, says = await _look(patient, ledger)
    except LedgerError as exc:
        raise Fault(str(exc), _remedy(str(exc))) from None
    if _is_used(url):
        faults.append(_USED)
    if faults:
        says = " ".join(fault.says for fault in faults)
        remedies = " ".join(dict.fromkeys(fault.remedy for fault in faults))
        raise Fault(says, remedies, exit_code=faults[0].exit_code)
    return says


_USED = Fault(
    "Another process uses it, and an SQLite file has one at a time.",
    "Wait until that ends, or end it; PostgreSQL takes several.",
)


async def _look(patient: Patient, ledger: Ledger) -> tuple[list[Fault], str]:
    """Return what is wrong with it, and its figures."""
    faults = []
    where = without_password(patient.ledger or "")
    whole = await ledger.stop_reason()
    if whole is not None:
        faults.append(
            Fault(
                f"It is stopped: {whole}.",
                f"When that is known: 'rm-voucher ledger baseline {where} BATCH', for each batch.",
            )
        )
    stopped = [batch for batch in await ledger.batches() if batch.stop_reason is not None]
    if stopped and whole is None:
        faults.append(
            Fault(
                f"{len(stopped)} of its batches stopped, the first because "
                f"{stopped[0].stop_reason}.",
                f"'rm-voucher ledger status {where}' shows which.",
            )
        )
    faults += await _of_another(patient, ledger)
    held = await ledger.attempts(states=(AttemptState.UNRESOLVED,))
    if held:
        faults.append(
            Fault(
                f"{counted(len(held), 'outcome')} in it can't be settled by itself.",
                f"Decide about each: 'rm-voucher ledger status {where}', then 'ledger resolve'.",
                exit_code=UNKNOWN,
            )
        )
    counts = await ledger.counts()
    return faults, f"{counted(counts.asked, 'request')}, nothing is held or stopped."


async def _of_another(patient: Patient, ledger: Ledger) -> list[Fault]:
    """Return a fault if the ledger is another account's."""
    owner = await ledger.account()
    if owner is None or patient.credentials is None or patient.environment is None:
        return []
    account = account_namespace(patient.environment, patient.credentials.client_id)
    if owner == account:
        return []
    return [
        Fault(
            f"It belongs to another account ({owner}; these settings are {account}).",
            "Use the settings of its account, or 'ledger rebind' if this merchant has a new id.",
            exit_code=MISTAKE,
        )
    ]


def _remedy(words: str) -> str:
    if _NEWER in words:
        return "pip install --upgrade rm-voucher."
    return "See whether the URL is right, and whether the database runs."


def _is_used(url: str) -> bool:
    """Return whether another process has an SQLite ledger."""
    if not url.startswith("sqlite"):
        return False
    from rm_voucher.database.engine import database_file, parse_url  # an extra, which is there
    from rm_voucher.ledger.sql.guard import is_locked

    return is_locked(database_file(parse_url(url)))
