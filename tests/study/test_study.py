"""A study is one file: whole, resumable, and refused where it belongs to another protocol."""

import json

import pytest

from nasedu.study import study
from nasedu.study.study import Study, StudyError

EMPTY = Study("squares", "make squares", "no data", {"power": 2})
KEYS = [{"method": "a", "seed": 0}, {"method": "a", "seed": 1}, {"method": "b", "seed": 0}]


def run(key):
    return {"square": (key["seed"] + 3) ** 2, "pair": (1, 2)}


@pytest.fixture
def squares(tmp_path):
    return study.conduct(EMPTY, tmp_path / "squares.json", KEYS, run, progress=False)


def test_runs_have_their_key_their_stamp_and_what_they_gave(squares):
    assert [line["key"] for line in squares.runs] == KEYS
    assert [line["square"] for line in squares.runs] == [9, 16, 9]
    assert all(
        line["pair"] == [1, 2] and line["cpu_seconds"] >= 0 and line["device"] for line in squares.runs
    )


def test_the_file_gives_the_study_back(squares, tmp_path):
    assert study.load(tmp_path / "squares.json") == squares == Study.from_json(squares.to_json())


def test_select_takes_the_runs_of_a_key(squares):
    assert [line["key"]["seed"] for line in squares.select(method="a")] == [0, 1]
    assert squares.select(method="b", seed=0)[0]["square"] == 9
    with pytest.raises(StudyError, match=r"no run with .*'c'.*it has .*\"a\""):
        squares.select(method="c")


def test_goes_on_where_it_was_stopped_and_does_nothing_twice(tmp_path):
    done = []

    def interrupted(key):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(key)
        return run(key)

    out = tmp_path / "squares.json"
    with pytest.raises(KeyboardInterrupt):
        study.conduct(EMPTY, out, KEYS, interrupted, progress=False)
    assert [line["key"] for line in study.load(out).runs] == KEYS[:2]
    seen = []
    whole = study.conduct(EMPTY, out, KEYS, lambda key: seen.append(key) or run(key), progress=False)
    assert seen == KEYS[2:] and [line["key"] for line in whole.runs] == KEYS


@pytest.mark.parametrize("other", [{"name": "cubes"}, {"config": {"power": 3}}, {"data": "other images"}])
def test_another_protocol_is_refused_and_the_file_kept(squares, tmp_path, other):
    out = tmp_path / "squares.json"
    before = out.read_bytes()
    asked = Study(**{"name": "squares", "command": "", "data": "no data", "config": {"power": 2}, **other})
    with pytest.raises(StudyError, match="use the same arguments, or give another file"):
        study.conduct(asked, out, KEYS, run, progress=False)
    assert out.read_bytes() == before


def test_provenance_says_what_when_where_and_how_again(squares):
    text = squares.provenance
    assert "squares: 3 runs on no data" in text and "power 2" in text and "make squares" in text
    assert squares.runs[0]["date"][:10] in text and squares.runs[0]["device"] in text


@pytest.mark.parametrize(
    "spoil",
    [
        lambda data: "no json",
        lambda data: json.dumps([1]),
        lambda data: json.dumps({**data, "format": "other"}),
        lambda data: json.dumps({**data, "version": 2}),
        lambda data: json.dumps({**data, "more": 1}),
        lambda data: json.dumps({**data, "runs": [{"key": {}}]}),
        lambda data: json.dumps({**data, "runs": 7}),
        lambda data: json.dumps({key: value for key, value in data.items() if key != "config"}),
    ],
)
def test_a_file_that_is_no_study_is_refused(squares, spoil):
    with pytest.raises(StudyError):
        Study.from_json(spoil(json.loads(squares.to_json())))


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(StudyError, match="no study 'nothing'; there are"):
        study.load("nothing")
