"""What asks errors for their facts fails where the type, the code or a fact is another one."""

from __future__ import annotations

from pathlib import Path

import pytest
from facts import refused

from edgeprune.errors import ConversionError, EdgePruneError, ModelError, RunError, UsageError


def raises(error: BaseException) -> None:
    with refused(ModelError, "fc.bias", 15, Path("/models/5/net.pt"), because=KeyError):
        raise error


def told(kind: type[EdgePruneError], what: str, where: str = "/models/5/net.pt") -> EdgePruneError:
    error = kind(what, where=where, hint="give `fc.bias`")
    error.__cause__ = KeyError("fc.bias")
    return error


@pytest.mark.parametrize("what", ["15 weights are missing", "of 20 weights only 5 came: 15 lack", "whatever, 15"])
def test_the_sentence_is_free(what: str) -> None:
    raises(told(ModelError, what))


@pytest.mark.parametrize(
    "error",
    [
        told(UsageError, "15 weights are missing"),  # its base
        told(RunError, "15 weights are missing"),
        told(EdgePruneError, "15 weights are missing"),
        told(ModelError, "16 weights are missing"),
        told(ModelError, "115 weights are missing"),
        told(ModelError, "weights are missing", where="/models/15/net.pt"),
        told(ModelError, "15 weights are missing", where="/models/5/other.pt"),
        ModelError("15 weights are missing", where="/models/5/net.pt", hint="give `fc.bias`"),  # of no cause
        ModelError("15 weights are missing", where="/models/5/net.pt"),
    ],
)
def test_another_type_or_a_fact_that_lacks_fails(error: EdgePruneError) -> None:
    with pytest.raises(AssertionError):
        raises(error)


def test_a_subclass_another_code_and_no_error_at_all_fail() -> None:
    class Narrower(ModelError):
        """An error that is a ModelError, and not it."""

    with pytest.raises(AssertionError):
        raises(told(Narrower, "15 weights are missing"))
    with pytest.raises(AssertionError, match="exit code 2"), refused(ConversionError, code=3):
        raise ConversionError("x")
    with pytest.raises(pytest.fail.Exception), refused(ModelError):
        pass
    with pytest.raises(KeyError):
        raises(KeyError("fc.bias 15"))
