"""The gpu backend: CUDA kernels and their launchers, one file per family of ops."""
