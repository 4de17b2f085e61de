"""The ops: pure functions of arrays with the verbs call, forward and backward.

One module per family; the same file name holds the definition in mixers.reference, the CPU kernels in
mixers.cpu and the CUDA launchers in mixers.gpu.
"""

from mixers.ops.activation import gate, star_relu
from mixers.ops.attention import shifted_window_attention
from mixers.ops.bands import band_mean, band_scale, band_weights
from mixers.ops.branch import branch_attention
from mixers.ops.complex_mlp import block_complex_mlp
from mixers.ops.conv import causal_conv1d, causal_conv1d_update, depthwise_conv2d
from mixers.ops.cross_scan import cross_selective_scan
from mixers.ops.elementwise import (
    absolute,
    add,
    div,
    exp,
    gelu,
    gelu_tanh,
    mul,
    relu,
    sigmoid,
    silu,
    sin,
    softplus,
    sub,
    tanh,
)
from mixers.ops.filter import spectral_filter
from mixers.ops.fourier import fourier_real, irfft, rfft
from mixers.ops.grouped_conv import grouped_conv1d, grouped_conv2d
from mixers.ops.kan import kan_attention, kan_sums
from mixers.ops.kan_conv import kan_conv2d
from mixers.ops.kan_edges import kan_edges
from mixers.ops.kan_layer import kan_contract
from mixers.ops.kan_map import kan_map_attention, simplex_projection
from mixers.ops.linear import axis_linear, linear, token_mlp
from mixers.ops.long_conv import long_conv1d
from mixers.ops.long_conv2d import long_conv2d
from mixers.ops.low_rank import low_rank_values
from mixers.ops.norm import layer_norm, rms_norm
from mixers.ops.pooling import avg_pool
from mixers.ops.resample import avg_pool_2x2, nearest_upsample, token_mean
from mixers.ops.rolled_conv import rolled_conv2d
from mixers.ops.s4d_kernel import s4d_kernel
from mixers.ops.scan import linear_scan, selective_scan, selective_state_update
from mixers.ops.shift import channel_shift, shift_linear
from mixers.ops.spatial import spatial_matmul
from mixers.ops.spectral import dct, idct
from mixers.ops.ssd import ssd_scan, ssd_state_update
from mixers.ops.strip import relative_bias, strip_linear
from mixers.ops.token_norm import batch_norm, group_norm
from mixers.ops.unfold import unfold2d
from mixers.ops.window import window_linear

__all__ = [
    "absolute",
    "add",
    "avg_pool",
    "avg_pool_2x2",
    "axis_linear",
    "band_mean",
    "band_scale",
    "band_weights",
    "batch_norm",
    "block_complex_mlp",
    "branch_attention",
    "causal_conv1d",
    "causal_conv1d_update",
    "channel_shift",
    "cross_selective_scan",
    "dct",
    "depthwise_conv2d",
    "div",
    "exp",
    "fourier_real",
    "gate",
    "gelu",
    "gelu_tanh",
    "group_norm",
    "grouped_conv1d",
    "grouped_conv2d",
    "idct",
    "irfft",
    "kan_attention",
    "kan_contract",
    "kan_conv2d",
    "kan_edges",
    "kan_map_attention",
    "kan_sums",
    "layer_norm",
    "linear",
    "linear_scan",
    "long_conv1d",
    "long_conv2d",
    "low_rank_values",
    "mul",
    "nearest_upsample",
    "relative_bias",
    "relu",
    "rfft",
    "rms_norm",
    "rolled_conv2d",
    "s4d_kernel",
    "selective_scan",
    "selective_state_update",
    "shift_linear",
    "shifted_window_attention",
    "sigmoid",
    "silu",
    "simplex_projection",
    "sin",
    "softplus",
    "spatial_matmul",
    "spectral_filter",
    "ssd_scan",
    "ssd_state_update",
    "star_relu",
    "strip_linear",
    "sub",
    "tanh",
    "token_mean",
    "token_mlp",
    "unfold2d",
    "window_linear",
]
