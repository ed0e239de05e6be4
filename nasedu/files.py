"""Files that are written whole or not at all, and a lock that keeps two processes from one file."""

import errno
import os
import re
import secrets
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import IO

from nasedu.errors import NaseduError

# What an error of the system means, and what to do.
REMEDIES = {
    errno.ENOSPC: "the disk is full: make room, or give a path on another disk",
    errno.EDQUOT: "your share of the disk is used up: make room, or give a path on another disk",
    errno.EFBIG: "files can't be so large here: give a path on another disk",
    errno.EROFS: "this disk can only be read: give a path on another one",
    errno.EACCES: "there is no permission to: give a path in a folder of your own",
    errno.EPERM: "there is no permission to: give a path in a folder of your own",
    errno.EISDIR: "it is a folder: give the path of a file",
    errno.ENOTDIR: "a part of the path is a file and no folder: give another path",
    errno.EEXIST: "a part of the path is a file and no folder: give another path",
    errno.ENAMETOOLONG: "the name is too long: give a shorter one",
}


class FileError(NaseduError, OSError):
    """A file can't be written, or another process is at it; the message names the file, and what to do."""


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` if the block ends well, else it is removed.

    Whoever reads `path`, now or after a crash, finds all of the old file or all of the new one. Its folder is
    made if it is missing. Raises FileError for what the system can't do.
    """
    path = Path(os.path.realpath(path))  # through a link, which stays
    with _beside(path) as temporary:
        yield temporary
        _sync(temporary)
        os.replace(temporary, path)
        if os.name == "posix":
            _sync(path.parent)


def save_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path`, whole or not at all."""
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def try_place(path: str | os.PathLike[str], size: int) -> None:
    """Raises FileError if a file of `size` bytes could not be written to `path`; `path` stays as it is."""
    with _beside(Path(os.path.realpath(path))) as temporary:
        temporary.write_bytes(bytes(size))
        _sync(temporary)


@contextmanager
def _beside(path: Path) -> Iterator[Path]:
    """A path of this process's own beside `path`, removed afterwards; errors of the system as FileError."""
    temporary = path.with_name(f"{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
    try:
        if path.exists() and not path.is_file():
            why = "it is a folder" if path.is_dir() else "it is a device, no file"
            raise FileError(f"cannot write {path}: {why}: give the path of a file")
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
    except FileError:
        raise
    except OSError as error:
        what = REMEDIES.get(error.errno or 0, f"{error.strerror or error}: give another path")
        raise FileError(f"cannot write {path}: {what}") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    number = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # not known of folders everywhere
            raise
    finally:
        os.close(number)


# ---- one process at a time


@contextmanager
def locked(path: str | os.PathLike[str]) -> Iterator[None]:
    """In the block no other process that asks for it has this lock on `path`.

    The lock is the system's, on the file `path`.lock, so it ends with its process, however that ends; the
    file alone locks nothing. What a killed process left half written beside `path` is removed. Raises
    FileError, which says who has it, if the lock is taken.
    """
    path = Path(os.path.realpath(path))
    lock = path.with_name(path.name + ".lock")
    file = _taken(lock, path)
    try:
        half = re.compile(re.escape(path.name) + r"\.\d+-[0-9a-f]{8}\.part")
        for left in path.parent.iterdir():
            if half.fullmatch(left.name):
                left.unlink(missing_ok=True)
        yield
    finally:
        _give_back(file, lock)


def _taken(lock: Path, path: Path) -> IO[str]:
    with _beside(path):
        while True:
            file = open(lock, "a+", encoding="utf-8")  # noqa: SIM115 (open for as long as it is locked)
            try:
                _lock(file)
            except (BlockingIOError, PermissionError) as error:
                file.seek(0)
                who = file.read(200) or "another process"
                file.close()
                raise FileError(
                    f"{path} is in use by {who}: wait until that has ended, or give another path"
                ) from error
            except OSError as error:
                warnings.warn(f"{lock} can't be locked here ({error}): see that no one else uses {path}",
                              stacklevel=3)  # fmt: skip
            # The one who had it may have removed the file after it was opened here: then it locks nothing.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(file.fileno()), os.stat(lock)):
                    break
            file.close()
        now = datetime.now().astimezone().isoformat(" ", "seconds")
        try:
            file.truncate(0)
            file.write(f"process {os.getpid()} on {socket.gethostname()}, since {now}")
            file.flush()
        except OSError:
            _give_back(file, lock)
            raise
    return file


def _give_back(file: IO[str], lock: Path) -> None:
    with suppress(OSError):
        lock.unlink()  # while it is still locked, so it is no one else's
    with suppress(OSError):
        file.close()


if sys.platform == "win32":
    import msvcrt

    def _lock(file: IO[str]) -> None:
        file.seek(2**20)  # past what is read, for a locked part can't be
        msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _lock(file: IO[str]) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
