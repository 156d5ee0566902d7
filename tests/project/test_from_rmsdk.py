"""docs/from-rmsdk.md: what it says of rmsdk is what rmsdk is."""

import ast
import re
from importlib.metadata import distribution, version
from pathlib import Path

import pytest
from support.files import DOCS

PAGE = (DOCS / "from-rmsdk.md").read_text()
CALLS = PAGE.partition("## Call by call")[2].partition("\n## ")[0]
SDK = Path(str(distribution("rmsdk").locate_file("rmsdk")))


def test_version_is_the_one_that_is_told_of():
    assert f"`rmsdk` {version('rmsdk')}" in PAGE


@pytest.mark.parametrize("module", ["voucher", "auth"])
def test_each_method_is_in_the_table(module):
    """Each call of vouchers and tokens that a program may have has its row."""
    methods = [
        node.name
        for node in ast.walk(ast.parse((SDK / f"{module}.py").read_text()))
        if isinstance(node, ast.FunctionDef)
        and not node.name.startswith("__")
        and node.name not in ("checkConfigs", "getHeader")
    ]
    assert len(methods) >= 2
    for method in methods:
        assert f"{module}.{method}(" in CALLS


def test_other_parts_are_in_the_table():
    made = re.findall(r"self\.(\w+) = \w+\(configs\)", (SDK / "RMSDK.py").read_text())
    others = sorted(set(made) - {"voucher", "auth"})
    assert f"| {', '.join(f'`{other}`' for other in others)} |" in CALLS


def test_how_rmsdk_behaves():
    """It waits for 2,000 s, opens a session a call, reads the key each time, shows its tokens."""
    request, utils, auth = (
        (SDK / f"{name}.py").read_text() for name in ("request", "utils", "auth")
    )
    assert "timeout=2000" in request
    assert "up to 2,000 s" in PAGE
    assert request.count("requests.Session()") == 1
    assert "defaultSession = requests.Session()" in request.partition("def __init__")[2]
    assert '"sb-" if environment == "sandbox" else ""' in request
    assert "response.status_code != 200" in request
    assert "RSA.import_key(open(privateKeyDest).read())" in utils
    assert "self.accessToken, self.refreshToken)" in auth.partition("def __str__")[2]
