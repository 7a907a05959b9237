from __future__ import annotations

from collections.abc import Iterator

import pytest

from edgeprune.data.ahead import ahead


def test_what_is_made_ahead_comes_in_order_and_one_at_a_time() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for number in range(5):
            made.append(number)
            yield number

    seen = []
    for number in ahead(items()):
        assert len(made) <= number + 2
        seen.append(number)
    assert seen == [0, 1, 2, 3, 4]


def test_an_error_in_what_is_made_ahead_is_the_callers() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise OSError("torn")

    coming = ahead(items())
    assert next(coming) == 1
    with pytest.raises(OSError, match="torn"):
        next(coming)


def test_a_caller_who_has_enough_ends_it() -> None:
    coming = ahead(iter(range(1000)))
    assert [next(coming), next(coming)] == [0, 1]
    coming.close()
