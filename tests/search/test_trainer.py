"""The shared loop: evaluation, history, checkpoints, Ctrl-C. For SIGKILL see test_darts.py."""

import copy
import errno
import math
import os
import pickle
import signal
import sys
import threading
from pathlib import Path

import pytest
import torch
from killing import assert_same, tiny
from torch import nn

from nasedu import DartsTrainer, History, accuracy, batch_statistics, evaluate, get_dataset
from nasedu.data.datasets import batches
from nasedu.data.images import DatasetError
from nasedu.files import FileError
from nasedu.search.base import SearchTrainer
from nasedu.search.checkpoint import CheckpointError
from nasedu.search.evaluation import Mean
from nasedu.search.history import HistoryError


class Uniform(SearchTrainer):
    """The least of a search: the weights are trained, the architecture stays uniform."""

    kind = "uniform"
    steps_per_epoch = 4

    def train_step(self, epoch, step):
        arch = {label: torch.full(shape, 1 / 8) for label, shape in self.model.choices().items()}
        return self.weight_step(*self.train_batch(epoch, step), arch)


def uniform(checkpoint=None, cls=Uniform, **options):
    options = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "progress": False, **options}
    return tiny(cls, checkpoint, **options)


def left_behind(trainer):
    return trainer.model.state_dict(), trainer.optimizer.state_dict(), trainer.history.epochs


# ---- who sees a bar


@pytest.mark.parametrize(
    ("terminal", "kernel", "seen"),
    [(True, False, True), (False, True, True), (False, False, False)],
)
def test_a_bar_is_shown_on_a_terminal_and_in_a_notebook(monkeypatch, terminal, kernel, seen):
    class Shell:
        pass

    shell = Shell()
    if kernel:
        shell.kernel = object()
    python = pytest.importorskip("IPython")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    monkeypatch.setattr(python, "get_ipython", lambda: shell)
    assert uniform(progress=None).progress is seen


def test_the_bar_says_the_epoch_and_its_numbers(capsys):
    uniform(progress=True).fit()
    said = capsys.readouterr().err
    assert "uniform, epoch 1 of 3" in said and "uniform, epoch 3 of 3" in said
    assert "train_loss=" in said


# ---- accuracy, means, evaluation


def test_accuracy_counts():
    output = torch.tensor([[0.1, 0.9, 0.5], [0.8, 0.1, 0.7], [0.3, 0.2, 0.9], [0.6, 0.5, 0.1]])
    assert accuracy(output, torch.tensor([1, 2, 2, 1])) == {"acc1": 0.5}
    assert accuracy(output, torch.tensor([1, 2, 2, 2]), topk=(1, 2)) == {"acc1": 0.5, "acc2": 0.75}


def test_a_mean_weighs_by_count_and_survives_a_checkpoint():
    mean = Mean()
    mean.add({"a": 1.0}, 3)
    mean = Mean(mean.state)
    mean.add({"a": 5.0}, 1)
    assert mean.value() == {"a": 2.0}


def test_evaluation_counts_each_image_once():
    data, _ = get_dataset("shapes10", subset=50, input_size=8)
    model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    x, y = next(batches(data, 50))
    measured = evaluate(model, data, batch_size=16)  # 16 + 16 + 16 + 2
    assert measured["loss"] == pytest.approx(nn.functional.cross_entropy(model(x), y).item(), rel=1e-5)
    assert measured["acc1"] == pytest.approx(accuracy(model(x), y)["acc1"], rel=1e-6)


