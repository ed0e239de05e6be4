"""SIGKILL at random moments, and two processes at one file: nothing is lost, nothing is broken.

NASEDU_KILLS kills (6; `make attack`: 100), a third each of DARTS, ENAS and a study.
"""

import os
import re
import time
from functools import partial
from pathlib import Path

import pytest
import torch
from killing import assert_same, killed_and_resumed, processes, run, tiny
from torch import nn

from nasedu import DartsTrainer, EnasTrainer, accuracy, get_dataset, reward_accuracy
from nasedu.files import FileError
from nasedu.search import StandaloneTrainer
from nasedu.space import SmallCNN
from nasedu.study.recipe import Recipe
from nasedu.study.record import Record, conduct, load

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="kills and forks as POSIX does"),
    pytest.mark.timeout(7200),
]
KILLS = int(os.environ.get("NASEDU_KILLS", "6"))
EACH = -(-KILLS // 3)
ROUNDS = min(20, max(2, KILLS // 5))
OPTIONS = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False}


def darts(checkpoint, **options):
    return tiny(DartsTrainer, checkpoint, **{**OPTIONS, **options})


def enas(checkpoint, **options):
    own = {"reward_function": reward_accuracy, "ctrl_steps": 2, "ctrl_steps_aggregate": 3}
    return tiny(EnasTrainer, checkpoint, **{**OPTIONS, **own, **options})


def study(rows, out, result):
    """A study of so many runs, each a small training; what it leaves behind but for times and dates."""
    torch.set_num_threads(1)
    recipe = Recipe(pixels=8, images=16, channels=2, layers=0, epochs=1, batch_size=8)
    data, valid = get_dataset("shapes10", subset=(16, 8), input_size=8)

    def train(key):
        torch.manual_seed(key["seed"])
        model = SmallCNN(2)
        trainer = StandaloneTrainer(
            model, torch.optim.SGD(model.parameters(), 0.05), 1, data, valid, 8, "cpu",
            arch={"cell": torch.eye(5)[[1, 2, 3]]}, seed=key["seed"], progress=False,
        )  # fmt: skip
        return {"history": trainer.fit().epochs}

    keys = [{"method": "a", "seed": seed} for seed in range(rows)]
    conduct(Record("killed", recipe, "shapes", "make"), out, keys, train, progress=False)
    torch.save([{name: row[name] for name in ("key", "history")} for row in load(out)], f"{result}.new")
    os.rename(f"{result}.new", result)


JOBS = {
    "DARTS": partial(run, partial(darts, num_epochs=EACH + 3)),
    "ENAS": partial(run, partial(enas, num_epochs=EACH + 3)),
    "a study": partial(study, 6 * EACH + 6),
}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_killed_at_random_moments_and_resumed_is_bit_for_bit_the_same(tmp_path, job):
    undisturbed, killed = killed_and_resumed(job, tmp_path, EACH)
    assert_same(undisturbed, killed)
    # The lock of the last one who was killed lies there no more, and no half of a file.
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ["kept", "killed.pt", "undisturbed", "undisturbed.pt"]


# ---- two processes, one checkpoint


def owner(checkpoint, result):
    """Trains and saves, but for its last epoch waits until it may."""

    def wait(trainer):
        end = time.monotonic() + 300
        while trainer.epoch == 2 and not result.with_suffix(".go").exists() and time.monotonic() < end:
            time.sleep(0.005)

    run(partial(darts, callbacks=[wait]), checkpoint, result)


def second(checkpoint, result):
    """The same command once more, while the first is at it."""
    try:
        run(darts, checkpoint, result)
    except FileError as error:
        result.with_suffix(".told").write_text(str(error))


def start(job, *arguments):
    process = processes().Process(target=job, args=arguments)
    process.start()
    return process


def until(is_so, process):
    while not is_so():
        assert process.is_alive(), "it ended too early"
        time.sleep(0.001)


def test_the_second_of_two_processes_is_told_and_nothing_is_broken(tmp_path):
    wanted = tmp_path / "wanted.pt"
    run(darts, None, wanted)
    for number in range(ROUNDS):
        folder = tmp_path / str(number)
        folder.mkdir()
        kept, result = folder / "run.pt", folder / "result.pt"
        first = start(owner, kept, result)
        # Its lock is there; it is in its first steps, or has saved some.
        until((folder / "run.pt.lock" if number % 2 else kept).exists, first)
        others = [start(second, kept, folder / f"second{i}.pt") for i in range(2)]
        for other in others:
            other.join()
            assert other.exitcode == 0 and first.is_alive()
        for i in range(2):
            assert not (folder / f"second{i}.pt").exists()
            told = (folder / f"second{i}.told").read_text()
            assert re.search(rf"run\.pt is in use by (process {first.pid} on|another process)", told), told
        if number % 3 == 0:
            first.kill()
            first.join()
            start(second, kept, result).join()  # the lock has ended with its owner
        else:
            Path(result.with_suffix(".go")).touch()
            first.join()
        assert_same(torch.load(wanted), torch.load(result))
        assert not (folder / "run.pt.lock").exists() and not list(folder.glob("*.part"))
