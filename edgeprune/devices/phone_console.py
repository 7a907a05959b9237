"""The lines of the app on an iPhone, in their order: from its console, and from its file where the console lost some.

A console also shows what the tool and the system say, in between, and may drop or mix lines; so each of ours has a mark
and a number there. The file in the app's container holds them all.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable

from edgeprune.devices.failures import understood

MARK = "@edgeprune "
SAID_MOST = 20  # lines of others that are kept


class PhoneConsole:
    """Hands out each line once. `read_file` gives what the file holds now; `ended` is how the app said it ended."""

    def __init__(self, on_line: Callable[[str], None], read_file: Callable[[], str]) -> None:
        self._on_line, self._read_file = on_line, read_file
        self._next = 0
        self._said: deque[str] = deque(maxlen=SAID_MOST)
        self.ended: tuple[int, str] | None = None  # (exit code, message)

    @property
    def begun(self) -> bool:
        """Whether the app has said anything."""
        return self._next > 0

    @property
    def said(self) -> str:
        """The last of what others wrote there."""
        return "\n".join(self._said)

    def take(self, line: str) -> None:
        """One line of the console (it ends in a carriage return, as on a terminal)."""
        before, mark, rest = line.rstrip("\r").partition(MARK)
        number, _, body = rest.partition(" ")
        if before.strip() or not mark:
            self._said.append((before or line).strip())
        if not mark or not (number.isascii() and number.isdecimal() and len(number) < 12):
            return
        if int(number) > self._next:  # some were lost
            self.catch_up()
        if int(number) == self._next and _is_whole(body):
            self._hand_out(body)

    def catch_up(self) -> None:
        """Hand out what is in the file and was not seen yet."""
        *lines, _ = self._read_file().split("\n")  # what is behind the last line end is still being written
        for line in lines[self._next :]:
            self._hand_out(line)

    def _hand_out(self, line: str) -> None:
        self._next += 1
        with understood("apple", "what the app says"):
            event = json.loads(line)
            ends = event["event"] == "exit"
            if ends:
                self.ended = int(event["code"]), str(event["message"])
        if not ends:
            self._on_line(line)


def _is_whole(body: str) -> bool:
    try:
        return "event" in json.loads(body)
    except (ValueError, TypeError, RecursionError):
        return False
