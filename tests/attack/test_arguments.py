"""Arguments of the public constructors, and of the command line: told, or what is made works."""

import inspect
import math
import random

import pytest
import torch
from odd import value
from rule import attack, judge
from torch import nn

import nasedu
from nasedu import (
    CNN,
    PUBLISHED,
    Augment,
    Cell,
    Controller,
    DartsTrainer,
    DerivedCell,
    EnasTrainer,
    Genotype,
    History,
    ImageDataset,
    InputChoice,
    LayerChoice,
    MacroCNN,
    NaseduError,
    Network,
    RandomSearch,
    StandaloneTrainer,
    Trainer,
    accuracy,
    cli,
    get_dataset,
    reward_accuracy,
    uniform_arch,
)  # fmt: skip
from nasedu.data.datasets import seeded
from nasedu.profiles import PROFILES
from nasedu.space import FactorizedReduce, SmallCNN
from nasedu.study import protocols, recipe, truth, truth_job
from nasedu.study.truth import Table


def images(n=2):
    return torch.rand(n, 3, 8, 8, generator=seeded(n))


def runs(model, *more):
    """A model gives logits of its classes for two images."""
    logits = model.eval()(images(), uniform_arch(model)) if not more else model.eval()(*more)
    assert logits.shape == (2, model.classifier.out_features) and bool(torch.isfinite(logits).all())


def before(cell):
    """What comes into a cell; after a reduction the older map is twice as large."""
    maps = []
    for layer in cell.preprocess:
        size = 16 if isinstance(layer, FactorizedReduce) else 8
        convolution = next(each for each in layer.modules() if isinstance(each, nn.Conv2d))
        maps.append(torch.rand(2, convolution.in_channels, size, size))
    return maps


def steps(trainer):
    """A trainer makes a step, of finite numbers."""
    numbers = trainer.train_step(0, 0)
    assert all(math.isfinite(float(number)) for number in numbers.values()), numbers


def searched():
    torch.manual_seed(0)
    return SmallCNN(2, 10)


def common(model):
    data, _ = get_dataset("shapes10", subset=(24, 4), input_size=8)
    return {
        "model": model, "optimizer": torch.optim.SGD(model.parameters(), 0.01), "num_epochs": 1,
        "dataset": data, "batch_size": 4, "device": "cpu", "progress": False,
    }  # fmt: skip


def search_options(**more):
    return {**common(searched()), "loss": nn.CrossEntropyLoss(), "metrics": accuracy, **more}


def standalone():
    model = Network(PUBLISHED["DARTS_V1"], 2, 10, 3)
    options = common(model)
    return {**options, "valid": options["dataset"]}


CELL, NORMAL = PUBLISHED["DARTS_V1"], {"reduction": False, "reduction_prev": False}
# The class, arguments that are right, and what it must be able to do.
PUBLIC = {
    CNN: (lambda: dict(input_size=8, in_channels=3, channels=2, n_classes=4, n_layers=3, n_nodes=1), runs),
    MacroCNN: (lambda: dict(input_size=8, in_channels=3, channels=2, n_classes=4, n_layers=3), runs),
    Network: (
        lambda: dict(genotype=CELL, channels=2, n_classes=4, n_layers=3),
        lambda model: runs(model, images()),
    ),
    Cell: (
        lambda: dict(c_prev_prev=3, c_prev=3, channels=2, n_nodes=1, **NORMAL),
        lambda cell: cell(*before(cell), {cell.label: torch.ones(len(cell.edges), 8) / 8}),
    ),
    DerivedCell: (
        lambda: dict(genotype=CELL, c_prev_prev=3, c_prev=3, channels=2, **NORMAL),
        lambda cell: cell(*before(cell)),
    ),
    LayerChoice: (
        lambda: dict(candidates=[nn.Identity()], label="a"),
        lambda point: point.names and point.label and point.row >= 0,
    ),
    InputChoice: (
        lambda: dict(n_candidates=2, n_chosen=1, label="a"),
        lambda point: len(point.names) == point.n_candidates,
    ),
    Genotype: (
        lambda: dict(normal=CELL.normal, reduce=CELL.reduce),
        lambda genotype: Genotype.from_json(genotype.to_json()) == genotype,
    ),
    Augment: (dict, lambda augment: augment(images(), seeded(0)).shape == images().shape),
    ImageDataset: (
        lambda: dict(images=(images() * 255).byte(), labels=torch.tensor([0, 1]), classes=["a", "b"]),
        lambda data: bool(torch.isfinite(data[0][0]).all()) and len(data) == 2,
    ),
    History: (dict, lambda history: True),
    Controller: (lambda: dict(n_nodes=1, lstm_size=4), lambda controller: controller.sample(2, seeded(0))),
    DartsTrainer: (search_options, steps),
    EnasTrainer: (lambda: search_options(reward_function=reward_accuracy, ctrl_steps=1), steps),
    RandomSearch: (lambda: search_options(reward_function=reward_accuracy), steps),
    StandaloneTrainer: (standalone, steps),
    Trainer: (lambda: {k: v for k, v in common(searched()).items() if k != "dataset"}, lambda trainer: True),
}  # fmt: skip
# A History is a plain list of lines: what it holds is judged where it is written and read.
HOLDS_ANYTHING = {History}
FUNCTIONS = {"loss", "metrics", "augment", "reward_function", "schedule", "model", "optimizer"}


