"""What `nasedu doctor` says of machines that are well, and of those that are not."""

import os
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from nasedu import doctor
from nasedu.cli import main


def test_each_line_has_a_state_and_each_problem_says_what_to_do(capsys):
    found = list(doctor.examine(operations=False))
    assert {"python", "torch", "cpu", "gpu", "memory", "disk", "graphviz", "data"} <= {f.what for f in found}
    for finding in found:
        assert finding.state in ("ok", "note", "problem") and finding.seen
        assert (finding.state == "ok") == (finding.todo == ""), finding


def test_the_command_ends_with_0_where_all_is_well_and_with_1_where_it_is_not(monkeypatch, capsys):
    well, bad = doctor.Finding("ok", "cpu", "a fine one"), doctor.Finding("problem", "x", "y", "z")
    for findings, code, end in (([well], 0, "ready"), ([well, bad], 1, "1 problem")):
        monkeypatch.setattr(doctor, "examine", lambda findings=findings: iter(findings))
        assert main(["doctor"]) == code
        assert end in capsys.readouterr().out


def test_a_package_that_is_missing_or_too_old_is_a_problem_with_its_command():
    assert doctor.package(Requirement("torch>=2")).state == "ok"
    old = doctor.package(Requirement("torch>=99"))
    assert old.state == "problem" and ">=99" in old.seen and old.todo == 'pip install "torch>=99"'
    missing = doctor.package(Requirement("no-such-package>=1"))
    assert missing.state == "problem" and "not installed" in missing.seen


def test_every_operation_is_tried_in_a_process_of_its_own():
    found = doctor.tried_operations()
    assert found.state == "ok" and "12 operations" in found.seen


def test_a_crash_is_reported_with_the_name_of_the_operation(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, nasedu.space.ops as ops\n"
        "ops._REGISTRY['skip_connect'] = lambda c, stride, affine: os.abort()\n"
    )
    path = f"{tmp_path}{os.pathsep}{Path(doctor.__file__).parent.parent}"
    found = doctor.tried_operations({"PYTHONPATH": path}, ["none", "skip_connect"])
    assert found.state == "problem" and found.seen.startswith("skip_connect stride 1: killed by signal 6")


def test_a_hang_is_reported_too(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import time; print('conv_9x9 stride 1', flush=True); time.sleep(60)"
    )
    found = doctor.tried_operations({"PYTHONPATH": str(tmp_path)}, ["none"], seconds=2)
    assert found.state == "problem" and found.seen == "conv_9x9 stride 1: no answer after 2 s"


@pytest.mark.parametrize("there", [True, False])
def test_where_the_images_would_come_from(monkeypatch, tmp_path, there):
    monkeypatch.setenv("NASEDU_DATA", str(tmp_path))
    if there:
        (tmp_path / "train" / "cat").mkdir(parents=True)
    found = doctor.dataset()
    assert found.state == ("ok" if there else "problem") and str(tmp_path) in found.seen


def test_without_data_it_says_how_to_get_it_and_downloads_nothing(monkeypatch, tmp_path):
    monkeypatch.delenv("NASEDU_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert doctor.dataset().state == "note" and not list(tmp_path.iterdir())


def test_a_limit_on_the_cpu_is_said(monkeypatch):
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "default")
    assert doctor.cpu().state == "note" and "ATEN_CPU_CAPABILITY=default" in doctor.cpu().seen
