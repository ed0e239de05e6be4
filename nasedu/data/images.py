"""Datasets as tensors in memory: any inputs and labels, or images and what normalises them; folders."""

import copy
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Subset
from tqdm.auto import tqdm

from nasedu.errors import NaseduError, check_number, check_whole, short

SUFFIXES = (".png", ".jpg", ".jpeg")
# What a file of these suffixes may really be. Pillow knows more, such as EPS, which runs another program.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "WEBP")
MAX_PIXELS = 1024  # a side of an image that is kept in memory
MANY_CLASSES = 1000  # that a dataset may have without naming them
INTEGERS = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)
MANY = 20_000  # images, from which on a progress bar is worth its line


class DatasetError(NaseduError, ValueError):
    """A dataset is missing, malformed or too small; the message says what to do."""


class InMemory(Dataset[tuple[Tensor, Any]]):
    """Inputs (N, ...) and labels (N, ...) as tensors in memory: token sequences, spectra, features.

    `dataset[i]` is (inputs[i], labels[i]); batches give the inputs as they are. `classes` names the labels
    where these are numbers of classes, `source` says in a line what the data are and whence. Raises
    DatasetError unless there is one label for each input.
    """

    def __init__(
        self,
        inputs: Tensor,
        labels: Tensor,
        classes: Sequence[str] = (),
        name: str = "data",
        source: str = "",
    ) -> None:
        if not (isinstance(inputs, Tensor) and isinstance(labels, Tensor)):
            got = f"inputs {short(inputs)} and labels {short(labels)}"
            raise DatasetError(f"got {got}; wanted two tensors (N, ...) and (N, ...): use torch.as_tensor")
        if not inputs.dim() or labels.shape[:1] != inputs.shape[:1]:
            got = f"inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)}"
            raise DatasetError(f"got {got}; wanted (N, ...) and (N, ...), one label for each input")
        self.inputs, self.labels, self.classes = inputs, labels, _names(classes)
        self.name, self.source = name, source or name

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, Any]:
        return self.inputs[index], self.labels[index]

    def __repr__(self) -> str:
        shape = tuple(self.inputs.shape[1:])
        return f"{type(self).__name__}({self.name!r}: {len(self):,} of shape {shape}, {self.source})"

    def take(self, indices: Sequence[int] | Tensor) -> Self:
        """Take the items of these numbers, in this order."""
        index = torch.as_tensor(indices)
        if index.numel():
            what = f"of the numbers of the {len(self)} items one"
            if index.is_floating_point() or index.is_complex() or index.dtype == torch.bool:
                raise DatasetError(f"{what} is of {index.dtype}; wanted whole numbers")
            for n in (index.min(), index.max()):
                check_whole(what, int(n), -len(self), len(self) - 1, DatasetError)
        index = index.to(self.inputs.device, torch.long, non_blocking=True)
        return self.like(self.inputs[index], self.labels[index])

    def split(self, n: int) -> tuple[Self, Self]:
        """Split into the first n items, and the rest."""
        n = check_whole(f"where {len(self)} items are split, at n,", n, 1, len(self) - 1, DatasetError)
        return self.like(self.inputs[:n], self.labels[:n]), self.like(self.inputs[n:], self.labels[n:])

    def to(self, device: torch.device | str) -> Self:
        """Copy to `device`: a GPU holds CIFAR-10 easily."""
        return self.like(self.inputs.to(device), self.labels.to(device))

    def like(self, inputs: Tensor, labels: Tensor) -> Self:
        """Other items of the same kind: same classes, name and source."""
        other = copy.copy(self)
        other.inputs, other.labels = inputs, labels
        return other


