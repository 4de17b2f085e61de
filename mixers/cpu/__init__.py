"""The CPU backend: Numba kernels, one file per op family, written with a few shared tools.

runner       threads, and the decorators ``kernel``, ``helper`` and ``routine``
cache        where compiled kernels are kept
aligned      allocation, and normalisation of the arrays handed to kernels
simd         explicit vectors inside kernels
vector_math  elementary functions of such vectors
activations  the activations among them, by number
reduction    sums over rows
matrix       matrix products
fft          Fourier transforms with the channels in the lanes
fft_filter   long convolutions and spectral filters made of them
"""
