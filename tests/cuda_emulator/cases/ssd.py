"""All kernels of the scan with one decay per head, over several chunks, the last one short."""

from harness import Case

from mixers import ops

from . import op_case


def _negative(shape):
    return lambda rng: -rng.uniform(0.2, 4.0, shape)


def _positive(shape):
    return lambda rng: rng.uniform(0.01, 0.6, shape)


_HEADS = {"A": _negative(4), "D": (4,), "dt_bias": _positive(4)}
_LIMITS = {"dt_softplus": True, "dt_limit": (0.2, 1.5)}

op_case(
    "ssd.cu",
    ops.ssd_scan,
    Case(
        "everything",
        {
            **{name: (2, 10, 4, 3) for name in "xz"},
            **{name: (2, 10, 2, 5) for name in "BC"},
            "dt": _positive((2, 10, 4)),
            "h0": (2, 4, 3, 5),
            **_HEADS,
        },
        {**_LIMITS, "chunk_size": 4, "return_last_state": True},
    ),
)
op_case(
    "ssd.cu",
    ops.ssd_state_update,
    Case(
        "step",
        {
            "state": (2, 4, 3, 33),
            **{name: (2, 4, 3) for name in "xz"},
            **{name: (2, 2, 33) for name in "BC"},
            "dt": _positive((2, 4)),
            **_HEADS,
        },
        _LIMITS,
    ),
)
