"""One Chromium and one site for all browser tests; where there is none they are skipped, saying why."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# `make browser` looks at everything; `make test` at a few pages, in half a minute.
ALL = os.environ.get("NASEDU_BROWSER") == "all"


# What was looked at and found, for the last lines of the run.
COUNTS: Counter[str] = Counter()


def pytest_terminal_summary(terminalreporter):
    if COUNTS:
        terminalreporter.section("seen in the browser")
        for what, number in sorted(COUNTS.items()):
            terminalreporter.write_line(f"{number:7,}  {what}")


@pytest.fixture(scope="session")
def chromium():
    pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install --editable '.[browser]'")
    import eyes

    if eyes.program() is None:
        pytest.skip("no Chromium on this machine: install chromium or google-chrome")
    with eyes.browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """Folder of the site, built from the notebooks as they are."""
    pytest.importorskip("myst_nb", reason="no Sphinx with myst-nb: pip install --editable '.[site]'")
    out = tmp_path_factory.mktemp("pages") / "site"
    command = [sys.executable, "tools/pages/make_site.py", str(out)]
    plain = {**os.environ, "NO_COLOR": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=plain)
    assert done.returncode == 0, done.stdout + done.stderr
    out.with_name("messages").write_text(done.stderr, encoding="utf-8")
    return out
