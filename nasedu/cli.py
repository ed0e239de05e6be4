"""The command line: `nasedu run` (what `make run` calls), and what makes the records the notebooks read:
`nasedu record` (one search), `nasedu truth` (a truth table), `nasedu study` (many runs by one recipe).
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from nasedu import doctor
from nasedu.errors import NaseduError
from nasedu.profiles import profile
from nasedu.run import make as make_run
from nasedu.search.base import gap_callback
from nasedu.space.genotype import Genotype
from nasedu.study import protocols, truth, truth_job
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, RecordError, conduct

# Layers this small gain 7 % from a second thread on two free cores, and lose a factor of ten where the cores
# are shared with other work.
THREADS = "CPU threads (default: 1)"
AGAIN = "to go on: the same command again"


def whole(least: int) -> Callable[[str], int]:
    """What reads a whole number from `least` up, and says so of anything else."""

    def read(text: str) -> int:
        number = int(text) if text.lstrip("+-").isdecimal() and len(text) < 10 else None
        if number is None or number < least:
            raise argparse.ArgumentTypeError(f"{text!r:.40} is no whole number from {least} up")
        return number

    return read


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    main = argparse.ArgumentParser(prog="nasedu", description="Neural architecture search, small and real.")
    commands = main.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="search with DARTS and ENAS, train what they found, and show it")
    run.add_argument("--data", default="auto", help="an image folder, cifar10, shapes10, or auto (default)")
    run.add_argument("--out", type=Path, default=Path("build"), help="where to write (default: build)")
    run.add_argument("--seed", type=whole(0), default=0)
    run.add_argument("--threads", type=whole(1), default=1, help=THREADS)
    commands.add_parser("doctor", help="look at this machine: does the course run here?")
    record = commands.add_parser(
        "record", help="make a recorded run (hours on a CPU; goes on where it stopped)"
    )
    record.add_argument("method", choices=["darts", "enas"])
    record.add_argument("--data", default="cifar10", help="an image folder, or cifar10 (default)")
    record.add_argument("--images", type=whole(2), default=10_000, help="training images (10000)")
    record.add_argument("--pixels", type=whole(8), default=32)
    record.add_argument("--epochs", type=whole(1), default=10)
    record.add_argument("--channels", type=whole(1), default=8)
    record.add_argument("--layers", type=whole(3), default=5)
    record.add_argument("--batch-size", type=whole(1), default=32)
    record.add_argument("--seed", type=whole(0), default=0)
    record.add_argument("--threads", type=whole(1), default=1, help=THREADS)
    record.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    table = commands.add_parser("truth", help="train every architecture of the small space (hours; goes on)")
    what = table.add_mutually_exclusive_group()
    what.add_argument("--data", default="cifar10", help="an image folder, or cifar10 (default)")
    what.add_argument("--small", action="store_true", help="seconds instead: the tests' recipe, on shapes10")
    table.add_argument("--seeds", type=whole(1), default=3, help="for each architecture (3; with --small 1)")
    table.add_argument("--jobs", type=int, default=-1, help="processes (default: -1, one for each core)")
    table.add_argument(
        "--backend", choices=truth_job.BACKENDS, default="loky", help="joblib's (default: loky)"
    )
    table.add_argument("--scheduler", help="the address of the Dask scheduler or the Ray cluster")
    table.add_argument("--out", type=Path, required=True, help="the JSON file to write, row by row")
    many = commands.add_parser("study", help="make a study: many runs, several seeds (hours; goes on)")
    many.add_argument("name", choices=protocols.NAMES)
    many.add_argument("--data", default="cifar10", help="an image folder, or cifar10 (default)")
    many.add_argument("--seeds", type=whole(1), help="for each method or cell (default: as shipped)")
    many.add_argument("--method", action="append", default=[], help="only this one now (may be repeated)")
    many.add_argument("--cells", type=Path, help="for retrain: the cell_search record (default: as shipped)")
    many.add_argument("--out", type=Path, required=True, help="the JSON file to write, run by run")
    return main


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return 0 (done), 2 (an error, told in a line) or 130 (stopped by Ctrl-C)."""
    for text in sys.argv[1:] if arguments is None else arguments:
        if any(
            c == "\0" or "\ud800" <= c < "\udc80" for c in text
        ):  # neither a path nor a name can have these
            print(
                f"nasedu: {text!r:.80} has characters that no name can have; type it again", file=sys.stderr
            )
            return 2
    given = parser().parse_args(arguments)
    if given.command == "doctor":
        return doctor.main()
    try:
        return {"run": _run, "record": _record, "truth": _truth, "study": _study}[given.command](given)
    except NaseduError as error:
        print(f"nasedu: {error}", file=sys.stderr)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        told = f"{place}{error.strerror or error}; make room, or give another --out"
        print(f"nasedu: {told}", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    return 2


def _file(out: Path) -> Path:
    """The file that a record goes to. Raises RecordError for what can be none."""
    if out.exists() and not out.is_file():
        raise RecordError(f"--out {out} is no file; give the JSON file to write, such as {out / 'run.json'}")
    return out


def _run(given: argparse.Namespace) -> int:
    torch.set_num_threads(given.threads)
    page = make_run(profile(), given.data, given.out, given.seed)
    print(f"wrote {page} and, beside it, genotypes (JSON), cells (SVG, PDF), plots, and run.json, the record")
    return 0


def _record(given: argparse.Namespace) -> int:
    torch.set_num_threads(given.threads)
    out, method = _file(given.out), {"darts": "DARTS 1st", "enas": "ENAS"}[given.method]
    own = {
        "DARTS 1st": {"arc_learning_rate": 3e-3},
        "ENAS": {"ctrl_lr": 3.5e-3, "ctrl_steps": 10, "ctrl_steps_aggregate": 10},
    }
    recipe = Recipe(
        pixels=given.pixels, images=given.images, valid_images=0, test_images=1000, data_seed=given.seed,
        channels=given.channels, layers=given.layers, epochs=given.epochs, batch_size=given.batch_size,
        lr_min=0.001, crop_padding=given.pixels // 8, methods={method: own[method]},
    )  # fmt: skip
    datasets = recipe.datasets(given.data)
    train, valid, _ = datasets
    checkpoint = out.with_suffix(".checkpoint.pt")
    options = {"checkpoint": checkpoint, "checkpoint_every": 50, "progress": True}

    def search(key: Mapping[str, Any]) -> dict[str, Any]:
        watched = [gap_callback(valid)] if given.method == "darts" else []
        trainer = recipe.search(method, train, key["seed"], callbacks=watched, **options)
        history = trainer.fit()
        if not trainer.finished():
            raise KeyboardInterrupt
        found = Genotype.from_dict(trainer.export())
        ends = [
            Genotype.derive({label: torch.tensor(matrix) for label, matrix in line["arch"].items()})
            for line in history.epochs
        ]
        genotypes = ends if given.method == "darts" else [found]
        said = f"{len(valid)} validation images, with the supernet's weights and batch statistics"
        return {
            "genotypes": [json.loads(genotype.to_json()) for genotype in genotypes],
            "derived_acc1": trainer.score(found.arch(), valid)["acc1"],
            "evaluated_on": said,
            "history": history.epochs,
        }

    flags = " ".join(
        f"--{flag.replace('_', '-')} {getattr(given, flag)}"
        for flag in ("images", "pixels", "epochs", "channels", "layers", "batch_size", "seed", "threads")
    )
    command = f"python -m nasedu record {given.method} --data {given.data} {flags} --out {out.name}"
    new = Record(out.stem, recipe, truth.described((train, valid)), command)
    try:
        made = conduct(new, out, [{"method": method, "seed": given.seed}], search, progress=False)
    except KeyboardInterrupt:
        print(f"interrupted; the search so far is in {checkpoint}; {AGAIN}")
        return 130
    checkpoint.unlink(missing_ok=True)
    print(made.provenance)
    return 0


def _truth(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)  # as in the workers
    recipe, data, seeds = truth.TRUTH, given.data, given.seeds
    command = f"python -m nasedu truth --data {data} --seeds {seeds} --out {given.out.name}"
    if given.small:
        recipe, data, seeds = truth.SMALL, "shapes10", 1
        command = f"python -m nasedu truth --small --out {given.out.name}"
    try:
        with truth_job.backend(given.backend, given.scheduler):
            table = truth_job.make(recipe, data, _file(given.out), seeds, given.jobs, command)
    except KeyboardInterrupt:
        print(f"interrupted; the rows so far are in {given.out}; {AGAIN}")
        return 130
    print(f"{given.out}: {len(table)} rows, {table.provenance['data']}")
    return 0


def _study(given: argparse.Namespace) -> int:
    torch.set_num_threads(1)
    out = _file(given.out)
    try:
        cells = given.cells or "cell_search"
        made = protocols.make(given.name, given.data, out, given.seeds, cells, methods=given.method)
    except KeyboardInterrupt:
        print(f"interrupted; the runs so far are in {out}; {AGAIN}")
        return 130
    print(f"{out}: {made.provenance}")
    return 0
