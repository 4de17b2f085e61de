"""Check a mixer or op on this machine.

The gradients of the float64 reference are compared with central differences; then outputs and
gradients of the backends, in every dtype, with the reference. Errors are relative to the largest
value of each array. The exit status is 1 if one exceeds its bound."""

from mixers import checking, subjects
from mixers.cli import shared

EXAMPLES = """\
examples:
  mixers check mamba
  mixers check selective_scan --shape b=2,l=300 --dtype float32
  mixers check mlp_mixer --config hidden=40 activation=gelu_tanh"""


def add_arguments(parser):
    shared.add_name(parser)
    parser.add_argument(
        "--backend",
        choices=("cpu", "gpu", "all"),
        default="all",
        help="what to compare with the reference (default: all that this machine has)",
    )
    parser.add_argument(
        "--dtype", nargs="+", choices=checking.DTYPES, default=checking.DTYPES, metavar="DTYPE"
    )
    parser.add_argument("--seed", type=int, default=0)
    shared.add_shape(parser)
    shared.add_config(parser)


def run(arguments):
    if arguments.backend == "gpu":
        shared.require_gpu()
    everything = ("cpu", "gpu") if shared.has_gpu() else ("cpu",)
    backends = everything if arguments.backend == "all" else (arguments.backend,)
    findings = list(
        checking.check(
            arguments.name,
            backends,
            tuple(arguments.dtype),
            arguments.seed,
            subjects.parse_shape(arguments.shape),
            **shared.parse_config(arguments.config),
        )
    )
    table = shared.table("backend", "dtype", "array", ">error", ">bound", "")
    for finding in findings:
        table.add_row(
            finding.backend,
            finding.dtype,
            finding.array,
            f"{finding.error:.1e}",
            f"{finding.bound:.0e}",
            "" if finding.passed else "FAILED",
        )
    shared.console().print(table)
    failed = sum(not finding.passed for finding in findings)
    print(f"{arguments.name}: {len(findings) - failed} of {len(findings)} arrays within bounds")
    return 1 if failed else 0
