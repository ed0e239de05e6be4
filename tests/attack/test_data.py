"""Folders of odd images, odd datasets and odd archives: told, or read as a slow and obvious way does."""

import hashlib
import io
import os
import random
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from odd import value
from PIL import Image, ImageOps
from rule import attack, judge

from nasedu import ImageDataset, get_dataset
from nasedu.data import cifar10_folder
from nasedu.data.download import CIFAR10_FOLDER

# ---- folders


def image(dice):
    """An image of any mode and size."""
    size = dice.choice([(8, 8), (12, 8), (5, 9), (1, 1), (20, 3)])
    rng = np.random.default_rng(dice.randrange(2**32))
    mode = dice.choice(["RGB", "L", "RGBA", "LA", "P", "1", "I;16", "CMYK", "YCbCr", "clear"])
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 2**16, size[::-1], dtype=np.uint16))
    pixels = rng.integers(0, 256, (*size[::-1], 4), dtype=np.uint8)
    if mode == "clear":
        made = Image.fromarray(pixels[..., 0], "L").convert("P")
        made.info["transparency"] = 0
        return made
    return Image.fromarray(pixels, "RGBA").convert(mode)


def put(path, dice, share):
    """Write something named as an image."""
    what = dice.random() if dice.random() < share else 0
    name = dice.choice(["x", "é ü", "a'b\"", "$HOME", "-x", "n" * 200]) + str(dice.randrange(100))
    path = path / f"{name}{dice.choice(['.png', '.PNG', '.jpg', '.jpeg'])}"
    made = image(dice)
    if path.suffix != ".jpg" and path.suffix != ".jpeg":
        kind = "PNG" if made.mode not in ("CMYK", "YCbCr") else "JPEG"
    else:
        kind = "JPEG" if made.mode in ("RGB", "L", "CMYK", "YCbCr") else "PNG"
    buffer = io.BytesIO()
    made.save(buffer, kind)
    content = buffer.getvalue()
    if what < 0.72:
        path.write_bytes(content)
    elif what < 0.78:
        path.write_bytes(content[: dice.randrange(len(content))])
    elif what < 0.84:
        at = dice.randrange(len(content))
        path.write_bytes(content[:at] + bytes([dice.randrange(256)]) + content[at + 1 :])
    elif what < 0.88:
        path.with_name("._" + path.name).write_bytes(b"\x00\x05\x16\x07")
    elif what < 0.91:
        path.mkdir(exist_ok=True)
    elif what < 0.94:
        path.unlink(missing_ok=True)
        path.symlink_to(dice.choice(["nowhere", path.name, "/dev/zero", ".."]))
    elif what < 0.96:
        path.unlink(missing_ok=True)
        os.mkfifo(path)
    elif what < 0.98:
        kind = dice.choice(["GIF", "BMP", "TIFF", "PPM"])
        made.convert("L").save(path, kind)
    else:
        path.write_bytes(dice.choice([b"", b"text", b"%!PS\nshowpage", b"\x89PNG\r\n\x1a\n", bytes(1000)]))


def folder(root, dice):
    share = dice.choice([0, 0.1, 0.5])  # of images that are odd
    for split in ("train", "test"):
        if dice.random() < 0.05:
            continue
        for name in dice.choice(
            [["a", "b"], ["a", "b"], ["a", "b"], ["a"], ["<script>", "é"], ["a", ".b", "c"]]
        ):
            place = root / split / name
            place.mkdir(parents=True, exist_ok=True)
            for _ in range(dice.randint(0 if dice.random() < 0.1 else 1, 3)):
                put(place, dice, share)


def plainly(path, size):
    """One image as bytes (3, size, size), the slow way: pixel by pixel where it is not Pillow's own."""
    with Image.open(path) as opened:
        made = ImageOps.exif_transpose(opened)
    if made.mode.startswith("I"):
        grey = np.asarray(made).astype(float) / 65535 * 255
        made = Image.fromarray(np.floor(grey + 0.5).astype(np.uint8))
    elif "A" in made.mode or "transparency" in made.info:
        pixels = np.asarray(made.convert("RGBA")).astype(float)
        alpha = pixels[..., 3:] / 255
        mixed = pixels[..., :3] * alpha + 255 * (1 - alpha)
        made = Image.fromarray(np.floor(mixed + 0.5).astype(np.uint8))
    made = made.convert("RGB")
    if made.size != (size, size):
        made = ImageOps.fit(made, (size, size), Image.Resampling.BILINEAR)
    return np.asarray(made).transpose(2, 0, 1).astype(int)


