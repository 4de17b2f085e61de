"""Memory of large arrays is used again."""

import threading

import numpy
import pytest

from mixers.cpu import aligned, memory

SIZE = memory.SMALLEST // 4


@pytest.fixture(autouse=True)
def nothing_kept():
    memory.release()
    yield
    memory.release()


def test_the_next_array_of_that_size_gets_the_memory():
    a = aligned.empty(SIZE, "float32")
    place = a.ctypes.data
    del a
    assert memory.kept() >= 4 * SIZE
    b = aligned.empty((SIZE // 2, 2), "float32")
    assert b.ctypes.data == place
    assert memory.kept() == 0


def test_memory_is_not_used_again_while_a_view_lives():
    a = aligned.empty((4, SIZE), "float32")
    view = a[1:, ::2].reshape(-1)[3:].view("int32")
    view[...] = 7
    del a
    assert memory.kept() == 0
    b = aligned.empty((4, SIZE), "float32")
    b[...] = 1.0
    assert (view == 7).all()
    assert not numpy.shares_memory(b, view)


def test_small_arrays_are_left_to_the_allocator():
    a = aligned.empty(SIZE // 2, "float32")
    del a
    assert memory.kept() == 0


def test_what_is_kept_is_limited(monkeypatch):
    """Sizes that are no longer needed make room for those that are."""
    monkeypatch.setattr(memory, "LIMIT", 16 * memory.SMALLEST)
    for size in (2, 3, 4):
        arrays = [aligned.empty(size * SIZE, "float32") for _ in range(4)]
        del arrays
        assert memory.kept() <= memory.LIMIT
    places = {aligned.empty(4 * SIZE, "float32").ctypes.data for _ in range(3)}
    assert len(places) == 1
    before = memory.kept()
    large = aligned.empty(17 * SIZE, "float32")
    del large
    assert memory.kept() == before


def test_the_limit_can_be_set(monkeypatch):
    monkeypatch.delenv("MIXERS_KEPT_MEMORY", raising=False)
    assert memory._limit() >= 256 << 20
    monkeypatch.setenv("MIXERS_KEPT_MEMORY", "3")
    assert memory._limit() == 3 << 20
    monkeypatch.setenv("MIXERS_KEPT_MEMORY", "-1")
    with pytest.raises(ValueError, match="MIXERS_KEPT_MEMORY must be a number of MiB >= 0, got '-1'"):
        memory._limit()


def test_nothing_is_kept_without_a_limit(monkeypatch):
    monkeypatch.setattr(memory, "LIMIT", 0)
    a = aligned.empty(SIZE, "float32")
    del a
    assert memory.kept() == 0


def test_threads_do_not_share_memory():
    """Arrays of several threads that come and go never overlap."""
    wrong = []

    def work(number):
        for _ in range(300):
            array = aligned.empty(SIZE, "float32")
            array[::64] = number
            if (array[::64] != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    total = sum(raw.nbytes for raws in memory._free.values() for raw in raws)
    assert total == memory.kept()
