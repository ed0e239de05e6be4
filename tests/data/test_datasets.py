"""Datasets, folders, batches and augmentation, each against something slow and obvious."""

import hashlib
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Subset, random_split

from nasedu import get_dataset
from nasedu.data import download
from nasedu.data.datasets import (
    CIFAR10_MEAN,
    Augment,
    DatasetError,
    ImageDataset,
    balanced_order,
    batch_at,
    batches,
    seeded,
)
from nasedu.data.download import DownloadError

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(autouse=True)
def no_settings(monkeypatch, tmp_path):
    for name in ("NASEDU_DATA", "NASEDU_OFFLINE", "NASEDU_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def random_images(n: int = 12, size: int = 8, channels: int = 3) -> Tensor:
    return torch.randint(256, (n, channels, size, size), dtype=torch.uint8, generator=seeded(1, n, size))


def random_dataset(n: int = 12, size: int = 8, n_classes: int = 3) -> ImageDataset:
    return ImageDataset(
        random_images(n, size), torch.arange(n) % n_classes, [f"c{i}" for i in range(n_classes)]
    )


# ---- ImageDataset


def test_items_are_normalised_by_the_statistics_of_the_images():
    data = random_dataset()
    x = data.images.numpy() / 255.0
    mean, std = x.mean((0, 2, 3)), x.std((0, 2, 3))
    np.testing.assert_allclose(data.mean, mean, rtol=1e-6)
    np.testing.assert_allclose(data.std, std, rtol=1e-6)
    image, label = data[5]
    assert label == 2 and isinstance(label, int) and image.dtype == torch.float32
    np.testing.assert_allclose(image, (x[5] - mean[:, None, None]) / std[:, None, None], atol=1e-5)


def test_a_constant_channel_does_not_divide_by_zero():
    data = ImageDataset(torch.full((4, 3, 8, 8), 7, dtype=torch.uint8), torch.zeros(4).long(), ["only"])
    assert torch.isfinite(data[0][0]).all()


def test_take_split_and_to_keep_everything_else():
    data = random_dataset()
    taken, (first, rest) = data.take([3, 1]), data.split(5)
    assert (taken.images == data.images[[3, 1]]).all() and taken.labels.tolist() == [0, 1]
    assert len(first) == 5 and len(rest) == 7 and (rest.images == data.images[5:]).all()
    for part in (taken, first, rest, data.to("cpu")):
        assert (part.mean == data.mean).all() and (part.std == data.std).all()
        assert part.classes == data.classes and part.source == data.source
    for n in (0, 12):
        with pytest.raises(DatasetError, match=f"is {n}; wanted a whole number from 1 to 11"):
            data.split(n)


@pytest.mark.parametrize(
    "images, labels, message",
    [
        (torch.zeros(2, 3, 8, 8), torch.zeros(2).long(), "float32"),
        (random_images(2)[0], torch.zeros(3).long(), r"\(3, 8, 8\)"),
        (random_images(2), torch.zeros(3).long(), r"\(3,\)"),
        (random_images(2), torch.zeros(2), "one integer"),
        (random_images(2), torch.tensor([0, 2]), "from 0 to 2"),
        (random_images(2), torch.tensor([-1, 0]), "from -1 to 0"),
    ],
)
def test_wrong_tensors_are_refused(images, labels, message):
    with pytest.raises(DatasetError, match=message):
        ImageDataset(images, labels, ["a", "b"])


class Items(torch.utils.data.Dataset):
    def __init__(self, items):
        self.items = items

    def __len__(self):
        return len(self.items)

    def __getitem__(self, i):
        return self.items[i]


def test_from_dataset_reads_pil_bytes_and_floats():
    images = random_images(4)
    arrays = [image.permute(1, 2, 0).numpy() for image in images]
    for items in (
        [(Image.fromarray(a), i) for i, a in enumerate(arrays)],
        [(image, torch.tensor(i)) for i, image in enumerate(images)],
        [(image / 255, i) for i, image in enumerate(images)],
        [(Image.fromarray(a).convert("RGBA"), i) for i, a in enumerate(arrays)],
    ):
        data = ImageDataset.from_dataset(Items(items))
        assert (data.images == images).all() and data.labels.tolist() == [0, 1, 2, 3]
        assert data.classes == ["0", "1", "2", "3"]
    grey = ImageDataset.from_dataset(Items([(Image.fromarray(arrays[0][:, :, 0]), 0)]))
    assert (grey.images == images[:1, :1]).all()


def test_from_dataset_rounds_floats_to_the_nearest_byte():
    data = ImageDataset.from_dataset(Items([(torch.full((3, 8, 8), 99.9 / 255), 0)]))
    assert (data.images == 100).all()


def test_from_dataset_takes_ours_and_subsets_of_ours():
    data = random_dataset()
    assert ImageDataset.from_dataset(data) is data
    part = ImageDataset.from_dataset(Subset(Subset(data, [5, 3, 1]), [2, 0]))
    assert (part.images == data.images[[1, 5]]).all() and (part.mean == data.mean).all()
    halves = random_split(data, [6, 6], generator=seeded(0))
    assert sum(len(ImageDataset.from_dataset(half)) for half in halves) == 12


@pytest.mark.parametrize(
    "items, message",
    [
        ([(torch.randn(3, 8, 8), 0)], "leave Normalize out"),
        ([(torch.full((3, 8, 8), float("nan")), 0)], "leave Normalize out"),
        ([(torch.zeros(8, 8), 0)], r"shape \(8, 8\)"),
        ([("a.png", 0)], "image 0 of Items is str"),
        ([(torch.zeros(3, 8, 8), 0), (torch.zeros(3, 8, 9), 0)], "add Resize"),
        ([], "len"),
    ],
)
def test_from_dataset_says_what_is_wrong(items, message):
    with pytest.raises(DatasetError, match=message):
        ImageDataset.from_dataset(Items(items))


def test_from_dataset_refuses_a_stream():
    with pytest.raises(DatasetError, match="generator"):
        ImageDataset.from_dataset(x for x in [])


def test_a_torch_data_loader_reads_it_too():
    x, y = next(iter(DataLoader(random_dataset(), batch_size=4)))
    assert x.shape == (4, 3, 8, 8) and y.tolist() == [0, 1, 2, 0]


# ---- augmentation


def crops_and_flips(image: Tensor, padding: int) -> dict[bytes, tuple[int, int, bool]]:
    """Every crop of one padded image, flipped or not, pixel by pixel: {bytes: (down, right, flipped)}."""
    c, h, w = image.shape
    found = {}
    for down in range(-padding, padding + 1):
        for right in range(-padding, padding + 1):
            crop = torch.zeros_like(image)
            for i in range(h):
                for j in range(w):
                    if 0 <= i + down < h and 0 <= j + right < w:
                        crop[:, i, j] = image[:, i + down, j + right]
            found[crop.contiguous().numpy().tobytes()] = (down, right, False)
            found[crop.flip(2).contiguous().numpy().tobytes()] = (down, right, True)
    return found


def test_augment_is_a_crop_and_a_flip_of_each_image_and_draws_all_of_them():
    images = random_images(3, size=6)
    options = [crops_and_flips(image, padding=2) for image in images]
    x = images.repeat(200, 1, 1, 1)
    out = Augment(crop_padding=2)(x, seeded(0))
    assert out.dtype == torch.uint8 and out.shape == x.shape
    drawn = [options[i % 3][image.contiguous().numpy().tobytes()] for i, image in enumerate(out)]
    assert set(drawn) == {(d, r, f) for d in range(-2, 3) for r in range(-2, 3) for f in (False, True)}
    counts = np.unique(np.array(drawn)[:, 2], return_counts=True)[1]
    assert abs(counts[0] - 300) < 70  # six standard deviations
    assert len(set(drawn[:30])) > 10, "images of one batch must be drawn apart"


def test_augment_without_anything_is_the_identity_and_single_parts_do_only_their_part():
    x = random_images(40)
    assert (Augment(crop_padding=0, flip=False)(x, seeded(0)) == x).all()
    flipped = Augment(crop_padding=0)(x, seeded(0))
    same, mirrored = (flipped == x).flatten(1).all(1), (flipped == x.flip(3)).flatten(1).all(1)
    assert (same ^ mirrored).all() and same.any() and mirrored.any()


@pytest.mark.parametrize("cutout", [1, 3, 4])
def test_cutout_is_one_square_clipped_at_the_border(cutout):
    x = torch.full((400, 3, 6, 6), 200, dtype=torch.uint8)
    out = Augment(crop_padding=0, flip=False, cutout=cutout, fill=(0.0, 0.2, 0.4))(x, seeded(0))
    centres = set()
    squares = {}
    for i in range(6):
        for j in range(6):
            expected = x[0].clone()
            for a in range(max(0, i - cutout // 2), min(6, i - cutout // 2 + cutout)):
                for b in range(max(0, j - cutout // 2), min(6, j - cutout // 2 + cutout)):
                    expected[:, a, b] = torch.tensor([0, 51, 102], dtype=torch.uint8)
            squares[expected.numpy().tobytes()] = (i, j)
    for image in out:
        centres.add(squares[image.contiguous().numpy().tobytes()])
    assert len(centres) == 36


def test_augment_does_the_same_to_floats_and_bytes():
    x, augment = random_images(), Augment(crop_padding=3, cutout=3, fill=(0.2, 0.4, 0.6))
    out = augment(x / 255, seeded(4))
    torch.testing.assert_close(out, augment(x, seeded(4)) / 255)
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_the_default_hole_is_the_mean_of_cifar10_and_becomes_zero():
    data = random_dataset(size=16)
    data = ImageDataset(data.images, data.labels, data.classes, mean=CIFAR10_MEAN, std=(0.2, 0.2, 0.2))
    x, _ = batch_at(data, torch.arange(12), Augment(cutout=8), seeded(0))
    assert ((x == 0).all(1).flatten(1).sum(1) >= 16).all()


def test_augment_refuses_negative_sizes():
    for wrong in ({"crop_padding": -1}, {"cutout": -2}):
        with pytest.raises(ValueError, match="wanted a whole number from 0"):
            Augment(**wrong)


# ---- batches


def test_a_batch_is_normalised_channels_last_and_in_the_order_asked():
    data = random_dataset()
    x, y = batch_at(data, torch.tensor([7, 2, 2]))
    assert x.is_contiguous(memory_format=torch.channels_last) and x.dtype == torch.float32
    assert y.tolist() == [1, 2, 2]
    torch.testing.assert_close(x, torch.stack([data[i][0] for i in (7, 2, 2)]))


def test_augment_sees_the_images_before_they_are_normalised():
    data, seen = random_dataset(), []

    def spy(x, generator):
        seen.append(x)
        return 1 - x

    x, _ = batch_at(data, torch.arange(12), spy, seeded(0))
    torch.testing.assert_close(seen[0], data.images / 255)
    torch.testing.assert_close(x, data.normalise(1 - data.images / 255))


def labelled_by_number(n: int) -> ImageDataset:
    return ImageDataset(random_images(n), torch.arange(n), [str(i) for i in range(n)])


@pytest.mark.parametrize("drop_last, counts", [(True, [4, 4]), (False, [4, 4, 3])])
def test_an_epoch_shows_each_image_once(drop_last, counts):
    data = labelled_by_number(11)
    got = [y for _, y in batches(data, 4, seeded(0), drop_last=drop_last)]
    assert [len(y) for y in got] == counts
    assert len(set(torch.cat(got).tolist())) == sum(counts)
    assert torch.cat(got).tolist() != sorted(torch.cat(got).tolist())


def test_without_a_generator_the_order_is_the_datasets():
    got = torch.cat([y for _, y in batches(labelled_by_number(11), 4, drop_last=False)])
    assert got.tolist() == list(range(11))


def test_batches_are_a_function_of_the_generator():
    data, augment = labelled_by_number(12), Augment(crop_padding=2)
    epochs = [list(batches(data, 4, generator, augment)) for generator in (seeded(3), seeded(3), seeded(4))]
    for (x, y), (x2, y2), (x3, _) in zip(*epochs, strict=True):
        assert (x == x2).all() and (y == y2).all() and not (x == x3).all()
    again = seeded(3)
    order = torch.randperm(12, generator=again)
    state = again.get_state()
    x, _ = batch_at(data, order[:4], augment, again)
    assert (x == epochs[0][0][0]).all()
    again.set_state(state)
    assert (batch_at(data, order[:4], augment, again)[0] == x).all()


@pytest.mark.parametrize("n, size, drop_last", [(3, 4, True), (3, 0, True), (3, -1, False)])
def test_no_batch_at_all_is_an_error(n, size, drop_last):
    with pytest.raises(
        DatasetError, match="smaller batch_size|batch_size is .*wanted a whole number from 1 up"
    ):
        next(batches(random_dataset(n), size, drop_last=drop_last))


def test_seeded_gives_each_combination_its_own_stream():
    keys = [(0,), (0, 0), (0, 0, 0), (1,), (1, 0), (0, 1), (2, 1), (1, 2), (1, 2, 0)]
    assert len({tuple(torch.randint(1 << 30, (4,), generator=seeded(*key)).tolist()) for key in keys}) == len(
        keys
    )
    assert (
        torch.randint(1000, (3,), generator=seeded(5, 6)).tolist()
        == torch.randint(1000, (3,), generator=seeded(5, 6)).tolist()
    )


def test_balanced_order_lets_the_classes_take_turns():
    labels = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [10, 4, 7]))
    order = balanced_order(labels, seed=1)
    assert sorted(order) == list(range(21))
    for n in range(1, 13):  # as long as no class has run out
        counts = np.bincount(labels[order[:n]], minlength=3)
        assert counts.max() - counts.min() <= 1
    assert (balanced_order(labels, 1) == order).all() and (balanced_order(labels, 2) != order).any()


# ---- image folders


def write_folder(root: Path, per_class: int = 3, size=(10, 8), classes=("cat", "dog")) -> Path:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in classes:
            (root / split / name).mkdir(parents=True)
            for i in range(per_class):
                pixels = rng.integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{i}.{'png' if i % 2 else 'PNG'}")
    return root


def test_a_folder_is_read_scaled_and_centre_cropped(tmp_path):
    root = write_folder(tmp_path / "pets")
    train, valid = get_dataset(root, input_size=8)
    assert len(train) == len(valid) == 6 and train.classes == ["cat", "dog"]
    assert train.name == "pets" and str(root) in train.source
    assert train.labels.tolist() == [0, 1] * 3, "the classes take turns"
    assert (valid.mean == train.mean).all()
    originals = {
        np.asarray(Image.open(path))[:, 1:9].tobytes() for path in (root / "train").rglob("*.[pP][nN][gG]")
    }
    assert {image.permute(1, 2, 0).numpy().tobytes() for image in train.images} == originals


@pytest.mark.parametrize("size", [(40, 16), (16, 40), (12, 12), (300, 200)])
def test_any_size_and_mode_is_accepted(tmp_path, size):
    root = write_folder(tmp_path / "d", per_class=1, size=size)
    Image.new("L", size, 128).save(root / "train" / "cat" / "grey.jpg")
    Image.new("RGBA", size, (255, 0, 0, 255)).save(root / "train" / "dog" / "alpha.png")
    train, _ = get_dataset(str(root), input_size=8)
    assert train.images.shape == (4, 3, 8, 8)
    flat = train.images.flatten(2).float()
    assert any((image - 128).abs().max() <= 1 for image in flat)
    assert any(image[0].min() == 255 and image[1:].max() == 0 for image in flat)


def test_a_photograph_is_turned_upright(tmp_path):
    root = write_folder(tmp_path / "d", per_class=1)
    pixels = np.zeros((16, 16, 3), np.uint8)
    pixels[:8] = 255  # the upper half is white before it is turned by a quarter
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels).save(root / "train" / "cat" / "0.PNG", exif=turned)
    image = get_dataset(root, input_size=16)[0].images[0]
    assert (image[:, :, 8:] == 255).all() and (image[:, :, :8] == 0).all()


def test_a_subset_is_balanced_seeded_and_all_that_is_decoded(tmp_path):
    root = write_folder(tmp_path / "d", per_class=6)
    train, valid = get_dataset(root, subset=4, input_size=8)
    assert train.labels.bincount().tolist() == valid.labels.bincount().tolist() == [2, 2]
    whole = get_dataset(root, input_size=8)[0]
    assert (train.images == whole.images[:4]).all()
    assert (get_dataset(root, subset=4, seed=1, input_size=8)[0].images != train.images).any()
    assert [len(part) for part in get_dataset(root, subset=(3, 12), input_size=8)] == [3, 12]
    files = sorted((root / "train").rglob("*.[pP][nN][gG]"))
    kept = {image.permute(1, 2, 0).numpy().tobytes() for image in train.images}
    for path in files:
        if np.asarray(Image.open(path))[:, 1:9].tobytes() not in kept:
            path.write_bytes(b"")
    assert (get_dataset(root, subset=4, input_size=8)[0].images == train.images).all()


@pytest.mark.parametrize("subset", [0, -1, 13, (1, 13), (0, 1)])
def test_a_subset_that_cannot_be_had_is_an_error(tmp_path, subset):
    root = write_folder(tmp_path / "d", per_class=6)
    with pytest.raises(DatasetError, match="wanted 1 to 12"):
        get_dataset(root, subset=subset, input_size=8)


def test_a_small_test_set_limits_only_itself(tmp_path):
    root = write_folder(tmp_path / "d", per_class=3)
    for path in (root / "test").rglob("1.*"):
        path.unlink()
    assert [len(part) for part in get_dataset(root, subset=5, input_size=8)] == [5, 4]


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped"])
@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_a_broken_image_is_named(tmp_path, damage, kind):
    root = write_folder(tmp_path / "d")
    bad = root / "test" / "dog" / f"bad.{kind}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(bad)
    data = bad.read_bytes()
    header = data[:8]
    bad.write_bytes(
        {"empty": b"", "text": b"no image\n", "cut": data[:500], "flipped": header + data[:7:-1]}[damage]
    )
    with pytest.raises(DatasetError, match=f"{bad}.*repair or remove") as caught:
        get_dataset(root, input_size=8)
    assert not isinstance(caught.value.__cause__, MemoryError)


def test_folders_with_something_missing_are_errors(tmp_path):
    root = write_folder(tmp_path / "d")
    (root / "train" / "dog").rename(tmp_path / "dog")
    with pytest.raises(DatasetError, match="only one of them holds dog"):
        get_dataset(root)
    (root / "train" / "dog").mkdir()
    with pytest.raises(DatasetError, match="dog holds no image"):
        get_dataset(root)
    (root / "test").rename(tmp_path / "gone")
    (root / "train" / "dog").rmdir()
    with pytest.raises(DatasetError, match="no folder test/"):
        get_dataset(root)
    (root / "test").mkdir()
    with pytest.raises(DatasetError, match="one for each class"):
        get_dataset(root)
    with pytest.raises(DatasetError, match="'cifar100'; wanted 'cifar10'"):
        get_dataset("cifar100")
    with pytest.raises(DatasetError, match="input_size is 4; wanted a whole number from 8"):
        get_dataset("shapes10", input_size=4)


def test_the_real_images_of_cifar10(tmp_path):
    script = SHARED / "unpack_cifar10.py"
    if not script.exists():
        pytest.skip(f"{script} is not here")
    subprocess.run([sys.executable, script, tmp_path / "c", "--train", "100", "--test", "50"], check=True)
    train, valid = get_dataset(tmp_path / "c", subset=(60, 20))
    assert train.labels.bincount().tolist() == [6] * 10 and valid.labels.bincount().tolist() == [2] * 10
    assert train.classes[0] == "airplane" and train.classes[9] == "truck"
    assert (train.mean - torch.tensor(CIFAR10_MEAN)).abs().max() < 0.1


# ---- shapes10, CIFAR-10, auto


def test_shapes10_by_name():
    train, valid = get_dataset("shapes10", subset=(30, 20), seed=2)
    assert [len(train), len(valid)] == [30, 20] and train.classes[0] == "disc" and "seed 2" in train.source
    assert (valid.mean == train.mean).all()
    assert (valid.images != train.images[:20]).flatten(1).any(1).all(), "no image is in both"
    with pytest.raises(DatasetError, match="wanted 1 to 10000"):
        get_dataset("shapes10", subset=10_001)


def write_cifar(root: Path, monkeypatch) -> ImageDataset:
    """A small stand-in for the official files: 20 images a file, with checksums that torchvision accepts."""
    from torchvision.datasets import CIFAR10

    folder = root / download.CIFAR10_FOLDER
    folder.mkdir(parents=True)
    names = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
    images = random_images(20 * len(names), size=32)
    labels = np.random.default_rng(0).permutation(np.arange(20) % 10).tolist()
    sums = {}
    for i, name in enumerate(names):
        part = images[20 * i : 20 * i + 20]
        content = pickle.dumps({"data": part.reshape(20, -1).numpy(), "labels": labels})
        (folder / name).write_bytes(content)
        sums[name] = hashlib.md5(content).hexdigest()
    meta = pickle.dumps({"label_names": [f"class {i}" for i in range(10)]})
    (folder / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in names[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [[names[5], sums[names[5]]]])
    monkeypatch.setitem(CIFAR10.meta, "md5", hashlib.md5(meta).hexdigest())
    return ImageDataset(images, torch.tensor(labels * 6), [f"class {i}" for i in range(10)])


def test_cifar10_from_its_official_files(tmp_path, monkeypatch):
    whole = write_cifar(tmp_path / "data", monkeypatch)
    for train, valid in (get_dataset("cifar10", tmp_path / "data"), get_dataset(tmp_path / "data")):
        assert [len(train), len(valid)] == [100, 20]
        assert torch.equal(train.mean, torch.tensor(CIFAR10_MEAN))
        keys = {image.numpy().tobytes(): i for i, image in enumerate(whole.images)}
        numbers = [keys[image.numpy().tobytes()] for image in train.images]
        assert sorted(numbers) == list(range(100)) and (whole.labels[numbers] == train.labels).all()
    train, valid = get_dataset("cifar10", tmp_path / "data", subset=30, input_size=16)
    assert train.images.shape == (30, 3, 16, 16) and train.labels.bincount().tolist() == [3] * 10


def test_cifar10_with_a_wrong_byte_is_refused(tmp_path, monkeypatch):
    write_cifar(tmp_path / "data", monkeypatch)
    file = tmp_path / "data" / download.CIFAR10_FOLDER / "data_batch_3"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    with pytest.raises(DatasetError, match=f"{download.CIFAR10_FOLDER} is not the official CIFAR-10.*delete"):
        get_dataset("cifar10", tmp_path / "data")


def test_cifar10_that_cannot_be_had_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("NASEDU_OFFLINE", "1")
    with pytest.raises(DownloadError, match="Three ways out"):
        get_dataset("cifar10")


def test_cifar10_from_a_folder_that_nasedu_data_names_is_said_aloud(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("NASEDU_DATA", str(write_folder(tmp_path / "d")))
    train, _ = get_dataset("cifar10", input_size=8)
    assert train.source.startswith("image folder") and str(tmp_path / "d") in capsys.readouterr().out


def said(capsys) -> str:
    out = capsys.readouterr().out
    assert out.count("\n") == 1, out
    return out


def test_auto_takes_the_root_then_nasedu_data(tmp_path, monkeypatch, capsys):
    one, two = write_folder(tmp_path / "one"), write_folder(tmp_path / "two")
    monkeypatch.setenv("NASEDU_DATA", str(two))
    assert get_dataset("auto", input_size=8)[0].name == "two"
    assert "NASEDU_DATA" in (line := said(capsys)) and str(two) in line and "6 training" in line
    assert get_dataset("auto", one, input_size=8)[0].name == "one"
    assert "named by root" in said(capsys)
    monkeypatch.setenv("NASEDU_DATA", str(tmp_path / "nowhere"))
    with pytest.raises(DatasetError, match="nowhere"):
        get_dataset("auto")


def test_auto_takes_cifar10_where_it_is(tmp_path, monkeypatch, capsys):
    write_cifar(tmp_path / "cache" / "nasedu", monkeypatch)
    assert get_dataset("auto")[0].name == "cifar10"
    assert "found in the cache folder" in said(capsys)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "empty"))
    monkeypatch.setenv("NASEDU_DATA", str(tmp_path / "cache" / "nasedu"))
    assert get_dataset("auto")[0].name == "cifar10"
    assert "NASEDU_DATA" in said(capsys)


@pytest.mark.parametrize("setting", ["NASEDU_OFFLINE=1", "NASEDU_PROFILE=ci"])
def test_auto_draws_shapes_where_it_may_not_download(monkeypatch, capsys, setting):
    monkeypatch.setenv(*setting.split("="))
    monkeypatch.setattr(download, "fetch", lambda *a, **k: pytest.fail("it went to the network"))
    assert get_dataset("auto", subset=10)[0].name == "shapes10"
    assert f"{setting} forbids downloads" in said(capsys)


def test_auto_tries_the_download_and_says_why_it_draws_shapes(monkeypatch, capsys):
    def fail(*args, **limits):
        raise DownloadError("no address gave the file")

    monkeypatch.setattr(download, "fetch", fail)
    assert get_dataset("auto", subset=10)[0].name == "shapes10"
    assert "the download failed" in said(capsys)