def in_memory(dataset: Any, name: str | None = None) -> InMemory:
    """Read any map-style dataset of (input, label) into memory: images as `ImageDataset.from_dataset` does.

    An input that is a tensor of another number of dimensions than 3, such as tokens (T,) or features (T, C),
    is taken as it is; a label is a number or a tensor. What is in memory, or a Subset of it, stays as it is.
    Raises DatasetError for anything else.
    """
    if isinstance(dataset, InMemory):
        return dataset
    if isinstance(dataset, Subset):
        return in_memory(dataset.dataset, name).take(dataset.indices)
    _check_items(dataset)
    first, _ = _pair(dataset, 0, type(dataset).__name__)
    if not isinstance(first, Tensor) or first.dim() == 3:
        return ImageDataset.from_dataset(dataset, name)
    name = name or type(dataset).__name__
    pairs = [_pair(dataset, i, name) for i in range(len(dataset))]
    for i, (x, _) in enumerate(pairs):
        if not isinstance(x, Tensor) or x.shape != first.shape or x.dtype != first.dtype:
            got = f"input {i} of {name} is {short(x)}, input 0 {short(first)}"
            raise DatasetError(f"{got}; wanted tensors of one shape and type")
    try:
        labels = torch.stack([torch.as_tensor(y) for _, y in pairs])
    except (ValueError, TypeError, RuntimeError, OverflowError) as error:
        got = f"{short(pairs[0][1])}, {short(pairs[-1][1])}"
        raise DatasetError(
            f"the labels of {name} are {got}, ...; wanted numbers or tensors, alike"
        ) from error
    classes = getattr(dataset, "classes", ())
    return InMemory(torch.stack([x for x, _ in pairs]), labels, classes, name, f"read from a {name}")


def _check_items(dataset: Any) -> None:
    items = hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__") and not isinstance(dataset, str)
    if not items or isinstance(dataset, Mapping | Tensor | type) or not len(dataset):
        kind = type(dataset).__name__
        raise DatasetError(f"got {kind}; wanted an ImageDataset, or a dataset with len(d) > 0 and d[i]")


def _pair(dataset: Any, i: int, name: str) -> tuple[Any, Any]:
    """Item i as (input, label)."""
    item = dataset[i]
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DatasetError(f"item {i} of {name} is {short(item)}; wanted a pair (input, label)")
    return item[0], item[1]


def _names(classes: Any) -> list[str]:
    if not isinstance(classes, Sequence) or isinstance(classes, str):
        raise DatasetError(f"classes is {short(classes)}; wanted a list of names")
    return list(classes)


def of_channels(name: str, values: Any, n: int, least: float, most: float = math.inf) -> list[float]:
    """A number for each of n channels."""
    found = values.tolist() if isinstance(values, Tensor | np.ndarray) else values
    if not isinstance(found, Sequence) or isinstance(found, str) or len(found) != n:
        raise DatasetError(f"{name} is {short(values)}; wanted {n} numbers, one for each channel")
    return [check_number(f"{name} of channel {i}", v, least, most, DatasetError) for i, v in enumerate(found)]


