"""What is run on a change (tests, long, lint, typing, docs), and on purpose (the others).

``nox -l`` lists the sessions; the times are those of two cores. ``.ci/run`` does without nox what
the first five do.
"""

import shutil
import tarfile
from pathlib import Path

import nox

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "long", "lint", "typing", "docs"]

PYTHONS = ["3.11", "3.12", "3.13"]
PROJECT = nox.project.load_toml("pyproject.toml")


def install_editable(session: nox.Session, group: str, extra: str = "all") -> None:
    """Install the working tree, and what a group of pyproject.toml needs."""
    session.install(*nox.project.dependency_groups(PROJECT, group), "-e", f".[{extra}]")


def install_wheel(session: nox.Session) -> Path:
    """Install the wheel of the sdist; return a folder with the sdist's tests, without the package.

    So a test can import only what is installed. `tests/project/test_distribution.py` holds it.
    """
    folder = Path(session.create_tmp()).resolve()
    shutil.rmtree(folder)
    session.install("build")
    session.run("pyproject-build", "--outdir", str(folder), silent=True)
    (sdist,) = folder.glob("*.tar.gz")
    (wheel,) = folder.glob("*.whl")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    tree = folder / sdist.name.removesuffix(".tar.gz")
    shutil.rmtree(tree / "rm_voucher")
    session.install(*nox.project.dependency_groups(PROJECT, "test"), f"{wheel}[all]")
    session.run("pip", "check", silent=True)
    return tree


def run_on_wheel(session: nox.Session, *arguments: str, **sizes: str) -> None:
    """Run pytest on the installed wheel."""
    with session.chdir(install_wheel(session)):
        wanted = {"RM_TESTS_WANT_WHEEL": "1", **sizes}
        session.run("pytest", *arguments, *session.posargs, env=wanted)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests that `pytest` runs, on the built wheel. Three minutes a Python."""
    run_on_wheel(session, "-n", "auto", RM_TESTS_EXAMPLES="100", MACHINE_EXAMPLES="100")


@nox.session(python=PYTHONS)
def lowest(session: nox.Session) -> None:
    """Run them with the oldest version of each dependency. Four minutes a Python."""
    session.install("uv")
    python = f"{session.bin}/python"
    oldest = ("--resolution", "lowest-direct", "--group", "test", "-e", ".[all]")
    session.run("uv", "pip", "install", "--quiet", "--python", python, *oldest)
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def extras(session: nox.Session) -> None:
    """Install the wheel with each extra alone, and run what it is for. A minute."""
    session.install("build", "uv")
    folder = Path(session.create_tmp()).resolve()
    session.run("pyproject-build", "--outdir", str(folder), silent=True)
    (wheel,) = folder.glob("*.whl")
    session.run("python", ".ci/extras.py", str(wheel))


@nox.session
def audit(session: nox.Session) -> None:
    """Ask for advisories about all that is installed. A minute.

    It needs the network: pip-audit asks a service, and has no copy of its answers. So `.ci/run`
    does not run it, and a release does (CONTRIBUTING.md).
    """
    session.install(".[all]", "pip-audit")
    session.run("pip-audit", *session.posargs)


@nox.session
def sbom(session: nox.Session) -> None:
    """List all that is installed with rm-voucher[all] in build/sbom.json. A minute."""
    session.install(".[all]")
    session.run("python", ".ci/licences.py")
    tools = Path(session.create_tmp()).resolve() / "tools"  # not beside what is listed
    session.run("python", "-m", "venv", str(tools), silent=True)
    session.run(f"{tools}/bin/pip", "install", "--quiet", "cyclonedx-bom", external=True)
    Path("build").mkdir(exist_ok=True)
    listed = ("environment", f"{session.bin}/python", "--output-file", "build/sbom.json")
    session.run(f"{tools}/bin/cyclonedx-py", *listed, external=True)


@nox.session
def long(session: nox.Session) -> None:
    """Run the long tests, on the built wheel: processes, kills, simulation. Five minutes."""
    one_by_one = ("--dist", "load", "--maxschedchunk", "1")  # the longest first
    run_on_wheel(session, "-n", "auto", *one_by_one, "-m", "long")


@nox.session
def browser(session: nox.Session) -> None:
    """Use the emulator's pages in Chromium, at two widths and in two colour schemes. A minute."""
    run_on_wheel(session, "-n", "auto", "-m", "long or not long", "tests/browser")


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting and rules. A minute, most of it to install."""
    install_editable(session, "dev")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check package, tests and docs with mypy, and the public API with pyright. Two minutes."""
    install_editable(session, "dev")
    session.run("mypy")
    session.run("mypy", "--config-file", "tests/mypy.ini")
    session.run("python", "tests/support/doc_blocks.py")
    session.run("pyright")


