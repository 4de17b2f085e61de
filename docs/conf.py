"""Sphinx configuration. Build with ``sphinx-build -W -b html docs docs/_build``."""

import pathlib
import re
import sys

import mixers

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE / "scripts"))

import tables  # noqa: E402

project = "token-mixers"
author = "The token-mixers developers"
copyright = "2026, the token-mixers developers"
version = release = mixers.__version__

extensions = ["sphinx.ext.autodoc", "sphinx.ext.mathjax", "numpydoc"]
exclude_patterns = ["_build", "scripts"]
html_theme = "alabaster"
html_theme_options = {
    "description": "Forward and backward of the published token mixers",
    "page_width": "1100px",
    "fixed_sidebar": True,
}
html_title = f"token-mixers {version}"
autodoc_member_order = "bysource"
# ops name their arrays in the docstring; the signature would repeat defaults like None
autodoc_typehints = "none"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False


def escape_formulas(app, what, name, obj, options, lines):
    """Let docstrings hold formulas like |h| x[n] * D as plain text: bars and stars are no markup there."""
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = re.split(r"(``.*?``|`[^`]*`)", line)
            parts[::2] = [re.sub(r"([|*])", r"\\\1", part) for part in parts[::2]]
            lines[i] = "".join(parts)


def setup(app):
    # before numpydoc, which makes markup of its own
    app.connect("autodoc-process-docstring", escape_formulas, priority=1)
    # written at every build from the registry, so that they cannot go stale
    tables.write(HERE / "generated")
