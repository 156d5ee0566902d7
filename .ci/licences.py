"""Write LICENCES.md from what is installed here: ``python .ci/licences.py``.

Run it where `rm-voucher[all]` is installed. `nox -s sbom` writes all of it, with versions.
"""

import re
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

PAGE = Path(__file__).parent.parent / "LICENCES.md"
HEAD = """\
# Licences

rm-voucher is MIT. These are the licences of what it asks for directly, as each package states its own. None of them is copied into
this repository or its wheel: pip installs them beside it.

psycopg, of the extra `postgres`, and fpdf2, of `print`, are LGPL: an application may use them whatever its own licence is, and who
hands on a changed one hands on its source. Without those extras neither is installed.

`python .ci/licences.py` writes this page; `nox -s sbom` lists all that is installed, with versions, as CycloneDX.

| package | licence | extra |
|---|---|---|
"""
_CLASSIFIER = "License :: OSI Approved :: "


def licence_of(package: Distribution) -> str:
    """Return a package's licence: its expression, or its classifiers, or its field."""
    if expression := package.metadata.get("License-Expression"):
        return str(expression)
    classifiers = package.metadata.get_all("Classifier", ())
    names = [each.removeprefix(_CLASSIFIER) for each in classifiers if _CLASSIFIER in each]
    return ", ".join(names) or str(package.metadata.get("License", "not stated")).splitlines()[0]


def page() -> str:
    """Return the page."""
    rows: dict[str, tuple[str, set[str]]] = {}
    for wanted in distribution("rm-voucher").requires or ():
        name = re.split(r"[^A-Za-z0-9._-]", wanted)[0]
        found = re.search(r"extra == ['\"](\w+)['\"]", wanted)
        extra = found[1] if found else ""
        if extra == "all" or name == "rm-voucher":
            continue
        try:
            licence = licence_of(distribution(name))
        except PackageNotFoundError:
            raise SystemExit(f"{name} is not installed: pip install 'rm-voucher[all]'") from None
        rows.setdefault(name, (licence, set()))[1].add(f"`{extra}`" if extra else "")
    lines = [
        f"| {name} | {licence} | {', '.join(sorted(extras - {''}))} |\n"
        for name, (licence, extras) in sorted(rows.items())
    ]
    return HEAD + "".join(lines)


if __name__ == "__main__":
    PAGE.write_text(page())
