"""Synthetic tasks: what every sequence must fulfil, options and rejections; golden sequences are in test_golden."""

import numpy
import pytest

from mixers import tasks


@pytest.mark.parametrize("random_non_queries", [False, True])
@pytest.mark.parametrize(
    ("vocab_size", "length", "pairs"), [(64, 32, 4), (17, 16, 4), (300, 64, 1), (8192, 128, 32)]
)
def test_mqar_asks_for_every_value_once(vocab_size, length, pairs, random_non_queries):
    task = tasks.mqar(
        vocab_size=vocab_size,
        input_seq_len=length,
        num_kv_pairs=pairs,
        num_examples=50,
        random_non_queries=random_non_queries,
        seed=3,
    )
    assert task.inputs.dtype == task.labels.dtype == numpy.int64
    assert task.inputs.shape == task.labels.shape == (50, length)
    assert 0 <= task.inputs.min() <= task.inputs.max() < vocab_size
    for tokens, labels in zip(*task):
        keys, values = tokens[: 2 * pairs : 2], tokens[1 : 2 * pairs : 2]
        assert len(set(keys)) == len(set(values)) == pairs
        assert 1 <= keys.min() <= keys.max() < vocab_size // 2 <= values.min()
        [asked] = numpy.nonzero(labels != tasks.IGNORED)
        assert (asked >= 2 * pairs).all()
        assert (asked % 2 == 0).all()
        assert dict(zip(tokens[asked], labels[asked])) == dict(zip(keys, values))
        others = numpy.delete(tokens, [*range(2 * pairs), *asked])
        assert others.any() == random_non_queries


def test_mqar_places():
    """Small exponents ask early, 1 asks anywhere."""
    mean = lambda a: numpy.nonzero(
        tasks.mqar(input_seq_len=64, num_kv_pairs=4, num_examples=400, power_a=a, seed=1).labels >= 0
    )[1].mean()
    assert mean(0.01) < 25
    # the mean of the even places from 8 to 62
    assert abs(mean(1.0) - 35) < 1.5


def test_mqar_repeats():
    one, two, other = (tasks.mqar(num_examples=3, seed=seed) for seed in (5, 5, 6))
    assert (one.inputs == two.inputs).all()
    assert (one.inputs != other.inputs).any()
    assert tasks.mqar(num_examples=0).inputs.shape == (0, 64)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_seq_len": 63}, "mqar: input_seq_len must be even, got 63"),
        ({"num_kv_pairs": 17}, "mqar: num_kv_pairs must be at most input_seq_len / 4 = 16, got 17"),
        ({"vocab_size": 64}, "mqar: vocab_size must be larger than input_seq_len = 64, got 64"),
        ({"power_a": 0.0}, r"mqar: power_a must be > 0\.0, got 0\.0"),
        ({"seed": 2**32}, r"mqar: seed must be below 2\*\*32, got 4294967296"),
    ],
)
def test_mqar_rejects(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.mqar(**options)
