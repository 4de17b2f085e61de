"""List the published mixers, or with --ops the functions they are composed of."""

import mixers
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers list
  mixers list --family ssm --causal
  mixers list --rank 2 --names
  mixers list --ops"""


def add_arguments(parser):
    parser.add_argument("--family", help="only this family, as mlp or ssm")
    parser.add_argument(
        "--rank", type=int, choices=(1, 2), help="only mixers of sequences (1) or of images (2)"
    )
    parser.add_argument("--causal", action="store_true", help="only causal mixers")
    parser.add_argument("--recurrent", action="store_true", help="only mixers that run token by token")
    parser.add_argument("--ops", action="store_true", help="list the ops instead")
    parser.add_argument("--names", action="store_true", help="print names only, one per line")


def run(arguments):
    names = _ops(arguments) if arguments.ops else _mixers(arguments)
    if arguments.names:
        print("\n".join(names))
    else:
        shared.console().print(_op_table(names) if arguments.ops else _mixer_table(names))


def _mixers(arguments):
    families = {mixers.describe(name).family for name in mixers.list_mixers()}
    if arguments.family is not None and arguments.family not in families:
        raise ValueError(f"--family must be one of {', '.join(sorted(families))}, got {arguments.family!r}")
    return mixers.list_mixers(
        arguments.family,
        rank=arguments.rank,
        causal=arguments.causal or None,
        recurrent=arguments.recurrent or None,
    )


def _ops(arguments):
    found = [getattr(mixers.ops, name) for name in mixers.ops.__all__]
    return [op.name for op in found if arguments.family in (None, op.family)]


def _mixer_table(names):
    found = shared.table("mixer", "family", "tokens", "kind", "cost", "paper")
    for name in names:
        known = mixers.describe(name)
        kinds = {"causal": known.causal, "recurrent": known.recurrent, "fixed grid": known.grid_tied}
        source = f"{known.year} arXiv:{known.arxiv}" if known.arxiv else str(known.year)
        found.add_row(
            name,
            known.family,
            " ".join(f"{rank}-D" for rank in known.ranks),
            ", ".join(kind for kind, holds in kinds.items() if holds),
            known.cost,
            _one_line(f"{source} {known.paper}"),
        )
    return found


def _op_table(names):
    found = shared.table("op", "family", "what it computes")
    for name in names:
        op = getattr(mixers.ops, name)
        found.add_row(name, op.family, _one_line(op.__doc__.strip().partition("\n")[0]))
    return found


def _one_line(text):
    from rich.text import Text

    return Text(text, no_wrap=True, overflow="ellipsis")
