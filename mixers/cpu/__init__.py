"""The CPU backend: Numba kernels, one file per op family, written with a few shared tools.

runner       threads, and the decorators ``kernel`` and ``helper``
cache        where compiled kernels are kept
simd         explicit vectors inside kernels
vector_math  elementary functions of such vectors
aligned      allocation, and normalisation of the arrays handed to kernels
matrix       matrix products
fft          Fourier transforms with the channels in the lanes
"""
