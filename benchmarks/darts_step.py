"""Time one DARTS search step, first and second order, beside the reference code's, in one run.

    git clone https://github.com/quark0/darts /somewhere/darts
    python benchmarks/darts_step.py --peer /somewhere/darts [--threads 2] [--device cpu]

Both sides do what a search step is: a step of alpha on a validation batch, then a step of w on a
training batch, with the same optimizers, sizes and images. They take turns, so that what else the
machine does hits both; the answer is a ratio of medians. The reference (Liu, Simonyan, Yang 2019) was
written for PyTorch 0.3 and a GPU: this script answers its calls of `.cuda()` with the tensor itself, and
changes nothing else. Its code is not part of this project.
"""

import argparse
import statistics
import sys
import time
import types
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from nasedu import CNN, DartsTrainer, accuracy, get_dataset

LR, MOMENTUM, DECAY = 0.025, 0.9, 3e-4


def ours(batch: int, channels: int, layers: int, unrolled: bool, device: str) -> Callable[[], None]:
    """One call is one step of `DartsTrainer`, batches and augmentation included."""
    torch.manual_seed(0)
    model = CNN(32, 3, channels, 10, layers)
    trainer = DartsTrainer(
        model,
        nn.CrossEntropyLoss(),
        accuracy,
        torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY),
        1,
        get_dataset("shapes10", subset=4 * batch)[0],
        batch_size=batch,
        unrolled=unrolled,
        device=device,
        progress=False,
    )
    return lambda: trainer.train_step(0, 0) and None


def peers(
    folder: Path, batch: int, channels: int, layers: int, unrolled: bool, device: str
) -> Callable[[], None]:
    """One call is one step of the reference's search loop, on a batch that is there already."""
    if device == "cpu":
        torch.Tensor.cuda = lambda self, *a, **k: self  # type: ignore[method-assign, assignment]
        nn.Module.cuda = lambda self, *a, **k: self  # type: ignore[method-assign, assignment]
    sys.path.insert(0, str(folder / "cnn"))
    import architect
    import model_search

    torch.manual_seed(0)
    loss = nn.CrossEntropyLoss()
    model = model_search.Network(channels, 10, layers, loss).cuda()
    arguments = types.SimpleNamespace(
        momentum=MOMENTUM, weight_decay=DECAY, arch_learning_rate=3e-4, arch_weight_decay=1e-3
    )
    searcher = architect.Architect(model, arguments)
    optimizer = torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY)
    x, xv = (torch.randn(batch, 3, 32, 32, device=device) for _ in range(2))
    y, yv = (torch.randint(10, (batch,), device=device) for _ in range(2))

    def step() -> None:
        searcher.step(x, y, xv, yv, LR, optimizer, unrolled)
        optimizer.zero_grad()
        loss(model(x), y).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()

    return step


def seconds(step: Callable[[], None], device: str) -> float:
    """The wall time of one call."""
    start = time.perf_counter()
    step()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--peer", type=Path, help="a checkout of the reference; without it only ours is timed"
    )
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    if given.peer is not None and not (given.peer / "cnn" / "model_search.py").is_file():
        parser.error(
            f"{given.peer} is no checkout of the DARTS reference code: it has no cnn/model_search.py"
        )
    torch.set_num_threads(given.threads)
    sizes = (given.batch, given.channels, given.layers)
    machine = f"{given.device}, {given.threads} threads, torch {torch.__version__}"
    print(f"B={given.batch} C={given.channels} L={given.layers}, {machine}")
    for name, unrolled in (("first order", False), ("second order", True)):
        sides = {"nasedu": ours(*sizes, unrolled, given.device)}
        if given.peer is not None:
            sides["reference"] = peers(given.peer, *sizes, unrolled, given.device)
        times: dict[str, list[float]] = {side: [] for side in sides}
        for turn in range(given.repeats + 2):
            for side, step in sides.items():
                taken = seconds(step, given.device)
                if turn >= 2:  # the first two warm up
                    times[side].append(taken)
        medians = {side: statistics.median(taken) for side, taken in times.items()}
        line = ", ".join(f"{side} {median * 1000:.0f} ms" for side, median in medians.items())
        if given.peer is not None:
            line += f": ratio {medians['nasedu'] / medians['reference']:.2f}"
        print(f"{name}: {line}")


if __name__ == "__main__":
    main()
