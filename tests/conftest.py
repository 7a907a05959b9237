"""For all tests: Ctrl-C works in the processes they start.

A shell starts background jobs with SIGINT ignored, and children inherit that; where the tests run so, the tests of
Ctrl-C would wait for ever. A handler of our own is reset to the default when a child starts.
"""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
