"""Through how many files and functions of the package does one step of a DARTS search run?

    python tools/trace_step.py            a table for a first- and a second-order step
    python tools/trace_step.py --list     and the functions, file by file

A step is `trainer.train_step` of a supernet of cells (`CNN`) on cropped and flipped images, with `accuracy`.
Functions are counted once, however often they are called; comprehensions belong to the function they are in.
"""

import argparse
import inspect
import sys
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

import nasedu
from nasedu import CNN, DartsTrainer, accuracy, get_dataset

PACKAGE = Path(nasedu.__file__).parent


def searcher(unrolled: bool, **options: Any) -> DartsTrainer:
    """A small search, ready to step; `options` go to the supernet, which is here the readable one."""
    torch.manual_seed(0)
    if "fast" in inspect.signature(CNN).parameters:
        options = {"fast": False, **options}
    model = CNN(8, 3, 4, 10, 3, n_nodes=2, **options)
    data, _ = get_dataset("shapes10", subset=(32, 10), input_size=8)
    return DartsTrainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=lambda output, target: accuracy(output, target, topk=(1,)),
        optimizer=torch.optim.SGD(model.parameters(), 0.025, momentum=0.9, weight_decay=3e-4),
        num_epochs=1,
        dataset=data,
        batch_size=8,
        unrolled=unrolled,
        progress=False,
        device="cpu",
    )


def traced(run: Callable[[], object]) -> dict[str, set[str]]:
    """The functions of the package that are entered while `run()` runs: file -> names."""
    found: dict[str, set[str]] = defaultdict(set)

    def enter(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event != "call" or not code.co_filename.startswith(str(PACKAGE)):
            return
        if code.co_name not in ("<listcomp>", "<dictcomp>", "<setcomp>", "<genexpr>"):
            found[str(Path(code.co_filename).relative_to(PACKAGE))].add(code.co_qualname)

    sys.setprofile(enter)
    try:
        run()
    finally:
        sys.setprofile(None)
    return dict(found)


def step(unrolled: bool, **options: Any) -> dict[str, set[str]]:
    """What the second step of a search runs through: after the first, momentum buffers are there."""
    trainer = searcher(unrolled, **options)
    trainer.train_step(0, 0)
    return traced(lambda: trainer.train_step(0, 1))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--list", action="store_true", help="say which functions")
    parser.add_argument("--fast", action="store_true", help="the fast path of cells, not the readable one")
    given = parser.parse_args()
    options = {"fast": True} if given.fast else {}
    for name, unrolled in (("first order", False), ("second order", True)):
        found = step(unrolled, **options)
        functions = sum(map(len, found.values()))
        print(f"{name:12}  {len(found):2} files  {functions:2} functions: {', '.join(sorted(found))}")
        for file, names in sorted(found.items()) if given.list else ():
            print(f"    {file:24} {', '.join(sorted(names))}")


if __name__ == "__main__":
    main()