def test_batch_statistics_normalise_by_the_batch_and_leave_no_trace():
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(0.5))
    model[1].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    x = torch.randn(64, 3) * 5 + 2
    with batch_statistics(model):
        y = model(x)
    torch.testing.assert_close(y, (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt())
    assert_same(before, dict(model.state_dict()))
    assert model.training and model[0].training and not model[1].training


# ---- the loop


def test_the_two_halves_share_no_image_and_lose_none():
    trainer = uniform()
    both = torch.cat([trainer.train_half.images, trainer.valid_half.images]).flatten(1)
    assert len(both.unique(dim=0)) == 64
    drawn = torch.cat([trainer.train_batch(0, i)[1] for i in range(4)])
    assert sorted(drawn.tolist()) == sorted(trainer.train_half.labels.tolist()), (
        "an epoch shows each image once"
    )
    assert not torch.equal(trainer.train_batch(0, 0)[0], trainer.train_batch(1, 0)[0])
    assert torch.equal(trainer.train_batch(0, 3)[0], uniform().train_batch(0, 3)[0])


def test_the_gradient_is_clipped():
    trainer = uniform(grad_clip=1e-3)
    trainer.train_step(0, 0)
    norm = math.sqrt(sum((p.grad**2).sum().item() for p in trainer.model.parameters() if p.grad is not None))
    assert norm == pytest.approx(1e-3, rel=1e-3)


def test_callbacks_come_after_each_epoch_and_the_callers_random_numbers_are_left_alone():
    seen = []
    trainer = uniform(callbacks=[lambda t: seen.append((t.epoch, len(t.history)))])
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    trainer.fit()
    assert seen == [(1, 1), (2, 2), (3, 3)]
    assert torch.equal(torch.rand(3), wanted)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    runs = [uniform(seed=seed) for seed in (3, 3, 4)]
    for trainer in runs:
        trainer.fit()
    assert_same(left_behind(runs[0]), left_behind(runs[1]))
    assert runs[0].history != runs[2].history


def test_log_frequency_prints_lines(capsys):
    uniform(num_epochs=1, log_frequency=2).fit()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:21] for line in lines] == ["epoch 1/1  step 2/4  ", "epoch 1/1  step 4/4  "]
    assert "train_loss" in lines[0] and "train_acc1" in lines[0]


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_epochs": 0}, "num_epochs is 0; wanted a whole number"),
        ({"batch_size": 2.5}, "batch_size is 2.5; wanted a whole number"),
        ({"batch_size": 40}, "smaller batch"),
    ],
)
def test_bad_sizes_are_said(options, message):
    if "batch_size" in options:
        model = nn.Linear(2, 2)
        data, _ = get_dataset("shapes10", subset=64, input_size=8)
        with pytest.raises((ValueError, DatasetError), match=message):
            Uniform(
                model,
                nn.CrossEntropyLoss(),
                accuracy,
                torch.optim.SGD(model.parameters(), 0.1),
                1,
                data,
                **options,
            )
    else:
        with pytest.raises(ValueError, match=message):
            uniform(**options)


# ---- Ctrl-C


class PressesCtrlC(Uniform):
    """Sends itself the signal of Ctrl-C in the steps of `presses`, an (epoch, step) for each."""

    presses = ((1, 2),)

    def train_step(self, epoch, step):
        numbers = super().train_step(epoch, step)
        for press in self.presses:
            if press == (epoch, step):
                os.kill(os.getpid(), signal.SIGINT)
        return numbers


@pytest.mark.parametrize("saved", [True, False])
def test_ctrl_c_ends_the_step_keeps_everything_and_fit_goes_on(tmp_path, capsys, saved):
    undisturbed = uniform()
    undisturbed.fit()
    path = tmp_path / "run.pt" if saved else None
    handler = signal.getsignal(signal.SIGINT)
    trainer = uniform(path, cls=PressesCtrlC)
    history = trainer.fit()
    assert (len(history), trainer.epoch, trainer.step) == (1, 1, 3)
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.startswith("interrupted at epoch 2, after step 3/4")
    assert signal.getsignal(signal.SIGINT) is handler
    if saved:
        trainer = uniform(path)  # a new process would do this
    trainer.fit()
    assert_same(left_behind(undisturbed), left_behind(trainer))


