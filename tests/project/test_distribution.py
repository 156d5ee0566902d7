"""What is installed: in CI, and in nox, the wheel that users get."""

import hashlib
import importlib.metadata
import os
import re
import runpy
from base64 import urlsafe_b64encode
from pathlib import Path

import pytest
from readme_renderer import markdown
from support.files import ROOT

import rm_voucher

INSTALLED = importlib.metadata.distribution("rm-voucher")
PACKAGE = Path(rm_voucher.__file__).parent


IS_WANTED = "RM_TESTS_WANT_WHEEL" in os.environ


@pytest.fixture
def files():
    """The files of the installed wheel. A working tree that is installed as such has none."""
    files = [file for file in INSTALLED.files or () if file.parts[0] == "rm_voucher"]
    if not files:
        assert not IS_WANTED
        pytest.skip("the working tree is installed, and no wheel")
    return files


@pytest.mark.long
def test_package_that_is_tested_is_the_wheel(files):
    """What is imported is what the wheel brought, unchanged; processes can't find another one."""
    assert not (IS_WANTED and (ROOT / "rm_voucher").exists())
    assert {file.locate() for file in files if file.suffix == ".py"} == set(PACKAGE.rglob("*.py"))
    for file in files:
        if file.hash is not None:
            digest = hashlib.new(file.hash.mode, file.read_binary()).digest()
            assert urlsafe_b64encode(digest).decode().rstrip("=") == file.hash.value, file


@pytest.mark.long
def test_wheel_has_the_package_and_nothing_else(files):
    """It says that it is typed; tests, and what else is in the repository, stay there."""
    assert PACKAGE / "py.typed" in {file.locate() for file in files}
    top = {file.parts[0] for file in INSTALLED.files or () if not file.parts[0].startswith("..")}
    assert top == {"rm_voucher", f"rm_voucher-{rm_voucher.__version__}.dist-info"}


def test_what_is_installed_has_this_version_and_these_extras():
    """The tools of the project itself are no extra of users'."""
    assert INSTALLED.version == rm_voucher.__version__
    extras = set(INSTALLED.metadata.get_all("Provides-Extra", ()))
    assert extras == {
        *("all", "cli", "otel", "postgres", "print", "redis", "sql", "tables", "worker")
    }


def test_page_of_the_package_index_has_no_link_that_leads_nowhere():
    """The README's relative links and pictures are for the repository, and not on an index."""
    page = INSTALLED.read_text("METADATA")
    assert page is not None
    assert "# rm-voucher" in page
    assert "asyncio.run(main())" in page
    assert re.findall(r"\]\((?!https?://)[^)]*\)", page) == []


def test_page_of_the_package_index_renders():
    """An index shows what this makes of the README: headings, the program, and no raw HTML."""
    metadata = INSTALLED.read_text("METADATA")
    assert metadata is not None
    page = metadata.partition("\n\n")[2]
    shown = markdown.render(page)
    assert shown is not None
    assert re.search(r"<h1[^>]*>rm-voucher<", shown)
    assert "asyncio" in shown
    assert shown.count("<table>") == page.count("|---|---|---|")


def test_licences_are_those_of_what_is_asked_for():
    """Each package that an extra asks for has its line; psycopg and fpdf2 are LGPL."""
    page = (ROOT / "LICENCES.md").read_text()
    written = runpy.run_path(str(ROOT / ".ci" / "licences.py"))["page"]()
    named = re.compile(r"^\| (\S+) \|.*\| (.*) \|$", re.MULTILINE)
    assert named.findall(page) == named.findall(written)
    assert re.findall(r"^\| (\w+) \| LGPL", page, re.MULTILINE) == ["fpdf2", "psycopg"]
