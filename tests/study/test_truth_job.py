"""The truth table's job: it goes on where it stopped, and gives the same rows wherever they are trained."""

import os
import signal
import subprocess
import sys
import time
from contextlib import closing
from dataclasses import asdict, replace

import joblib
import pytest
import torch

from nasedu.cli import main
from nasedu.data.images import checksum
from nasedu.files import FileError
from nasedu.search import StandaloneTrainer
from nasedu.space import small
from nasedu.study import truth, truth_job
from nasedu.study.record import RecordError
from nasedu.study.truth import SMALL, Row, TruthError

TINY = replace(SMALL, images=16, valid_images=10, test_images=10, channels=2, epochs=1, batch_size=8)
NAMES = small.architectures()[60:66]


@pytest.fixture(scope="module")
def cluster():
    """A Dask cluster of two worker processes on this machine."""
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=True, host="127.0.0.1", dashboard_address=None
    ) as cluster:
        yield cluster


@pytest.fixture(autouse=True)
def one_thread():
    torch.set_num_threads(1)


def make(out, recipe=TINY, data="shapes10", names=NAMES, **options):
    return truth_job.make(recipe, data, out, progress=False, names=names, **{"seeds": 1, **options})


def rows(table):
    return [{**asdict(row), "seconds": None} for row in table]


def counted(monkeypatch, stop=None):
    """The (names, seed) that are trained from now on; number `stop` meets Ctrl-C."""
    trained, train = [], truth.train

    def counting(recipe, datasets, names, seed):
        if len(trained) == stop:
            raise KeyboardInterrupt
        trained.append((names, seed))
        return train(recipe, datasets, names, seed)

    monkeypatch.setattr(truth, "train", counting)
    return trained


# ---- on again


def test_what_is_there_is_not_trained_again(tmp_path, monkeypatch):
    out = tmp_path / "table.json"
    trained = counted(monkeypatch, stop=3)
    with pytest.raises(KeyboardInterrupt):
        make(out, seeds=2)
    assert len(truth.load(out)) == 3 and [key[0] for key in trained] == NAMES[:3]
    monkeypatch.undo()
    trained = counted(monkeypatch)
    table = make(out, seeds=2)
    wanted = [(names, seed) for seed in (0, 1) for names in NAMES]
    assert trained == wanted[3:] and truth.load(out) == table
    assert [(row.names, row.seed) for row in table] == [(n, s) for n in NAMES for s in (0, 1)]
    assert make(out, seeds=2) == table and len(trained) == 9, "nothing is left to do"
    undisturbed = make(tmp_path / "other.json", seeds=2)
    assert rows(undisturbed) == rows(table)
    assert "shapes10, 16 + 10 + 10 images" in table.provenance["data"]


@pytest.mark.parametrize(
    "other",
    [{"recipe": replace(TINY, lr=0.01)}, {"recipe": replace(TINY, data_seed=1)}],
    ids=["recipe", "images"],
)
def test_a_table_of_something_else_is_left_alone(tmp_path, other):
    out = tmp_path / "table.json"
    make(out, names=NAMES[:1])
    before = out.read_bytes()
    with pytest.raises(
        RecordError, match="(?s)holds 'truth' of .*use the same arguments, or give another file"
    ):
        make(out, **other)
    assert out.read_bytes() == before


def test_the_images_are_told_apart_by_their_pixels(tmp_path):
    out = tmp_path / "table.json"
    table = make(out, names=NAMES[:1])
    parts = TINY.datasets("shapes10")
    assert checksum(*parts) in table.provenance["data"]
    parts[2].images[0, 0, 0, 0] += 1
    assert checksum(*parts) not in table.provenance["data"]


@pytest.mark.parametrize("options", [{"seeds": 0}, {"jobs": 0}])
def test_no_seeds_or_no_jobs_are_told(tmp_path, options):
    with pytest.raises(TruthError, match="wanted 1 or more"):
        make(tmp_path / "table.json", **options)


