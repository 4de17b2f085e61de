"""Elementwise ops: activations and the arithmetic that the tape needs."""

import numpy

from mixers.op import op


@op(inputs="x")
def gelu(x):
    """Gaussian error linear unit, exact form: y = x Phi(x), Phi(x) = (1 + erf(x / sqrt 2)) / 2.

    Parameters
    ----------
    x : array of any shape
        float32 or float64; float16 and bfloat16 with float32 arithmetic.

    Returns
    -------
    array
        Shape and dtype of x.

    Notes
    -----
    dx = dy (Phi(x) + x phi(x)) with phi the normal density. Reads and writes each element once.
    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2.

    Examples
    --------
    >>> import numpy
    >>> gelu(numpy.array([-1.0, 0.0, 1.0])).round(4)
    array([-0.1587,  0.    ,  0.8413])
    """


@op(inputs="x")
def gelu_tanh(x):
    """GELU, tanh form: y = x (1 + t) / 2, t = tanh(sqrt(2 / pi) (x + 0.044715 x^3)).

    Differs from the exact form by up to 4.7e-4. Shapes, dtypes and cost as :data:`gelu`.

    Notes
    -----
    Source: Hendrycks & Gimpel 2016, arXiv:1606.08415, section 2.
    """


@op(inputs="x")
def silu(x):
    """Sigmoid linear unit (swish): y = x s, s = 1 / (1 + exp(-x)).

    Shapes, dtypes and cost as :data:`gelu`.

    Notes
    -----
    dx = dy s (1 + x (1 - s)). silu(-inf) is nan, as -inf * 0.
    Source: Elfwing et al. 2017, arXiv:1702.03118.
    """


@op(inputs="x")
def relu(x):
    """Rectifier: y = max(x, 0); the derivative at 0 is 0. NaN stays NaN.

    Shapes, dtypes and cost as :data:`gelu`.
    """


@op(inputs="x")
def sigmoid(x):
    """Logistic function: y = 1 / (1 + exp(-x)), in (0, 1).

    Shapes, dtypes and cost as :data:`gelu`. No overflow for large negative x.
    """


@op(inputs="x")
def tanh(x):
    """Hyperbolic tangent, in (-1, 1). Shapes, dtypes and cost as :data:`gelu`."""


@op(inputs="x")
def softplus(x):
    """y = log(1 + exp(x)), as max(x, 0) + log1p(exp(-abs(x))).

    Shapes, dtypes and cost as :data:`gelu`. The derivative is sigmoid(x).
    """


@op(inputs="x")
def sin(x):
    """Sine of x in radians, any magnitude. Shapes, dtypes and cost as :data:`gelu`."""


@op(inputs="x")
def exp(x):
    """Exponential. Shapes, dtypes and cost as :data:`gelu`."""


@op(inputs="x")
def absolute(x):
    """Absolute value; the derivative at 0 is 0. Shapes, dtypes and cost as :data:`gelu`."""


def _broadcast(function, a, b):
    try:
        numpy.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"{function}: b must have a shape that broadcasts with a {tuple(a.shape)}, got {tuple(b.shape)}"
        ) from None


@op(inputs="a", parameters="b")
def add(a, b):
    """Sum with NumPy broadcasting; the dtype of the result is that of a.

    Parameters
    ----------
    a, b : arrays
        Shapes that broadcast together.

    Returns
    -------
    array

    Raises
    ------
    ValueError
        If the shapes do not broadcast.

    Notes
    -----
    The gradient of a broadcast operand is summed over the broadcast axes, in a fixed order.
    """
    _broadcast("add", a, b)


@op(inputs="a", parameters="b")
def sub(a, b):
    """Difference a - b with NumPy broadcasting; see :data:`add`."""
    _broadcast("sub", a, b)


@op(inputs="a", parameters="b")
def mul(a, b):
    """Product with NumPy broadcasting (a gate); see :data:`add`."""
    _broadcast("mul", a, b)


@op(inputs="a", parameters="b")
def div(a, b):
    """Quotient a / b with NumPy broadcasting; see :data:`add`. Division by zero gives inf or nan."""
    _broadcast("div", a, b)
