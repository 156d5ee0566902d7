"""Each kind of file that a person may give has its exact outcome."""

from pathlib import Path

import pytest
from support.spreadsheets import CASES, Case

from rm_voucher import ConfigurationError
from rm_voucher.cli.recipients import Recipients


def test_matrix_is_large() -> None:
    """It has forty files, and no name twice."""
    assert len({case.file for case in CASES}) == len(CASES) >= 40


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.file)
def test_file(case: Case, tmp_path: Path) -> None:
    """A good one gives its recipients, and says what a person should know; a bad one a sentence."""
    path = case.write(tmp_path)
    if case.names is None:
        with pytest.raises(ConfigurationError) as refused:
            Recipients(path, **case.options)
        about = "" if case.error.startswith("There is no encoding") else str(path)
        assert str(refused.value) == f"{about}{case.error}"
        return
    with Recipients(path, **case.options) as found:
        assert list(found) == case.names
        assert len(found) == len(case.names)
        for note in case.notes:
            assert note.format(path) in found.notes
        for name, value in case.format.items():
            assert getattr(found.table.format, name) == value