def test_a_place_that_cannot_be_written_is_told_before_the_first_row(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    trained = counted(monkeypatch)
    with pytest.raises(FileError, match="cannot write"):
        make(tmp_path / "file" / "table.json")
    assert trained == []


def test_the_callers_threads_are_left_alone(tmp_path):
    torch.set_num_threads(2)
    make(tmp_path / "table.json", names=NAMES[:1])
    assert torch.get_num_threads() == 2


def test_half_a_row_is_none(monkeypatch):
    def interrupted(self, epoch, step):
        os.kill(os.getpid(), signal.SIGINT)
        return {"train_loss": 1.0}

    monkeypatch.setattr(StandaloneTrainer, "train_step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        truth.train(TINY, TINY.datasets("shapes10"), NAMES[0], 0)


# ---- elsewhere


@pytest.mark.timeout(300)
def test_a_dask_cluster_gives_the_same_rows(tmp_path, cluster):
    with truth_job.backend("dask", cluster.scheduler_address, timeout=60):
        table = make(tmp_path / "dask.json", seeds=2, jobs=-1)
    assert rows(table) == rows(make(tmp_path / "here.json", seeds=2))
    assert truth.load(tmp_path / "dask.json") == table


def row_of(number: int) -> Row:
    return Row(NAMES[0], number, 0.5, 0.5, 1.0, 1, (0.5,), (1.0,))


def test_a_backend_that_gives_all_at_once_is_given_a_little_at_a_time():
    # As Ray's, which is built upon this one. A task is drawn only when the rows before it have been taken.
    drawn = []

    def tasks():
        for number in range(5):
            drawn.append(number)
            yield joblib.delayed(row_of)(number)

    with joblib.parallel_config("multiprocessing"), closing(truth_job._rows(tasks(), 2)) as found:
        assert next(found).seed == 0 and drawn == [0, 1]
        assert [row.seed for row in found] == [1, 2, 3, 4]


@pytest.mark.parametrize(
    "name, scheduler, message",
    [
        ("dask", "tcp://127.0.0.1:1", "no Dask scheduler answers at tcp://127.0.0.1:1"),
        ("dask", None, "the address of its scheduler"),
        ("dask", "nonsense", "no Dask scheduler answers at nonsense"),
        ("slurm", None, "no backend 'slurm'; there are loky, dask, ray"),
    ],
)
def test_a_backend_that_is_not_there_is_told(name, scheduler, message):
    with pytest.raises(TruthError, match=message), truth_job.backend(name, scheduler, timeout=0.2):
        pass


@pytest.mark.parametrize("name, package", [("dask", "distributed"), ("ray", "ray")])
def test_a_backend_whose_package_is_missing_is_told_in_a_line(tmp_path, capsys, monkeypatch, name, package):
    monkeypatch.setitem(sys.modules, package, None)
    assert main(["truth", "--small", "--backend", name, "--out", str(tmp_path / "x.json")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"nasedu: the backend {name} wants a package") and "pip install" in said
    assert said.count("\n") == 1


# ---- the command


def test_the_command_makes_what_is_missing_of_the_small_table(tmp_path, capsys):
    shipped = truth.load_small()
    out = tmp_path / "small.json"
    replace(shipped, rows=shipped.rows[:20] + shipped.rows[22:]).save(out)
    assert main(["truth", "--small", "--out", str(out), "--jobs", "1"]) == 0
    table = truth.load(out)
    assert [row.names for row in table] == small.architectures()
    for i in (20, 21):
        assert table[i].losses == pytest.approx(shipped[i].losses, abs=1e-5)
    assert "125 rows, shapes10" in capsys.readouterr().out


def test_workers_do_not_hear_ctrl_c_themselves():
    """One that heard it while it starts would print a traceback."""
    joblib.externals.loky.get_reusable_executor().shutdown(wait=True)  # what other tests have started
    with truth_job.backend("loky"):
        heard = list(truth_job._rows(iter([joblib.delayed(signal.getsignal)(signal.SIGINT)] * 2), 2))
    assert heard == [signal.SIG_IGN] * 2
    assert signal.getsignal(signal.SIGINT) != signal.SIG_IGN


@pytest.mark.timeout(300)
def test_ctrl_c_ends_two_processes_in_a_line_and_keeps_their_rows(tmp_path):
    out = tmp_path / "small.json"
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "nasedu", "truth", "--small", "--seeds", "8"),
            *("--jobs", "2", "--out", str(out)),
        ],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        # Tests that were started in the background of a shell would hand on that SIGINT is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )  # fmt: skip
    while process.poll() is None and not (out.exists() and len(truth.load(out)) >= 3):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the workers, too
    said, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert said.startswith("interrupted; the rows so far are in") and said.count("\n") == 1
    assert "Traceback" not in errors and "Warning" not in errors
    assert [file.name for file in tmp_path.iterdir()] == ["small.json"]
    kept = truth.load(out)
    recorded = {row.names: row for row in truth.load_small()}
    assert 3 <= len(kept) < 125
    for row in kept:
        assert row.losses == pytest.approx(recorded[row.names].losses, abs=1e-5)
