"""A dataset as uint8 tensors in memory: the images, their labels, and what normalises them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Subset
from tqdm.auto import tqdm


class DatasetError(ValueError):
    """A dataset is missing, malformed or too small; the message says what to do."""


class ImageDataset(Dataset):
    """Images (N, C, H, W) uint8 and labels (N,) int64 in memory, with the mean and std (C,) that normalise them.

    `dataset[i]` is (normalised float32 (C, H, W), int). `source` says in a line what the images are and whence.
    Mean and std are in [0, 1] units; left out, they are computed from the images. Raises DatasetError on a wrong shape or label.
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
        if labels.shape != images.shape[:1]:
            raise DatasetError(
                f"labels have shape {tuple(labels.shape)}; wanted one for each of {len(images)} images"
            )
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(classes):
            raise DatasetError(
                f"labels go from {int(labels.min())} to {int(labels.max())}; wanted 0 to {len(classes) - 1}"
            )
        if mean is None or std is None:
            mean, std = _mean_and_std(images)
        self.images, self.labels, self.classes = images, labels.long(), list(classes)
        self.name, self.source = name, source or name
        self.mean, self.std = (
            torch.as_tensor(v, dtype=torch.float32, device=images.device) for v in (mean, std)
        )

    def __len__(self) -> int:
        """The number of images."""
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """Image number `index`, normalised, and its label."""
        return self.normalise(self.images[index].float() / 255), int(self.labels[index])

    def __repr__(self) -> str:
        """One line: name, number of images, their shape, source."""
        return (
            f"ImageDataset({self.name!r}, {len(self):,} images {tuple(self.images.shape[1:])}, {self.source})"
        )

    def normalise(self, x: Tensor) -> Tensor:
        """(x - mean) / std for x (..., C, H, W) in [0, 1]."""
        return (x - self.mean.to(x.device)[:, None, None]) / self.std.to(x.device)[:, None, None]

    def take(self, indices: Sequence[int] | Tensor) -> "ImageDataset":
        """The images of these numbers, in this order, with the same mean and std."""
        index = torch.as_tensor(indices, dtype=torch.long, device=self.images.device)
        return self._like(self.images[index], self.labels[index])

    def split(self, n: int) -> tuple["ImageDataset", "ImageDataset"]:
        """The first n images, and the rest."""
        if not 0 < n < len(self):
            raise DatasetError(f"cannot split {len(self)} images at {n}; wanted 1 to {len(self) - 1}")
        return self._like(self.images[:n], self.labels[:n]), self._like(self.images[n:], self.labels[n:])

    def to(self, device: torch.device | str) -> "ImageDataset":
        """The same images, kept on `device` (a GPU holds CIFAR-10 easily)."""
        return self._like(self.images.to(device), self.labels.to(device))

    def _like(self, images: Tensor, labels: Tensor) -> "ImageDataset":
        return ImageDataset(images, labels, self.classes, self.name, self.source, self.mean, self.std)

    @classmethod
    def from_dataset(cls, dataset: Any, name: str | None = None) -> "ImageDataset":
        """Any map-style dataset of (PIL image | uint8 tensor | float tensor in [0, 1], int), read once into memory.

        Raises DatasetError if an item is something else, if the sizes differ, or if the floats were normalised already.
        """
        if isinstance(dataset, cls):
            return dataset
        if isinstance(dataset, Subset):
            return cls.from_dataset(dataset.dataset, name).take(dataset.indices)
        name = name or type(dataset).__name__
        pixels: list[Tensor] = []
        labels: list[int] = []
        for i in tqdm(range(len(dataset)), desc=f"reading {name}", disable=len(dataset) < 5000):
            image, label = dataset[i]
            pixels.append(_as_bytes(image, f"image {i} of {name}"))
            labels.append(int(label))
            if pixels[-1].shape != pixels[0].shape:
                raise DatasetError(
                    f"image {i} of {name} has shape {tuple(pixels[-1].shape)}, image 0 has {tuple(pixels[0].shape)}; "
                    "wanted one size: add a Resize and a CenterCrop to the dataset's transform"
                )
        if not pixels:
            raise DatasetError(f"{name} is empty; wanted at least one image")
        classes = getattr(dataset, "classes", None) or [str(i) for i in range(max(labels) + 1)]
        return cls(
            torch.stack(pixels),
            torch.tensor(labels),
            classes,
            name,
            f"{name}, read from a {type(dataset).__name__}",
        )


def _as_bytes(image: Any, what: str) -> Tensor:
    if isinstance(image, Image.Image):
        array = np.array(image if image.mode in ("L", "RGB") else image.convert("RGB"))
        return torch.from_numpy(array.reshape(*array.shape[:2], -1)).permute(2, 0, 1).contiguous()
    if not isinstance(image, Tensor) or image.dim() != 3:
        got = f"a tensor of shape {tuple(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
        raise DatasetError(f"{what} is {got}; wanted a PIL image or a tensor (C, H, W)")
    if image.dtype == torch.uint8:
        return image
    if not image.is_floating_point() or image.min() < 0 or image.max() > 1:
        raise DatasetError(
            f"{what} is {image.dtype} from {image.min():.3g} to {image.max():.3g}; wanted uint8, or floats in [0, 1]: "
            "leave Normalize out of the dataset's transform, nasedu normalises each batch itself"
        )
    return (image * 255).round().byte()


def _mean_and_std(images: Tensor) -> tuple[Tensor, Tensor]:
    total, square = torch.zeros(2, images.shape[1], dtype=torch.float64, device=images.device)
    for chunk in images.split(1000):
        x = chunk.double() / 255
        total, square = total + x.sum((0, 2, 3)), square + (x * x).sum((0, 2, 3))
    count = images[:, 0].numel()
    mean = total / count
    std = (square / count - mean**2).clamp(min=0).sqrt()
    return mean.float(), std.clamp(min=1 / 255).float()  # a constant channel must not divide by zero
