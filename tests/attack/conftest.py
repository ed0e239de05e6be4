"""The tally of the attacks, at the end of the run."""

import rule


def pytest_terminal_summary(terminalreporter):
    if rule.tally:
        terminalreporter.section("attacks, by kind")
        for line in rule.table():
            terminalreporter.write_line(line)
