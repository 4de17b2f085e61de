"""Attention over branches."""

import hypothesis
import hypothesis.strategies as st
import numpy
import pytest
from harness import Case, OpSuite, check_backend
from scipy import special

import mixers
from mixers import ops


def case(name, shape, m, bias=True, scale=0.3, options=None, **flags):
    """A case with the weights that fit the shape."""
    c = shape[-1]
    # so that sums over many tokens do not put all weight on one branch
    small = lambda *size: lambda rng: scale * rng.standard_normal(size)
    arrays = {**dict.fromkeys(("z0", "z1", "z2"), shape), "w_in": small(c, m), "w_out": small(m, 3 * c)}
    if bias:
        arrays |= {"b_in": (m,), "b_out": (3 * c,)}
    return Case(name, arrays, options or {}, **flags)


SUM = {"pool": "sum", "order": "slowest"}


class TestBranchAttention(OpSuite):
    op = ops.branch_attention
    cases = [
        case("image", (2, 4, 5, 6), 3),
        case("sums", (2, 4, 5, 6), 3, scale=0.1, options=SUM),
        case("no-bias", (3, 7, 33), 8, bias=False),
        case("sums-fastest", (1, 3, 4, 8), 8, bias=False, scale=0.1, options={"pool": "sum"}),
        case("mean-slowest", (1, 31, 3), 2, options={"order": "slowest"}),
        case("one-of-each", (1, 1, 1), 1),
        case("one-hidden", (3, 2, 2, 9), 1, bias=False),
        case("large", (3, 33, 31, 40), 10, emulated=False, differences=False),
        case("empty-batch", (0, 4, 3), 2),
        case("no-tokens", (2, 0, 3), 2),
    ]


@hypothesis.settings(max_examples=30, deadline=None, derandomize=True)
@hypothesis.given(
    sizes=st.tuples(*(st.integers(1, n) for n in (3, 9, 30, 70))),
    m=st.integers(1, 40),
    bias=st.booleans(),
    pool=st.sampled_from(["mean", "sum"]),
    order=st.sampled_from(["fastest", "slowest"]),
)
def test_any_shape(sizes, m, bias, pool, order):
    # so that the logits stay of order one
    scale = 0.3 / (sizes[1] * sizes[2]) ** (0.5 * (pool == "sum"))
    options = {"pool": pool, "order": order}
    check_backend(ops.branch_attention, case("any", sizes, m, bias, scale, options), "cpu", "float32")


def test_branches_that_are_parts_of_one_array():
    """They are read where they are, and give the same as copies."""
    rng = numpy.random.default_rng(0)
    u, w_in, w_out = (rng.standard_normal(s) for s in ((2, 5, 4, 27), (9, 3), (3, 27)))
    parts = [u[..., 9 * k : 9 * k + 9] for k in range(3)]
    got, saved = ops.branch_attention.forward(*parts, w_in, w_out)
    want, copied = ops.branch_attention.forward(*(p.copy() for p in parts), w_in, w_out)
    numpy.testing.assert_array_equal(got, want)
    dy = numpy.broadcast_to(rng.standard_normal(9), got.shape)
    for one, other in zip(
        ops.branch_attention.backward(dy, saved), ops.branch_attention.backward(dy, copied)
    ):
        assert one is other is None or numpy.array_equal(one, other)


def test_second_form():
    """Position by position, with SciPy's softmax."""
    rng = numpy.random.default_rng(0)
    z = rng.standard_normal((3, 2, 4, 5))
    w_in, w_out, b_in, b_out = (rng.standard_normal(s) for s in ((5, 3), (3, 15), (3,), (15,)))
    for pool, order in (("mean", "fastest"), ("sum", "slowest")):
        a = z.sum(axis=0).mean(axis=1) if pool == "mean" else z.sum(axis=(0, 2))
        hidden = a @ w_in + b_in
        o = 0.5 * hidden * (1 + special.erf(hidden / numpy.sqrt(2))) @ w_out + b_out
        branches = numpy.stack(
            [o[:, k::3] if order == "fastest" else o[:, 5 * k : 5 * k + 5] for k in range(3)]
        )
        weights = special.softmax(branches, axis=0)
        want = sum(weights[k][:, None] * z[k] for k in range(3))
        with mixers.use_backend("reference"):
            got = ops.branch_attention(*z, w_in, w_out, b_in, b_out, pool=pool, order=order)
        numpy.testing.assert_allclose(got, want, rtol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_large_logits_do_not_overflow(backend):
    """Sums over many tokens can put all weight on one branch."""
    z = [numpy.full((1, 50, 2), v, numpy.float32) for v in (1.0, 2.0, 3.0)]
    w_in, w_out = numpy.ones((2, 1), numpy.float32), numpy.zeros((1, 6), numpy.float32)
    w_out[0, 4:] = 10.0
    with mixers.use_backend(backend):
        y = ops.branch_attention(*z, w_in, w_out, pool="sum", order="slowest")
    numpy.testing.assert_array_equal(y, z[2])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"z1": (2, 4, 5)}, r"branch_attention: z1 must have the shape of z0 \(2, 4, 6\), got \(2, 4, 5\)"),
        ({"w_in": (5, 3)}, r"branch_attention: w_in must have shape \(c, m\) with c = 6, got \(5, 3\)"),
        (
            {"w_out": (3, 12)},
            r"branch_attention: w_out must have shape \(m, 3 c\) = \(3, 18\), got \(3, 12\)",
        ),
        ({"b_out": (6,)}, r"branch_attention: b_out must have shape \(3 c,\) = \(18,\), got \(6,\)"),
        ({"pool": "max"}, "branch_attention: pool must be one of 'mean', 'sum', got 'max'"),
        ({"order": "k"}, "branch_attention: order must be one of 'fastest', 'slowest', got 'k'"),
    ],
)
def test_errors(change, message):
    given = {**dict.fromkeys(("z0", "z1", "z2"), (2, 4, 6)), "w_in": (6, 3), "w_out": (3, 18)} | change
    arguments = {n: a if isinstance(a, str) else numpy.zeros(a) for n, a in given.items()}
    with pytest.raises(ValueError, match=message):
        ops.branch_attention(**arguments)
