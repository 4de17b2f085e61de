"""Windows of an image on the CPU: copies of whole pixels, and sums of them."""

from mixers.cpu import aligned
from mixers.cpu.runner import kernel, run, tasks
from mixers.cpu.simd import lanes, load_first, store_first, zeros


def unfold2d_forward(x, size, stride=1, padding=0, save=True):
    """Tasks are rows of windows."""
    sizes = _sizes(x, size, stride, padding)
    y = aligned.empty((x.shape[0], *sizes[3:5], size * size * x.shape[3]), x.dtype)
    run(_unfold, x.shape[0] * sizes[3], aligned.flat(x), y.reshape(-1), sizes, work=2 * y.size)
    return y, ()


def unfold2d_backward(dout, saved):
    """Tasks are rows of pixels; a pixel sums what the windows hold of it."""
    x = saved.x
    sizes = _sizes(x, saved.size, saved.stride, saved.padding)
    dx = aligned.empty(x.shape, x.dtype)
    run(_fold, x.shape[0] * x.shape[1], aligned.flat(dout), dx.reshape(-1), sizes, work=2 * dout.size)
    return (dx,)


def _sizes(x, size, stride, padding):
    _, h, w, c = x.shape
    down, across = ((n + 2 * padding - size) // stride + 1 for n in (h, w))
    return h, w, c, down, across, size, stride, padding


@kernel
def _unfold(x, y, sizes, counter):
    h, w, c, down, across, size, stride, padding = sizes
    for task in tasks(counter):
        item, p = task // down, task % down
        for q in range(across):
            for tap in range(size * size):
                row, column = p * stride + tap // size - padding, q * stride + tap % size - padding
                inside = 0 <= row < h and 0 <= column < w
                source = ((item * h + row) * w + column) * c
                target = ((task * across + q) * size * size + tap) * c
                for j in range(0, c, lanes(x)):
                    count = min(lanes(x), c - j)
                    # of a pixel outside nothing is read
                    value = load_first(x, source + j, count if inside else 0)
                    store_first(y, target + j, value, count)


@kernel
def _fold(dy, dx, sizes, counter):
    h, w, c, down, across, size, stride, padding = sizes
    for task in tasks(counter):
        item, row = task // h, task % h
        for column in range(w):
            for j in range(0, c, lanes(dx)):
                count = min(lanes(dx), c - j)
                total = zeros(dx)
                for tap in range(size * size):
                    below, right = row + padding - tap // size, column + padding - tap % size
                    p, q = below // stride, right // stride
                    if below == p * stride and right == q * stride and 0 <= p < down and 0 <= q < across:
                        place = (((item * down + p) * across + q) * size * size + tap) * c + j
                        total = total + load_first(dy, place, count)
                store_first(dx, (task * w + column) * c + j, total, count)
