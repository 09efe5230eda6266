"""One thread that does what is put into its queue, in order: the disk's slowness stays in it."""

import atexit
import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Final

EXIT_SECONDS: Final = 5.0
"""How long a program's end waits for what is still to be written."""


class Writer:
    """The thread. It is started by the first job, and never keeps a process from ending."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def waiting_jobs(self) -> int:
        """How many jobs are not begun."""
        return self._jobs.qsize()

    def submit(self, job: Callable[[], None]) -> None:
        """Have a job done, after all before it. It must not raise."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="captures", daemon=True)
            self._thread.start()
            atexit.register(self.close)
        self._jobs.put(job)

    def close(self, timeout_seconds: float = EXIT_SECONDS) -> None:
        """Wait until all jobs are done, but no longer than this. Blocking."""
        if self._thread is not None:
            atexit.unregister(self.close)
            self._jobs.put(None)
            self._thread.join(timeout_seconds)
            self._thread = None

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
