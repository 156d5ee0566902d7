"""A client in TypeScript that is made from the description: openapi-typescript gives its types."""

import shutil
import subprocess
from pathlib import Path

import pytest
from support.files import DOCS
from support.npm import install

pytestmark = pytest.mark.long  # it has to be installed

HERE = Path(__file__).parent / "openapi_typescript"
CLIENT = (HERE / "client.ts").read_text()
RULES = ("--strict", "--noEmit", "--target", "es2022", "--module", "esnext")
TSC = (*RULES, "--moduleResolution", "bundler", "--lib", "es2022,dom", "client.ts")
WRONG_USES = [
    ("quantity: 5", 'quantity: "5"'),
    ("quantity: 5", "qantity: 5"),
    ('type: "CASH"', 'type: "GOLD"'),
    ('operation: "issue", ', ""),
    ('"/_emulator/fail-next"', '"/_emulator/fail-last"'),
    ("made.balance", "made.ballance"),
    ("voucher.memberProfile?.name", "voucher.memberProfile.name"),
    ('=== "REDEEMED"', '=== "REDEMED"'),
    ("string | null | undefined", "string"),
]


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """A folder with the tools, and the types that they made of the description."""
    folder = tmp_path_factory.mktemp("openapi_typescript")
    install(HERE, folder)
    shutil.copy(DOCS / "openapi.json", folder)
    ran(folder, "openapi-typescript", "openapi.json", "--output", "emulator.d.ts")
    return folder


def ran(folder, program, *arguments):
    """Return the exit code and the output of a program that was installed."""
    command = [folder / "node_modules" / ".bin" / program, *arguments]
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


def test_client_compiles(tools):
    (tools / "client.ts").write_text(CLIENT)
    assert ran(tools, "tsc", *TSC) == (0, "")


@pytest.mark.parametrize(("right", "wrong"), WRONG_USES)
def test_wrong_use_does_not(tools, right, wrong):
    """A name, a type, a word or a missing field that the description has otherwise is an error."""
    assert CLIENT.count(right) == 1
    (tools / "client.ts").write_text(CLIENT.replace(right, wrong))
    code, said = ran(tools, "tsc", *TSC)
    assert code != 0
    assert "client.ts(" in said
