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


def save_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to `path`, whole or not at all; its folder is made if it is missing."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
