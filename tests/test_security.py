"""What SECURITY.md says: no file runs code, and no name becomes a tag."""

import os
import pickle
import re
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest
import torch
from torch import nn

from nasedu import PUBLISHED, DartsTrainer, Genotype, NaseduError, accuracy, get_dataset
from nasedu.show import draw_cell
from nasedu.show.page import Judged, write
from nasedu.space import SmallCNN

ROOT = Path(__file__).parent.parent
TAG = "<script>alert(1)</script>"
ENTITY = "&xxe; ]]> <!ENTITY xxe SYSTEM 'file:///etc/passwd'>"


class Code:
    """Pickled, it asks for a file to be made."""

    def __init__(self, place):
        self.place = str(place)

    def __reduce__(self):
        return os.mkdir, (self.place,)


@pytest.mark.parametrize("kind", ["torch", "plain pickle", "inside the torch file"])
def test_a_checkpoint_with_code_in_it_is_told_and_the_code_not_run(tmp_path, kind):
    model, path, place = SmallCNN(2, 10), tmp_path / "run.pt", tmp_path / "code was run"
    trainer = DartsTrainer(
        model, nn.CrossEntropyLoss(), accuracy, torch.optim.SGD(model.parameters(), 0.1), 1,
        get_dataset("shapes10", subset=(16, 4), input_size=8)[0], batch_size=4, device="cpu", progress=False,
    )  # fmt: skip
    trainer.save(path)
    if kind == "torch":
        torch.save({"format": "nasedu-checkpoint", "model": Code(place)}, path)
    elif kind == "plain pickle":
        path.write_bytes(pickle.dumps(Code(place)))
    else:
        with zipfile.ZipFile(path) as old:
            parts = {name: old.read(name) for name in old.namelist()}
        with zipfile.ZipFile(path, "w") as new:
            for name, content in parts.items():
                new.writestr(name, pickle.dumps(Code(place), 2) if name.endswith("data.pkl") else content)
    with pytest.raises(NaseduError, match="run.pt"):
        trainer.load(path)
    assert not place.exists()
    pickle.loads(pickle.dumps(Code(place)))
    assert place.exists(), "the code would have been run"


@pytest.mark.parametrize("name", [TAG, ENTITY, "a\"b'c", "\x01\x08"])
def test_names_and_titles_are_text_in_a_drawing(name):
    genotype = Genotype((((name, 0), ("skip_connect", 1)),), (((name, 0), (name, 1)),))
    drawn = draw_cell(genotype, "normal", ops=("none", "skip_connect", name), title=name)
    for text in (drawn.svg, drawn._repr_html_() if hasattr(drawn, "_repr_html_") else drawn.svg):
        assert "<script" not in text.lower() and "<!ENTITY" not in text
    tree = ElementTree.fromstring(drawn.svg)  # well-formed: no tag, no entity came of it
    assert {element.tag.split("}")[1] for element in tree.iter()} <= {
        "svg", "title", "desc", "g", "path", "text", "tspan", "rect", "circle", "ellipse", "polygon",
        "line", "a", "style",
    }  # fmt: skip


def test_names_and_titles_are_text_in_a_page(tmp_path):
    cell = PUBLISHED["DARTS_V2"]
    judged = [Judged(name, cell, (0.5, 0.6), (0.4, 0.7), 10) for name in (TAG, f"blind {TAG}")]
    page = write(tmp_path, TAG, {TAG: TAG}, [TAG], judged, []).read_text()
    assert "<script" not in page.lower() and page.count("&lt;script") >= 6


def test_no_text_that_is_read_is_ever_evaluated():
    for path in (ROOT / "nasedu").rglob("*.py"):
        found = re.findall(
            r"(?<![\w.])(?:eval|exec|compile)\(|pickle\.load|yaml\.load\(|shell=True", path.read_text()
        )
        assert not found, f"{path}: {found}"
        for call in re.finditer(r"torch\.load\(", path.read_text()):
            assert "weights_only=True" in path.read_text()[call.start() : call.start() + 120], path


def test_every_test_that_security_names_is_there():
    named = re.findall(r"`(tests/[\w/]+\.py)`", (ROOT / "SECURITY.md").read_text())
    assert len(set(named)) >= 6 and all((ROOT / path).is_file() for path in named)
