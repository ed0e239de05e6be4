"""Processes beside this one: who hears Ctrl-C."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def deaf_to_ctrl_c() -> Iterator[None]:
    """Processes that start in this block do not hear Ctrl-C; this one hears it again after the block.

    One that heard it while it starts would print a traceback. In another thread than the main one, which
    alone may change who hears it, nothing is changed.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    answer = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, answer)
