"""Matrix products over the axes of images."""

import numpy
import pytest
from harness import Case, OpSuite

from mixers import ops


def product(name, b, h, m, w, c, **options):
    return Case(name, {"x": (b, h, m, c), "z": (b, m, w, c)}, **options)


class TestSpatialMatmul(OpSuite):
    op = ops.spatial_matmul
    cases = [
        product("square", 2, 7, 7, 7, 5),
        product("unequal", 3, 4, 6, 3, 33),
        product("point", 3, 1, 1, 1, 3),
        product("vector", 2, 1, 9, 5, 8),
        product("outer", 1, 5, 1, 6, 17),
        product("32x32", 2, 32, 32, 32, 3, differences=False),
        product("65x33", 1, 65, 9, 33, 2, differences=False),
        product("empty-batch", 0, 4, 4, 4, 3),
        product("nothing-to-sum", 2, 3, 0, 4, 3),
        product("no-rows", 2, 0, 3, 4, 3),
        product("no-channels", 2, 4, 4, 4, 0),
    ]


@pytest.mark.parametrize("shape", [(3, 4, 5, 2), (2, 3, 5, 2), (2, 4, 5, 3)])
def test_errors(shape):
    with pytest.raises(ValueError, match="spatial_matmul: z must have shape"):
        ops.spatial_matmul(numpy.zeros((2, 3, 4, 2)), numpy.zeros(shape))
