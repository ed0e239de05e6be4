"""Sphinx's settings for the course's site; `make_site.py` prepares the pages and calls it."""

import re
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

project = "nasedu"
author = "the nasedu authors"
copyright = "the nasedu authors, MIT licence"
language = "en"
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.mathjax", "sphinx_copybutton"]

# ---- pages

nb_execution_mode = "off"  # the outputs are in the notebooks, with the profile and the minutes they took
nb_merge_streams = True
myst_enable_extensions = ["amsmath", "deflist", "dollarmath"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type", "misc.highlighting_failure"]
exclude_patterns = ["static", "extra"]

# ---- looks

html_theme = "furo"
html_title = "nasedu"
html_css_files = ["site.css"]
html_js_files = ["site.js"]
html_copy_source = False
html_use_index = False
html_domain_indices = False
html_show_sphinx = False
html_show_search_summary = False  # it fetches the pages, which a browser does not allow from a folder
pygments_style = "a11y-high-contrast-light"
pygments_dark_style = "a11y-high-contrast-dark"
html_theme_options = {
    # Blue of Okabe and Ito, darkened until it has 7:1 on white; their sky blue on the dark ground.
    "light_css_variables": {"color-brand-primary": "#00527f", "color-brand-content": "#00527f"},
    "dark_css_variables": {"color-brand-primary": "#7cc7f2", "color-brand-content": "#7cc7f2"},
    "footer_icons": [],
}
copybutton_selector = "div.cell_input div.highlight pre, div.highlight-python pre"

# ---- formulas: MathJax lies in the site, with its fonts

mathjax_path = "mathjax/tex-chtml-full.js"
mathjax3_config = {"options": {"enableMenu": False}, "chtml": {"mtextInheritFont": True}}

# ---- the reference

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
add_module_names = False
default_role = "literal"


def plain_to_rst(lines: list[str]) -> None:
    """Make reStructuredText of a docstring in plain words, in place; indented lines stay as they stand.

    A table of names, `name  what it is` with the rest of it indented below, becomes a list.
    """
    out: list[str] = []
    indented = listed = table = False
    for line in [*lines, ""]:
        if found := re.match(r"(\w+)  +(\S.*)", line):
            line, table = f"- `{found[1]}` {found[2]}", True
        elif table and line.startswith("  "):
            line = f"  {line.strip()}"
        else:
            table = False
        inner = bool(line) and line.startswith("  ") and not listed
        if inner and not indented:
            out += ["", ".. code-block:: text", ""]
        elif indented and line and not inner:
            out.append("")
        if line:
            listed = line.startswith("- ") or (listed and line.startswith("  "))
            indented = inner
        out.append("   " + line if inner else line if not line else marked(line))
    lines[:] = out


def marked(line: str) -> str:
    """Mark quoted names only; elsewhere a star or an underscore is no markup."""
    parts = re.split(r"(`[^`]*`)", line)
    parts[::2] = [re.sub(r"([*_|\\`])", r"\\\1", part) for part in parts[::2]]
    # A plural's s right after a name would else end the markup's validity.
    for at in range(1, len(parts), 2):
        parts[at] = f"\\ {parts[at]}\\ "
    return "".join(parts)


def process(app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]) -> None:
    """Take a docstring from autodoc; what Python says of a named tuple's fields says nothing."""
    if lines and lines[0].startswith("Alias for field number"):
        lines.clear()
    plain_to_rst(lines)


def setup(app: Sphinx) -> None:
    """Ask Sphinx for each docstring before it reads it."""
    app.connect("autodoc-process-docstring", process)
