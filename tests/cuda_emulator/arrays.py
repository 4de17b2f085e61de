"""Arrays of the emulated device: NumPy arrays that refuse what device arrays refuse."""

import numpy

# NumPy functions that CuPy answers too when given its arrays; launchers use methods and operators otherwise
_FUNCTIONS = frozenset(
    "broadcast_to concatenate expand_dims flip moveaxis pad roll split squeeze stack swapaxes take tile "
    "transpose where zeros_like".split()
)


class DeviceArray(numpy.ndarray):
    """An array that lives on the emulated device.

    It keeps its class through slicing, reshaping, casts, operators and sums, and does not mix with host
    arrays; a result of no axes is an array too, not a scalar. ``numpy.asarray`` of it cannot be stopped:
    use ``device.to_host``.
    """

    __slots__ = ()

    def __array_ufunc__(self, ufunc, method, *inputs, out=(), **options):
        where = options.get("where", True)
        _refuse_host(ufunc.__name__, (*inputs, *out, where))
        if isinstance(where, DeviceArray):
            options["where"] = _plain(where)
        if out:
            options["out"] = tuple(map(_plain, out))
        result = getattr(ufunc, method)(*map(_plain, inputs), **options)
        if isinstance(result, tuple):
            return tuple(map(on_device, result))
        return out[0] if out and out[0] is not None else on_device(result)

    def __array_function__(self, function, types, args, kwargs):
        if function.__name__ not in _FUNCTIONS:
            raise TypeError(
                f"numpy.{function.__name__} was called with a device array; use its methods, an operator or a kernel"
            )
        flat = [part for a in args for part in (a if isinstance(a, list | tuple) else (a,))]
        _refuse_host(function.__name__, flat)
        # on plain arrays: some functions call others, which a device array would refuse
        result = function(*map(_unwrapped, args), **{n: _unwrapped(a) for n, a in kwargs.items()})
        return list(map(on_device, result)) if isinstance(result, list) else on_device(result)

    def __getitem__(self, key):
        result = super().__getitem__(key)
        return result if isinstance(result, DeviceArray) else on_device(result)

    def __setitem__(self, key, value):
        _refuse_host("assignment", (value,))
        super().__setitem__(key, value)


def on_device(result):
    """Wrap what a NumPy function returned; scalars become arrays of no axes."""
    if isinstance(result, numpy.ndarray | numpy.generic):
        return numpy.asarray(result).view(DeviceArray)
    return result


def _plain(value):
    return value.view(numpy.ndarray) if isinstance(value, DeviceArray) else value


def _unwrapped(value):
    return type(value)(map(_plain, value)) if isinstance(value, list | tuple) else _plain(value)


def _refuse_host(name, values):
    for value in values:
        if isinstance(value, numpy.ndarray) and value.ndim and not isinstance(value, DeviceArray):
            raise TypeError(f"{name}: a host array was mixed with a device array")
