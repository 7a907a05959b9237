"""What third parties say at import that tells nothing of a job: exactly these words are kept off stderr, no others."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

# Logger -> how what it says begins. torchao tries kernels that were built for other Pythons and for GPUs; torch tells
# torchao's authors of a call that they are to leave out.
KNOWN = {
    "torchao": re.compile(r"Failed to load \S+\.so: "),
    "torch.utils._pytree": re.compile(r"<enum '\w+'> is an Enum subclass .* register_constant\(\)"),
}


class _Filter(logging.Filter):
    def __init__(self, known: re.Pattern[str]) -> None:
        super().__init__()
        self._known = known

    def filter(self, record: logging.LogRecord) -> bool:
        return self._known.match(record.getMessage()) is None


@contextmanager
def without_known_chatter() -> Iterator[None]:
    """While toolkits are imported: what is known to say nothing is not said. Everything else is."""
    filters = {name: _Filter(known) for name, known in KNOWN.items()}
    for name, one in filters.items():
        logging.getLogger(name).addFilter(one)
    try:
        yield
    finally:
        for name, one in filters.items():
            logging.getLogger(name).removeFilter(one)
