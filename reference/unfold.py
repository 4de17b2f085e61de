"""Windows of an image in NumPy."""

import numpy


def unfold2d_forward(x, size, stride=1, padding=0, save=True):
    """One tap of the window at a time: the padded image from that tap on, in steps of the stride."""
    padded = numpy.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    taps = [padded[:, rows, columns] for rows, columns in _taps(padded, size, stride)]
    return numpy.concatenate(taps, axis=3), ()


def unfold2d_backward(dout, saved):
    """Each tap adds its gradient where it was taken from."""
    (b, h, w, c), padding = saved.x.shape, saved.padding
    padded = numpy.zeros((b, h + 2 * padding, w + 2 * padding, c), dout.dtype)
    for tap, (rows, columns) in enumerate(_taps(padded, saved.size, saved.stride)):
        padded[:, rows, columns] += dout[..., tap * c : (tap + 1) * c]
    return (padded[:, padding : padding + h, padding : padding + w].copy(),)


def _taps(padded, size, stride):
    """Slices of the rows and columns that each tap of the window sees."""
    for i in range(size):
        for j in range(size):
            yield tuple(
                slice(start, start + (n - size) // stride * stride + 1, stride)
                for start, n in ((i, padded.shape[1]), (j, padded.shape[2]))
            )
