"""Mutations of files, the same for the same seed: of bytes, of values in JSON and TOML, of integers in place."""

from __future__ import annotations

import copy
import json
import math
import os
import random
import signal
import struct
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

from edgeprune.errors import EdgePruneError

SEED = int(os.environ.get("EDGEPRUNE_FUZZ_SEED", "22"))  # of all tests in this folder; others: benchmarks/fuzz.py

NUMBERS: list[Any] = [
    *(0, -1, 1, 2, 255, 2**31 - 1, 2**31, -(2**31) - 1, 2**32, 2**53 + 1, 2**63, 2**64, -(2**64), 10**18, 10**40),
    *(0.0, -0.0, -1.5, 1e-9, 5e-324, 1e18, 1e308, math.nan, math.inf, -math.inf),
]
TEXTS = [
    *("", " ", "\0", "a\0b", "~nouser/x", "..", "../../..", "/", "/dev/null", ".", "-", "--help", "x" * 5000, "\ud800"),
    *("é", "\u202e", "\n", "%s%n", "${HOME}", "0x", "nan", "-1ms", "1e999x", "9" * 5000 + "ms", "0.5X ", ":", "a:b:c"),
    *("os:system", "npz:", "npz:~nouser", "timm:", "timm:@", "adb:", "ssh:", "file.py:", "*" * 100, "[" * 100, "\\d+("),
]
WORDS = struct.Struct("<i")
EXTREMES = (0, 1, -1, 2, 127, 255, 65535, 2**31 - 1, -(2**31), 0x00FFFFFF, 0x7FFFFFF0)


WATCH_S = 60  # a single mutation that takes so long hangs


class Judge:
    """Counts what became of mutations: read, or refused in our own words. Everything else fails the test."""

    def __init__(self) -> None:
        self.told = Counter[str]()

    def look(self, call: Callable[[], object], mutation: object) -> EdgePruneError | None:
        """What a call on a mutation was refused with; None where it was read.

        Raises:
            AssertionError: an exception that is not ours, an exit code that is not asked for, or a call that hangs.
        """
        before = signal.signal(signal.SIGALRM, _hangs)
        signal.alarm(WATCH_S)
        try:
            call()
        except EdgePruneError as error:
            if error.exit_code != 2 or len(str(error)) > 6000:
                raise AssertionError(f"exit code {error.exit_code}: {error}"[:2000], mutation) from error
            self.told["refused"] += 1
            return error
        except (Exception, SystemExit) as error:
            raise AssertionError(f"{type(error).__name__}: {error}"[:2000], mutation) from error
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, before)
        self.told["read"] += 1
        return None

    def saw_both(self, least: int) -> None:
        """Check that mutations were read and refused: otherwise it is a test of nothing."""
        assert min(self.told["read"], self.told["refused"]) >= least, self.told


def _hangs(*_: object) -> None:
    raise TimeoutError(f"nothing came of it within {WATCH_S} s")


