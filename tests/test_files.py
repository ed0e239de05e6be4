"""A file is written whole or not at all."""

import os

import pytest

from nasedu.files import save_text, whole


def test_a_file_appears_when_all_of_it_is_there(tmp_path):
    with whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        assert not (tmp_path / "a.txt").exists()
        temporary.write_text("all of it")
    assert (tmp_path / "a.txt").read_text() == "all of it" and os.listdir(tmp_path) == ["a.txt"]


def test_what_goes_wrong_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "a.txt").write_text("old")
    with pytest.raises(KeyboardInterrupt), whole(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise KeyboardInterrupt
    assert (tmp_path / "a.txt").read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]


def test_a_text_is_saved_whole_into_a_folder_that_is_made(tmp_path):
    save_text(tmp_path / "new" / "a.txt", "é")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]
    assert (tmp_path / "new" / "a.txt").read_text(encoding="utf-8") == "é"
