"""Odd images, odd folders, odd labels: read as they are meant, or told in a message with what to do."""

import os
import socket
import struct
import zlib

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import TensorDataset

from nasedu import Augment, ImageDataset, batches, get_dataset
from nasedu.data import DatasetError, InMemory, in_memory, seeded, shapes
from nasedu.data.datasets import Batches
from nasedu.errors import ArgumentError


@pytest.fixture
def folder(tmp_path):
    """Two classes of 8x8 images, 3 for training and 3 for testing each."""
    dice = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / split / name).mkdir(parents=True)
            for i in range(3):
                pixels = dice.integers(0, 256, (8, 8, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{i}.png")
    return tmp_path


def only(folder, image, name="a/x.png", **options):
    """What the package makes of one image: (3, 8, 8) uint8."""
    for old in (folder / "train" / "a").iterdir():
        old.unlink()
    image.save(folder / "train" / name, **options)
    train, _ = get_dataset(folder, input_size=8)
    return train.images[train.labels == 0][0]


def png(kind, depth, rows):
    """A PNG by hand, since Pillow writes no 16-bit colours: `kind` 2 RGB, 4 grey and alpha, 6 RGBA."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 8, 8, depth, kind, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


# ---- pixels


@pytest.mark.parametrize("value, wanted", [(40_000, 156), (0, 0), (65_535, 255), (128, 0), (129, 1)])
def test_sixteen_bits_of_grey_are_scaled_to_eight(folder, value, wanted):
    image = Image.fromarray(np.full((8, 8), value, np.uint16))
    assert (only(folder, image) == wanted).all()
    data = ImageDataset.from_dataset([(image, 0)])
    assert data.images.shape == (1, 1, 8, 8) and (data.images == wanted).all()


@pytest.mark.parametrize("kind, channels", [(2, 3), (6, 4), (4, 2)])
def test_sixteen_bits_of_colour_are_scaled_to_eight(folder, kind, channels):
    values = [40_000] * channels if kind == 2 else [40_000] * (channels - 1) + [65_535]
    (folder / "train" / "a" / "0.png").write_bytes(
        png(kind, 16, [struct.pack(f">{channels}H", *values) * 8] * 8)
    )
    train, _ = get_dataset(folder, input_size=8)
    assert any((image == 156).all() for image in train.images)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "L16"])
def test_what_is_transparent_is_laid_on_white(folder, mode):
    pixels = np.zeros((8, 8, 4), np.uint8)
    pixels[:4, :, 3] = 255  # the upper half is black, the lower one is not there
    image = Image.fromarray(pixels)
    if mode == "LA":
        image = image.convert("LA")
    options = {}
    if mode == "P":
        flat = np.zeros((8, 8), np.uint8)
        flat[4:] = 1
        image = Image.fromarray(flat, "P")
        image.putpalette([0, 0, 0, 9, 9, 9])
        options = {"transparency": 1}
    if mode == "L16":
        grey = np.zeros((8, 8), np.uint16)
        grey[4:] = 7
        image, options = Image.fromarray(grey), {"transparency": 7}
    found = only(folder, image, **options)
    assert (found[:, :4] == 0).all() and (found[:, 4:] == 255).all()


def test_what_is_half_transparent_is_mixed_with_white(folder):
    image = Image.new("RGBA", (8, 8), (200, 100, 0, 128))
    wanted = [round((value * 128 + 255 * 127) / 255) for value in (200, 100, 0)]
    found = only(folder, image)
    assert (found.flatten(1).float().mean(1) - torch.tensor(wanted)).abs().max() <= 1


def test_other_modes_are_what_pillow_makes_of_them(folder):
    dice = np.random.default_rng(1)
    base = Image.fromarray(dice.integers(0, 256, (8, 8, 3), dtype=np.uint8))
    for mode, name in (("1", "x.png"), ("L", "x.png"), ("P", "x.png"), ("CMYK", "x.jpg"), ("L", "x.jpeg")):
        found = only(folder, base.convert(mode), f"a/{name}")
        again = np.asarray(Image.open(folder / "train" / "a" / name).convert("RGB")).transpose(2, 0, 1)
        assert (found.numpy() == again).all(), mode


@pytest.mark.parametrize("mode, value", [("F", 0.5), ("I", 70_000), ("I", -1)])
def test_pixels_of_no_picture_are_told(mode, value):
    with pytest.raises(DatasetError, match="image 0 of list.*wanted 8 or 16 bits a channel"):
        ImageDataset.from_dataset([(Image.new(mode, (8, 8), value), 0)])


# Pillow runs PostScript where there is a program for it; a PPM it reads everywhere, so this one tells.
@pytest.mark.parametrize(
    "content",
    [b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n", b"P6 8 8 255\n" + bytes(192)],
    ids=["PostScript", "PPM"],
)
def test_a_file_of_another_format_is_no_image(folder, content):
    (folder / "train" / "a" / "0.png").write_bytes(content)
    with pytest.raises(DatasetError, match="0.png cannot be read as an image.*repair or remove"):
        get_dataset(folder)


# ---- folders


def test_hidden_files_and_folders_are_left_out(folder):
    before, _ = get_dataset(folder, input_size=8)
    (folder / "train" / "a" / "._0.png").write_bytes(b"\0\5\26\7 of macOS")
    (folder / "train" / "b" / ".DS_Store").write_bytes(b"x")
    (folder / "train" / "b" / ".hidden.jpg").mkdir()
    (folder / "train" / ".ipynb_checkpoints").mkdir()
    (folder / "train" / "notes.txt").write_text("no folder")
    (folder / "train" / "a" / "notes.txt").write_text("no image")
    after, _ = get_dataset(folder, input_size=8)
    assert torch.equal(before.images, after.images) and before.classes == after.classes


@pytest.mark.timeout(20)
@pytest.mark.parametrize("kind", ["pipe", "socket", "device", "folder", "broken link", "circle"])
def test_what_is_no_file_is_told_and_not_waited_for(folder, kind, monkeypatch):
    monkeypatch.chdir(folder / "train" / "a")  # a socket's name must be short
    if kind == "pipe":
        os.mkfifo("x.png")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as server:
            server.bind("x.png")
    elif kind == "folder":
        os.mkdir("x.png")
    else:
        os.symlink({"device": "/dev/zero", "broken link": "nowhere", "circle": "x.png"}[kind], "x.png")
    with pytest.raises(
        DatasetError, match="x.png is named as an image, but is no file, or a broken link; remove"
    ):
        get_dataset(folder)


def test_a_link_to_an_image_and_to_a_folder_is_followed(folder):
    before, _ = get_dataset(folder, input_size=8)
    (folder / "train" / "b").rename(folder / "elsewhere")
    (folder / "train" / "b").symlink_to(folder / "elsewhere")
    (folder / "train" / "a" / "0.png").rename(folder / "one.png")
    (folder / "train" / "a" / "0.png").symlink_to(folder / "one.png")
    assert torch.equal(get_dataset(folder, input_size=8)[0].images, before.images)


def test_a_folder_that_may_not_be_read_is_told(folder, monkeypatch):
    def closed(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", closed)
    with pytest.raises(DatasetError, match=r"train cannot be read \(Permission denied\); change its rights"):
        get_dataset(folder)


def test_what_does_not_fit_in_memory_is_told_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 1000)  # a machine of a megabyte
    with pytest.raises(DatasetError, match="6 images of 1024 x 1024.*smaller input_size|12 images"):
        get_dataset(folder, input_size=1024)
    with pytest.raises(DatasetError, match="12,000 images of 32 x 32 pixels.*take a subset"):
        get_dataset("shapes10")


def test_large_drawings_are_drawn_in_small_parts_with_the_same_pixels(monkeypatch):
    whole = shapes.draw(6, size=64)[0]
    monkeypatch.setattr(shapes, "CHUNK", 1)
    assert (shapes.draw(6, size=64)[0] == whole).all()


# ---- labels


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "label", [10**30, 10**6, 1.5, 1.0, -1, True, "1", None, torch.tensor(1.5), torch.ones(2)]
)
def test_a_label_that_is_none_is_told(label):
    image = Image.new("RGB", (8, 8))
    with pytest.raises(DatasetError, match=r"label 1 of list is .*; wanted a whole number from 0 to 999"):
        ImageDataset.from_dataset([(image, 0), (image, label)])


@pytest.mark.parametrize("label", [1, np.int64(1), torch.tensor(1), torch.tensor([1]), np.array(1)])
def test_a_label_may_be_of_any_make(label):
    image = Image.new("RGB", (8, 8))
    assert ImageDataset.from_dataset([(image, 0), (image, label)]).labels.tolist() == [0, 1]


def test_with_names_there_may_be_as_many_classes_as_there_are_names():
    class Named(list):
        classes = [str(i) for i in range(5000)]

    image = Image.new("RGB", (8, 8))
    assert ImageDataset.from_dataset(Named([(image, 4999)])).labels.tolist() == [4999]
    with pytest.raises(DatasetError, match="wanted a whole number from 0 to 4,999"):
        ImageDataset.from_dataset(Named([(image, 5000)]))


def images(n=4):
    return torch.zeros(n, 3, 8, 8, dtype=torch.uint8)


@pytest.mark.parametrize(
    "labels",
    [torch.ones(4).bool(), torch.ones(4).cfloat(), torch.ones(4), torch.ones(4, 1).long(), [0, 1, 0, 1]],
)
def test_labels_of_another_type_are_told(labels):
    with pytest.raises(DatasetError, match="wanted (one integer for each|two tensors)"):
        ImageDataset(images(), labels, ["a", "b"])


@pytest.mark.parametrize(
    "odd",
    [
        (0.5,),
        (0.5,) * 4,
        (0.5, 0.5, float("nan")),
        (0.5, 0.5, "1"),
        0.5,
        "abc",
        (0.5, 0.5, 2.0),
        torch.ones(1, 3),
    ],
)
@pytest.mark.parametrize("name", ["mean", "std"])
def test_a_mean_or_std_that_does_not_fit_is_told(name, odd):
    good = {"mean": (0.5,) * 3, "std": [0.5] * 3}
    data = ImageDataset(images(), torch.zeros(4).long(), ["a"], **good)
    assert data.mean.tolist() == data.std.tolist() == [0.5] * 3
    with pytest.raises(DatasetError, match=f"{name}.* is .*; wanted"):
        ImageDataset(images(), torch.zeros(4).long(), ["a"], **{**good, name: odd})


def test_a_std_of_zero_is_told():
    with pytest.raises(DatasetError, match="std of channel 1 is 0; wanted a number from 0.001 to 1"):
        ImageDataset(images(), torch.zeros(4).long(), ["a"], mean=(0, 0, 0), std=(1, 0, 1))


@pytest.mark.parametrize("classes", ["ab", 2, None])
def test_classes_are_a_list(classes):
    with pytest.raises(DatasetError, match="classes is .*; wanted a list of names"):
        ImageDataset(images(), torch.zeros(4).long(), classes)


# ---- datasets and batches


@pytest.mark.parametrize("subset", ["5", 5.0, (5,), (5, 5, 5), ("5", 5), True, (None, 5), {5, 6}, 10**400])
def test_a_subset_that_is_no_number_is_told(subset):
    with pytest.raises(DatasetError, match="subset"):
        get_dataset("shapes10", subset=subset, input_size=8)


@pytest.mark.parametrize("size", [100_000, 7, 8.0, "32", None, True])
def test_an_input_size_that_is_none_is_told(size):
    with pytest.raises(DatasetError, match="input_size is .*; wanted a whole number from 8 to 1,024"):
        get_dataset("shapes10", subset=8, input_size=size)


@pytest.mark.parametrize("seed", [-1, 0.5, 1.0, "1", None, True, 2**64])
def test_a_seed_that_is_none_is_told(seed):
    with pytest.raises(ArgumentError, match="a number of a seed is .*; wanted a whole number from 0"):
        seeded(0, seed)
    with pytest.raises(DatasetError, match="seed is"):
        get_dataset("shapes10", subset=8, seed=seed)
    assert seeded(np.int64(3)).initial_seed() == seeded(3).initial_seed() != seeded(4).initial_seed()


@pytest.mark.parametrize("size", [0, -1, 1.5, "4", None, 9])
def test_a_batch_size_that_gives_no_batch_is_told(size):
    data, _ = get_dataset("shapes10", subset=8, input_size=8)
    with pytest.raises(DatasetError, match="batch_size"):
        next(batches(data, size))
    with pytest.raises(DatasetError, match="batch_size is .*; wanted a whole number from 1 to 8"):
        Batches(data, size, None, 0, 1, torch.device("cpu"))


@pytest.mark.parametrize("indices", [[8], [-9], [1.5], [True], torch.tensor([0.0])])
def test_items_that_are_not_there_are_told(indices):
    data, _ = get_dataset("shapes10", subset=8, input_size=8)
    with pytest.raises(DatasetError, match="of the numbers of the 8 items one is .*; wanted"):
        data.take(indices)
    assert len(data.take([])) == 0 and len(data.take(range(8))) == 8


@pytest.mark.parametrize(
    "options", [{"crop_padding": 10**9}, {"cutout": 2.5}, {"crop_padding": "4"}, {"fill": "red"}]
)
def test_an_augmentation_that_cannot_be_is_told(options):
    with pytest.raises(DatasetError, match=f"{next(iter(options))} is .*; wanted"):
        Augment(**options)


@pytest.mark.parametrize(
    "odd", [None, 3, "abc", {}, [], {"a": 1}, [1, 2], [(1, 2, 3)], [("a", 0)], torch.ones(3), list]
)
def test_what_is_no_dataset_is_told(odd):
    with pytest.raises(DatasetError, match="wanted"):
        in_memory(odd)
    with pytest.raises(DatasetError, match="wanted"):
        ImageDataset.from_dataset(odd)


@pytest.mark.parametrize(
    "items",
    [
        [(torch.ones(3), 0), (torch.ones(4), 0)],
        [(torch.ones(3), 0), ("x", 0)],
        [(torch.ones(3), 0), (torch.ones(3).long(), 0)],
        [(torch.ones(3), 0), (torch.ones(3), torch.ones(2))],
        [(torch.ones(3), 0), (torch.ones(3), "x")],
    ],
)
def test_items_that_differ_are_told(items):
    with pytest.raises(DatasetError, match="wanted (tensors of one shape|numbers or tensors)"):
        in_memory(items)
    assert len(in_memory(TensorDataset(torch.ones(4, 3), torch.arange(4)))) == 4


@pytest.mark.parametrize("odd", [(1, 2), (torch.ones(2), [0, 1]), (torch.tensor(1.0), torch.tensor(1))])
def test_data_that_are_no_tensors_are_told(odd):
    with pytest.raises(DatasetError, match="wanted"):
        InMemory(*odd)
