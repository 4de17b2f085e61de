"""Mixers that convolve with a generated filter as long as the sequence or as large as the image.

hyena      sequences: filters from a network with sine activations, between gates
hyena_nd   the same for images, in one or several directions
base_conv  one convolution and one gate
s4d        the filter is the impulse response of a diagonal state-space model
hyper_zzw  images: kernels from a multiplicative network of coordinates
filters    what the generated filters of both Hyenas share
"""

from mixers.zoo.long_conv.base_conv import BaseConv
from mixers.zoo.long_conv.hyena import Hyena
from mixers.zoo.long_conv.hyena_nd import HyenaNd
from mixers.zoo.long_conv.hyper_zzw import HyperZzw
from mixers.zoo.long_conv.s4d import S4d

__all__ = ["BaseConv", "Hyena", "HyenaNd", "HyperZzw", "S4d"]
