"""Checkpoints that are not what they were: damaged, cut off, forged with a right checksum, malicious.

Each is told, or taken with exactly the state that is in the file, with which a step can then be made. A
trainer that has refused a file is what it was before.
"""

import copy
import hashlib
import io
import json
import os
import pickle
import random
import struct
import sys
import zipfile

import pytest
import torch
from rule import inputs, judge
from torch import Tensor, nn

from nasedu import DartsTrainer, EnasTrainer, accuracy, get_dataset, reward_accuracy
from nasedu.search import checkpoint
from nasedu.space import SmallCNN

pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol", "ignore:.*Sparse invariant")


class Victim:
    """A trainer, the bytes of a checkpoint of its run, and what it is when that run begins."""

    def __init__(self, method, folder):
        torch.set_num_threads(1)
        torch.manual_seed(0)
        model = SmallCNN(2)
        data, _ = get_dataset("shapes10", subset=(32, 10), input_size=8)
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        own = {"reward_function": reward_accuracy, "ctrl_steps": 1, "ctrl_steps_aggregate": 2}
        self.trainer = method(
            model=model,
            loss=nn.CrossEntropyLoss(),
            metrics=accuracy,
            optimizer=optimizer,
            scheduler=torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3),
            num_epochs=3,
            dataset=data,
            batch_size=8,
            device="cpu",
            progress=False,
            callbacks=[lambda trainer: trainer.save(self.path)],
            **(own if method is EnasTrainer else {}),
        )
        self.path, self.start = folder / f"{method.kind}.pt", folder / f"{method.kind}.start.pt"
        self.trainer.save(self.start)
        self.trainer.num_epochs = 2  # the file is of a run that has an epoch to go
        self.trainer.fit()
        self.trainer.num_epochs = 3
        self.trainer.load(self.path)
        self.trainer.train_step(2, 0)
        self.trainer.step = 1
        self.trainer.save(self.path)
        self.good = self.path.read_bytes()
        self.content = self.good[: self.good.rindex(b"\nnasedu-checkpoint")]
        self.renew()

    def renew(self):
        self.trainer.load(self.start)
        self.before = self.state()

    def state(self):
        return copy.deepcopy(checkpoint._state(self.trainer))

    def is_as_before(self):
        return checkpoint._same(self.state(), self.before)

    def has_taken(self, content):
        """Is the trainer now exactly what the file says, and can it go on?"""
        wanted = torch.load(io.BytesIO(content), weights_only=True)
        now = self.state()
        texts = [json.dumps(json.loads(each.pop("history"))["epochs"]) for each in (wanted, now)]
        assert texts[0] == texts[1] and checkpoint._same(now, wanted)
        self.trainer.train_step(0, 0)
        if isinstance(self.trainer, EnasTrainer):
            self.trainer.train_step(0, self.trainer.child_steps)
        return True


@pytest.fixture(scope="module", params=[DartsTrainer, EnasTrainer], ids=lambda method: method.kind)
def victim(request, tmp_path_factory):
    return Victim(request.param, tmp_path_factory.mktemp("attacked"))


def attack(victim, data, what):
    victim.path.write_bytes(data)
    content = data[: data.rindex(b"\nnasedu-checkpoint")] if b"\nnasedu-checkpoint" in data else data
    verdict = judge(
        "checkpoint", lambda: victim.trainer.load(victim.path), lambda _: victim.has_taken(content), what
    )
    if verdict == "right":
        victim.renew()
    else:
        assert victim.is_as_before(), f"{what}: refused, but the trainer has changed"
    return verdict


def sealed(content):
    return content + f"\nnasedu-checkpoint 2 {hashlib.sha256(content).hexdigest()}\n".encode()


def saved(state):
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


# ---- damage