class Mutator:
    """Draws mutations; the same ones in the same order for the same seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def bytes(self, data: bytes) -> bytes:
        """Content with one to four changes: bits, ranges, integers; cut off, put in, doubled."""
        for _ in range(self.random.choice((1, 1, 1, 2, 4))):
            data = self._one(data)
        return data

    def _one(self, data: bytes) -> bytes:  # noqa: PLR0911
        draw, size = self.random, len(data)
        if not size:
            return draw.randbytes(draw.randrange(1, 64))
        place = draw.randrange(size)
        length = min(size - place, draw.choice((1, 2, 4, 8, 64, 512)))
        match draw.randrange(8):
            case 0:
                return data[:place] + bytes([data[place] ^ 1 << draw.randrange(8)]) + data[place + 1 :]
            case 1:
                return data[:place] + draw.randbytes(length) + data[place + length :]
            case 2:
                return data[:place]
            case 3:
                return data[:place] + draw.randbytes(length) + data[place:]
            case 4:
                return data[:place] + data[place : place + length] + data[place:]
            case 5:
                return data[:place] + data[place + length :]
            case 6:
                place -= place % 4
                return data[:place] + WORDS.pack(draw.choice(EXTREMES)) + data[place + 4 :]
            case _:
                return data[:place] + draw.choice((b"\0", b"\xff")) * length + data[place + length :]

    def word(self, data: bytes) -> bytes:
        """Content with an aligned 32-bit integer that is another: a little off, or extreme."""
        place = 4 * self.random.randrange(len(data) // 4)
        (value,) = WORDS.unpack_from(data, place)
        other = self.random.choice((*EXTREMES, value + 4, value - 4, value + 1, value * 2, -value, value ^ 0x100))
        return data[:place] + struct.pack("<I", other & 0xFFFFFFFF) + data[place + 4 :]

    def tree(self, tree: Any) -> Any:
        """A tree of mappings, lists and values with one to three of them exchanged, doubled, taken out or put in."""
        tree = copy.deepcopy(tree)
        for _ in range(self.random.choice((1, 1, 2, 3))):
            places = list(_places(tree))
            if not places:
                return tree
            holder, key = self.random.choice(places)
            match self.random.randrange(8):
                case 0:
                    del holder[key]
                case 1 if isinstance(holder, dict):
                    holder[self.random.choice(TEXTS)] = holder.pop(key)
                case 2 if isinstance(holder, list):
                    holder.extend([holder[key]] * self.random.choice((1, 100)))
                case _:
                    holder[key] = self.value(holder[key])
        return tree

    def value(self, before: Any) -> Any:
        """Something else in the place of a value."""
        draw = self.random
        nested: Any = before
        match draw.randrange(6):
            case 0:
                return draw.choice(TEXTS)
            case 1:
                for _ in range(draw.choice((3, 40, 150))):
                    nested = [nested] if draw.random() < 0.5 else {"a": nested}
                return nested
            case 2:
                return draw.choice(([], {}, True, False, None, [before], {"a": before}, [[]], [None]))
            case 3 if isinstance(before, (int, float)) and not isinstance(before, bool):
                return draw.choice((-before, before * 1e6, before + 0.5, before * 10**9, str(before)))
            case _:
                return draw.choice(NUMBERS)

    def json(self, content: bytes) -> bytes:
        """JSON with values exchanged, or bytes."""
        if self.random.random() < 0.3:
            return self.bytes(content)
        return json.dumps(self.tree(json.loads(content)), default=str).encode(errors="surrogatepass")


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        yield tree, key
        yield from _places(value)


def toml(tree: dict[str, Any]) -> str:
    """A tree as TOML, its tables inline below the first level; None becomes a text."""
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10 * before)  # mutations nest in mutations: this may go deeper than what reads them
    try:
        return _toml(tree)
    finally:
        sys.setrecursionlimit(before)


def _toml(tree: dict[str, Any]) -> str:
    lines = []
    tables = {key: value for key, value in tree.items() if isinstance(value, dict)}
    for key, value in tree.items():
        if key not in tables:
            lines.append(f"{_text(key)} = {_inline(value)}")
    for name, values in tables.items():
        lines.append(f"[{_text(name)}]")
        lines += [f"{_text(key)} = {_inline(value)}" for key, value in values.items()]
    return "\n".join(lines) + "\n"


def _inline(value: Any) -> str:
    match value:
        case dict():
            return "{" + ", ".join(f"{_text(key)} = {_inline(one)}" for key, one in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(_inline, value)) + "]"
        case bool() | None:
            return {True: "true", False: "false", None: '"none"'}[value]
        case int():
            return hex(value) if value >= 0 else str(value)
        case float():
            return repr(value)
        case _:
            return _text(str(value))


def _text(value: str) -> str:
    return json.dumps(value).replace("\x7f", "\\u007f")
