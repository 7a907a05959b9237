"""Asking an error for its type, its exit code and the facts in it, so that its sentence can be made better."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from edgeprune.errors import EdgePruneError


@contextmanager
def refused(
    kind: type[EdgePruneError], *facts: object, code: int = 2, because: type[BaseException] | None = None
) -> Iterator[pytest.ExceptionInfo[EdgePruneError]]:
    """What runs inside raises an error of exactly this type and exit code that tells each fact.

    A fact is a name, a path, a number, or an option or key to change. It has to stand by itself: 5 is not told by 15,
    nor by a folder that is called 5. `because`: the error of another library that it comes from.
    """
    with pytest.raises(EdgePruneError) as caught:
        yield caught
    error = caught.value
    assert type(error) is kind, f"{type(error).__name__} instead of {kind.__name__}: {error}"
    assert error.exit_code == code, f"exit code {error.exit_code} instead of {code}: {error}"
    lacking = [fact for fact in facts if not tells(error, fact)]
    assert not lacking, f"{lacking} is not told by: {error}"
    if because is not None:
        assert isinstance(error.__cause__, because), f"it comes from {error.__cause__!r}"


def tells(error: EdgePruneError, fact: object) -> bool:
    """Whether an error has a fact in it."""
    told = f"{error.what}\n{error.hint or ''}"
    if not isinstance(fact, int | float):
        told += f"\n{error.where or ''}"
    return re.search(rf"(?<!\w){re.escape(str(fact))}(?!\w)", told) is not None
