"""What is run on a change (tests, lint, typing, coverage, docs), and on purpose (the others).

``nox -l`` lists the sessions. ``.ci/run`` does the same as the first five, without nox.
"""

import nox

nox.needs_version = ">=2026.10"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["tests", "lint", "typing", "coverage", "docs"]

PYTHONS = ["3.11", "3.12", "3.13"]
# Everything up to the client, and bulk issue, has no line that no test runs.
COMPLETE = ",".join(
    f"rm_voucher/{room}*.py" for room in ("", "transport/", "emulator/", "ledger/", "webhooks/")
)


@nox.session(python=PYTHONS)
def tests(session: nox.Session) -> None:
    """Run the tests on each supported Python."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "auto", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Check formatting and rules."""
    session.install("-e", ".[dev]")
    session.run("ruff", "format", "--check", ".")
    session.run("ruff", "check", ".")


@nox.session
def typing(session: nox.Session) -> None:
    """Check the package with mypy, and the public API as its users see it with pyright."""
    session.install("-e", ".[dev]")
    session.run("mypy")
    session.run("pyright")


@nox.session
def coverage(session: nox.Session) -> None:
    """Measure branch coverage; the rooms in COMPLETE must be at 100 %."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "auto", "--cov", "--cov-report=")
    session.run("coverage", "report")
    session.run("coverage", "report", f"--include={COMPLETE}", "--fail-under=100")


@nox.session
def docs(session: nox.Session) -> None:
    """Build the site into site/, with warnings as errors."""
    session.install("-e", ".[docs]")
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
    """Compare with peers and limits: one table, and benchmarks/RESULTS.md. About 15 minutes."""
    session.install("-e", ".[bench]")
    session.run("python", "benchmarks/run.py", *session.posargs)


@nox.session
def soak(session: nox.Session) -> None:
    """Hold that memory does not grow with the number of recipients, nor of a ledger's requests."""
    session.install("-e", ".[postgres]")
    session.run("python", "benchmarks/soak.py")
    session.run("python", "benchmarks/ledger_soak.py")


@nox.session
def simulation(session: nox.Session) -> None:
    """Simulate 1,000 campaigns on the ledger, in two processes; replay 100, and one 100 times."""
    session.install("-e", ".[dev]")
    many = {"SIMULATION_SEEDS": "1000", "SIMULATION_REPLAYS": "100"}
    session.run("pytest", "-n", "2", "tests/simulation", *session.posargs, env=many)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Try 200,000 spoilt answers and forged deliveries; FUZZ_SEED=… tries others."""
    session.install("-e", ".[dev]")
    files = ("tests/wire/test_spoilt_answers.py", "tests/webhooks/test_forgeries.py")
    session.run("pytest", "-s", *files, env={"FUZZ_CASES": "200000"})


@nox.session
def kills(session: nox.Session) -> None:
    """Kill campaigns of 1,000 with SIGKILL at all points; the normal run takes a small share."""
    session.install("-e", ".[dev]")
    session.run("pytest", "-n", "auto", "tests/kills", *session.posargs, env={"KILLS": "all"})