def damaged(dice, data):
    """Bytes changed, lost, doubled or put elsewhere, as a bad disk or a cut connection does."""
    data = bytearray(data)
    start = dice.randrange(len(data))
    end = min(len(data), start + dice.choice([1, 16, 512, 5000]))
    kind = dice.choice(["bits", "bits", "bits", "cut", "lost", "doubled", "zeros", "noise", "moved", "more"])
    if kind == "bits":
        for _ in range(dice.choice([1, 1, 2, 8])):
            data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)
    elif kind == "cut":
        del data[start:]
    elif kind == "lost":
        del data[start:end]
    elif kind == "doubled":
        data[end:end] = data[start:end]
    elif kind == "zeros":
        data[start:end] = bytes(end - start)
    elif kind == "noise":
        data[start:end] = dice.randbytes(end - start)
    elif kind == "moved":
        part = data[start:end]
        del data[start:end]
        place = dice.randrange(len(data) + 1)
        data[place:place] = part
    else:
        data += dice.randbytes(dice.randrange(1, 2000))
    return kind, bytes(data)


def test_what_a_disk_does(victim):
    for seed in inputs("checkpoint", 0.2):
        kind, data = damaged(random.Random(seed), victim.good)
        verdict = attack(victim, data, f"seed {seed}: {kind}")
        assert verdict == "told" or data == victim.good, f"seed {seed}: {kind} was taken"


def test_damage_with_a_right_checksum(victim):
    for seed in inputs("checkpoint", 0.15):
        kind, content = damaged(random.Random(seed), victim.content)
        attack(victim, sealed(content), f"seed {seed}: {kind}, sealed again")


# ---- forgery


def places(value, path=()):
    """Every place in nested dicts and lists, as a path of keys."""
    if path:
        yield path
    if isinstance(value, dict | list | tuple):
        for key in value if isinstance(value, dict) else range(len(value)):
            yield from places(value[key], (*path, key))


def odd_tensor(dice, of):
    of = of if isinstance(of, Tensor) else torch.ones(3)
    flat = of.detach().clone().flatten()
    if flat.numel() and flat.is_floating_point():
        flat[dice.randrange(len(flat))] = dice.choice([float("nan"), float("inf"), -float("inf"), 1e30])
    return dice.choice(
        [
            flat.reshape(of.shape),
            flat.reshape(of.shape),
            of.to(torch.float64),
            of.to(torch.int8),
            of.to(torch.complex64),
            of.to(torch.bfloat16),
            of[None],
            of.flatten()[:1],
            of.flatten(),
            torch.tensor(0.5),
            torch.zeros(0),
            of.to_sparse() if of.dim() else of[None],
            torch.zeros(1).expand(10**12),
            torch.zeros((1,) * max(1, of.dim())).expand(of.shape or (1,)),
            nn.Parameter(of.float()),
        ]
    )


ODD = (
    None, True, False, -1, 0, 1, 2, 3, 10**9, 10**30, 1.5, 1e9, float("nan"), float("inf"), "", "x", b"x", (),
    [], {}, [1], {"a": 1}, [[[[[]]]]], "epoch", "1e9", {"state": {}, "param_groups": []}, 1j,
    torch.device("cpu"),
)  # fmt: skip


def changed(dice, state):
    """The state with one to three parts dropped, replaced, renamed or put in place of another."""
    said = []
    for _ in range(dice.choice([1, 1, 1, 2, 3])):
        path = dice.choice([p for p in places(state) if len(p) < dice.choice([2, 4, 9])])
        at = state
        for key in path[:-1]:
            at = at[key]
        if isinstance(at, tuple):
            continue
        kind = dice.choice(["drop", "odd", "odd", "tensor", "tensor", "swap", "add", "history"])
        said.append(f"{kind} {path}")
        if kind == "drop":
            del at[path[-1]]
        elif kind == "odd":
            at[path[-1]] = copy.deepcopy(dice.choice(ODD))
        elif kind == "tensor":
            at[path[-1]] = odd_tensor(dice, at[path[-1]])
        elif kind == "swap":
            other = dice.choice(list(at) if isinstance(at, dict) else range(len(at)))
            at[path[-1]], at[other] = at[other], at[path[-1]]
        elif kind == "add" and isinstance(at, dict):
            at[dice.choice([0, 10**9, "more", None, "step", "__class__"])] = copy.deepcopy(dice.choice(ODD))
        elif kind == "history" and isinstance(state, dict) and isinstance(state.get("history"), str):
            text = list(state["history"])
            for _ in range(dice.choice([1, 5])):
                text[dice.randrange(len(text))] = dice.choice('0123456789eE.-+[]{}":,N')
            state["history"] = "".join(text)
        if not isinstance(state, dict) or not state:
            break
    return ", ".join(said)