def test_a_second_ctrl_c_is_a_keyboard_interrupt():
    class Twice(PressesCtrlC):
        presses = ((0, 1), (0, 1))

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        uniform(cls=Twice).fit()
    assert signal.getsignal(signal.SIGINT) is handler


def test_fit_runs_outside_the_main_thread_too():
    trainer = uniform(num_epochs=1)
    thread = threading.Thread(target=trainer.fit)
    thread.start()
    thread.join()
    assert len(trainer.history) == 1


# ---- checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    path = tmp_path / "run.pt"
    trainer = uniform(path, cls=PressesCtrlC)
    trainer.fit()
    return path


def refused(path, match, **options):
    trainer = uniform(path, **options)
    before = {k: v.clone() for k, v in trainer.model.state_dict().items()}
    with pytest.raises(CheckpointError, match=match):
        trainer.fit()
    assert_same(before, dict(trainer.model.state_dict()))


def test_a_truncated_checkpoint_is_said_at_every_length(checkpoint):
    whole = checkpoint.read_bytes()
    for part in range(20):
        checkpoint.write_bytes(whole[: len(whole) * part // 20])
        refused(checkpoint, "no readable checkpoint.*remove it")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
def test_foreign_files_are_said_and_never_run(checkpoint, tmp_path):
    class Bad:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "pwned"),)

    for content in (b"", b"hello", b"\x80\x04.", pickle.dumps(Bad()), pickle.dumps({"a": 1})):
        checkpoint.write_bytes(content)
        refused(checkpoint, "no readable checkpoint|no nasedu checkpoint")
    torch.save({"state_dict": {"w": torch.zeros(2)}}, checkpoint)
    refused(checkpoint, "no nasedu checkpoint")
    torch.save(torch.zeros(3), checkpoint)
    refused(checkpoint, "no nasedu checkpoint")
    assert not (tmp_path / "pwned").exists()


def test_a_checkpoint_of_an_older_nasedu_is_said(checkpoint):
    state = torch.load(checkpoint)  # torch reads the file, too; the line behind it is ours
    assert state["epoch"] == 1
    torch.save({"format": "nasedu-checkpoint", **state}, checkpoint)  # as the versions before wrote it
    refused(checkpoint, "written by an older nasedu.*go on with the older one, or remove it to start anew")


def test_a_checkpoint_of_a_newer_nasedu_is_said(checkpoint):
    checkpoint.write_bytes(checkpoint.read_bytes().replace(b"nasedu-checkpoint 2 ", b"nasedu-checkpoint 3 "))
    refused(checkpoint, "written by another nasedu, in format 3; this one reads 2: go on with the other one")


