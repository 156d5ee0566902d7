"""The page of conformance: its judges and tests are real, and it leaves nothing out."""

import json
import re
import runpy
import tomllib

import attrs
import pytest
from support.files import DOCS, ROOT, TESTS
from support.named_tests import missing_tests, named_tests

from rm_voucher.emulator import Guesses
from rm_voucher.probe.catalogue import EXPERIMENTS

API = (DOCS / "api.md").read_text()
PAGE = (DOCS / "conformance.md").read_text()


def rows(title, *, page=PAGE):
    """Return the cells of the table under a heading, without its head."""
    section = page.partition(f"# {title}\n")[2].partition("\n#")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


JUDGES = rows("The judges")
FACTS = rows("The facts")
OPTIONS = rows("Options of the emulator")
QUESTIONS = rows("Open questions")
NAMES = {experiment.name for experiment in EXPERIMENTS}


def test_page_has_its_tables():
    """The function above finds them."""
    assert len(JUDGES) >= 7
    assert len(FACTS) >= 25
    assert len(OPTIONS) >= 25
    assert len(QUESTIONS) >= 25


def test_each_experiment_is_there():
    """Also one that decides nothing alone."""
    assert {row[0].strip("`") for row in rows("Experiments")} == NAMES


def test_tables_of_the_probe_are_its_catalogue():
    """The rest of the page is what `python docs/conformance_page.py` writes today."""
    assert runpy.run_path(str(DOCS / "conformance_page.py"))["page"](PAGE) == PAGE


@pytest.mark.parametrize("row", FACTS + OPTIONS + QUESTIONS, ids=lambda row: row[0][:40])
def test_row_says_what_the_probe_does(row):
    """It names experiments that there are, or says in a sentence why there is none."""
    said = row[-1]
    named = re.findall(r"`([a-z-]+)`", said)
    assert set(named) <= NAMES
    assert named or len(said.split()) > 3


def test_each_option_of_the_emulator_is_there():
    """No guess is left out, nor one told that there is not."""
    assert [row[0].strip("`") for row in OPTIONS] == list(attrs.fields_dict(Guesses))


def test_each_open_question_is_there():
    """Each guess that docs/api.md tells, and each **?** in its text, stands in a row."""
    guesses = [row[0] for row in rows("Guesses", page=API)]
    assert len(guesses) >= 25
    questions = [row[0] for row in QUESTIONS]
    assert [guess for guess in guesses if guess not in questions] == []
    asked = " ".join(API.partition("## Hosts")[2].split()).split(" **?**")[:-1]
    assert [text for text in asked if not text.endswith(tuple(questions))] == []


@pytest.mark.parametrize("row", JUDGES + FACTS, ids=lambda row: row[0][:40])
def test_row_names_tests_that_there_are(row):
    """Each judge sits in tests, and each fact is held by some."""
    held_by = row[2]
    assert named_tests(held_by)
    assert missing_tests(held_by) == []


def test_sdks_are_those_that_are_installed():
    """The page tells the versions that the files of dependencies pin, with their digests."""
    pinned = json.loads((TESTS / "emulator" / "rm_api_sdk" / "package-lock.json").read_text())
    packages = {name: one for name, one in pinned["packages"].items() if name}
    assert all(one["integrity"].startswith("sha512-") for one in packages.values())
    javascript = packages["node_modules/rm-api-sdk"]["version"]
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]
    (python,) = [each for each in groups["test"] if str(each).startswith("rmsdk==")]
    (said,) = [row[0] for row in JUDGES if row[0].startswith("rmsdk")]
    assert said.startswith(f"rmsdk {python.removeprefix('rmsdk==')},")
    (said,) = [row[0] for row in JUDGES if row[0].startswith("rm-api-sdk")]
    assert said.startswith(f"rm-api-sdk {javascript},")


@pytest.mark.parametrize("row", FACTS, ids=lambda row: row[0][:40])
def test_fact_has_a_source(row):
    """Of those that docs/api.md explains; a guess is no fact."""
    sources = row[1].split(", ")
    assert sources
    explained = re.findall(r"^- \*\*(.)\*\*: ", API, re.M)
    assert set(sources) <= set(explained) - {"?"}
