"""A layer of files that fail: below a folder the disk is full, or can only be read, or breaks.

with failing("full", tmp_path, at=3) as fault:
    trainer.fit()
fault.struck                                       # was there a third write at all?
"""

import builtins
import errno
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

# When it strikes, and with what error of the system.
KINDS = {
    "full": ("write", errno.ENOSPC),
    "half a write": ("half", errno.EIO),
    "quota": ("write", errno.EDQUOT),
    "read-only": ("open", errno.EROFS),
    "no permission": ("open", errno.EACCES),
    "fsync": ("fsync", errno.EIO),
    "replace": ("replace", errno.EACCES),
}


class Fault:
    """Strikes at event number `at` of its kind, counted from 1, and at all after it, as a full disk does."""

    def __init__(self, kind: str, folder: Path, at: int) -> None:
        self.event, self.number = KINDS[kind]
        self.folder, self.at, self.seen = str(folder), at, 0

    @property
    def struck(self) -> bool:
        return self.seen >= self.at

    def __call__(self, event: str, path: object) -> bool:
        """Does it strike here?"""
        if event != self.event or not str(path).startswith(self.folder):
            return False
        self.seen += 1
        return self.struck

    def error(self, path: object) -> OSError:
        return OSError(self.number, os.strerror(self.number), str(path))


class File:
    """An open file whose writes may fail."""

    def __init__(self, file: Any, path: object, fault: Fault) -> None:
        self._file, self._path, self._fault = file, path, fault

    def write(self, data: Any) -> int:
        if self._fault("write", self._path):
            raise self._fault.error(self._path)
        if self._fault("half", self._path):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            raise self._fault.error(self._path)
        written: int = self._file.write(data)
        return written

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[Any]:
        return iter(self._file)


@contextmanager
def failing(kind: str, folder: Path, at: int = 1) -> Iterator[Fault]:
    """In the block writing below `folder` fails in this way, from the `at`-th time on."""
    fault, real_open, real_fsync, real_replace = Fault(kind, folder, at), io.open, os.fsync, os.replace
    real_os_open, paths = os.open, {}

    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        writes = isinstance(file, str | os.PathLike) and set(mode) & set("wax+")
        if writes and fault("open", file):
            raise fault.error(file)
        found = real_open(file, mode, *args, **kwargs)
        return File(found, file, fault) if writes and str(file).startswith(str(folder)) else found

    def os_opened(path: Any, *args: Any, **kwargs: Any) -> int:
        number = real_os_open(path, *args, **kwargs)
        paths[number] = path
        return number

    def synced(number: Any) -> None:
        if fault("fsync", paths.get(number, "")):
            raise fault.error(paths[number])
        real_fsync(number)

    def replaced(old: Any, new: Any, **kwargs: Any) -> None:
        if fault("replace", old):
            raise fault.error(old)
        real_replace(old, new, **kwargs)

    with (
        mock.patch.object(builtins, "open", opened),
        mock.patch.object(io, "open", opened),
        mock.patch.object(os, "open", os_opened),
        mock.patch.object(os, "fsync", synced),
        mock.patch.object(os, "replace", replaced),
    ):
        yield fault
