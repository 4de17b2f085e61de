"""Complex networks on spectra."""

import numpy
import pytest
from harness import Case, OpSuite

from mixers import ops


def network(name, shape, n, e, threshold=0.0, **options):
    d = shape[-1] // n
    shapes = {"w1": (n, d, e), "b1": (n, e), "w2": (n, e, d), "b2": (n, d)}
    parts = {f"{name}_{part}": shape for name, shape in shapes.items() for part in ("re", "im")}
    return Case(name, {"re": shape, "im": shape, **parts}, {"threshold": threshold}, **options)


class TestBlockComplexMlp(OpSuite):
    op = ops.block_complex_mlp
    cases = [
        network("image", (2, 3, 4, 6), 2, 3, 0.5),
        network("sequence", (3, 7, 8), 4, 4, 0.01),
        network("one-block", (1, 5, 9), 1, 12),
        network("blocks-of-one", (2, 5, 3), 3, 1, 0.1),
        network("rows", (65, 33), 3, 22, 1.0),
        network("many-rows", (2, 301, 8), 2, 6, differences=False),
        network("nothing", (2, 0, 4), 2, 3),
        network("empty-batch", (0, 3, 4), 2, 3),
    ]


ARGUMENTS = network("errors", (2, 3, 4), 2, 3).draw()


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("re", (4,), "re must have at least 2 axes"),
        ("im", (2, 3, 3), r"im must have the shape of re \(2, 3, 4\), got \(2, 3, 3\)"),
        ("w1_re", (2, 3, 3), "w1_re must have n d = 4, the channels of re"),
        ("w1_im", (2, 2, 4), r"w1_im must have shape \(n, d, e\) = \(2, 2, 3\)"),
        ("b1_re", (3,), "b1_re must have shape"),
        ("b1_im", (3, 3), "b1_im must have shape"),
        ("w2_re", (2, 2, 2), "w2_re must have shape"),
        ("w2_im", (2, 3, 3), "w2_im must have shape"),
        ("b2_re", (2, 3), "b2_re must have shape"),
        ("b2_im", (1, 2), "b2_im must have shape"),
    ],
)
def test_errors(name, shape, message):
    with pytest.raises(ValueError, match=f"block_complex_mlp: {message}"):
        ops.block_complex_mlp(**{**ARGUMENTS, name: numpy.zeros(shape)})


def test_threshold():
    with pytest.raises(ValueError, match="threshold must be >= 0, got -1"):
        ops.block_complex_mlp(**{**ARGUMENTS, "threshold": -1.0})