def test_forged_states_with_a_right_checksum(victim):
    for seed in inputs("checkpoint", 0.15):
        dice = random.Random(seed)
        state = torch.load(io.BytesIO(victim.content), weights_only=True)
        what = changed(dice, state)
        attack(victim, sealed(saved(state)), f"seed {seed}: {what}")


@pytest.mark.parametrize(
    "forge, said",
    [
        (lambda s: s.update(epoch=10**9), "is at epoch 1000000000; this run has 0 to 3"),
        (lambda s: s.update(step=10**9), "is at step 1000000000; this run has 0 to "),
        (lambda s: s.update(epoch=-1), "is at epoch -1"),
        (lambda s: s["config"]["augment"].update(flip=1), "it has .'augment.flip': 1., this run has .*True"),
        (lambda s: s.update(epoch=True), "is at epoch True"),
        (lambda s: s.update(epoch=1), "is at epoch 1, but its history has 2 lines"),
        (lambda s: s.pop("optimizer"), "wants the parts config, epoch, .*and has"),
        (lambda s: s["optimizer"].pop("state"), "has no optimizer's state"),
        (lambda s: s["optimizer"]["param_groups"][0].pop("lr"), "settings of another optimizer: group 0 lr"),
        (lambda s: s["optimizer"]["param_groups"][0].update(fused=""), "group 0 fused differs: str ''"),
        (lambda s: s["optimizer"]["state"][0].clear(), "parameter 0 momentum_buffer on one side only"),
        (lambda s: s["optimizer"]["state"].update({0: {"momentum_buffer": 3}}), "momentum_buffer"),
        (lambda s: next(iter(s["model"].values())).fill_(float("nan")), "numbers are not finite"),
        (lambda s: s["model"].popitem(), "weights of another model: .* on one side only"),
        (lambda s: s["scheduler"].update(step=5), "state of another scheduler: step on one side only"),
        (lambda s: s.update(extra={}), "no readable checkpoint .KeyError"),
        (lambda s: s.update(history="{"), "a history is JSON text"),
        (lambda s: s.update(history=3), "no readable checkpoint|history"),
        (lambda s: s.update(mean={"loss": [0.5]}), "has no mean of 'loss'"),
    ],
)  # fmt: skip
def test_each_part_is_looked_at(victim, forge, said):
    state = torch.load(io.BytesIO(victim.content), weights_only=True)
    forge(state)
    victim.path.write_bytes(sealed(saved(state)))
    with pytest.raises(checkpoint.CheckpointError, match=said) as caught:
        victim.trainer.load(victim.path)
    assert str(victim.path) in str(caught.value) and victim.is_as_before()


def test_the_good_file_is_taken(victim):
    assert attack(victim, victim.good, "the file as it was") == "right"


# ---- malice


class Opens:
    """A pickle that runs code where it is loaded."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Fills:
    """A pickle that asks for a lot of memory, of what torch allows."""

    def __reduce__(self):
        return bytearray, (10**13,)


def repacked(content, change=None, packed=zipfile.ZIP_STORED, more=()):
    """The archive again, with other parts: `change` is {end of a name: bytes}, `more` are (name, bytes)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(buffer, "w", packed) as new:
        for part in old.infolist():
            data = old.read(part)
            for end, other in (change or {}).items():
                data = other if part.filename.endswith(end) else data
            new.writestr(part.filename, data)
        for name, data in more:
            new.writestr(name, data)
    return buffer.getvalue()


