"""Write docs/error-codes.md from the package's table: ``python docs/error_codes_page.py``."""

from __future__ import annotations

from pathlib import Path

from rm_voucher.wire.error_codes import ERROR_CODES, CodeClass

PAGE = Path(__file__).with_name("error-codes.md")
HEAD = """\
# Error codes

Look up the class and the remedy of each of Revenue Monster's error codes. The codes are those of
RM's page *Appendix 1: Error Codes*; classes and remedies are this library's. A code that is not
listed raises `APIError` itself. The remedy is the `hint` of the error. Codes are looked up without
regard to case and underscores.

`python docs/error_codes_page.py` writes this page from `rm_voucher.wire.error_codes`.

| class | what to do |
|---|---|
"""
WHAT_TO_DO = {
    CodeClass.RETRY: "nothing happened: send again after a wait, which the client does by itself",
    CodeClass.AUTH: "nothing happened: the client gets a new token and sends again, once",
    CodeClass.FIX: "nothing happened: change something in the call, the settings or the account",
    CodeClass.STATE: "nothing happened: the voucher or batch does not allow it now",
    CodeClass.UNKNOWN: "the server failed in the middle: whether it happened is unknown",
}


def page() -> str:
    """Return the whole page."""
    classes = "".join(f"| {kind.value} | {WHAT_TO_DO[kind]} |\n" for kind in CodeClass)
    rows = "".join(
        f"| `{info.code}` | {info.code_class.value} | `{info.error.__name__}` | {info.hint} |\n"
        for info in map(ERROR_CODES.__getitem__, ERROR_CODES)
    )
    return f"{HEAD}{classes}\n| code | class | exception | remedy |\n|---|---|---|---|\n{rows}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
