"""The pages that are made from the package keep up with it."""

import re
import runpy
from pathlib import Path

import pytest

import rm_voucher
from rm_voucher import exceptions
from rm_voucher.error_codes import ERROR_CODES
from rm_voucher.transport import base

DOCS = Path(__file__).parent.parent / "docs"


def test_error_codes_page_is_the_table():
    """docs/error-codes.md is what `python docs/error_codes_page.py` writes today."""
    page = runpy.run_path(str(DOCS / "error_codes_page.py"))["page"]()
    assert (DOCS / "error-codes.md").read_text() == page
    for code, info in ERROR_CODES.items():
        row = f"| `{code}` | {info.code_class.value} | `{info.error.__name__}` | {info.hint} |"
        assert row in page.splitlines()


def test_error_tree_is_that_of_the_module():
    """docs/handle-errors.md draws the tree that the exceptions' docstring draws."""
    drawn = re.search(r"```\n(VoucherError\n.*?)```", (DOCS / "handle-errors.md").read_text(), re.S)
    tree = [line.strip() for line in exceptions.__doc__.splitlines()]
    assert [line.strip() for line in drawn[1].splitlines()] == tree[
        tree.index("VoucherError") : tree.index("└── ServerError") + 1
    ]


REFERENCE = (DOCS / "reference.md").read_text()


@pytest.mark.parametrize(
    "module",
    [
        "rm_voucher",
        "rm_voucher.transport.aiohttp",
        "rm_voucher.transport.memory",
        "rm_voucher.transport.base",
        "rm_voucher.emulator",
        "rm_voucher.signing",
        "rm_voucher.converters",
        "rm_voucher.error_codes",
    ],
)
def test_reference_takes_each_module_whole(module):
    """Every name of `__all__` appears: the module is listed, and nothing of it is left out.

    The build itself (`nox -s docs`) fails when a name is missing all the same.
    """
    (options,) = re.findall(rf"^\.\. automodule:: {module}\n((?:   :.*\n)*)", REFERENCE, re.M)
    shown_above = "   :exclude-members: Request, Response, Transport\n"  # the root shows them
    assert options == (shown_above if module == "rm_voucher.transport.base" else "")


def test_names_of_the_base_transport_are_those_of_the_root():
    """Why the reference may show them once, with the root."""
    assert set(base.__all__) == {"Request", "Response", "Transport"} <= set(rm_voucher.__all__)


@pytest.mark.parametrize("page", sorted(DOCS.glob("*.md")), ids=lambda path: path.name)
def test_index_lists_every_page(page):
    """A page that nothing leads to is not read."""
    index = (DOCS / "index.md").read_text()
    assert page.stem == "index" or f"]({page.name})" in index
