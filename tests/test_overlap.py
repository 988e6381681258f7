"""Threads beside the computation: same items, same order, errors in their place, nothing left running."""

import threading

import pytest

from seg.overlap import Behind, ahead


def names() -> set[str]:
    return {thread.name for thread in threading.enumerate()}


def test_items_come_in_order_and_one_is_made_early():
    made = []

    def items():
        for n in range(5):
            made.append(n)
            yield n

    found = []
    for n in ahead(items()):
        found.append(n)
        assert len(made) <= len(found) + 2  # one waits, one is being made
    assert found == list(range(5))
    assert "ahead" not in names()


def test_what_the_reader_raises_comes_out_after_what_it_gave():
    def items():
        yield 1
        raise OSError("the disk is gone")

    found = []
    with pytest.raises(OSError, match="the disk is gone"):
        found.extend(ahead(items()))
    assert found == [1]


def test_a_caller_that_stops_early_leaves_no_thread():
    items = ahead(iter(range(100)))
    assert next(items) == 0
    items.close()
    assert "ahead" not in names()


def test_everything_is_written_before_the_block_ends():
    written = []
    with Behind(written.append) as behind:
        for n in range(20):
            behind.put(n)
    assert written == list(range(20))
    assert "behind" not in names()


def fail(item):
    raise OSError("no space left on device")


def put_many():
    with Behind(fail) as behind:
        for n in range(10):
            behind.put(n)


def test_what_the_writer_raises_comes_out():
    with pytest.raises(OSError, match="no space left"):
        put_many()


def put_and_fail():
    with Behind(fail) as behind:
        behind.put(1)
        raise ValueError("of the caller")


def test_an_error_of_the_caller_is_not_replaced_by_one_of_the_writer():
    with pytest.raises(ValueError, match="of the caller"):
        put_and_fail()
