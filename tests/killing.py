"""Runs that are stopped, or killed with SIGKILL again and again, and go on each time from what they kept.

What is killed runs in processes forked from a server that has imported torch once, so a start costs
milliseconds. tests/attack/test_kills.py kills; that each trainer keeps all that it needs is tested without.
"""

import contextlib
import multiprocessing
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nasedu import CNN, get_dataset
from nasedu.search.trainer import Trainer


class DropoutCNN(CNN):
    """A tiny supernet with dropout, so that a step also uses torch's global random numbers."""

    def __init__(self) -> None:
        super().__init__(16, 3, 2, 10, 3, n_nodes=2)
        self.classifier = nn.Sequential(nn.Dropout(0.3), self.classifier)


def tiny(make: Callable[..., Trainer], checkpoint: Path | None, **options: Any) -> Trainer:
    """A trainer on 64 images of 16x16 pixels, 4 batches of 8 in each half, 3 epochs, one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = DropoutCNN()
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=3e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, options.get("num_epochs", 3))
    data, _ = get_dataset("shapes10", subset=(64, 10), input_size=16)
    return make(
        model=model,
        optimizer=optimizer,
        scheduler=scheduler,
        dataset=data,
        batch_size=8,
        device="cpu",
        checkpoint=checkpoint,
        **{"num_epochs": 3, "checkpoint_every": 1, **options},
    )


def left_behind(trainer: Trainer) -> dict[str, Any]:
    """All that a search leaves behind."""
    return {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "extra": trainer.extra_state(),
        "epochs": trainer.history.epochs,
    }


def run(make_trainer: Callable[[Path | None], Trainer], checkpoint: Path | None, result: Path) -> None:
    """Fit to the end and write all that the search leaves behind."""
    trainer = make_trainer(checkpoint)
    trainer.fit()
    torch.save(left_behind(trainer), result.with_suffix(".new"))
    result.with_suffix(".new").rename(result)


def processes() -> Any:
    """What starts processes that are forked from a server, which has imported all that takes long."""
    found = multiprocessing.get_context("forkserver")
    # An optimizer imports torch._dynamo, which takes a second. Test modules Python 3.11's server can't find.
    found.set_forkserver_preload(["nasedu", "torch._dynamo", "pytest"])
    return found


def killed_and_resumed(
    job: Callable[[Path | None, Path], None], folder: Path, kills: int, seed: int = 0
) -> tuple[Any, Any]:
    """What an undisturbed run leaves, and what a run leaves that was killed `kills` times at random moments.

    `job(kept, result)` goes on from what is in the file `kept`, and writes `result` at its end; it is a
    function at the top of a module. A kill comes after the file has moved on, so that the run gets ahead, if
    slowly: half of them at a random moment, half of them while the file is being written.
    """
    draw = random.Random(seed)
    undisturbed = processes().Process(target=job, args=(folder / "undisturbed", folder / "undisturbed.pt"))
    undisturbed.start()

    kept, result, done, writing = folder / "kept", folder / "killed.pt", 0, 0

    def moved_on() -> bool:
        return (kept.stat().st_mtime_ns if kept.exists() else None) != before

    def half_written() -> bool:
        return any(path.name.endswith(".part") for path in folder.iterdir() if path.name.startswith("kept."))

    while not result.exists():
        before = kept.stat().st_mtime_ns if kept.exists() else None
        process = processes().Process(target=job, args=(kept, result))
        process.start()
        if done < kills:
            in_a_write = draw.random() < 0.5
            while process.is_alive() and not moved_on():
                time.sleep(0.001)
            if not in_a_write:
                process.join(draw.uniform(0.0, 0.05))
            while in_a_write and process.is_alive() and not half_written():
                pass
            if process.is_alive():
                process.kill()
                process.join()
                writing += half_written()
                done += 1
        process.join()
        assert result.exists() or process.exitcode == -9, f"the run ended by itself with {process.exitcode}"
    undisturbed.join()
    assert done == kills, f"the run ended after {done} kills: make it longer"
    print(f"{kills} kills, {writing} of them while the file was being written")
    assert not half_written(), "what a killed process leaves half written is removed by the next"
    return torch.load(folder / "undisturbed.pt"), torch.load(result)


class Stopped(Exception):
    """Raised in the middle of a run."""


def stopped_and_resumed(
    make_trainer: Callable[..., Trainer], folder: Path, stops: Sequence[int]
) -> tuple[dict, dict]:
    """What an undisturbed run leaves, and one that was stopped before each of these steps and built anew."""
    undisturbed = make_trainer()
    undisturbed.fit()
    for stop in stops:
        trainer = make_trainer(folder / "stopped.pt")
        step = trainer.train_step

        def train_step(epoch: int, number: int, trainer=trainer, step=step, stop=stop) -> Any:
            if epoch * trainer.steps_per_epoch + number == stop:
                raise Stopped
            return step(epoch, number)

        trainer.train_step = train_step  # type: ignore[method-assign]
        with contextlib.suppress(Stopped):
            trainer.fit()
            raise AssertionError(f"the run has ended before step {stop}")
    resumed = make_trainer(folder / "stopped.pt")
    resumed.fit()
    return left_behind(undisturbed), left_behind(resumed)


def assert_same(a: object, b: object, where: str = "") -> None:
    """Equal bit for bit: nested dicts and lists of tensors and numbers."""
    assert type(a) is type(b), f"{where}: {type(a)} and {type(b)}"
    if isinstance(a, Tensor):
        assert torch.equal(a, b), f"{where} differs by {(a - b).abs().max()}"
    elif isinstance(a, dict):
        assert a.keys() == b.keys(), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for i, pair in enumerate(zip(a, b, strict=True)):
            assert_same(*pair, f"{where}[{i}]")
    else:
        assert a == b, f"{where}: {a} and {b}"
