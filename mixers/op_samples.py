"""Arguments to try every op with; an op that is new gets a line in ``OPS``."""

import functools
from typing import NamedTuple

import numpy


def normal(rng, shape):
    """Normal values."""
    return rng.standard_normal(shape)


def decays(rng, shape):
    """Decays of a recurrence, in (0, 1)."""
    return rng.uniform(0.05, 0.999, shape)


def rates(rng, shape):
    """Decay rates, negative."""
    return -rng.uniform(0.1, 4.0, shape)


def steps(rng, shape):
    """Step sizes, positive."""
    return rng.uniform(0.01, 0.3, shape)


def coefficients(rng, shape):
    """Small normal values, for weights that are summed over many terms."""
    return 0.1 * rng.standard_normal(shape)


def scales(rng, shape):
    """Positive scales around one."""
    return rng.uniform(0.5, 1.5, shape)


def permutations(rng, shape):
    """Rows that are permutations."""
    return rng.permuted(numpy.tile(numpy.arange(shape[1]), (shape[0], 1)), axis=1)


def displacements(rng, shape):
    """Shifts of channels, -2 to 2."""
    return numpy.arange(shape[0]) % 5 - 2


class OpSample(NamedTuple):
    """How to draw the arguments of an op.

    `arrays` maps an argument to the letters of its shape, or to ``(letters, law)``; `small` and `bench` give
    the letters their sizes, `options` are passed as they are.
    """

    arrays: dict
    small: dict
    bench: dict
    options: dict = {}


def _elementwise(*names):
    return OpSample(dict.fromkeys(names, "b l c"), {"b": 2, "l": 7, "c": 5}, {"b": 16, "l": 1024, "c": 256})


_SCAN = {
    "u": "{t} c",
    "delta": ("{t} c", steps),
    "A": ("c n", rates),
    "B": "{t} g n",
    "C": "{t} g n",
    "D": "c",
    "z": "{t} c",
}


_SSD = {
    "x": "{t} h p",
    "dt": ("{t} h", steps),
    "A": ("h", rates),
    "B": "{t} g n",
    "C": "{t} g n",
    "D": "h",
}


def _of_tokens(letters, tokens, extra, small, bench):
    """A sample of a scan (tokens "b l") or of its single step (tokens "b")."""
    arrays = {
        name: value.format(t=tokens) if isinstance(value, str) else (value[0].format(t=tokens), value[1])
        for name, value in {**extra, **letters}.items()
    }
    return OpSample(arrays, small, bench)


_scan, _ssd = functools.partial(_of_tokens, _SCAN), functools.partial(_of_tokens, _SSD)


