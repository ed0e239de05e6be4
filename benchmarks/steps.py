"""How long is a step of a search, and how much memory does it take? Sides that take turns, in one run.

    python benchmarks/steps.py                                       the fast path and the readable one
    python benchmarks/steps.py --peer DARTS --peer2 --threads 2      beside two others

`--peer` is a checkout of https://github.com/quark0/darts, the reference of DARTS (Liu, Simonyan, Yang 2019).
It was written for PyTorch 0.3 and a GPU: on a CPU its calls of `.cuda()` are answered with the object itself,
and nothing else is changed. Its loop (cnn/train_search.py, which Python no longer reads) is written out here.
`--peer2` measures the one-shot trainers of NNI 2.10, where it can be imported, on the model of its example.

A step of DARTS is one step of alpha on a validation batch and one step of w on a training batch. Ours draws,
crops and normalises both batches; the others are given theirs ready. An epoch is fed as each side feeds it:
the reference by DataLoaders with two workers, which it starts anew for each validation batch; its evaluation
after the epoch is left out. The derived network is DARTS V2. Memory is measured in a process for each side
and kind of step: the most that is resident in three steps, over what is after the imports.
"""

import argparse
import contextlib
import dataclasses
import datetime
import itertools
import json
import statistics
import subprocess
import sys
import types
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from nasedu import CNN, Network, StandaloneTrainer, accuracy, get_dataset
from nasedu.search.base import reward_accuracy
from nasedu.search.registry import build
from nasedu.show.speed import ratio_chart, roofline
from nasedu.space import PRIMITIVES, PUBLISHED
from nasedu.space.cells import preprocess_of, stack_of, stem_of
from nasedu.space.genotype import edges
from nasedu.study.record import processor
from nasedu.study.timing import Limits, Work, counted, measured_limits, ratio, take_turns

LR, MOMENTUM, DECAY = 0.025, 0.9, 3e-4
SEARCHES = {"DARTS 1st": "DARTS 1st", "DARTS 2nd": "DARTS 2nd", "ENAS child": "ENAS", "random": "random"}
EPOCH = "epoch of DARTS 1st"
KINDS = (*SEARCHES, "derived network", EPOCH)
IN_MEMORY = ("DARTS 1st", "DARTS 2nd", "derived network")  # of these the memory is measured, too
Step = Callable[[], object]


def sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), LR, momentum=MOMENTUM, weight_decay=DECAY)


def data(given: argparse.Namespace, n: int) -> Any:
    return get_dataset(given.data, subset=(n, 10), input_size=given.pixels)


def ready(given: argparse.Namespace) -> tuple[Tensor, Tensor]:
    """A batch of random images (B, 3, H, W) and labels (B,), on the device."""
    x = torch.randn(given.batch_size, 3, given.pixels, given.pixels, device=given.device)
    return x, torch.randint(10, (given.batch_size,), device=given.device)


# ---- The sides: each gives for a kind of step something to call, or None where it has none.


class Ours:
    """nasedu, by the fast path or the readable one."""

    def __init__(self, given: argparse.Namespace, fast: bool):
        self.given, self.fast = given, fast

    def step(self, kind: str) -> Step | None:
        given = self.given
        torch.manual_seed(0)
        common: dict[str, Any] = {"batch_size": given.batch_size, "device": given.device, "progress": False}
        asked = {"precision": given.precision, "cuda_graph": given.cuda_graph, "compile": given.compile}
        common |= {name: value for name, value in asked.items() if value}
        numbers = itertools.cycle(range(4))
        if kind == "derived network":
            if not self.fast:
                return None  # it has one way only
            net = Network(PUBLISHED["DARTS_V2"], given.channels, 10, given.layers)
            alone = StandaloneTrainer(net, sgd(net), 1, *data(given, 4 * given.batch_size), **common)
            return lambda: alone.train_step(0, next(numbers))
        model = CNN(given.pixels, 3, given.channels, 10, given.layers, fast=self.fast)
        trainer = build(
            "DARTS 1st" if kind == EPOCH else SEARCHES[kind],
            model=model,
            loss=nn.CrossEntropyLoss(),
            metrics=accuracy,
            optimizer=sgd(model),
            num_epochs=1,
            dataset=data(given, given.images if kind == EPOCH else 8 * given.batch_size)[0],
            **common,
        )
        if kind != EPOCH:
            return lambda: trainer.train_step(0, next(numbers))

        def one_more() -> None:
            trainer.num_epochs = trainer.epoch + 1
            trainer.fit()

        return one_more


