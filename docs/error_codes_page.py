"""Write docs/error-codes.md from the package's table: ``python docs/error_codes_page.py``."""

from __future__ import annotations

from pathlib import Path

from rm_voucher.wire.error_codes import ERROR_CODES, CodeClass
from rm_voucher.wire.other_codes import OTHER_CODES

PAGE = Path(__file__).with_name("error-codes.md")
HEAD = """\
# Error codes

Look up the class and the remedy of each of Revenue Monster's error codes that a voucher call can
meet. The codes are those of [RM's public lists](https://doc.revenuemonster.my/); classes and
remedies are this library's. The remedy is the `hint` of the error. Codes are looked up without
regard to case and underscores.

`python docs/error_codes_page.py` writes this page from the tables in `rm_voucher.wire`.

| class | what to do |
|---|---|
"""
OTHERS = """
## Codes of other products

RM lists these as well, and no voucher call is known to answer them. The `hint` of the error says
what they are about. They have no class: the HTTP status decides, as after a code that nobody lists.
It raises `APIError` itself, but for 401, 403, 429 and 5xx. One that has *duplicate* in it is taken
for a repeated request, whose code RM does not publish.

| about | codes |
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
    others = "".join(
        f"| {area} | {' '.join(f'`{code}`' for code in codes.split())} |\n"
        for area, codes in OTHER_CODES.items()
    )
    columns = "| code | class | exception | remedy |\n|---|---|---|---|\n"
    return f"{HEAD}{classes}\n{columns}{rows}{OTHERS}{others}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(f"wrote {PAGE.name}")
