"""A file is written whole or not at all, and by one process at a time."""

import os
import re
import signal
import subprocess
import sys
import threading

import pytest

from nasedu import NaseduError
from nasedu.files import FileError, locked, save_text, try_place, whole


def names(folder):
    return sorted(os.listdir(folder))


def test_a_file_appears_when_all_of_it_is_there(tmp_path):
    with whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "a.txt").exists()
        temporary.write_text("all of it")
    assert (tmp_path / "a.txt").read_text() == "all of it" and names(tmp_path) == ["a.txt"]


@pytest.mark.skipif(os.name != "posix", reason="a folder can't be synced here")
def test_the_file_and_then_its_name_are_on_the_disk(tmp_path, monkeypatch):
    synced, real = [], os.fsync

    def noted(number):
        synced.append((os.fstat(number).st_ino, (tmp_path / "a.txt").exists()))
        real(number)

    monkeypatch.setattr(os, "fsync", noted)
    save_text(tmp_path / "a.txt", "all of it")
    assert synced == [(os.stat(tmp_path / "a.txt").st_ino, False), (os.stat(tmp_path).st_ino, True)]


def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_two_who_write_at_once_have_temporary_names_of_their_own(tmp_path):
    with whole(tmp_path / "a.txt") as one, whole(tmp_path / "a.txt") as other:
        assert one != other and one.parent == other.parent == tmp_path
        one.write_text("one")
        other.write_text("other")
    assert (tmp_path / "a.txt").read_text() == "one" and names(tmp_path) == ["a.txt"]


def test_a_text_is_saved_whole_into_a_folder_that_is_made(tmp_path):
    save_text(tmp_path / "new" / "a.txt", "é")
    assert names(tmp_path / "new") == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "é"


def test_a_link_stays_and_what_it_points_to_is_written(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "a.txt").symlink_to(tmp_path / "there" / "b.txt")
    save_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").is_symlink() and (tmp_path / "there" / "b.txt").read_text() == "new"


@pytest.mark.parametrize(
    "place, said",
    [
        ("folder", "it is a folder: give the path of a file"),
        ("file/a.txt", "a part of the path is a file and no folder: give another path"),
        ("a" * 300, "the name is too long: give a shorter one"),
        (os.devnull, "it is a device, no file: give the path of a file"),
        ("pipe", "it is a device, no file"),
    ],
)
def test_a_place_that_can_be_none_is_told_by_name(tmp_path, place, said):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for write in (lambda path: save_text(path, "x"), lambda path: try_place(path, 10)):
        with pytest.raises(FileError, match=f"^cannot write {re.escape(str(tmp_path / place))}: {said}"):
            write(tmp_path / place)
    with pytest.raises(FileError, match=said), locked(tmp_path / place):
        pass
    assert names(tmp_path) == ["file", "folder", "pipe"] and issubclass(FileError, NaseduError | OSError)


def test_to_try_a_place_leaves_nothing_there(tmp_path):
    try_place(tmp_path / "new" / "a.txt", 10)
    assert names(tmp_path / "new") == []
    save_text(tmp_path / "a.txt", "old")
    try_place(tmp_path / "a.txt", 10)
    assert (tmp_path / "a.txt").read_text() == "old" and names(tmp_path) == ["a.txt", "new"]


# ---- the lock

HOLD = """
import sys, time
from nasedu.files import locked
with locked(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock on a.txt, and stops when its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path / "a.txt")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_the_second_is_told_who_has_it_and_gets_it_when_the_first_is_done(tmp_path, holder):
    said = rf"a\.txt is in use by process {holder.pid} on \S+, since 20\d\d-.*: wait until that has ended, or"
    for _ in range(2):
        with pytest.raises(FileError, match=said), locked(tmp_path / "a.txt"):
            pass
    holder.stdin.close()
    holder.wait()
    with locked(tmp_path / "a.txt"):
        pass
    assert names(tmp_path) == []


def test_whose_owner_is_killed_is_free_whatever_lies_there(tmp_path, holder):
    (tmp_path / f"a.txt.{holder.pid}-0123abcd.part").write_text("half")
    (tmp_path / f"a.txt.json.{holder.pid}-0123abcd.part").write_text("of another file")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert "a.txt.lock" in names(tmp_path)
    with locked(tmp_path / "a.txt"):
        save_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt", f"a.txt.json.{holder.pid}-0123abcd.part"]


def test_a_file_that_looks_like_a_lock_locks_nothing(tmp_path):
    (tmp_path / "a.txt.lock").write_text("process 1 on moon, since 1969")
    said = f"in use by process {os.getpid()} on"
    with locked(tmp_path / "a.txt"), pytest.raises(FileError, match=said), locked(tmp_path / "a.txt"):
        pass


def test_of_many_who_want_it_at_once_one_has_it(tmp_path):
    inside, most, told, done = [], [], [], []

    def work():
        while len(done) < 200:
            try:
                with locked(tmp_path / "a.txt"):
                    inside.append(1)
                    most.append(len(inside))
                    inside.pop()
                    done.append(1)
            except FileError as error:
                told.append(str(error))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1 and names(tmp_path) == []
    assert all("is in use by " in line for line in told)