class Reference:
    """The code of the DARTS paper, in a checkout. It has no ENAS and no random search."""

    def __init__(self, given: argparse.Namespace):
        self.given = given
        sys.path.insert(0, str(given.peer / "cnn"))
        import architect
        import genotypes
        import model
        import model_search
        import utils

        self.architect, self.genotypes, self.utils = architect, genotypes, utils
        self.model, self.model_search = model, model_search

    def step(self, kind: str) -> Step | None:
        given, loss = self.given, nn.CrossEntropyLoss()
        torch.manual_seed(0)
        if kind == "derived network":
            with contextlib.redirect_stdout(None):  # it prints its channels
                net = self.model.NetworkCIFAR(
                    given.channels, 10, given.layers, False, self.genotypes.DARTS_V2
                ).cuda()
            net.drop_path_prob = 0.0
            (x, y), optimizer = ready(given), sgd(net)
            return lambda: self.descend(net, loss(net(x)[0], y), optimizer)
        if kind not in ("DARTS 1st", "DARTS 2nd", EPOCH) or (kind == EPOCH and given.pixels != 32):
            return None  # its transforms crop images of 32 pixels
        net = self.model_search.Network(given.channels, 10, given.layers, loss).cuda()
        rates = {"arch_learning_rate": 3e-4, "arch_weight_decay": 1e-3}
        arguments = types.SimpleNamespace(momentum=MOMENTUM, weight_decay=DECAY, **rates)
        searcher, optimizer = self.architect.Architect(net, arguments), sgd(net)

        def search(x: Tensor, y: Tensor, x_valid: Tensor, y_valid: Tensor) -> None:
            net.train()
            searcher.step(x, y, x_valid, y_valid, LR, optimizer, unrolled=kind == "DARTS 2nd")
            self.descend(net, loss(net(x), y), optimizer)

        if kind != EPOCH:
            batches = *ready(given), *ready(given)
            return lambda: search(*batches)
        train, valid = self.queues()

        def epoch() -> None:
            for x, y in train:
                search(*(t.to(given.device) for t in (x, y, *next(iter(valid)))))

        return epoch

    def descend(self, net: nn.Module, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimizer.step()
        loss.item()

    def queues(self) -> Iterator[torch.utils.data.DataLoader]:
        """Its two DataLoaders, with its transforms, of the same images as ours."""
        transform = self.utils._data_transforms_cifar10(types.SimpleNamespace(cutout=False))[0]
        images = Pictures(data(self.given, self.given.images)[0], transform)
        half = len(images) // 2
        for part in range(half), range(half, len(images)):
            yield torch.utils.data.DataLoader(
                images,
                batch_size=self.given.batch_size,
                sampler=torch.utils.data.SubsetRandomSampler(part),
                pin_memory=self.given.device == "cuda",
                num_workers=2,
            )


class Pictures(torch.utils.data.Dataset):
    """Images as PIL hands them out, with a transform: what torchvision's CIFAR10 gives."""

    def __init__(self, train: Any, transform: Callable):
        from PIL import Image

        arrays = train.images.permute(0, 2, 3, 1).numpy()
        self.images, self.labels = [Image.fromarray(a) for a in arrays], train.labels.tolist()
        self.transform = transform

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return self.transform(self.images[i]), self.labels[i]


class Nni:
    """The one-shot trainers of NNI 2.10: an epoch of one batch is a step."""

    def __init__(self, given: argparse.Namespace):
        self.given = given
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of each class of a newer torch
            from nni.nas.hub.pytorch.nasnet import OPS
            from nni.retiarii.nn.pytorch import InputChoice, LayerChoice
            from nni.retiarii.oneshot.pytorch import DartsTrainer, EnasTrainer, RandomTrainer

        self.ops, self.layer_choice, self.input_choice = OPS, LayerChoice, InputChoice
        self.darts, self.enas, self.random = DartsTrainer, EnasTrainer, RandomTrainer

    def step(self, kind: str) -> Step | None:
        if kind not in SEARCHES:
            return None
        given = self.given
        torch.manual_seed(0)
        net, images = NniNet(self), data(given, 4 * given.batch_size)[0]
        common = {"model": net, "loss": nn.CrossEntropyLoss(), "metrics": accuracy, "optimizer": sgd(net)}
        common |= {"num_epochs": 1, "batch_size": given.batch_size, "workers": 0, "device": given.device}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # NNI calls these trainers deprecated
            if kind == "random":
                trainer = self.random(dataset_train=images, dataset_valid=images, **common)
            elif kind == "ENAS child":
                trainer = self.enas(dataset=images, reward_function=reward_accuracy, **common)
            else:
                trainer = self.darts(dataset=images, unrolled=kind == "DARTS 2nd", **common)
        trainer.train_loader = trainer.valid_loader = [ready(given)]
        run = trainer._train_model if kind == "ENAS child" else trainer._train_one_epoch
        return lambda: run(0)


class NniCell(nn.Module):
    """A cell as NNI's example has it: a LayerChoice on each edge, an InputChoice before each node."""

    def __init__(self, nni: Nni, c_prev_prev: int, c_prev: int, c: int, reduction: bool, halved: bool):
        super().__init__()
        label = "reduce" if reduction else "normal"
        self.preprocess = preprocess_of(c_prev_prev, c_prev, c, halved, affine=False)
        self.edges, self.inputs = nn.ModuleList(), nn.ModuleList()
        for source, node in edges(4):
            made = {
                name: nni.ops[name](c, 2 if reduction and source < 2 else 1, False) for name in PRIMITIVES
            }
            for name in ("max_pool_3x3", "avg_pool_3x3"):
                made[name] = nn.Sequential(made[name], nn.BatchNorm2d(c, affine=False))
            self.edges.append(nni.layer_choice(made, label=f"{label} {source} {node}"))
        for node in range(2, 6):
            self.inputs.append(nni.input_choice(node, n_chosen=2, label=f"{label} into {node}"))

    def forward(self, s0: Tensor, s1: Tensor) -> Tensor:
        states, row = [self.preprocess[0](s0), self.preprocess[1](s1)], iter(self.edges)
        for choice in self.inputs:
            terms = [next(row)(state) for state in states]
            mixed = choice(terms)  # of ENAS's sample the number 0, where no input is chosen
            states.append(mixed if isinstance(mixed, Tensor) else 0 * terms[0])
        return torch.cat(states[2:], dim=1)


class NniNet(nn.Module):
    """The supernet of DARTS out of NNI's choices."""

    def __init__(self, nni: Nni):
        super().__init__()
        channels, layers = nni.given.channels, nni.given.layers
        self.stem = stem_of(3, 3 * channels)
        self.cells, widths = stack_of(layers, channels, 3 * channels, 4, lambda *a: NniCell(nni, *a))
        self.classifier = nn.Linear(widths[-1], 10)

    def forward(self, x: Tensor) -> Tensor:
        s0 = s1 = self.stem(x)
        for cell in self.cells:
            s0, s1 = s1, cell(s0, s1)
        return self.classifier(s1.mean(dim=(2, 3)))


def sides(given: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """What makes the sides, by name: the first is compared with each of the others.

    To make one raises ImportError where it was asked for and is not there.
    """
    found: dict[str, Callable[[], Any]] = {
        "nasedu fast": lambda: Ours(given, True),
        "nasedu readable": lambda: Ours(given, False),
        "NNI": lambda: Nni(given),
        "reference": lambda: Reference(given),
    }
    left_out = [name for name, asked in (("NNI", given.peer2), ("reference", given.peer)) if not asked]
    left_out += given.leave_out
    return {name: make for name, make in found.items() if name not in left_out}


@contextlib.contextmanager
def no_cuda(device: str) -> Iterator[None]:
    """On a CPU `.cuda()` gives the object itself."""
    with contextlib.ExitStack() as stack:
        for kind in (torch.Tensor, nn.Module) if device == "cpu" else ():
            stack.enter_context(mock.patch.object(kind, "cuda", lambda self, *_, **__: self))
        yield


# ---- Memory


def resident(name: str) -> float:
    """MiB of this process in memory: "VmRSS" now, "VmHWM" at most so far. Linux only."""
    # Not getrusage's ru_maxrss: a process that is started begins with what its parent had.
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


def peak_here(given: argparse.Namespace, side: str, kind: str) -> float:
    """MiB that three steps take at most, in this process; on a GPU of its memory."""
    of = sides(given)[side]()
    data(given, 4)  # what is imported late
    before = resident("VmRSS")
    step = of.step(kind)
    for _ in range(3):
        step()
    if given.device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    return resident("VmHWM") - before


def peak_of(arguments: Sequence[str], side: str, kind: str) -> float:
    """The same in a process of its own, so that no side profits from what another one left."""
    command = [sys.executable, __file__, *arguments, "--memory-of", side, kind]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return float(done.stdout.splitlines()[-1])


# ---- The table and the pictures


@dataclasses.dataclass
class Measured:
    """kind -> side -> seconds of each round; kind -> side -> MiB; kind -> work of the first side."""

    seconds: dict[str, dict[str, list[float]]]
    memory: dict[str, dict[str, float]]
    work: dict[str, Work]
    limits: Limits


def spread(seconds: Sequence[float]) -> str:
    """Median and quartiles, in ms."""
    q = statistics.quantiles(seconds, n=4) if len(seconds) > 1 else list(seconds) * 3
    return f"{1e3 * q[1]:.0f} ms ({1e3 * q[0]:.0f} to {1e3 * q[2]:.0f})"


def table(measured: Measured) -> str:
    """Markdown: times and memory of all sides, the first side's in units of each other's, the roofline."""
    names = list(dict.fromkeys(name for of in measured.seconds.values() for name in of))
    first, others = names[0], names[1:]
    heads = [*names, *(f"{first} / {other}" for other in others)]
    lines = [f"| | {' | '.join(heads)} |", "|---" * (1 + len(heads)) + "|"]
    for kind, of in measured.seconds.items():
        ratios = ["{:.2f} ({:.2f} to {:.2f})".format(*ratio(of, first, o)) if o in of else "" for o in others]
        lines.append(f"| {kind} | {' | '.join([spread(of[n]) if n in of else '' for n in names] + ratios)} |")
    for kind, mib in measured.memory.items():
        ratios = [f"{mib[first] / mib[o]:.2f}" if o in mib else "" for o in others]
        cells = [f"{mib[n]:.0f} MiB" if n in mib else "" for n in names]
        lines.append(f"| memory, {kind} | {' | '.join(cells + ratios)} |")
    limits = measured.limits
    lines += [
        "",
        f"{limits.flops / 1e9:.0f} GFLOP/s and {limits.bytes / 1e9:.1f} GB/s are the limits; {first}:",
    ]
    lines += ["", "| | GFLOP | GB moved | at least | share of the limit |", "|---|---|---|---|---|"]
    for kind, work in measured.work.items():
        least, took = limits.seconds(work.flops, work.moved), statistics.median(measured.seconds[kind][first])
        numbers = f"{work.flops / 1e9:.1f} | {work.moved / 1e9:.2f} | {1e3 * least:.0f} ms"
        lines.append(f"| {kind} | {numbers} | {100 * least / took:.0f} % |")
    return "\n".join(lines)


def pictures(measured: Measured, title: str, out: Path) -> None:
    """ratios.png: the first side in units of the last; roofline.png: the first side's steps."""
    pairs: dict[str, Mapping[str, Sequence[float]]] = {}
    for kind, of in measured.seconds.items():
        first, *_, last = names = list(of)
        if len(names) > 1:
            pairs[f"{kind} / {last}"] = {"after": of[first], "before": of[last]}
    title = f"{first}, {title}"
    if pairs:
        ratio_chart(pairs, title=title).save(out / "ratios.png")
    points = {k: (w, statistics.median(measured.seconds[k][first])) for k, w in measured.work.items()}
    roofline(measured.limits, points, title=title).save(out / "roofline.png")


def measure(given: argparse.Namespace, arguments: Sequence[str]) -> Measured:
    """All kinds of step, all sides."""
    of, limits = {name: make() for name, make in sides(given).items()}, measured_limits(given.device)
    seconds, memory, work = {}, {}, {}
    for kind in given.kinds:
        steps = {name: step for name, side in of.items() if (step := side.step(kind)) is not None}
        rounds = max(1, given.rounds // 3) if kind == EPOCH else given.rounds
        seconds[kind] = take_turns(steps, rounds)
        said = ", ".join(f"{name} {spread(seconds[kind][name])}" for name in steps)
        print(f"{kind}: {said}", file=sys.stderr, flush=True)  # a run that is ended has said something
        if kind != EPOCH:
            work[kind] = counted(next(iter(steps.values())))
        del steps
        if given.memory and kind in IN_MEMORY:
            memory[kind] = {name: peak_of(arguments, name, kind) for name in seconds[kind]}
    return Measured(seconds, memory, work, limits)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--peer", type=Path, help="a checkout of the reference of DARTS")
    parser.add_argument("--peer2", action="store_true", help="NNI 2.10, which must be installed")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--channels", type=int, default=8)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--pixels", type=int, default=32)
    parser.add_argument("--images", type=int, help="of an epoch, both halves (default: 12 batches)")
    parser.add_argument("--data", default="shapes10", help="or cifar10, or an image folder")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--kinds", nargs="+", default=KINDS, choices=KINDS, metavar="KIND")
    parser.add_argument(
        "--leave-out", nargs="+", default=[], metavar="SIDE", help="such as 'nasedu readable'"
    )
    parser.add_argument("--no-memory", dest="memory", action="store_false")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", help="bf16; only our sides know it, as the next two")
    parser.add_argument("--cuda-graph", action="store_true")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--out", type=Path, default=Path("build/bench"))
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.peer is not None and not (given.peer / "cnn" / "model_search.py").is_file():
        parser.error(f"{given.peer} is no checkout of the reference of DARTS: it has no cnn/model_search.py")
    given.images = given.images or 12 * given.batch_size
    torch.set_num_threads(given.threads)
    with no_cuda(given.device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*deprecated.*")  # calls of the reference
        if given.memory_of:
            print(json.dumps(peak_here(given, *given.memory_of)))
            return
        measured = measure(given, arguments)
    threads = f"{given.threads} thread{'s' if given.threads > 1 else ''}"
    title = f"B={given.batch_size} C={given.channels} L={given.layers}, {given.pixels} px, {threads}"
    name = torch.cuda.get_device_name() if given.device == "cuda" else processor()
    about = f"{name}, torch {torch.__version__}, {datetime.date.today()}; an epoch has {given.images} images"
    command = f"`python benchmarks/steps.py {' '.join(arguments)}`"
    text = f"## {title}\n\n{about}. {command}\n\n{table(measured)}\n"
    print(text)
    given.out.mkdir(parents=True, exist_ok=True)
    (given.out / "steps.md").write_text(text, encoding="utf-8")
    pictures(measured, title, given.out)


if __name__ == "__main__":
    main(sys.argv[1:])