@nox.session
def coverage(session: nox.Session) -> None:
    """Hold that the fast run runs every line and branch but the command's. Eight minutes."""
    install_editable(session, "dev")
    session.run("pytest", "-n", "auto", "--cov", "--cov-report=")
    session.run("coverage", "combine", "--append", success_codes=[0, 1])  # 1: there is no more
    session.run("coverage", "report")
    session.run("coverage", "report", "--omit=rm_voucher/cli/*", "--fail-under=100")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into site/, with warnings as errors. A minute."""
    install_editable(session, "docs", extra="otel,worker")
    doctrees = f"{session.create_tmp()}/doctrees"
    session.run(
        "sphinx-build",
        "--fail-on-warning",
        "--keep-going",
        "--fresh-env",
        "--write-all",
        "--quiet",
        "--doctree-dir",
        doctrees,
        "docs",
        "site",
    )


@nox.session
def bench(session: nox.Session) -> None:
    """Compare with peers and limits: one table, and benchmarks/RESULTS.md. A quarter of an hour."""
    install_editable(session, "bench")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Hold that memory grows neither with recipients nor with a ledger's requests. Ten minutes."""
    session.install("-e", ".[postgres]")
    session.run("python", "benchmarks/soak.py")
    session.run("python", "benchmarks/ledger_soak.py")


@nox.session
def simulation(session: nox.Session) -> None:
    """Simulate 1,000 campaigns, and 1,000 where seams give way; replay 100. Ten minutes."""
    install_editable(session, "test")
    many = {"SIMULATION_SEEDS": "1000", "SIMULATION_REPLAYS": "100"}
    whole = ("-n", "2", "-m", "long or not long", "tests/simulation")
    session.run("pytest", *whole, *session.posargs, env=many)


@nox.session
def probe(session: nox.Session) -> None:
    """Probe 200 emulators with options by chance, and one like each report. Three minutes."""
    install_editable(session, "test")
    whole = ("-n", "2", "-m", "long or not long", "tests/probe")
    session.run("pytest", *whole, *session.posargs, env={"PROBE_COMBINATIONS": "200"})


@nox.session
def shared_rate(session: nox.Session) -> None:
    """Share a rate among real processes, at all sizes, and 20 seeds in virtual time. An hour."""
    install_editable(session, "test")
    many = {"SHARED_RATE_S": "60", "SHARED_RATE_SEEDS": "20"}
    session.run("pytest", "-m", "long", "tests/shared", *session.posargs, env=many)
    simulated = "tests/simulation/test_shared_rate.py"
    session.run("pytest", "-n", "2", "-m", "long or not long", simulated, env=many)


@nox.session
def crossings(session: nox.Session) -> None:
    """Let two merchants do 10,000 things on each store: nothing crosses. Ten minutes."""
    install_editable(session, "test")
    whole = ("-n", "2", "-m", "long or not long", "tests/seams/test_no_crossing.py")
    session.run("pytest", *whole, *session.posargs, env={"RM_CROSSING_OPERATIONS": "10000"})


@nox.session
def seams(session: nox.Session) -> None:
    """Try the seams in real surroundings: proxies, full disks, failovers, lost locks. Five minutes.

    For all of it: root (a tmpfs of its own), PostgreSQL at RM_TEST_POSTGRES_URL with its programs
    (initdb, pg_ctl), and the commands tinyproxy, pgbouncer and faketime. What is missing is
    skipped, with its reason.
    """
    install_editable(session, "test")
    arguments = ("-n", "2", "-rs", "-m", "long or not long", "tests/seams")
    session.run("pytest", *arguments, *session.posargs)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Try 200,000 spoilt answers and forged deliveries; FUZZ_SEED=… tries others. Ten minutes."""
    install_editable(session, "test")
    files = ("tests/wire/test_spoilt_answers.py", "tests/webhooks/test_forgeries.py")
    session.run("pytest", "-s", "-m", "long or not long", *files, env={"FUZZ_CASES": "200000"})


@nox.session
def openapi(session: nox.Session) -> None:
    """Call a served emulator with 5,000 requests and more, as it is described. Five minutes."""
    install_editable(session, "test")
    whole = ("-n", "2", "-m", "long", "tests/emulator/test_openapi_fuzz.py")
    session.run("pytest", *whole, *session.posargs, env={"OPENAPI_REQUESTS": "8000"})


@nox.session
def campaign(session: nox.Session) -> None:
    """Run docs/campaign.md for 5,000, read two million rows, watch 200 screens. A quarter hour."""
    install_editable(session, "test")
    folders = ("tests/cli/campaign", "tests/cli/tables", "tests/cli/test_screen.py")
    whole = ("-n", "2", "-m", "long or not long", *folders)
    many = {"CAMPAIGN_MEMBERS": "5000", "TABLE_ROWS": "2000000", "SCREEN_RUNS": "200"}
    session.run("pytest", *whole, *session.posargs, env=many)


@nox.session
def kills(session: nox.Session) -> None:
    """Kill campaigns of 1,000 with SIGKILL at all points. Half an hour."""
    install_editable(session, "test")
    whole = ("-n", "auto", "-m", "long", "tests/kills")
    session.run("pytest", *whole, *session.posargs, env={"KILLS": "all"})


@nox.session
def chaos(session: nox.Session) -> None:
    """Kill, stop, cut off and restart around workers, 2,000 messages. Half an hour.

    For all of it: the programs of PostgreSQL, RabbitMQ, NATS and Redis. What is missing is skipped.
    """
    install_editable(session, "test")
    whole = ("-n", "0", "-rs", "-m", "long", "--log-cli-level=INFO", "tests/chaos")
    session.run("pytest", *whole, *session.posargs, env={"CHAOS": "1"})
