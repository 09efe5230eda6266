"""Reads regular files, and refuses everything else that a path can name.

Opening a named pipe waits until another program writes to it, and reading a device may never end.
A thread that waits like this cannot be cancelled, so such a path would hold up its call, the end
of the server and, with enough of them, every other call. Blocking: call it in a thread.
"""

import errno
import os
import stat

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)  # A pipe opens at once, whether or not it has a writer.
    | getattr(os, "O_NOCTTY", 0)  # A terminal does not become this process's own.
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)


def read_regular_file(path: str | os.PathLike[str], limit: int) -> bytes:
    """Return the first `limit` bytes of a regular file. Links are followed.

    Raises:
        OSError: It cannot be read, or it is not a regular file. `strerror` says which.
    """
    try:
        # Checked before opening, because opening a device or a pipe can have effects; and again
        # after, because the path may name another file by then.
        _require_regular(os.stat(path).st_mode, path)
        descriptor = os.open(path, _FLAGS)
    except ValueError:  # A NUL, or half of a surrogate pair.
        raise OSError(errno.EINVAL, "no file can have this name") from None
    with open(descriptor, "rb") as file:
        _require_regular(os.fstat(descriptor).st_mode, path)
        return file.read(limit)


def _require_regular(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "it is a folder", path)
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "it is not a regular file", path)
