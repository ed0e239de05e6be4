"""The job that makes a truth table: on all cores, on a cluster, and on again where it was stopped.

Rows are trained by joblib, one at a time in each worker with one thread, and the file is written after each
row. joblib's `parallel_config` chooses where: "loky" (this machine), "dask" (a Dask cluster's scheduler),
"ray" (after `ray.util.joblib.register_ray()`). The images travel with the task, so that workers need no
shared folder.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import torch
from joblib import Parallel, delayed
from tqdm.auto import tqdm

from nasedu import truth
from nasedu.images import ImageDataset
from nasedu.recorded import stamp
from nasedu.truth import Row, Setting, Table, TruthError


def _one(setting: Setting, datasets: tuple[ImageDataset, ...], names: tuple[str, ...], seed: int) -> Row:
    torch.set_num_threads(1)  # the rows are the parallel part; two threads that share a core only wait
    training, valid, test = datasets
    return truth.train(setting, (training, valid, test), names, seed)


def make(
    setting: Setting,
    data: str,
    out: str | os.PathLike[str],
    seeds: int = 3,
    jobs: int = 1,
    command: str = "",
    progress: bool = True,
) -> Table:
    """Train what is missing in the table at `out`, and write it there row by row; return the table.

    `jobs` is joblib's n_jobs (-1: all cores, or all workers of the backend that `parallel_config` has
    chosen). Raises TruthError if `out` holds a table of other settings or other images.
    """
    datasets = setting.datasets(data)
    provenance = {**stamp(torch.device("cpu")), "data": _described(datasets), "command": command}
    table = Table(setting, (), provenance)
    if Path(out).exists():
        table = truth.load(out)
        if table.setting != setting or table.provenance["data"] != provenance["data"]:
            raise TruthError(
                f"{out} holds a table of {table.setting} on {table.provenance['data']}, not of {setting} on "
                f"{provenance['data']}; use the same arguments, or give another file"
            )
    missing = table.missing(range(seeds))
    tasks = (delayed(_one)(setting, datasets, names, seed) for names, seed in missing)
    rows: Iterator[Row] = Parallel(n_jobs=jobs, return_as="generator_unordered")(tasks)
    for row in tqdm(rows, total=len(missing), desc="truth", unit="row", disable=not progress):
        table = table.with_row(row)
        table.save(out)
    return table


def _described(datasets: tuple[ImageDataset, ...]) -> str:
    """The images in words: name, sizes, and a checksum, which no path changes."""
    import zlib

    crc = 0
    for part in datasets:
        crc = zlib.crc32(part.labels.numpy().data, zlib.crc32(part.images.contiguous().numpy().data, crc))
    counts = " + ".join(f"{len(part):,}" for part in datasets)
    return f"{datasets[0].name}, {counts} images (training + validation + test), crc32 {crc:08x}"
