"""A bound on each notebook as a whole, which nbval lacks, and a line that says how long each one took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

# A notebook is written for 60 s in the ci profile; a busy machine gets three times that.
LIMIT_SECONDS = 180.0

SECONDS = pytest.StashKey[dict[Path, float]]()


def pytest_configure(config: pytest.Config) -> None:
    """Start counting at zero."""
    config.stash[SECONDS] = {}


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Add a cell's seconds, with the start of its kernel, to its notebook's."""
    start = time.perf_counter()
    try:
        return (yield)
    finally:
        if item.path.suffix == ".ipynb":
            spent = item.config.stash[SECONDS]
            spent[item.path] = spent.get(item.path, 0.0) + time.perf_counter() - start


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Run no further cell of a notebook that has used up its time."""
    spent = item.config.stash[SECONDS].get(item.path, 0.0)
    if spent > LIMIT_SECONDS:
        pytest.fail(
            f"{item.path.name} has run for {spent:.0f} s, its limit is {LIMIT_SECONDS:.0f} s (conftest.py): "
            "make its ci profile smaller (nasedu/profiles.py)",
            pytrace=False,
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """List the seconds of every notebook."""
    spent = config.stash[SECONDS]
    if spent:
        terminalreporter.section("seconds per notebook")
        for path, seconds in spent.items():
            terminalreporter.write_line(f"{seconds:6.1f}  {path.relative_to(config.rootpath)}")
        terminalreporter.write_line(f"{sum(spent.values()):6.1f}  together")
