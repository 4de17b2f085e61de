"""Every tolerance of the test suite, in one table. Loosening one needs a reason written beside it.

`ratio` is rms(x - ref) / rms(ref), `worst` is max|x - ref| / max|ref|; both must hold, for the output and for
each gradient separately. References are computed in float64 on inputs rounded to the tested dtype.
"""

from typing import NamedTuple


class Tolerance(NamedTuple):
    ratio: float
    worst: float


FORWARD = {
    "float64": Tolerance(1e-13, 1e-12),
    "float32": Tolerance(1e-6, 1e-5),
    "float16": Tolerance(5e-4, 2e-3),
    "bfloat16": Tolerance(4e-3, 1.5e-2),
}
BACKWARD = {
    "float64": Tolerance(1e-12, 1e-11),
    "float32": Tolerance(3e-6, 3e-5),
    "float16": Tolerance(1e-3, 4e-3),
    "bfloat16": Tolerance(8e-3, 3e-2),
}

# scans with decays within 1e-4 of 1 carry rounding over the whole length: a sequential float32 scan loses 4e-6
HARD_GATE_FACTOR = 10.0

# central differences along random directions, float64: relative to the directional derivative's scale
FINITE_DIFFERENCE = 1e-6

# golden vectors: relative to the largest value of the array
GOLDEN = {"float64": 1e-9, "float32": 2e-4}

# an FFT convolution leaks rounding into the past: relative to the size of the perturbation
CAUSALITY_LEAK = {"float64": 1e-14, "float32": 1e-6}