def check_folder(pair, root, size, everything):
    train, test = pair
    for part, split in ((train, "train"), (test, "test")):
        assert part.labels.max() < len(part.classes) and torch.isfinite(part[0][0]).all()
        if not everything or not (root / split).is_dir():
            continue
        wanted = [
            (name, plainly(file, size))
            for name in part.classes
            for file in sorted((root / split / name).iterdir())
            if not file.name.startswith(".") and file.suffix.lower() in (".png", ".jpg", ".jpeg")
        ]
        assert len(wanted) == len(part)
        for pixels, label in zip(part.images.numpy().astype(int), part.labels.tolist(), strict=True):
            name = part.classes[label]
            near = [
                i for i, (of, other) in enumerate(wanted) if of == name and abs(other - pixels).max() <= 1
            ]
            assert near, f"an image of {split}/{name} is none of the folder's"
            del wanted[near[0]]


@pytest.mark.filterwarnings("ignore")
def test_folders(tmp_path):
    def one(seed):
        dice = random.Random(seed)
        root = tmp_path / str(seed)
        root.mkdir()
        folder(root, dice)
        size = dice.choice([8, 8, 16, value(dice)]) if dice.random() < 0.2 else 8
        subset = dice.choice([2, (1, 1), 10**6, "5", value(dice)]) if dice.random() < 0.3 else None
        at_most = dice.random() < 0.3
        judge(
            "dataset",
            lambda: get_dataset(root, subset=subset, input_size=size, at_most=at_most),
            lambda pair: check_folder(pair, root, size, subset is None and (root / "test").is_dir()),
            [str(path.relative_to(root)) for path in sorted(root.rglob("*"))],
        )

    attack("dataset", one, 0.6)


# ---- datasets of one's own


def test_datasets():
    def item(dice):
        x = dice.choice(
            [
                Image.new("RGB", (4, 4), (9, 9, 9)),
                torch.full((3, 4, 4), 9 / 255),
                torch.full((3, 4, 4), 9).byte(),
            ]
        )
        return [dice.choice([x, value(dice)]) if dice.random() < 0.15 else x, dice.choice([0, 1, 2])]

    def one(seed):
        dice = random.Random(seed)
        items = [item(dice) for _ in range(dice.randint(1, 4))]
        if dice.random() < 0.5:
            items[-1][1] = value(dice)
        if dice.random() < 0.1:
            items = value(dice)

        def same(data):
            assert len(data) == len(items) and data.labels.tolist() == [int(label) for _, label in items]
            assert (data.images == 9).all() and len(data.classes) <= 1000

        judge("dataset", lambda: ImageDataset.from_dataset(items), same, seed)

    attack("dataset", one, 0.2)


# ---- archives


def archive(path, dice):
    """A .tar.gz, with members that want to be somewhere else."""
    names = [
        f"{CIFAR10_FOLDER}/batch", "../out", "/tmp/nasedu-out", f"{CIFAR10_FOLDER}/../../out",
        "a/../../../out", "",
        f"{CIFAR10_FOLDER}", "..", "~/out", "\\\\out", "C:/out", "out\n",
    ]  # fmt: skip
    kinds = [
        tarfile.REGTYPE,
        tarfile.SYMTYPE,
        tarfile.LNKTYPE,
        tarfile.FIFOTYPE,
        tarfile.CHRTYPE,
        tarfile.DIRTYPE,
    ]
    with tarfile.open(path, dice.choice(["w:gz", "w:gz", "w", "w:bz2"])) as tar:
        if dice.random() < 0.7:
            member = tarfile.TarInfo(f"{CIFAR10_FOLDER}/data")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
        for _ in range(dice.randint(0, 3)):
            member = tarfile.TarInfo(dice.choice(names))
            member.type = dice.choice(kinds) if dice.random() < 0.6 else tarfile.REGTYPE
            member.linkname = dice.choice(["../../out", "/etc/passwd", "..", "data", str(Path.home())])
            member.mode = dice.choice([0o644, 0o4777, 0])
            member.size = 3 if member.isreg() else 0
            tar.addfile(member, io.BytesIO(b"out") if member.isreg() else None)
    if dice.random() < 0.2:
        content = bytearray(path.read_bytes())
        content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
        path.write_bytes(bytes(content)[: dice.choice([len(content), dice.randrange(len(content))])])


def test_archives(tmp_path, monkeypatch):
    monkeypatch.setenv("NASEDU_OFFLINE", "1")

    def one(seed):
        dice = random.Random(seed)
        root = tmp_path / str(seed) / "cache"
        root.mkdir(parents=True)
        path = root / "cifar-10-python.tar.gz"
        archive(path, dice)
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        if dice.random() < 0.1:
            md5 = "0" * 32

        def inside(found):
            assert found == root and (root / CIFAR10_FOLDER).exists()

        try:
            judge("dataset", lambda: cifar10_folder(root, md5=md5), inside, seed)
        finally:  # told or taken, nothing lies anywhere else
            assert [each.name for each in root.parent.iterdir()] == ["cache"]
            assert {each.name for each in root.iterdir()} <= {path.name, CIFAR10_FOLDER}
            assert not Path("/tmp/nasedu-out").exists()
            for each in (root / CIFAR10_FOLDER).rglob("*") if (root / CIFAR10_FOLDER).is_dir() else ():
                assert each.resolve().is_relative_to(root), f"{each} leads out"

    attack("dataset", one, 0.2)
