"""A bound on each notebook as a whole, which nbval lacks, and lines that say how long each one took.

With pytest-xdist each worker counts for the notebooks that it runs (`--dist loadfile` keeps a notebook on
one worker), and the process that prints counts what the workers report.
"""

from __future__ import annotations

import os
from collections import Counter

import pytest

# A notebook is written for 60 s in the ci profile; a busy machine gets three times that.
LIMIT_SECONDS = float(os.environ.get("NASEDU_NOTEBOOK_SECONDS", "180"))


class NotebookClock:
    """The seconds of each notebook so far, its kernel's start among them, by its path from the root."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a cell's set-up, run and end; a worker sees its own, the process that prints sees all."""
        notebook = report.nodeid.split("::")[0]
        if notebook.endswith(".ipynb"):
            self.spent[notebook] += report.duration

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Run no further cell of a notebook that has used up its time."""
        notebook = item.nodeid.split("::")[0]
        if self.spent[notebook] > LIMIT_SECONDS:
            pytest.fail(
                f"{notebook} has run for {self.spent[notebook]:.0f} s, its limit is {LIMIT_SECONDS:.0f} s "
                "(conftest.py): make its ci profile smaller (nasedu/profiles.py)",
                pytrace=False,
            )

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """List the seconds of every notebook."""
        if self.spent:
            terminalreporter.section("seconds per notebook")
            for notebook, seconds in sorted(self.spent.items()):
                terminalreporter.write_line(f"{seconds:6.1f}  {notebook}")
            terminalreporter.write_line(f"{self.spent.total():6.1f}  together")


def pytest_configure(config: pytest.Config) -> None:
    """Start counting at zero."""
    config.pluginmanager.register(NotebookClock(), "notebook clock")
