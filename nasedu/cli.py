"""The command line: `nasedu run` (what `make run` calls), and what makes the files the notebooks read:
`nasedu record` (a recorded run), `nasedu truth` (a truth table), `nasedu study` (many runs, one protocol).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from nasedu import doctor
from nasedu.data.datasets import get_dataset
from nasedu.data.download import DownloadError
from nasedu.data.images import DatasetError, ImageDataset
from nasedu.profiles import profile
from nasedu.search.base import SearchTrainer, gap_callback
from nasedu.search.darts import DartsTrainer
from nasedu.search.enas import EnasTrainer
from nasedu.search.history import HistoryError
from nasedu.search.trainer import CheckpointError
from nasedu.show import page
from nasedu.space.choice import ArchError
from nasedu.space.genotype import Genotype, GenotypeError
from nasedu.study import jobs, protocols, truth, truth_job
from nasedu.study.recorded import Recorded, RecordedError, stamp
from nasedu.study.study import StudyError

EXPLANATIONS = {
    "DARTS": "All operations at once, mixed by a softmax; the mixture was trained by gradient descent on "
    "held-out images. Of each node the two strongest edges are kept.",
    "ENAS": "A controller, an LSTM, wrote one cell after another; the accuracy of each on held-out images "
    "was its reward. Of its last samples the best is kept.",
}
# Layers this small gain 7 % from a second thread on two free cores, and lose a factor of ten where the cores
# are shared with other work.
THREADS = "CPU threads (default: 1)"
EXPECTED = (
    ArchError,
    CheckpointError,
    DatasetError,
    DownloadError,
    GenotypeError,
    HistoryError,
    RecordedError,
    StudyError,
    truth.TruthError,
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 (done), 2 (an error, told in a line) or 130 (stopped by Ctrl-C)."""
    parser = argparse.ArgumentParser(prog="nasedu", description="Neural architecture search, small and real.")
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="search a cell with DARTS and one with ENAS, and draw both")
    run.add_argument("--data", default="auto", help="an image folder, cifar10, shapes10, or auto (default)")
    run.add_argument("--out", type=Path, default=Path("build"), help="where to write (default: build)")
    run.add_argument("--seed", type=int, default=0)
    run.add_argument("--threads", type=int, default=1, help=THREADS)
    commands.add_parser("doctor", help="look at this machine: does the course run here?")
    record = commands.add_parser(
        "record", help="make a recorded run (hours on a CPU; goes on where it stopped)"
    )
    record.add_argument("method", choices=["darts", "enas"])
    record.add_argument("--data", default="cifar10", help="an image folder, or cifar10 (default)")
    record.add_argument("--images", type=int, default=10_000, help="training images (10000)")
    record.add_argument("--epochs", type=int, default=10)
    record.add_argument("--channels", type=int, default=8)
    record.add_argument("--layers", type=int, default=5)
    record.add_argument("--batch-size", type=int, default=32)
    record.add_argument("--seed", type=int, default=0)
    record.add_argument("--threads", type=int, default=1, help=THREADS)
    record.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    table = commands.add_parser("truth", help="train every architecture of the small space (hours; goes on)")
    what = table.add_mutually_exclusive_group()
    what.add_argument("--data", default="cifar10", help="an image folder, or cifar10 (default)")
    what.add_argument("--small", action="store_true", help="seconds instead: the tests' setting, on shapes10")
    table.add_argument("--seeds", type=int, default=3, help="for each architecture (3; with --small 1)")
    table.add_argument("--jobs", type=int, default=-1, help="processes (default: -1, one for each core)")
    table.add_argument(
        "--backend", choices=truth_job.BACKENDS, default="loky", help="joblib's (default: loky)"
    )
    table.add_argument("--scheduler", help="the address of the Dask scheduler or the Ray cluster")
    table.add_argument("--out", type=Path, required=True, help="the JSON file to write, row by row")
    many = commands.add_parser("study", help="make a study: many runs, several seeds (hours; goes on)")
    many.add_argument("name", choices=protocols.NAMES)
    many.add_argument("--data", default="cifar10", help="an image folder, or cifar10 (default)")
    many.add_argument("--seeds", type=int, help="for each method or cell (default: as shipped)")
    many.add_argument("--cells", type=Path, help="for retrain: the cell_search study (default: as shipped)")
    many.add_argument("--out", type=Path, required=True, help="the JSON file to write, run by run")
    given = parser.parse_args(arguments)
    if given.command == "doctor":
        return doctor.main()
    try:
        return {"run": _run, "record": _record, "truth": _truth, "study": _study}[given.command](given)
    except EXPECTED as error:
        print(f"nasedu: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _finish(trainer: SearchTrainer, again: str) -> bool:
    """Fit; say how to go on where it was interrupted."""
    trainer.fit()
    if not trainer.finished():
        print(f"to go on: {again}")
        return False
    return True


def _run(given: argparse.Namespace) -> int:
    torch.set_num_threads(given.threads)
    sizes = profile()
    settings = jobs.Settings.of(sizes, given.seed)
    name = sizes.dataset if given.data == "auto" else given.data
    train, valid = get_dataset(
        name, subset=(sizes.run_images, sizes.test_images), seed=given.seed, input_size=settings.input_size
    )
    if name != "auto":  # "auto" says it by itself
        print(f"data: {train.source}; {len(train):,} training and {len(valid):,} validation images")
    given.out.mkdir(parents=True, exist_ok=True)
    searches, checkpoints = [], []
    for method, make in (("DARTS", jobs.darts), ("ENAS", jobs.enas)):
        checkpoints.append(given.out / f"{method.lower()}.checkpoint.pt")
        trainer = make(settings, train, checkpoint=checkpoints[-1], progress=True, device=sizes.device)
        if not _finish(trainer, "the same command again"):
            return 130
        searches.append(_search(method, trainer, valid))
    facts = {
        "Data": f"{train.source}: {len(train):,} images, half for the weights, half for the architecture",
        "Supernet": f"{settings.channels} channels, {settings.layers} cells, "
        f"images of {settings.input_size}x{settings.input_size} pixels",
        "Search": f"{settings.epochs} epochs, batches of {settings.batch_size}, seed {settings.seed}",
        "Device": f"{stamp(sizes.device)['device']} (profile {sizes.name})",
        "Read with care": "These searches are small: another seed may well give another cell. Notebooks 06 "
        "to 09 build both methods, step by step.",
    }
    written = page.write(given.out, "Two cells, searched for and drawn", facts, searches)
    for path in checkpoints:
        path.unlink()
    print(f"wrote {written} and, beside it, genotypes (JSON), cells (SVG, PDF), plots and histories")
    return 0


def _search(method: str, trainer: DartsTrainer | EnasTrainer, valid: ImageDataset) -> page.Search:
    genotype = Genotype.from_dict(trainer.export())
    last = trainer.history.epochs[-1]
    shared = trainer.score(genotype.arch(), valid)["acc1"]
    results = {
        "Time": f"{trainer.history.seconds:.0f} s",
        "Accuracy on the training half, last epoch": f"{last['train_acc1']:.1%}",
        "Accuracy on the architecture half, last epoch": f"{last['valid_acc1']:.1%}",
        f"Accuracy of the cell, with the supernet's weights, on {len(valid):,} other images": f"{shared:.1%}",
    }
    return page.Search(method, EXPLANATIONS[method], genotype, last["arch"], trainer.history, results)


def _record(given: argparse.Namespace) -> int:
    torch.set_num_threads(given.threads)
    size = 32
    train, valid = get_dataset(given.data, subset=(given.images, 1000), seed=given.seed, input_size=size)
    settings = jobs.Settings(size, given.channels, given.layers, given.epochs, given.batch_size, given.seed)
    checkpoint = given.out.with_suffix(".checkpoint.pt")
    options = {"checkpoint": checkpoint, "checkpoint_every": 50, "log_frequency": 50}
    trainer: DartsTrainer | EnasTrainer
    if given.method == "darts":
        trainer = jobs.darts(settings, train, callbacks=[gap_callback(valid)], **options)
    else:
        trainer = jobs.enas(settings, train, **options)
    if not _finish(trainer, "the same command again"):
        return 130
    if given.method == "darts":
        genotypes = [
            Genotype.derive({label: torch.tensor(matrix) for label, matrix in line["arch"].items()})
            for line in trainer.history.epochs
        ]
    else:
        genotypes = [Genotype.from_dict(trainer.export())]
    results = {
        "derived_acc1": trainer.score(genotypes[-1].arch(), valid)["acc1"],
        "evaluated_on": f"{len(valid)} validation images, with the supernet's weights and batch statistics",
    }
    flags = " ".join(
        f"--{flag.replace('_', '-')} {getattr(given, flag)}"
        for flag in ("images", "epochs", "channels", "layers", "batch_size", "seed", "threads")
    )
    name = given.out.stem
    run = Recorded(
        name=name,
        method=given.method.upper(),
        command=f"python -m nasedu record {given.method} --data {given.data} {flags} --out {name}.json",
        dataset={"source": train.source, "train": len(train), "valid": len(valid)},
        config=settings.as_dict(given.method.upper()),
        minutes=trainer.history.seconds / 60,
        history=trainer.history,
        genotypes=tuple(genotypes),
        results=results,
        **stamp(trainer.device),
    )
    run.save(given.out)
    checkpoint.unlink()
    print(run.provenance)
    return 0


def _truth(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)  # as in the workers
    setting, data, seeds = truth.Setting(), given.data, given.seeds
    command = f"python -m nasedu truth --data {data} --seeds {seeds} --out {given.out.name}"
    if given.small:
        setting, data, seeds = truth.SMALL, "shapes10", 1
        command = f"python -m nasedu truth --small --out {given.out.name}"
    try:
        with truth_job.backend(given.backend, given.scheduler):
            table = truth_job.make(setting, data, given.out, seeds, given.jobs, command)
    except KeyboardInterrupt:
        print(f"interrupted; the rows so far are in {given.out}; to go on: the same command again")
        return 130
    print(f"{given.out}: {len(table)} rows, {table.provenance['data']}")
    return 0


def _study(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    try:
        made = protocols.make(given.name, given.data, given.out, given.seeds, given.cells or "cell_search")
    except KeyboardInterrupt:
        print(f"interrupted; the runs so far are in {given.out}; to go on: the same command again")
        return 130
    print(f"{given.out}: {made.provenance}")
    return 0