OPS = {
    **{
        name: _elementwise("x")
        for name in "gelu gelu_tanh silu relu sigmoid tanh softplus sin exp absolute".split()
    },
    **{name: _elementwise("a", "b") for name in ("add", "sub", "mul")},
    "star_relu": OpSample(
        {"x": "b l c", "scale": "s", "bias": "s"},
        {"b": 2, "l": 7, "c": 5, "s": 1},
        {"b": 16, "l": 1024, "c": 256, "s": 1},
    ),
    "gate": _elementwise("x", "z"),
    "div": OpSample(
        {"a": "b l c", "b": ("b l c", decays)}, {"b": 2, "l": 7, "c": 5}, {"b": 16, "l": 1024, "c": 256}
    ),
    "linear": OpSample(
        {"x": "b l c", "w": ("c d", coefficients), "b": "d"},
        {"b": 2, "l": 7, "c": 5, "d": 3},
        {"b": 8, "l": 1024, "c": 256, "d": 512},
    ),
    "axis_linear": OpSample(
        {"x": "b l c", "w": ("k l", coefficients), "b": "k"},
        {"b": 2, "l": 7, "c": 5, "k": 3},
        {"b": 16, "l": 196, "c": 512, "k": 256},
    ),
    "token_mlp": OpSample(
        {
            "x": "b l c",
            "w_in": ("h l", coefficients),
            "w_out": ("l h", coefficients),
            "b_in": "h",
            "b_out": "l",
        },
        {"b": 2, "l": 7, "c": 5, "h": 3},
        {"b": 16, "l": 196, "c": 512, "h": 256},
    ),
    "layer_norm": OpSample(
        {"x": "b l c", "scale": "c", "bias": "c"},
        {"b": 2, "l": 7, "c": 5},
        {"b": 16, "l": 1024, "c": 256},
    ),
    "rms_norm": OpSample(
        {"x": "b l c", "scale": "c"}, {"b": 2, "l": 7, "c": 5}, {"b": 16, "l": 1024, "c": 256}
    ),
    "batch_norm": OpSample(
        {"x": "b l c", "scale": "c", "bias": "c", "mean": "c", "var": ("c", decays)},
        {"b": 2, "l": 7, "c": 5},
        {"b": 16, "l": 3136, "c": 64},
    ),
    "group_norm": OpSample(
        {"x": "b l c", "scale": "c", "bias": "c"}, {"b": 2, "l": 7, "c": 5}, {"b": 16, "l": 3136, "c": 64}
    ),
    "avg_pool": OpSample(
        {"x": "b h w c"},
        {"b": 2, "h": 5, "w": 6, "c": 3},
        {"b": 16, "h": 56, "w": 56, "c": 64},
        {"minus_identity": True},
    ),
    "depthwise_conv2d": OpSample(
        {"x": "b h w c", "w": ("k k c", coefficients), "b": "c"},
        {"b": 2, "h": 5, "w": 6, "c": 3, "k": 3},
        {"b": 16, "h": 56, "w": 56, "c": 96, "k": 7},
    ),
    "causal_conv1d": OpSample(
        {"x": "b l c", "w": "k c", "b": "c"},
        {"b": 2, "l": 9, "c": 5, "k": 4},
        {"b": 4, "l": 2048, "c": 512, "k": 4},
    ),
    "causal_conv1d_update": OpSample(
        {"x": "b c", "state": "b s c", "w": "k c", "b": "c"},
        {"b": 2, "c": 5, "s": 3, "k": 4},
        {"b": 64, "c": 2048, "s": 3, "k": 4},
    ),
    "window_linear": OpSample(
        {"x": "b h w c", "w": ("n n", coefficients), "b": "n"},
        {"b": 2, "h": 4, "w": 6, "c": 5, "n": 4},
        {"b": 8, "h": 64, "w": 64, "c": 64, "n": 4},
        {"size": (2, 2)},
    ),
    "avg_pool_2x2": OpSample(
        {"x": "b h w c"}, {"b": 2, "h": 5, "w": 6, "c": 3}, {"b": 16, "h": 56, "w": 56, "c": 64}
    ),
    "nearest_upsample": OpSample(
        {"x": "b h w c"},
        {"b": 2, "h": 3, "w": 4, "c": 3},
        {"b": 16, "h": 28, "w": 28, "c": 64},
        {"grid": (57, 56)},
    ),
    "token_mean": OpSample(
        {"x": "b h w c"}, {"b": 2, "h": 5, "w": 6, "c": 3}, {"b": 16, "h": 56, "w": 56, "c": 64}
    ),
    "grouped_conv1d": OpSample(
        {"x": "b l c", "w": ("k m c", coefficients)},
        {"b": 2, "l": 9, "c": 6, "k": 3, "m": 3},
        {"b": 16, "l": 56, "c": 256, "k": 7, "m": 128},
        {"groups": 2},
    ),
    "grouped_conv2d": OpSample(
        {"x": "b h w c", "w": ("k k m c", coefficients)},
        {"b": 2, "h": 5, "w": 4, "c": 6, "k": 3, "m": 3},
        {"b": 8, "h": 28, "w": 28, "c": 64, "k": 3, "m": 32},
        {"groups": 2},
    ),
    "channel_shift": OpSample(
        {"x": "b h w c", "shifts": ("c", displacements)},
        {"b": 2, "h": 5, "w": 6, "c": 7},
        {"b": 16, "h": 56, "w": 56, "c": 64},
    ),
    "shift_linear": OpSample(
        {"x": "b h w c", "w": ("c d", coefficients), "b": "d", "shifts": ("c", displacements)},
        {"b": 2, "h": 5, "w": 6, "c": 7, "d": 3},
        {"b": 16, "h": 56, "w": 56, "c": 64, "d": 64},
    ),
    "rolled_conv2d": OpSample(
        {"x": "b h w c", "w_lr": ("n", coefficients), "w_td": ("n", coefficients), "b": "c"},
        {"b": 2, "h": 5, "w": 4, "c": 7, "n": 55},
        {"b": 8, "h": 28, "w": 28, "c": 160, "n": 1840},
        {"shifts": (-1, 0, 2), "kernels": (1, 3, 5)},
    ),
    "strip_linear": OpSample(
        {"x": "b h w c", "w": ("j k w w", coefficients), "b": "j w"},
        {"b": 2, "h": 5, "w": 4, "c": 6, "j": 3, "k": 3},
        {"b": 16, "h": 14, "w": 14, "c": 192, "j": 48, "k": 3},
        {"axis": "w"},
    ),
    "relative_bias": OpSample(
        {"x": "b h w c", "table": "t c"},
        {"b": 2, "h": 5, "w": 4, "c": 6, "t": 11},
        {"b": 16, "h": 56, "w": 56, "c": 64, "t": 113},
    ),
    "branch_attention": OpSample(
        {
            **dict.fromkeys(("z0", "z1", "z2"), "b h w c"),
            "w_in": ("c m", coefficients),
            "w_out": ("m o", coefficients),
            "b_in": "m",
            "b_out": "o",
        },
        {"b": 2, "h": 5, "w": 4, "c": 6, "m": 3, "o": 18},
        {"b": 16, "h": 28, "w": 28, "c": 128, "m": 32, "o": 384},
    ),
    "dct": OpSample({"x": "b h w c"}, {"b": 2, "h": 5, "w": 6, "c": 3}, {"b": 16, "h": 56, "w": 56, "c": 64}),
    "idct": OpSample(
        {"x": "b h w c"}, {"b": 2, "h": 5, "w": 6, "c": 3}, {"b": 16, "h": 56, "w": 56, "c": 64}
    ),
    "fourier_real": OpSample({"x": "b l c"}, {"b": 2, "l": 7, "c": 5}, {"b": 8, "l": 512, "c": 768}),
    "rfft": OpSample(
        {"x": "b h w c"}, {"b": 2, "h": 5, "w": 6, "c": 3}, {"b": 16, "h": 14, "w": 14, "c": 384}
    ),
    "irfft": OpSample(
        {"re": "b h k c", "im": "b h k c"},
        {"b": 2, "h": 14, "k": 8, "c": 3},
        {"b": 16, "h": 14, "k": 8, "c": 384},
        {"grid": (14, 14)},
    ),
    "block_complex_mlp": OpSample(
        {
            **dict.fromkeys(("re", "im"), "b l c"),
            **dict.fromkeys(("w1_re", "w1_im"), ("n d e", coefficients)),
            **dict.fromkeys(("b1_re", "b1_im"), "n e"),
            **dict.fromkeys(("w2_re", "w2_im"), ("n e d", coefficients)),
            **dict.fromkeys(("b2_re", "b2_im"), "n d"),
        },
        {"b": 2, "l": 7, "c": 6, "n": 2, "d": 3, "e": 4},
        {"b": 16, "l": 112, "c": 384, "n": 8, "d": 48, "e": 48},
        {"threshold": 0.01},
    ),
    "band_mean": OpSample(
        {"x": "b h w c"},
        {"b": 2, "h": 5, "w": 6, "c": 3},
        {"b": 16, "h": 56, "w": 56, "c": 64},
        {"bands": 16},
    ),
    "band_scale": OpSample(
        {"x": "b h w c", "gain": "b k c"},
        {"b": 2, "h": 5, "w": 6, "c": 3, "k": 4},
        {"b": 16, "h": 56, "w": 56, "c": 64, "k": 16},
    ),
    "band_weights": OpSample(
        {
            "z": "b k c",
            **dict.fromkeys(("scale", "bias"), "k"),
            **{"w1": "k v", "w2": "v k", "b1": "v", "b2": "k"},
        },
        {"b": 2, "k": 4, "c": 3, "v": 5},
        {"b": 8, "k": 16, "c": 384, "v": 64},
    ),
    "spatial_matmul": OpSample(
        {"x": "b h m c", "z": "b m w c"},
        {"b": 2, "h": 5, "m": 4, "w": 6, "c": 3},
        {"b": 16, "h": 32, "m": 32, "w": 32, "c": 64},
    ),
    "s4d_kernel": OpSample(
        {
            "log_dt": ("c", rates),
            "log_A_real": ("c m", coefficients),
            **dict.fromkeys(("A_imag", "C_re", "C_im"), "c m"),
        },
        {"c": 3, "m": 2},
        {"c": 256, "m": 32},
        {"length": 1024},
    ),
    "long_conv2d": OpSample(
        {"x": "b h w c", "h": ("h w c", coefficients), "D": "c"},
        {"b": 2, "h": 5, "w": 6, "c": 3},
        {"b": 4, "h": 32, "w": 32, "c": 128},
    ),
    "spectral_filter": OpSample(
        {"x": "b h w c", "w_re": ("h k c", coefficients), "w_im": ("h k c", coefficients)},
        {"b": 2, "h": 5, "w": 6, "k": 4, "c": 3},
        {"b": 16, "h": 14, "w": 14, "k": 8, "c": 384},
    ),
    "long_conv1d": OpSample(
        {"x": "b l c", "h": ("l c", coefficients), "D": "c"},
        {"b": 2, "l": 19, "c": 3},
        {"b": 2, "l": 8192, "c": 256},
    ),
    "linear_scan": OpSample(
        {"a": ("b l c", decays), "b": "b l c"},
        {"b": 2, "l": 19, "c": 3},
        {"b": 4, "l": 4096, "c": 512},
    ),
    "selective_scan": _scan(
        "b l",
        {},
        {"b": 2, "l": 19, "c": 6, "n": 4, "g": 1},
        {"b": 2, "l": 1024, "c": 256, "n": 16, "g": 1},
    ),
    "cross_selective_scan": OpSample(
        {
            "u": "b l c",
            "delta": ("b l k c", steps),
            "A": ("k c n", rates),
            **dict.fromkeys("BC", "b l k n"),
            "D": "k c",
            "orders": ("k l", permutations),
        },
        {"b": 2, "l": 19, "c": 6, "n": 4, "k": 3},
        {"b": 8, "l": 196, "c": 384, "n": 16, "k": 4},
    ),
    "selective_state_update": _scan(
        "b",
        {"state": "b c n"},
        {"b": 2, "c": 6, "n": 4, "g": 1},
        {"b": 64, "c": 2048, "n": 16, "g": 1},
    ),
    "shifted_window_attention": OpSample(
        {**dict.fromkeys("qkv", "b h w n d"), "table": "t n"},
        {"b": 2, "h": 4, "w": 8, "n": 2, "d": 3, "t": 49},
        {"b": 8, "h": 56, "w": 56, "n": 8, "d": 32, "t": 49},
        {"window": 4, "shift": 2},
    ),
    "ssd_scan": _ssd(
        "b l",
        {},
        {"b": 2, "l": 19, "h": 4, "p": 3, "n": 4, "g": 2},
        {"b": 2, "l": 1024, "h": 8, "p": 64, "n": 128, "g": 1},
    ),
    "ssd_state_update": _ssd(
        "b",
        {"state": "b h p n"},
        {"b": 2, "h": 4, "p": 3, "n": 4, "g": 2},
        {"b": 16, "h": 24, "p": 64, "n": 128, "g": 1},
    ),
    "kan_attention": OpSample(
        {
            "q": "b n h d",
            "k": "b n h d",
            "v": "b n h d",
            "phi_cos": ("h n g r", coefficients),
            "phi_sin": ("h n g r", coefficients),
            "w_up": ("h n r", coefficients),
        },
        {"b": 2, "n": 9, "h": 2, "d": 4, "g": 3, "r": 2},
        {"b": 4, "n": 197, "h": 3, "d": 64, "g": 3, "r": 12},
    ),
    "kan_sums": OpSample(
        {
            "qk": "b n s h d",
            "phi_cos": ("h n g r", coefficients),
            "phi_sin": ("h n g r", coefficients),
        },
        {"b": 2, "n": 9, "s": 2, "h": 2, "d": 4, "g": 3, "r": 2},
        {"b": 8, "n": 196, "s": 2, "h": 4, "d": 96, "g": 3, "r": 12},
    ),
    "low_rank_values": OpSample(
        {
            "z": "b n h r",
            "x": "b n c",
            "w_up": ("h n r", coefficients),
            "w_v": ("c e", coefficients),
            "w_out": ("e o", coefficients),
            "b_v": "e",
            "b_out": "o",
        },
        {"b": 2, "n": 9, "h": 2, "r": 3, "c": 5, "e": 8, "o": 7},
        {"b": 8, "n": 196, "h": 4, "r": 12, "c": 384, "e": 384, "o": 384},
    ),
    "kan_contract": OpSample(
        {"x": "m i", "w": ("i g o", coefficients)},
        {"m": 9, "i": 5, "g": 8, "o": 3},
        {"m": 3136, "i": 384, "g": 8, "o": 384},
    ),
    "kan_conv2d": OpSample(
        {"x": "b h w c", "w": ("k k c g o", coefficients)},
        {"b": 2, "h": 5, "w": 6, "c": 3, "k": 3, "g": 8, "o": 4},
        {"b": 8, "h": 28, "w": 28, "c": 16, "k": 3, "g": 8, "o": 16},
        {"padding": 1},
    ),
    "kan_edges": OpSample(
        {"x": "m i", "first": "i o", "second": ("i o", scales), "third": "i o"},
        {"m": 9, "i": 5, "o": 3},
        {"m": 3136, "i": 64, "o": 64},
    ),
    "kan_map_attention": OpSample(
        {
            "q": "b n h d",
            "k": "b n h d",
            "v": "b n h d",
            "phi": ("h n g r", coefficients),
            "w": ("h n r", coefficients),
        },
        {"b": 2, "n": 9, "h": 2, "d": 4, "g": 6, "r": 2},
        {"b": 4, "n": 197, "h": 3, "d": 64, "g": 6, "r": 12},
        {"basis": "bspline", "low": -2.0, "high": 2.0},
    ),
    "simplex_projection": OpSample({"x": "b n"}, {"b": 7, "n": 5}, {"b": 16384, "n": 256}),
    "unfold2d": OpSample(
        {"x": "b h w c"},
        {"b": 2, "h": 5, "w": 6, "c": 3},
        {"b": 16, "h": 28, "w": 28, "c": 64},
        {"size": 3, "stride": 2, "padding": 1},
    ),
}
