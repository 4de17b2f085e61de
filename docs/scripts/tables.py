"""Pages made from the library itself: the table of mixers, the list of ops, the changelog."""

import inspect
import pathlib
import re

import mixers
from mixers import ops

ROOT = pathlib.Path(__file__).parent.parent.parent
RANKS = {1: "(b, l, c)", 2: "(b, h, w, c)"}


def write(directory):
    """Write all generated pages into a directory."""
    directory.mkdir(exist_ok=True)
    pages = {
        "mixers.rst": mixer_table(),
        "ops.rst": op_list(),
        "changelog.rst": changelog(),
        "whole_mixer.py": inspect.getsource(mixers.zoo.GatedCnn),
    }
    for name, text in pages.items():
        path = directory / name
        # an unchanged page keeps its time, so that Sphinx does not read it again
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


def mixer_table():
    """All mixers: what they take, what they cost, where they come from."""
    lines = [heading("All mixers", "="), "", ".. list-table::", "   :header-rows: 1", ""]
    lines += row("name", "family", "x", "causal", "recurrent", "tied to a grid", "cost", "source")
    for name in mixers.list_mixers():
        known = mixers.describe(name)
        link = f"`{known.arxiv} <https://arxiv.org/abs/{known.arxiv}>`__, " if known.arxiv else ""
        lines += row(
            f"``{name}``",
            known.family,
            " or ".join(RANKS[rank] for rank in known.ranks),
            *("yes" if flag else "" for flag in (known.causal, known.recurrent, known.grid_tied)),
            known.cost,
            f"{known.paper}, {link}{known.year}",
        )
    return "\n".join(lines) + "\n"


def op_list():
    """Every op with its docstring, by family."""
    families = {}
    for name in ops.__all__:
        families.setdefault(getattr(ops, name).family, []).append(name)
    lines = [heading("Ops", "="), "", "Every op has the three verbs of :doc:`/concepts`.", ""]
    for family, names in sorted(families.items()):
        lines += [heading(family.replace("_", " ").capitalize(), "-"), ""]
        for name in names:
            lines += [f".. autofunction:: mixers.ops.{name}", ""]
    return "\n".join(lines)


def changelog():
    """CHANGELOG.md as reStructuredText; it uses headings, lists and code only."""
    text = (ROOT / "CHANGELOG.md").read_text()
    text = re.sub(r"^# (.*)$", lambda m: heading(m[1], "="), text, flags=re.MULTILINE)
    text = re.sub(r"^## (.*)$", lambda m: heading(m[1], "-"), text, flags=re.MULTILINE)
    return re.sub(r"`([^`]+)`", r"``\1``", text)


def heading(text, mark):
    return f"{text}\n{mark * len(text)}"


def row(first, *others):
    return [f"   * - {first}", *(f"     - {other}" for other in others)]
