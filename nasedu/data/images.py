"""Datasets as tensors in memory: any inputs and labels, or images and what normalises them; folders."""

import copy
import os
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import error as StructError
from typing import Any, Self

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import Dataset, Subset
from tqdm.auto import tqdm

from nasedu.errors import NaseduError

SUFFIXES = (".png", ".jpg", ".jpeg")
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
        if not inputs.dim() or labels.shape[:1] != inputs.shape[:1]:
            got = f"inputs {tuple(inputs.shape)} and labels {tuple(labels.shape)}"
            raise DatasetError(f"got {got}; wanted (N, ...) and (N, ...), one label for each input")
        self.inputs, self.labels, self.classes = inputs, labels, list(classes)
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
        index = torch.as_tensor(indices, dtype=torch.long, device=self.inputs.device)
        return self.like(self.inputs[index], self.labels[index])

    def split(self, n: int) -> tuple[Self, Self]:
        """Split into the first n items, and the rest."""
        if not 0 < n < len(self):
            raise DatasetError(f"cannot split {len(self)} items at {n}; wanted 1 to {len(self) - 1}")
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
    first = dataset[0][0]
    if not isinstance(first, Tensor) or first.dim() == 3:
        return ImageDataset.from_dataset(dataset, name)
    name = name or type(dataset).__name__
    pairs = [dataset[i] for i in range(len(dataset))]
    shapes = sorted({tuple(x.shape) for x, _ in pairs})
    if len(shapes) > 1:
        raise DatasetError(f"the inputs of {name} have the shapes {shapes[0]}, {shapes[1]}, ...; wanted one")
    labels = torch.stack([torch.as_tensor(y) for _, y in pairs])
    classes = getattr(dataset, "classes", ())
    return InMemory(torch.stack([x for x, _ in pairs]), labels, classes, name, f"read from a {name}")


def _check_items(dataset: Any) -> None:
    if not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")) or not len(dataset):
        kind = type(dataset).__name__
        raise DatasetError(f"got {kind}; wanted an ImageDataset, or a dataset with len(d) > 0 and d[i]")


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
        if images.dtype != torch.uint8 or images.dim() != 4:
            raise DatasetError(f"images are {images.dtype} {tuple(images.shape)}; wanted uint8 (N, C, H, W)")
        if labels.shape != images.shape[:1] or labels.is_floating_point():
            got = f"{labels.dtype} {tuple(labels.shape)}"
            raise DatasetError(f"labels are {got}; wanted one integer for each of {len(images)} images")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            got = f"{int(labels.min())} to {int(labels.max())}"
            raise DatasetError(f"labels go from {got}; wanted 0 to {len(classes) - 1}, one for each class")
        if mean is None or std is None:
            mean, std = _mean_and_std(images)
        super().__init__(images, labels.long(), classes, name, source)
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=images.device)
        self.std = torch.as_tensor(std, dtype=torch.float32, device=images.device)

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
        pixels: list[Tensor] = []
        labels: list[int] = []
        for i in tqdm(range(len(dataset)), f"reading {name}", leave=False, disable=len(dataset) < MANY):
            image, label = dataset[i]
            pixels.append(_as_bytes(image, f"image {i} of {name}"))
            labels.append(int(label))
            if pixels[i].shape != pixels[0].shape:
                sizes = f"image {i} of {name} is {tuple(pixels[i].shape)}, image 0 {tuple(pixels[0].shape)}"
                raise DatasetError(f"{sizes}; wanted one size: add Resize and CenterCrop to its transform")
        classes = getattr(dataset, "classes", None) or [str(i) for i in range(max(labels) + 1)]
        return cls(torch.stack(pixels), torch.tensor(labels), classes, name, f"read from a {kind}")


def checksum(*datasets: InMemory) -> str:
    """Tell these inputs and labels from others, wherever they lie: "crc32" and eight digits."""
    return crc32(*(tensor for part in datasets for tensor in (part.inputs, part.labels)))


def crc32(*tensors: Tensor) -> str:
    """Tell these tensors from others, one after the other: "crc32" and eight digits."""
    crc = 0
    for tensor in tensors:
        crc = zlib.crc32(tensor.cpu().contiguous().numpy().data, crc)
    return f"crc32 {crc:08x}"


def _as_bytes(image: Any, what: str) -> Tensor:
    """Turn a PIL image or a tensor into a uint8 tensor (C, H, W)."""
    if isinstance(image, Image.Image):
        array = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor) or image.dim() != 3:
        got = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise DatasetError(f"{what} is {got}; wanted a PIL image or a tensor (C, H, W)")
    if image.dtype == torch.uint8:
        return image
    if not (image.is_floating_point() and image.min() >= 0 and image.max() <= 1):
        got = f"{image.dtype} from {image.min():.3g} to {image.max():.3g}"
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
    wanted = (subset, min(subset, n_valid)) if isinstance(subset, int) else subset
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
    classes = sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != ".")
    if not classes:
        raise DatasetError(f"{folder} holds no folder, one for each class; {wanted}")
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(e.path for e in os.scandir(folder / name) if e.name.lower().endswith(SUFFIXES))
        if not found:
            raise DatasetError(f"{folder / name} holds no image; {wanted}")
        files += found
        labels += [label] * len(found)
    return files, labels, classes


def _decode(files: list[str], size: int) -> Tensor:
    """Images (N, 3, size, size), each scaled to cover the square and centre-cropped."""
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    array = images.numpy()

    def decode(i: int) -> None:
        try:
            with Image.open(files[i]) as opened:
                opened.draft("RGB", (2 * size, 2 * size))  # a large JPEG is read at a fraction of its size
                image = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, SyntaxError, ValueError, StructError, Image.DecompressionBombError) as error:
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
