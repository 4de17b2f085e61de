"""The `mixers` command: one module per subcommand, each with ``add_arguments`` and ``run``."""

import argparse
import importlib
import os
import sys

from mixers._version import __version__

# module of each subcommand, and the line that `mixers --help` prints
COMMANDS = {
    "train": "train a small model around a mixer, on handwritten digits or on recall",
    "fit": "fit a small Kolmogorov-Arnold network to an expression or a CSV file",
    "list": "list the mixers and ops",
    "info": "versions, backends, threads and caches",
    "check": "compare a mixer or op with the float64 reference on this machine",
    "warmup": "compile the CPU kernels ahead, so that the first call is fast",
    "map": "draw how a mixer mixes tokens",
    "bench": "time a mixer or op, alone or against other libraries",
}

# what users cause and can mend; anything else is a fault of the library and keeps its traceback
EXPECTED = (ValueError, TypeError, NotImplementedError, RuntimeError, OSError)


def main(arguments=None):
    """Run the command line; returns the exit status: 0, 1 for a failed check, 2 for an error."""
    parsed = build_parser().parse_args(arguments)
    try:
        return _run(parsed)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # the reader has gone (as in `mixers list | head`); nobody is left to be told
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EXPECTED as error:
        message = " ".join(str(error).split()) or type(error).__name__
        print(f"mixers {parsed.command}: {message}", file=sys.stderr)
        return 2


def build_parser():
    """The parser of the whole command."""
    parser = argparse.ArgumentParser(
        prog="mixers",
        description="Forward and backward of the published token mixers.",
        epilog="`mixers COMMAND --help` explains a command with examples.",
    )
    parser.add_argument("--version", action="version", version=f"token-mixers {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, line in COMMANDS.items():
        module = importlib.import_module(f"mixers.cli.{name}")
        command = commands.add_parser(
            name,
            help=line,
            description=module.__doc__,
            epilog=module.EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        module.add_arguments(command)
    return parser


def _run(parsed):
    return importlib.import_module(f"mixers.cli.{parsed.command}").run(parsed) or 0


if __name__ == "__main__":
    sys.exit(main())
