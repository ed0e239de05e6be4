"""The job that makes a truth table: on all cores, on a cluster, and on again where it was stopped.

    nasedu truth --data FOLDER --out FILE                                     # all cores of this machine
    nasedu truth --data FOLDER --out FILE --backend dask --scheduler tcp://head:8786

Rows are trained by joblib, one at a time in each worker with one thread, and the file is written after each
row; so Ctrl-C, a crash or a lost worker costs the rows under way and no others. The images travel to the
workers, which need this package and no shared folder.
"""

import os
import threading
import warnings
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from joblib import Parallel, delayed, effective_n_jobs, parallel_config
from joblib.parallel import get_active_backend
from tqdm.auto import tqdm

from nasedu.files import locked
from nasedu.processes import deaf_to_ctrl_c
from nasedu.space import small
from nasedu.study import truth
from nasedu.study.recipe import Datasets, Recipe
from nasedu.study.record import begin
from nasedu.study.truth import Row, Table, TruthError

BACKENDS = ("loky", "dask", "ray")
# torch's random state belongs to the process, and a Dask worker may have several threads.
_ALONE = threading.Lock()


@dataclass(frozen=True, eq=False)
class _Images:
    """(train, valid, test). It says how large it is, so joblib's Dask backend sends it once, not per task."""

    parts: Datasets

    def __sizeof__(self) -> int:
        return sum(part.images.nbytes for part in self.parts)


def _one(recipe: Recipe, images: _Images, names: small.Names, seed: int) -> Row:
    tqdm.set_lock(threading.RLock())  # tqdm's own is a semaphore, which a worker that is killed leaves behind
    with _ALONE:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # the rows are the parallel part; threads that share a core only wait
        try:
            return truth.train(recipe, images.parts, names, seed)
        finally:
            torch.set_num_threads(threads)


def make(
    recipe: Recipe,
    data: str,
    out: str | os.PathLike[str],
    seeds: int = 3,
    jobs: int = 1,
    command: str = "",
    progress: bool = True,
    names: Sequence[small.Names] | None = None,
) -> Table:
    """Train what is missing in the table at `out`, and write it there row by row; return the table.

    `jobs` is joblib's n_jobs (-1: all cores, or all workers of the `backend`; on Dask always all). `names`
    are the architectures to train, all by default. Raises RecordError if `out` holds a table of another
    recipe or other images, FileError if it can't be written or another process is at it.
    """
    if seeds < 1 or jobs == 0:
        raise TruthError(f"{seeds} seeds on {jobs} jobs; wanted 1 or more, and 1 or more or -1 (all)")
    wanted = small.architectures() if names is None else [small.names_of(small.matrix(n)) for n in names]
    parts = recipe.datasets(data)
    new = Table(recipe, (), {"data": truth.described(parts), "command": command})
    with locked(out):
        table = Table.from_record(begin(new.to_record(), out))
        missing = [(each, seed) for each, seed in table.missing(range(seeds)) if each in wanted]
        shared = _Images(parts)
        tasks = (delayed(_one)(recipe, shared, each, seed) for each, seed in missing)
        with closing(_rows(tasks, jobs)) as rows:
            for row in tqdm(rows, total=len(missing), desc="truth", unit="row", disable=not progress):
                table = table.with_row(row)
                table.save(out)
    return table


def _rows(tasks: Iterator[Any], jobs: int) -> Generator[Row, None, None]:
    """The tasks' rows as they come. As many tasks are sent as there are workers: they carry the images."""
    options: dict[str, Any] = {"n_jobs": jobs, "pre_dispatch": "n_jobs", "batch_size": 1}
    if get_active_backend()[0].supports_return_generator:
        with deaf_to_ctrl_c():  # this process hears it, and ends the workers
            rows = Parallel(return_as="generator_unordered", **options)(tasks)
        try:
            for row in rows:  # noqa: UP028 (`yield from` would close `rows` before the warnings are off)
                yield row
        finally:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # what joblib says of rows not waited for: that was the wish
                rows.close()
    else:  # Ray's pool, as multiprocessing's, gives its answers all at once: so a task for each worker
        with Parallel(**options) as parallel:
            while part := list(islice(tasks, effective_n_jobs(jobs))):
                yield from parallel(part)


@contextmanager
def backend(name: str = "loky", scheduler: str | None = None, timeout: float = 10.0) -> Iterator[None]:
    """Where `make` trains inside this block: "loky", the processes of this machine, "dask" or "ray".

    `scheduler` is the address of a Dask scheduler that runs, or of a Ray cluster (default: one on this
    machine). Raises TruthError if the package is missing, or nobody answers within `timeout` seconds.
    """
    if name == "loky":
        with parallel_config("loky", inner_max_num_threads=1):
            yield
    elif name == "dask":
        with _dask(scheduler, timeout), parallel_config("dask"):
            yield
    elif name == "ray":
        _ray(scheduler)
        with parallel_config("ray"):
            yield
    else:
        raise TruthError(f"no backend {name!r}; there are {', '.join(BACKENDS)}")


@contextmanager
def _dask(address: str | None, timeout: float) -> Iterator[None]:
    try:
        from distributed import Client
    except ImportError as error:
        raise TruthError(
            f"the backend dask wants a package ({error}): pip install 'dask[distributed]'"
        ) from error
    if not address:
        raise TruthError(
            "the backend dask wants the address of its scheduler: start `dask scheduler` and `dask worker`s, "
            "and give tcp://machine:8786; to use this machine's cores take loky"
        )
    try:
        client = Client(address, timeout=timeout, set_as_default=True)
    except (OSError, ValueError) as error:
        raise TruthError(
            f"no Dask scheduler answers at {address} ({type(error).__name__}: {error})"
        ) from error
    with client:
        try:
            client.wait_for_workers(1, timeout=timeout)
        except TimeoutError as error:
            raise TruthError(
                f"the Dask scheduler at {address} has no workers; start `dask worker`s"
            ) from error
        yield


def _ray(address: str | None) -> None:
    try:
        import ray
        from ray.util.joblib import register_ray
    except ImportError as error:
        raise TruthError(f"the backend ray wants a package ({error}): pip install ray") from error
    try:
        ray.init(address)
    except (OSError, ValueError) as error:
        raise TruthError(f"no Ray cluster answers at {address} ({type(error).__name__}: {error})") from error
    register_ray()
