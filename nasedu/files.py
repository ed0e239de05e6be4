"""Files that are written whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A path beside `path` to write to; it becomes `path` if the block ends well, else it is removed.

    Whoever reads `path`, now or after a crash, finds all of the old file or all of the new one.
    """
    path = Path(path)
    temporary = path.with_name(path.name + ".part")
    try:
        yield temporary
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
