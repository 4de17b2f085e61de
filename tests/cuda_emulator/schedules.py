"""Runs a function under several schedules: what a kernel computes must not depend on them."""

import numpy

from .device import activate

# with a barrier missing, "this phase before that one" and its reverse give different values; memory read
# before it is written shows as a difference between poisons
SCHEDULES = (
    {"schedule": "fifo", "poison": 0xFF},
    {"schedule": "lifo", "poison": 0x3F},
    {"schedule": "random", "seed": 1, "poison": 0xFF},
    {"schedule": "random", "seed": 2, "poison": 0x3F},
)


def run_schedules(function):
    """Run ``function(device)`` under every schedule and once with checks.

    Parameters
    ----------
    function : callable
        Takes the device, moves its inputs there itself and returns device arrays, also nested in
        tuples, NamedTuples, lists and dicts.

    Returns
    -------
    The result of the first run in the same structure, as host arrays.

    Raises
    ------
    AssertionError
        If two schedules give different bits.
    EmulatorError
        If the checked run finds a race, an access out of bounds, ...
    """
    first = None
    for options in SCHEDULES:
        with activate(**options) as device:
            result = to_host(function(device), device)
        if first is None:
            first = result
        else:
            assert bits(result) == bits(first), f"the result depends on the schedule: differs with {options}"
    with activate(checked=True) as device:
        function(device)
    return first


def to_host(result, device):
    """Every array of `device` in a nested result as a host array."""
    if isinstance(result, device.array_type):
        return device.to_host(result)
    if isinstance(result, dict):
        return {key: to_host(part, device) for key, part in result.items()}
    if isinstance(result, tuple | list):
        parts = (to_host(part, device) for part in result)
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    return result


def arrays(result):
    """The arrays of a nested host result, in order."""
    if isinstance(result, numpy.ndarray):
        return [result]
    if isinstance(result, dict):
        result = list(result.values())
    if isinstance(result, tuple | list):
        return [array for part in result for array in arrays(part)]
    return []


def bits(result):
    """The arrays of a nested host result as bytes, in order."""
    return [array.tobytes() for array in arrays(result)]