def evil(content, folder):
    """Archives and pickles that are made to do harm: (what, content)."""
    nested = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    laughs = b"\x80\x02]q\x00" + b"".join(
        b"]q" + bytes([i + 1]) + b"(" + (b"h" + bytes([i])) * 10 + b"e" for i in range(40)
    )
    yield "a pickle with code", repacked(content, {"data.pkl": pickle.dumps(Opens(folder / "a"), 2)})
    yield "an old pickle with code", pickle.dumps(Opens(folder / "b"), 2)
    yield "no pickle", repacked(content, {"data.pkl": b"hello"})
    yield "an empty pickle", repacked(content, {"data.pkl": b""})
    yield "a nested pickle", repacked(content, {"data.pkl": nested})
    yield "a pickle of 10**40 lists", repacked(content, {"data.pkl": laughs + b"."})
    yield "much memory", repacked(content, {"data.pkl": pickle.dumps(Fills(), 2)})
    yield "a zip bomb", repacked(content, {"/data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED)
    yield "a packed archive", repacked(content, packed=zipfile.ZIP_DEFLATED)
    yield "short parts", repacked(content, {"/data/0": b""})
    yield "long parts", repacked(content, {"/data/0": bytes(2**20)})
    yield "another order of bytes", repacked(content, {"byteorder": b"big"})
    yield "odd order of bytes", repacked(content, {"byteorder": b"odd"})
    yield "another version", repacked(content, {"/version": b"99999999999999999999\n"})
    for name in (
        "../../escaped",
        "/escaped",
        str(folder / "escaped"),
        "archive/../../escaped",
        "C:\\escaped",
    ):
        yield f"a part named {name}", repacked(content, more=[(name, b"x")])
    yield "a part twice", repacked(content, more=[("archive/data.pkl", pickle.dumps({"epoch": 1}, 2))])
    yield "an old torch file", saved_old(torch.load(io.BytesIO(content), weights_only=True))
    yield "a tensor", saved(torch.zeros(3))
    yield "a list", saved([1, 2])
    yield "an empty dict", saved({})
    yield "empty", b""
    yield "an empty archive", b"PK\x05\x06" + bytes(18)
    yield "an archive that says it is large", content[:-10] + struct.pack("<I", 2**32 - 1) + content[-6:]


def saved_old(state):
    buffer = io.BytesIO()
    torch.save(state, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@pytest.mark.filterwarnings("ignore:Duplicate name", "ignore:The default of")
def test_malice(victim, tmp_path):
    limit = sys.getrecursionlimit()
    for what, content in evil(victim.content, tmp_path):
        for data in (content, sealed(content)):
            attack(victim, data, what)
    # As older versions wrote it, without the last line: told to be so.
    state = torch.load(io.BytesIO(victim.content), weights_only=True)
    attack(victim, saved({"format": "nasedu-checkpoint", **state}), "of an older nasedu")
    assert os.listdir(tmp_path) == [] and sys.getrecursionlimit() == limit, "nothing was run or written"


def test_packed_parts_are_refused_before_they_are_unpacked(victim):
    victim.path.write_bytes(sealed(repacked(victim.content, packed=zipfile.ZIP_DEFLATED)))
    with pytest.raises(checkpoint.CheckpointError, match="packed parts"):
        victim.trainer.load(victim.path)


def test_a_part_that_is_not_what_was_written_is_refused_though_the_file_adds_up(victim):
    with zipfile.ZipFile(io.BytesIO(victim.content)) as archive:
        data = bytearray(victim.content)
        data[archive.getinfo("archive/data/0").header_offset + 200] ^= 1  # past its name, which is padded
    victim.path.write_bytes(sealed(bytes(data)))
    with pytest.raises(checkpoint.CheckpointError, match="a broken part, archive/data/0"):
        victim.trainer.load(victim.path)


def test_a_folder_is_told(victim, tmp_path):
    with pytest.raises(checkpoint.CheckpointError, match="can't be read.*Is a directory"):
        victim.trainer.load(tmp_path)