def test_every_public_class_is_attacked():
    classes = {value for value in (getattr(nasedu, name) for name in dir(nasedu)) if inspect.isclass(value)}
    assert {each for each in classes if not issubclass(each, Exception)} == set(PUBLIC)


@pytest.mark.filterwarnings("ignore")
def test_constructors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kinds = [kind for kind in PUBLIC if kind not in HOLDS_ANYTHING]
    for kind in kinds:  # what is right is right, and what torch does once is done before the clock runs
        good, works = PUBLIC[kind]
        assert works(kind(**good())) is not False

    def one(seed):
        dice = random.Random(seed)
        kind = dice.choice(kinds)
        good, works = PUBLIC[kind]
        names = [name for name in inspect.signature(kind.__init__).parameters if name != "self"]
        odd = {dice.choice(names): value(dice) for _ in range(dice.choice([1, 1, 1, 2]))}
        # A function that can be called and does something else is the caller's own; so is what it raises.
        odd = {name: v for name, v in odd.items() if not (callable(v) and name in FUNCTIONS)}
        what = kind.__name__, {name: safe(v) for name, v in odd.items()}
        judge("argument", lambda: kind(**{**good(), **odd}), works, what)

    attack("argument", one)


def safe(x):
    try:
        return repr(x)[:60]
    except Exception:
        return type(x)


# ---- the command line


TYPED = [
    "", "-1", "0", "1", "3", "9" * 400, "1e3", "1.5", "nan", "x", "\x00", "é", "--", "-", "$HOME", "a b", "'",
    "/dev/null", ".", "..", "file/x.json", "x.json", "new/x.json", "shapes10", "cifar10", "empty", "darts",
    "enas", "loky",
    "a" * 300, "/proc/x.json", "~nobody/x", "\ud800",
]  # fmt: skip
COMMANDS = ["run", "record", "truth", "study", "doctor", "x", ""]


def flags():
    """Command -> its flags."""
    (commands,) = (a for a in cli.parser()._actions if a.dest == "command")
    return {
        name: [option for action in sub._actions for option in action.option_strings[-1:]]
        for name, sub in commands.choices.items()
    }


def test_command_lines(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("NASEDU_OFFLINE", "1")
    monkeypatch.delenv("NASEDU_DATA", raising=False)
    monkeypatch.setattr(cli, "profile", lambda: PROFILES["ci"])
    monkeypatch.setattr(cli.doctor, "main", lambda: 0)
    real = recipe.get_dataset

    # What would take long: the images, and everything that is trained.
    def few(name, **options):
        return real("shapes10" if name == "cifar10" else name, subset=(4, 2), input_size=8)

    monkeypatch.setattr(recipe, "get_dataset", few)
    monkeypatch.setattr(recipe.Recipe, "datasets", lambda self, name: (*few(name), few(name)[1]))
    monkeypatch.setattr("nasedu.run.get_dataset", lambda name, **options: few(name))
    for module in (cli, truth_job, protocols):
        if hasattr(module, "conduct"):
            monkeypatch.setattr(module, "conduct", lambda record, *a, **k: record)
    done = Table(truth.SMALL, (), {"data": "none"})
    monkeypatch.setattr(truth_job, "make", lambda *a, **k: done)
    known = flags()

    def typed(dice):
        command = dice.choice(COMMANDS[:4] if dice.random() < 0.9 else COMMANDS)
        line = [command]
        if command in ("record", "study") and dice.random() < 0.9:
            line.append(dice.choice(["darts", "enas"] if command == "record" else [*protocols.NAMES, "x"]))
        for _ in range(dice.randint(0, 4)):
            flag = dice.choice(known.get(command) or ["--x"])
            line += [flag] if dice.random() < 0.1 else [flag, dice.choice(TYPED)]
        if command != "run" and dice.random() < 0.7 and "--small" not in line:
            line += ["--data", "shapes10"]
        return line + (["--out", dice.choice(TYPED)] if dice.random() < 0.7 else [])

    def call(line):
        try:
            code = cli.main(line)
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr().err
        assert "Traceback" not in said
        if code == 2:
            last = said.strip().splitlines()[-1]
            assert last.startswith("nasedu"), said
            raise NaseduError(f"told in a line: {last}")
        return code

    def one(seed):
        dice = random.Random(seed)
        (tmp_path / "file").write_text("")
        (tmp_path / "empty").mkdir(exist_ok=True)
        line = typed(dice)
        judge("command line", lambda: call(line), lambda code: code == 0, line)

    attack("command line", one)
