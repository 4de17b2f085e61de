"""What several subcommands share: their common options, consoles, progress bars and backends."""

import ast
import contextlib

import mixers

# columns of a table that is piped or written to a file
_UNLIMITED = 1000


def add_name(parser, what="a mixer or op"):
    parser.add_argument("name", metavar="NAME", help=f"{what}; `mixers list` names all")


def add_backend(parser):
    parser.add_argument(
        "--backend",
        choices=("reference", "cpu", "gpu"),
        default="cpu",
        help="where to compute (default: %(default)s)",
    )


def add_shape(parser):
    parser.add_argument(
        "--shape",
        metavar="SHAPE",
        help="of a mixer's x, as 8,1024,256 or 8,14,14,384; sizes of an op by letter, as b=2,l=1024",
    )


def add_config(parser):
    parser.add_argument(
        "--config",
        metavar="KEY=VALUE",
        nargs="+",
        default=[],
        help="options of the mixer's constructor, as hidden=64 activation=gelu_tanh",
    )


def parse_config(pairs):
    """Options from texts like "hidden=64"; values are Python literals, other texts stay texts.

    >>> parse_config(["hidden=64", "grid=(4, 4)", "activation=gelu"])
    {'hidden': 64, 'grid': (4, 4), 'activation': 'gelu'}
    """
    config = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"--config must look like hidden=64, got {pair!r}")
        try:
            config[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            config[name] = value
    return config


@contextlib.contextmanager
def chosen_backend(name):
    """Compute with a backend; for "gpu", complain in one line if there is none."""
    if name == "gpu":
        require_gpu()
    with mixers.use_backend(name):
        yield


def require_gpu():
    """Raise RuntimeError with what to install if there is no GPU to compute on."""
    from mixers.gpu import device

    device.cupy_device()


def has_gpu():
    """Whether the gpu backend can compute here."""
    try:
        require_gpu()
    except RuntimeError:
        return False
    return True


def console(stderr=False):
    """A rich console: colours and bars on a terminal, plain text of any width elsewhere."""
    from rich.console import Console

    found = Console(stderr=stderr, highlight=False, markup=False)
    return (
        found
        if found.is_terminal
        else Console(stderr=stderr, highlight=False, markup=False, width=_UNLIMITED)
    )


def table(*columns):
    """An empty table; columns that start with ">" are aligned right. The first one is never cut or wrapped."""
    from rich import box
    from rich.table import Table

    found = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for i, column in enumerate(columns):
        right = column.startswith(">")
        found.add_column(column.lstrip(">"), justify="right" if right else "left", no_wrap=right or i == 0)
    return found


def progress(*columns):
    """A progress bar on standard error; nothing at all if that is no terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    shown = console(stderr=True)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        *(TextColumn(column) for column in columns),
        TimeRemainingColumn(),
        console=shown,
        disable=not shown.is_terminal,
    )
