"""Test images with what models answer to them, as the report shows them (no torch)."""

from __future__ import annotations

from pydantic import TypeAdapter

from edgeprune.records import Record


class Answer(Record):
    """What a model answers to an image: a picture (PNG, base64) or a few words, or both; empty where the task has
    none."""

    picture: str = ""
    words: str = ""


class Shown(Record):
    """A test image, and what each model answers, by the model's word."""

    image: str
    answers: dict[str, Answer]


SHOWN = "shown.json"  # in the folder of the stage
SHOWN_KIND: TypeAdapter[tuple[Shown, ...]] = TypeAdapter(tuple[Shown, ...])