class ImageDataset(InMemory):
    """Images (N, C, H, W) uint8 and labels (N,) int64 in memory, with the mean and std (C,) that normalise
    them.

    `dataset[i]` is (normalised float32 (C, H, W), int). `source` says in a line what the images are and
    whence. Mean and std are in [0, 1] units; left out, they are computed from the images. Raises DatasetError
    on a wrong type, shape or label.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        classes: Sequence[str],
        name: str = "images",
        source: str = "",
        mean: Sequence[float] | Tensor | None = None,
        std: Sequence[float] | Tensor | None = None,
    ) -> None:
        super().__init__(images, labels, classes, name, source)
        if images.dtype != torch.uint8 or images.dim() != 4 or 0 in images.shape:
            raise DatasetError(f"images are {images.dtype} {tuple(images.shape)}; wanted uint8 (N, C, H, W)")
        if labels.dim() != 1 or labels.dtype not in INTEGERS:
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise DatasetError(f"labels are {got}; wanted one integer for each of {len(images)} images")
        if not 0 <= int(labels.min()) <= int(labels.max()) < len(self.classes):
            got = f"{int(labels.min())} to {int(labels.max())}"
            raise DatasetError(
                f"labels go from {got}; wanted 0 to {len(self.classes) - 1}, one for each class"
            )
        self.labels = labels.long()
        if mean is None or std is None:
            mean, std = _mean_and_std(images)
        channels, place = images.shape[1], images.device
        self.mean = torch.tensor(of_channels("mean", mean, channels, 0, 1), device=place)
        self.std = torch.tensor(of_channels("std", std, channels, 1e-3, 1), device=place)

    @property
    def images(self) -> Tensor:
        """The images (N, C, H, W) uint8."""
        return self.inputs

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.normalise(self.images[index].float() / 255), int(self.labels[index])

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std for x (..., C, H, W) in [0, 1]."""
        return (x - self.mean.to(x.device)[:, None, None]) / self.std.to(x.device)[:, None, None]

    def like(self, inputs: Tensor, labels: Tensor) -> Self:
        """Other images of the same kind, with mean and std where they are."""
        other = super().like(inputs, labels)
        other.mean, other.std = self.mean.to(inputs.device), self.std.to(inputs.device)
        return other

    @classmethod
    def from_dataset(cls, dataset: Any, name: str | None = None) -> "ImageDataset":
        """Read any map-style dataset of (PIL image | uint8 tensor | float tensor in [0, 1], int) into memory.

        An ImageDataset, or a Subset of one, is taken as it is. Raises DatasetError if an item is something
        else, if sizes differ, or if floats were normalised already.
        """
        if isinstance(dataset, cls):
            return dataset
        if isinstance(dataset, Subset):
            return cls.from_dataset(dataset.dataset, name).take(dataset.indices)
        _check_items(dataset)
        kind = type(dataset).__name__
        name = name or kind
        named = getattr(dataset, "classes", None)
        # Without names a class of the number 999,999 is rather a mistake than the last of a million.
        most = len(named) - 1 if named else max(MANY_CLASSES, len(dataset)) - 1
        pixels: list[Tensor] = []
        labels: list[int] = []
        for i in tqdm(range(len(dataset)), f"reading {name}", leave=False, disable=len(dataset) < MANY):
            image, label = _pair(dataset, i, name)
            pixels.append(_as_bytes(image, f"image {i} of {name}"))
            if isinstance(label, Tensor | np.ndarray) and label.shape in ((), (1,)):
                label = label.item()
            labels.append(check_whole(f"label {i} of {name}", label, 0, most, DatasetError))
            if pixels[i].shape != pixels[0].shape:
                sizes = f"image {i} of {name} is {tuple(pixels[i].shape)}, image 0 {tuple(pixels[0].shape)}"
                raise DatasetError(f"{sizes}; wanted one size: add Resize and CenterCrop to its transform")
        classes = named or [str(i) for i in range(max(labels) + 1)]
        return cls(torch.stack(pixels), torch.tensor(labels), classes, name, f"read from a {kind}")


def checksum(*datasets: InMemory) -> str:
    """Tell these inputs and labels from others, wherever they lie: "crc32" and eight digits."""
    return crc32(*(tensor for part in datasets for tensor in (part.inputs, part.labels)))


