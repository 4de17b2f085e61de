"""Synthetic tasks that tell token mixers apart."""

from typing import NamedTuple

import numpy

from mixers import _checks as check

IGNORED = -100


class Mqar(NamedTuple):
    """Sequences of multi-query associative recall: tokens and labels, both (examples, length) int64.

    A label is :data:`IGNORED`, -100, wherever nothing is asked.
    """

    inputs: numpy.ndarray
    labels: numpy.ndarray


def mqar(
    *,
    vocab_size=8192,
    input_seq_len=64,
    num_kv_pairs=8,
    num_examples=1000,
    power_a=0.01,
    random_non_queries=True,
    seed=0,
):
    """Multi-query associative recall: keys and values first, then keys again whose values are asked for.

    A sequence begins with k_1 v_1 k_2 v_2 ...; later each key comes once more, and the label there is its value. Keys
    are distinct tokens 1 ... vocab_size // 2 - 1, values distinct tokens from vocab_size // 2 on.

    Parameters
    ----------
    vocab_size : int
        Larger than input_seq_len, and enough for the keys and values.
    input_seq_len : int
        Even, at least 4 num_kv_pairs.
    num_kv_pairs : int
        Pairs, and questions, per sequence.
    num_examples : int
        Sequences.
    power_a : float
        Questions are drawn without repetition from the even places after the pairs, place i with a probability
        proportional to power_a (i + 1)^(power_a - 1): small values put them early, 1 anywhere.
    random_non_queries : bool
        Fill the other places with random tokens, which may be keys or values, instead of 0.
    seed : int
        Two calls with the same arguments give the same sequences.

    Returns
    -------
    Mqar
        ``(inputs, labels)``.

    Raises
    ------
    ValueError
        If a number is out of its range.

    Notes
    -----
    Without random tokens the sequences are those of the authors' code for the seed, number by number; their random
    tokens come from PyTorch's generator, ours from the same stream as the rest.
    Source: Arora et al. 2023, arXiv:2312.04927, section 4.2 and algorithm 1; HazyResearch/zoology, multiquery_ar.

    Examples
    --------
    >>> task = mqar(vocab_size=20, input_seq_len=8, num_kv_pairs=2, num_examples=1, random_non_queries=False)
    >>> task.inputs[0, 4:], task.labels[0, 4:]
    (array([3, 0, 8, 0]), array([  11, -100,   13, -100]))
    """
    f = "mqar"
    length = check.integer(f, "input_seq_len", input_seq_len, minimum=4)
    pairs = check.integer(f, "num_kv_pairs", num_kv_pairs, minimum=1)
    check.integer(f, "vocab_size", vocab_size, minimum=1)
    check.integer(f, "num_examples", num_examples, minimum=0)
    check.number(f, "power_a", power_a, above=0.0)
    check.boolean(f, "random_non_queries", random_non_queries)
    if check.integer(f, "seed", seed, minimum=0) >= 2**32:
        raise ValueError(f"{f}: seed must be below 2**32, got {seed}")
    if length % 2:
        raise ValueError(f"{f}: input_seq_len must be even, got {length}")
    if 4 * pairs > length:
        raise ValueError(f"{f}: num_kv_pairs must be at most input_seq_len / 4 = {length // 4}, got {pairs}")
    if vocab_size <= length:
        raise ValueError(f"{f}: vocab_size must be larger than input_seq_len = {length}, got {vocab_size}")
    # the order of the draws is that of the authors' code
    random = numpy.random.RandomState(seed)
    middle = vocab_size // 2
    keys = _choices(random, num_examples, pairs, numpy.arange(1, middle))
    values = _choices(random, num_examples, pairs, numpy.arange(middle, vocab_size))
    places = (length - 2 * pairs) // 2
    weights = power_a * numpy.arange(1, places + 1) ** (power_a - 1.0)
    asked = _choices(random, num_examples, pairs, numpy.arange(places), weights / weights.sum())
    inputs = numpy.zeros((num_examples, length), numpy.int64)
    labels = numpy.full((num_examples, length), IGNORED, numpy.int64)
    inputs[:, 0 : 2 * pairs : 2], inputs[:, 1 : 2 * pairs : 2] = keys, values
    rows, columns = numpy.arange(num_examples)[:, None], 2 * pairs + 2 * asked
    inputs[rows, columns], labels[rows, columns] = keys, values
    if random_non_queries:
        free = inputs == 0
        inputs[free] = random.randint(vocab_size, size=int(free.sum()))
    return Mqar(inputs, labels)


def _choices(random, count, size, population, p=None):
    """`count` draws of `size` distinct members."""
    drawn = [random.choice(population, size, replace=False, p=p) for _ in range(count)]
    return numpy.array(drawn, numpy.int64).reshape(count, size)