def test_a_changed_bit_is_said_wherever_it_is(checkpoint):
    whole = checkpoint.read_bytes()
    for place in range(0, len(whole) - 100, len(whole) // 25):
        changed = bytearray(whole)
        changed[place] ^= 1 << place % 8
        checkpoint.write_bytes(changed)
        refused(checkpoint, "no readable checkpoint: its content is not what was saved.*remove it")


def test_what_fails_half_way_is_taken_back(tmp_path):
    class Picky(Uniform):
        def load_extra_state(self, state):
            if self.optimizer.state_dict()["state"]:  # of the file, no longer its own
                raise KeyError("more")

    uniform(tmp_path / "run.pt", cls=Picky, num_epochs=1).fit()
    trainer = uniform(cls=Picky, num_epochs=1)
    before = copy.deepcopy(left_behind(trainer))
    with pytest.raises(CheckpointError, match="KeyError: 'more'.*remove it"):
        trainer.load(tmp_path / "run.pt")
    assert_same(before, left_behind(trainer))


def test_a_checkpoint_of_another_run_is_said(checkpoint):
    refused(checkpoint, r"belongs to another run.*'num_epochs': 3.*'num_epochs': 5", num_epochs=5)
    trainer = uniform()
    trainer.model.classifier.append(nn.Linear(10, 10))
    with pytest.raises(CheckpointError, match="weights of another model: classifier.2.*one side"):
        trainer.load(checkpoint)


def test_a_checkpoint_of_other_images_is_said(checkpoint):
    trainer = uniform(checkpoint)
    trainer.valid_half.images[0] ^= 255
    with pytest.raises(CheckpointError, match="belongs to another run.*64 images, crc32"):
        trainer.fit()


def test_a_place_that_cannot_be_written_is_told_before_the_first_step(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    for place in (tmp_path, tmp_path / "file" / "run.pt"):
        trainer = uniform(place)
        trainer.train_step = None  # would fail if called
        with pytest.raises(FileError, match="cannot write .*: give "):
            trainer.fit()

    def full(path, data):
        asked.append(len(data))
        raise OSError(errno.ENOSPC, "No space left on device")

    asked = []
    monkeypatch.setattr(Path, "write_bytes", full)
    trainer = uniform(tmp_path / "run.pt")
    trainer.train_step = None
    with pytest.raises(FileError, match="run.pt: the disk is full: make room"):
        trainer.fit()
    monkeypatch.undo()
    trainer = uniform(tmp_path / "run.pt", num_epochs=1)
    trainer.fit()
    assert asked[0] > (tmp_path / "run.pt").stat().st_size, "there is room for what is written later"
    assert sorted(os.listdir(tmp_path)) == ["file", "run.pt"]


def test_a_second_run_with_the_same_checkpoint_is_told_who_has_it(tmp_path):
    def again(trainer):
        with pytest.raises(FileError, match=f"run.pt is in use by process {os.getpid()} on"):
            uniform(tmp_path / "run.pt").fit()
        told.append(trainer.epoch)

    told = []
    uniform(tmp_path / "run.pt", callbacks=[again]).fit()
    assert told == [1, 2, 3] and os.listdir(tmp_path) == ["run.pt"]


def test_a_finished_run_is_not_run_again(tmp_path, capsys):
    path = tmp_path / "run.pt"
    first = uniform(path).fit()
    capsys.readouterr()
    trainer = uniform(path)
    trainer.train_step = None  # would fail if called
    assert trainer.fit() == first
    assert "resuming" not in capsys.readouterr().out


# ---- history


def test_history_goes_through_json_with_all_digits(tmp_path):
    epochs = [{"epoch": 1, "train_loss": 0.1 + 0.2, "arch": {"normal": [[1 / 3, 2 / 3]]}}]
    history = History(epochs, seconds=1.5)
    history.save(tmp_path / "history.json")
    again = History.load(tmp_path / "history.json")
    assert again == history and again.seconds == 1.5 and again.epochs == epochs
    assert history == History(epochs, seconds=99.0), "seconds differ from run to run and do not count"
    assert history.column("train_loss") == [0.1 + 0.2]
    with pytest.raises(KeyError, match="epoch 1 has no 'acc'; it has epoch, train_loss, arch"):
        history.column("acc")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "3",
        "null",
        '{"format": "x"}',
        '{"format": "nasedu-history", "version": 1, "epochs": [1], "seconds": 0}',
    ],
)
def test_what_is_no_history_is_said(text, tmp_path):
    (tmp_path / "history.json").write_text(text)
    with pytest.raises(HistoryError, match=r"history\.json: a history"):
        History.load(tmp_path / "history.json")


def test_darts_prints_no_traceback_on_ctrl_c_in_a_terminal(tmp_path):
    """The whole way: a process of its own, the real signal, exit code 0 and nothing on stderr."""
    import subprocess
    import sys

    code = f"""
import sys
sys.path[:0] = {sys.path!r}
from test_trainer import PressesCtrlC, uniform
from pathlib import Path
uniform(Path("run.pt"), cls=PressesCtrlC).fit()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "interrupted at epoch 2, after step 3/4: saved run.pt" in done.stdout
    assert (tmp_path / "run.pt").exists()


def test_the_darts_trainer_is_such_a_trainer():
    assert issubclass(DartsTrainer, SearchTrainer)
