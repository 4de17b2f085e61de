"""Sums over bands and products with their gains, with a tail of channels."""

from harness import Case

from mixers import ops

from . import op_case

op_case("bands.cu", ops.band_mean, Case("mean", {"x": (2, 5, 7, 35)}, {"bands": 4}))
op_case("bands.cu", ops.band_scale, Case("scale", {"x": (2, 5, 7, 35), "gain": (2, 4, 35)}))

_NETWORK = {"scale": (6,), "bias": (6,), "w1": (6, 9), "w2": (9, 6), "b1": (9,), "b2": (6,)}

op_case("bands.cu", ops.band_weights, Case("weights", {"z": (2, 6, 75), **_NETWORK}))
