"""Argument checks of ops and mixers: one text for every backend.

Every message names the function, the argument, what was expected and what came.
"""

import numpy

FLOAT_NAMES = ("float16", "bfloat16", "float32", "float64")
_float_dtypes = set()


def shape(function, name, array, **sizes):
    """Check the shape of `array` against named sizes; a size of None is free. Returns the sizes found.

    >>> import numpy
    >>> shape("f", "x", numpy.zeros((2, 3)), b=None, c=3)
    (2, 3)
    """
    got = array.shape
    if len(got) == len(sizes) and all(s is None or s == g for s, g in zip(sizes.values(), got)):
        return got
    letters = ", ".join(sizes) + ("," if len(sizes) == 1 else "")
    known = "" if None in sizes.values() else f" = {tuple(sizes.values())}"
    fixed = {k: v for k, v in sizes.items() if v is not None}
    if fixed and not known:
        known = " with " + ", ".join(f"{k} = {v}" for k, v in fixed.items())
    raise ValueError(f"{function}: {name} must have shape ({letters}){known}, got {tuple(got)}")


def rank(function, name, array, ranks):
    """Check the number of axes of `array`."""
    if array.ndim not in ranks:
        wanted = " or ".join(str(r) for r in ranks)
        raise ValueError(f"{function}: {name} must have {wanted} axes, got shape {tuple(array.shape)}")


def floating(function, name, array):
    """Check that `array` holds one of the float types."""
    if array.dtype in _float_dtypes:
        return
    if array.dtype.name in FLOAT_NAMES:
        # looking up a name takes microseconds, and every op does this for every array
        _float_dtypes.add(array.dtype)
    else:
        raise TypeError(
            f"{function}: {name} must be {', '.join(FLOAT_NAMES[:-1])} or float64, got {array.dtype}"
        )


def integer(function, name, value, *, minimum=None, odd=False):
    """Check an integer option and return it as int."""
    wanted = "an odd integer" if odd else "an integer"
    if minimum is not None:
        wanted += f" >= {minimum}"
    if isinstance(value, bool) or not isinstance(value, int | numpy.integer):
        raise TypeError(f"{function}: {name} must be {wanted}, got {value!r}")
    if (minimum is not None and value < minimum) or (odd and value % 2 == 0):
        raise ValueError(f"{function}: {name} must be {wanted}, got {value}")
    return int(value)


def number(function, name, value, *, minimum=None, above=None, below=None):
    """Check a real option and return it as float; `above` and `below` are exclusive bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float | numpy.number):
        raise TypeError(f"{function}: {name} must be a number, got {value!r}")
    for bad, text in (
        (minimum is not None and not value >= minimum, f">= {minimum}"),
        (above is not None and not value > above, f"> {above}"),
        (below is not None and not value < below, f"< {below}"),
    ):
        if bad:
            raise ValueError(f"{function}: {name} must be {text}, got {value}")
    return float(value)


def boolean(function, name, value):
    """Check a switch."""
    if not isinstance(value, bool | numpy.bool_):
        raise TypeError(f"{function}: {name} must be True or False, got {value!r}")
    return bool(value)


def choice(function, name, value, allowed):
    """Check an option with a fixed set of values."""
    if value not in allowed:
        raise ValueError(f"{function}: {name} must be one of {', '.join(map(repr, allowed))}, got {value!r}")
    return value


def pair(function, name, value, *, minimum=1):
    """Check a pair of integers and return it as a tuple."""
    if not isinstance(value, tuple | list) or len(value) != 2:
        raise ValueError(f"{function}: {name} must be a pair of integers, got {value!r}")
    return tuple(integer(function, name, part, minimum=minimum) for part in value)


def divides(function, name, value, what, total):
    """Check that option `name` divides `total`."""
    if total % value:
        raise ValueError(f"{function}: {name} must divide {what} = {total}, got {value}")


def grid(function, sizes, ranks=(1, 2), name="grid"):
    """Check the token grid that a mixer is made for and return it as a tuple of int."""
    wanted = " or ".join({1: "(l,)", 2: "(h, w)"}[r] for r in ranks)
    if isinstance(sizes, str) or not hasattr(sizes, "__len__"):
        raise TypeError(f"{function}: {name} must be {wanted}, got {sizes!r}")
    if len(sizes) not in ranks:
        raise ValueError(f"{function}: {name} must be {wanted}, got {tuple(sizes)}")
    return tuple(integer(function, f"{name} size", n, minimum=1) for n in sizes)