def crc32(*tensors: Tensor) -> str:
    """Tell these tensors from others, one after the other: "crc32" and eight digits."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().data, crc)
    return f"crc32 {crc:08x}"


def flat(image: Image.Image, what: str) -> Image.Image:
    """The image in 8 bits, as "L" or "RGB": 16 bits are scaled, transparency is laid on white."""
    if image.mode.startswith("I"):  # grey of 16 bits; Pillow's own conversion clips
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise DatasetError(
                f"{what} has pixels from {values.min()} to {values.max()}; wanted 8 or 16 bits a channel"
            )
        if isinstance(clear := image.info.get("transparency"), int):
            values = np.where(values == clear, 65535, values)
        return Image.fromarray(((values * 255 + 32767) // 65535).astype(np.uint8))
    if image.mode == "F":
        raise DatasetError(f"{what} is of floats; wanted 8 or 16 bits a channel")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    return image if image.mode in ("L", "RGB") else image.convert("RGB")


def _as_bytes(image: Any, what: str) -> Tensor:
    """Turn a PIL image or a tensor into a uint8 tensor (C, H, W)."""
    if isinstance(image, Image.Image):
        array = np.array(flat(image, what))
        return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor) or image.dim() != 3:
        got = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise DatasetError(f"{what} is {got}; wanted a PIL image or a tensor (C, H, W)")
    if image.dtype == torch.uint8:
        return image
    if not (image.is_floating_point() and image.numel() and image.min() >= 0 and image.max() <= 1):
        span = (
            f" from {image.min():.3g} to {image.max():.3g}"
            if image.is_floating_point() and len(image)
            else ""
        )
        got = f"{image.dtype}{span}"
        raise DatasetError(
            f"{what} is {got}; wanted uint8, or floats in [0, 1]: leave Normalize out of the dataset's "
            "transform, nasedu normalises each batch itself"
        )
    return (image * 255).round().byte()


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    """Per channel, in [0, 1] units, from exact counts of the 256 levels."""
    level = torch.arange(256, dtype=torch.float64, device=images.device) / 255
    counts = torch.stack([torch.bincount(channel.flatten(), minlength=256) for channel in images.unbind(1)])
    share = counts.double() / counts.sum(1, keepdim=True)
    mean = share @ level
    std = (share @ level**2 - mean**2).clamp(min=0).sqrt()
    return mean.float(), std.clamp(min=1 / 255).float()  # a constant channel must not divide by zero


def balanced_order(labels: Sequence[int], seed: int = 0) -> np.ndarray:
    """Order all images by `seed`, the classes taking turns: any first n hold each class equally often."""
    y = np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(y))
    turn = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        mine = order[y[order] == label]
        turn[mine] = np.arange(len(mine))
    return np.lexsort((y, turn))


def sizes(
    subset: int | tuple[int, int] | None, n_train: int, n_valid: int, what: str, at_most: bool = False
) -> tuple[int, int]:
    """Numbers of training and validation images that `subset` asks for, out of those there are."""
    if subset is None:
        return n_train, n_valid
    wanted = subset if isinstance(subset, tuple | list) else (subset, subset)
    if len(wanted) != 2 or not all(isinstance(n, Integral) and not isinstance(n, bool) for n in wanted):
        raise DatasetError(f"subset is {short(subset)}; wanted a whole number, or a pair of them")
    if wanted is not subset:
        wanted = wanted[0], min(wanted[1], n_valid)
    if at_most:
        wanted = min(wanted[0], n_train), min(wanted[1], n_valid)
    for got, most, split in zip(wanted, (n_train, n_valid), ("training", "validation"), strict=True):
        if not 0 < got <= most:
            raise DatasetError(f"subset={subset} asks for {got} {split} images of {what}; wanted 1 to {most}")
    return wanted


def is_image_folder(path: Path) -> bool:
    """Whether `path` looks like an image folder: it holds train/ or test/."""
    return (path / "train").is_dir() or (path / "test").is_dir()


def read_folder(
    root: Path, subset: int | tuple[int, int] | None, seed: int, size: int, at_most: bool = False
) -> tuple[ImageDataset, ImageDataset]:
    """Read (train, valid) from root/train/<class>/*.{png,jpg} and root/test/...; decodes only the subset.

    With `at_most` a folder without test/ has every fifth image of train/ held out, as `source` then says.
    """
    files, labels, classes = _scan(root, "train")
    source = f"image folder {root}"
    if at_most and not (root / "test").exists():
        order = balanced_order(labels, seed)
        if len(order) < 5:
            raise DatasetError(
                f"{root} has {len(order)} images and no test/; wanted 5 or more, to hold one out"
            )
        held, rest = order[: len(order) // 5], order[len(order) // 5 :]
        test_files, test_labels, test_classes = [files[i] for i in held], [labels[i] for i in held], classes
        files, labels = [files[i] for i in rest], [labels[i] for i in rest]
        source += f", {len(held):,} images of train/ held out, since there is no test/"
    else:
        test_files, test_labels, test_classes = _scan(root, "test")
    if classes != test_classes:
        lone = ", ".join(sorted(set(classes) ^ set(test_classes)))
        raise DatasetError(
            f"{root}: train/ and test/ must hold the same classes; only one of them holds {lone}"
        )
    n_train, n_valid = sizes(subset, len(files), len(test_files), str(root), at_most)
    order, test_order = balanced_order(labels, seed)[:n_train], balanced_order(test_labels, seed)[:n_valid]
    x = _decode([files[i] for i in order] + [test_files[i] for i in test_order], size)
    y, test_y = torch.tensor(labels)[order], torch.tensor(test_labels)[test_order]
    train = ImageDataset(x[:n_train], y, classes, root.absolute().name, source)
    return train, train.like(x[n_train:], test_y)


def _scan(root: Path, split: str) -> tuple[list[str], list[int], list[str]]:
    """Files, labels and class names under root/split."""
    folder = root / split
    wanted = f"wanted {root}/train/<class>/*.jpg and {root}/test/<class>/*.jpg (or .png)"
    if not folder.is_dir():
        raise DatasetError(f"{root} has no folder {split}/; {wanted}")
    classes = [name for name, path in _entries(folder) if os.path.isdir(path)]
    if not classes:
        raise DatasetError(f"{folder} holds no folder, one for each class; {wanted}")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = [path for file, path in _entries(folder / name) if file.lower().endswith(SUFFIXES)]
        if not found:
            raise DatasetError(f"{folder / name} holds no image; {wanted}")
        for path in found:
            if not os.path.isfile(path):  # a pipe would be waited for
                raise DatasetError(
                    f"{path} is named as an image, but is no file, or a broken link; remove it"
                )
        files += found
        labels += [label] * len(found)
    return files, labels, classes


def _entries(folder: Path) -> list[tuple[str, str]]:
    """(name, path) of what is in a folder, by name; without what is hidden, such as macOS's "._0.png"."""
    try:
        return sorted((e.name, e.path) for e in os.scandir(folder) if not e.name.startswith("."))
    except OSError as error:
        raise DatasetError(f"{folder} cannot be read ({error.strerror}); change its rights") from error


def check_room(n: int, size: int) -> None:
    """Raise DatasetError where n images of size x size pixels are more than this machine's memory."""
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 0
    need, there = 3 * n * size**2, pages * os.sysconf("SC_PAGE_SIZE") if pages else 0
    if there and need > there:
        raise DatasetError(
            f"{n:,} images of {size} x {size} pixels are {need / 2**30:.0f} GiB, and the memory here is "
            f"{there / 2**30:.0f} GiB; take a subset or a smaller input_size"
        )


def _decode(files: list[str], size: int) -> Tensor:
    """Images (N, 3, size, size), each scaled to cover the square and centre-cropped."""
    check_room(len(files), size)
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    array = images.numpy()

    def decode(i: int) -> None:
        try:
            with Image.open(files[i], formats=FORMATS) as opened:
                opened.draft("RGB", (2 * size, 2 * size))  # a large JPEG is read at a fraction of its size
                image = flat(ImageOps.exif_transpose(opened), files[i]).convert("RGB")
        except DatasetError:
            raise
        except Exception as error:  # Pillow raises many kinds for a broken file
            raise DatasetError(
                f"{files[i]} cannot be read as an image ({error}); repair or remove it"
            ) from error
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        array[i] = np.asarray(image).transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        done = pool.map(decode, range(len(files)))
        for _ in tqdm(done, "decoding images", len(files), leave=False, disable=len(files) < MANY):
            pass
    return images
