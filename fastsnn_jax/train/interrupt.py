"""Ctrl-C that waits until the host's books and the device agree."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Interrupted(KeyboardInterrupt):
    """Training was stopped by Ctrl-C; the message says where it can be resumed."""


class Interrupts:
    """Within ``with Interrupts() as interrupts`` Ctrl-C waits for ``interrupts.check()``.

    Within ``with interrupts.at_once()`` it raises Interrupted right away. A second Ctrl-C raises
    KeyboardInterrupt wherever it strikes. Outside the main thread nothing is caught or changed.
    """

    def __init__(self):
        self.pending = False
        self._at_once = False
        self._previous = None

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *exception) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)

    def check(self) -> None:
        """Raises Interrupted if Ctrl-C was pressed."""
        if self.pending:
            raise Interrupted

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """For work that may be abandoned anywhere, such as an evaluation."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _on_signal(self, number, frame) -> None:
        again, self.pending = self.pending, True
        if again:
            raise KeyboardInterrupt
        if self._at_once:
            raise Interrupted
