"""Both cosine transforms, of lines and of images with a tail of channels, even and odd axes."""

from harness import Case

from mixers import ops

from . import op_case

for _op in (ops.dct, ops.idct):
    op_case("spectral.cu", _op, Case("lines", {"x": (2, 7, 33)}))
    op_case("spectral.cu", _op, Case("images", {"x": (2, 6, 9, 35)}))
