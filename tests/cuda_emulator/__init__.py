"""Runs the CUDA kernels of gpu/kernels on the CPU, numerically, for tests.

``with cuda_emulator.activate() as device:`` gives a device whose arrays dispatch to the gpu backend;
``run_schedules(function)`` runs ``function(device)`` under several schedules and once with checks. The
package ``cuda_emulator.cases`` is the table of kernel runs that the tests over all kernels use.
"""

from .arrays import DeviceArray
from .build import EmulatorError, missing
from .device import EmulatedDevice, Launched, activate
from .schedules import run_schedules

__all__ = [
    "DeviceArray",
    "EmulatedDevice",
    "EmulatorError",
    "Launched",
    "activate",
    "missing",
    "run_schedules",
]
