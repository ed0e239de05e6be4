"""The tally of the attacks, at the end of the run."""

import pytest
import rule


def pytest_sessionfinish(session):
    """A process of pytest-xdist hands its counts to the one that prints."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["tally"] = [[*key, n] for key, n in rule.tally.items()]


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node):
    for kind, verdict, n in getattr(node, "workeroutput", {}).get("tally", ()):
        rule.tally[kind, verdict] += n


def pytest_terminal_summary(terminalreporter):
    if rule.tally:
        terminalreporter.section("attacks, by kind")
        for line in rule.table():
            terminalreporter.write_line(line)
