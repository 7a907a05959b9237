"""What is written down and read back: records that nobody changes, and what is wrong with one, in words."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationError


class Record(BaseModel):
    """A record; it is not changed once it is made."""

    model_config = ConfigDict(frozen=True)


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong with what was read, and where in it."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])
