"""Kill a search with SIGKILL, again and again, and resume it each time from its checkpoint.

The searches run in processes forked from a server that has imported torch once, so a start costs
milliseconds.
"""

import multiprocessing
import random
import time
from collections.abc import Callable
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


def run(make_trainer: Callable[[Path | None], Trainer], checkpoint: Path | None, result: Path) -> None:
    """Fit to the end and write all that a search leaves behind."""
    trainer = make_trainer(checkpoint)
    history = trainer.fit()
    state = {
        "model": trainer.model.state_dict(),
        "optimizer": trainer.optimizer.state_dict(),
        "extra": trainer.extra_state(),
        "epochs": history.epochs,
    }
    torch.save(state, result.with_suffix(".part"))
    result.with_suffix(".part").rename(result)


def killed_and_resumed(
    make_trainer: Callable[[Path | None], Trainer], folder: Path, kills: int, seed: int = 0
) -> tuple[dict, dict]:
    """What an undisturbed run leaves, and what a run leaves that was killed `kills` times at random moments.

    `make_trainer` must be a function at the top of a module. A kill comes at a random moment after the
    checkpoint has moved on, so the run gets ahead, if slowly; it may hit a step or the writing of a
    checkpoint.
    """
    processes = multiprocessing.get_context("forkserver")
    # An optimizer imports torch._dynamo, which takes a second. Test modules Python 3.11's server can't find.
    processes.set_forkserver_preload(["nasedu", "torch._dynamo", "pytest"])
    draw = random.Random(seed)
    undisturbed = processes.Process(target=run, args=(make_trainer, None, folder / "undisturbed.pt"))
    undisturbed.start()

    checkpoint, result, done = folder / "search.pt", folder / "killed.pt", 0
    while not result.exists():
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else None
        process = processes.Process(target=run, args=(make_trainer, checkpoint, result))
        process.start()
        if done < kills:
            while (
                process.is_alive()
                and (checkpoint.stat().st_mtime_ns if checkpoint.exists() else None) == before
            ):
                time.sleep(0.001)
            process.join(draw.uniform(0.0, 0.05))
            if process.is_alive():
                process.kill()
                done += 1
        process.join()
        assert result.exists() or process.exitcode == -9, (
            f"the search ended by itself with {process.exitcode}"
        )
    undisturbed.join()
    assert done == kills, f"the search ended after {done} kills: make it longer"
    return torch.load(folder / "undisturbed.pt"), torch.load(result)


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
