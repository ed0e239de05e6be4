"""Datasets in memory, and batches of them, cropped, flipped and normalised on the training device.

The whole of CIFAR-10 is 180 MB, so nothing is read from a file while a network trains, and no worker process
is needed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from nasedu.data import download, shapes
from nasedu.data.images import (
    MAX_PIXELS,
    DatasetError,
    ImageDataset,
    InMemory,
    balanced_order,
    check_room,
    is_image_folder,
    of_channels,
    read_folder,
    sizes,
)
from nasedu.errors import check_whole

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)  # of the 50,000 training images
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
Transform = Callable[[Tensor, Generator | None], Tensor]
Pair = tuple[ImageDataset, ImageDataset]


class Augment:
    """Random crop after padding with black, random flip, and a square hole, drawn for each image by itself.

    Called with x (B, C, H, W), uint8 or float in [0, 1], and a generator, it gives the same shape and type,
    in channels-last memory. A CPU generator draws the same whatever the device of x. `cutout` is the side of
    the hole in pixels (0: none), cut off where it passes the border; `fill` is its colour in [0, 1] units, by
    default the mean of CIFAR-10. The defaults are those of the DARTS search; its evaluation adds cutout=16
    (arXiv 1806.09055, released code; cutout: DeVries and Taylor, arXiv 1708.04552). Raises DatasetError on a
    size that is none.
    """

    def __init__(
        self,
        crop_padding: int = 4,
        flip: bool = True,
        cutout: int = 0,
        fill: Sequence[float] | Tensor = CIFAR10_MEAN,
    ) -> None:
        self.crop_padding = check_whole("crop_padding", crop_padding, 0, MAX_PIXELS, DatasetError)
        self.cutout = check_whole("cutout", cutout, 0, MAX_PIXELS, DatasetError)
        self.flip = flip
        colours = len(fill) if isinstance(fill, Sequence) or getattr(fill, "ndim", 0) > 0 else 3
        self.fill = torch.tensor(of_channels("fill", fill, colours, 0, 1))

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """Give the augmented batch."""
        b, _, h, w = x.shape
        source = "cpu" if generator is None else generator.device

        def draw(high: int) -> Tensor:  # (B, 1), integers from 0 to high - 1
            return torch.randint(high, (b, 1), generator=generator, device=source).to(
                x.device, non_blocking=True
            )

        y, z = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
        rows = y + draw(2 * self.crop_padding + 1)  # (B, H), of the padded image
        cols = z + draw(2 * self.crop_padding + 1)  # (B, W)
        if self.flip:
            cols = torch.where(draw(2) == 1, cols.flip(1), cols)
        padded = F.pad(x, (self.crop_padding,) * 4).permute(0, 2, 3, 1)  # (B, H + 2 pad, W + 2 pad, C)
        image = torch.arange(b, device=x.device)
        x = padded[image[:, None, None], rows[:, :, None], cols[:, None, :]].permute(0, 3, 1, 2)
        if self.cutout:
            top, left = draw(h) - self.cutout // 2, draw(w) - self.cutout // 2
            in_rows = (y >= top) & (y < top + self.cutout)  # (B, H)
            in_cols = (z >= left) & (z < left + self.cutout)  # (B, W)
            hole = (in_rows[:, :, None] & in_cols[:, None, :])[:, None]  # (B, 1, H, W)
            fill = self.fill if x.is_floating_point() else (self.fill * 255).round()
            x = torch.where(hole, fill.to(x)[:, None, None], x)
        return x


def batch_at(
    dataset: InMemory,
    indices: Tensor,
    augment: Transform | None = None,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """Make one batch of the items of these numbers: x (B, ...) and y (B, ...).

    Images come as x (B, C, H, W) float32, normalised, channels-last; `augment(x, generator)` sees them in
    [0, 1], before they are normalised. Anything else comes as it is in memory. The batch depends on nothing
    but the arguments and the generator's state, so a resumed run can draw any batch by itself.
    """
    indices = indices.to(dataset.inputs.device, non_blocking=True)  # waits for nothing on a GPU
    x, y = dataset.inputs[indices], dataset.labels[indices]
    x, y = x.to(device or x.device), y.to(device or y.device)
    if isinstance(dataset, ImageDataset):
        x = x.float() / 255
    if augment is not None:
        x = augment(x, generator)
    if isinstance(dataset, ImageDataset):  # written out, for this is in the path of every step
        mean, std = dataset.mean.to(x.device), dataset.std.to(x.device)
        x = ((x - mean[:, None, None]) / std[:, None, None]).contiguous(memory_format=torch.channels_last)
    return x, y


class Batches:
    """Batches by number, x and y as of `batch_at`, each a function of (seed, epoch, number) alone.

    Past the end of the dataset a new permutation begins, so that any number can be drawn in an epoch.
    `stream` tells the batches of one dataset from those of another with the same seed.
    """

    def __init__(
        self,
        dataset: InMemory,
        batch_size: int,
        augment: Transform | None,
        seed: int,
        stream: int,
        device: torch.device,
    ) -> None:
        self.dataset, self.augment, self.device = dataset, augment, device
        self.batch_size = check_whole("batch_size", batch_size, 1, len(dataset), DatasetError)
        self.seed, self.stream = seed, stream
        self.n, self.per_turn = len(dataset), len(dataset) // batch_size

    def __call__(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """Batch `number` of this epoch."""
        turn, number = divmod(number, self.per_turn)
        order = torch.randperm(self.n, generator=seeded(self.seed, epoch, turn, self.stream))
        chosen = order[number * self.batch_size : (number + 1) * self.batch_size]
        generator = seeded(self.seed, epoch, turn, number, self.stream)
        return batch_at(self.dataset, chosen, self.augment, generator, self.device)


def batches(
    dataset: InMemory,
    batch_size: int,
    generator: Generator | None = None,
    augment: Transform | None = None,
    drop_last: bool = True,
    device: torch.device | str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Go once through a dataset, in batches as of `batch_at`, in an order drawn from the generator.

    Without a generator the order is the dataset's own. Raises DatasetError if there is not one batch to give.
    """
    n = len(dataset)
    batch_size = check_whole("batch_size", batch_size, 1, error=DatasetError)
    if n < (batch_size if drop_last else 1):
        todo = "use a smaller batch_size, more images or drop_last=False"
        raise DatasetError(f"{n} images give no batch of batch_size={batch_size}; {todo}")
    if generator is None:
        order = torch.arange(n)
    else:
        order = torch.randperm(n, generator=generator, device=generator.device)
    for indices in order[: n - n % batch_size if drop_last else n].split(batch_size):
        yield batch_at(dataset, indices, augment, generator, device)


def seeded(*numbers: int) -> Generator:
    """Make a CPU generator from integers, e.g. seeded(seed, epoch, step): other integers, another stream.

    Raises ArgumentError for a number that is negative or not whole.
    """
    key = [len(numbers)]  # without the length (1,) and (1, 0) would be the same
    for n in numbers:
        plain = type(n) is int and 0 <= n < 2**64
        key.append(n if plain else check_whole("a number of a seed", n, 0, 2**64 - 1))
    return Generator().manual_seed(
        int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    )


def get_dataset(
    name: str | Path,
    root: str | Path | None = None,
    subset: int | tuple[int, int] | None = None,
    seed: int = 0,
    input_size: int = 32,
    at_most: bool = False,
) -> Pair:
    """(train, valid) of "cifar10", "shapes10", an image folder (train/<class>/*.jpg, test/...), or "auto".

    `subset`: n training and at most n validation images, or a pair of numbers; each class equally often,
    chosen by `seed`; `at_most`: or all, where there are fewer, and an image folder without test/ has every
    fifth image of train/ held out. Images come as squares of `input_size` pixels. "cifar10" looks in
    `root` or $NASEDU_DATA, else in the cache folder, and downloads if it must. "auto" takes `root` or
    $NASEDU_DATA if there is one, else CIFAR-10 if it is at hand or can be fetched, else shapes10, and prints
    which it took and why. Raises DatasetError, or DownloadError if CIFAR-10 cannot be had.
    """
    input_size = check_whole("input_size", input_size, 8, MAX_PIXELS, DatasetError)
    seed = check_whole("seed", seed, 0, 2**64 - 1, DatasetError)
    if name == "auto":
        name, root, why = _choose(root)
        train, valid = get_dataset(name, root, subset, seed, input_size, at_most)
        print(f"data: {train.source}: {len(train):,} training, {len(valid):,} validation images ({why})")
        return train, valid
    if name == "shapes10":
        return _shapes10(subset, seed, input_size)
    if name == "cifar10":
        path = Path(root or os.environ.get("NASEDU_DATA") or download.cache_folder()).expanduser()
        if not is_image_folder(path):
            return _cifar10(download.cifar10_folder(path), subset, seed, input_size)
        print(f'data: "cifar10" is read from the image folder {path}, not from the official files')
        return read_folder(path, subset, seed, input_size, at_most)
    path = Path(name).expanduser()
    if (path / download.CIFAR10_FOLDER).is_dir() or (path / download.CIFAR10_ARCHIVE).is_file():
        return _cifar10(download.cifar10_folder(path), subset, seed, input_size)
    if not path.is_dir():
        wanted = "'cifar10', 'shapes10', 'auto', or a folder with train/<class>/*.jpg and test/<class>/*.jpg"
        raise DatasetError(f"no dataset and no folder {str(name)!r}; wanted {wanted}")
    return read_folder(path, subset, seed, input_size, at_most)


def _choose(root: str | Path | None) -> tuple[str | Path, Path | None, str]:
    """What "auto" takes: a name, a root, and why."""
    if place := root or os.environ.get("NASEDU_DATA"):
        return place, None, "named by root" if root else "named by NASEDU_DATA"
    cache = download.cache_folder()
    at_hand = (cache / download.CIFAR10_FOLDER).is_dir()
    try:
        download.cifar10_folder(cache)
    except download.DownloadError as error:
        return "shapes10", None, f"no CIFAR-10 in {cache}, and {error.reason}"
    return "cifar10", cache, "found in the cache folder" if at_hand else "just fetched"


def _shapes10(subset: int | tuple[int, int] | None, seed: int, size: int) -> Pair:
    n_train, n_valid = sizes(subset, shapes.N_TRAIN, shapes.N_VALID, "shapes10")
    check_room(n_train + n_valid, size)
    x, y = (torch.from_numpy(part) for part in shapes.draw(n_train, "train", seed, size))
    train = ImageDataset(x, y, shapes.CLASSES, "shapes10", f"shapes10, drawn by nasedu with seed {seed}")
    return train, train.like(*(torch.from_numpy(part) for part in shapes.draw(n_valid, "valid", seed, size)))


def _cifar10(root: Path, subset: int | tuple[int, int] | None, seed: int, size: int) -> Pair:
    from torchvision.datasets import CIFAR10  # here, since it takes a second to import

    try:
        parts = CIFAR10(root, train=True), CIFAR10(root, train=False)
    except RuntimeError as error:
        folder = root / download.CIFAR10_FOLDER
        raise DatasetError(
            f"{folder} is not the official CIFAR-10 ({error}); delete it and try again"
        ) from error
    pair = []
    for part, n in zip(parts, sizes(subset, len(parts[0]), len(parts[1]), "CIFAR-10"), strict=True):
        check_room(n, size)
        order = balanced_order(part.targets, seed)[:n]
        y = torch.tensor(part.targets)[order]
        x = torch.from_numpy(part.data[order]).permute(0, 3, 1, 2).contiguous()
        if size != x.shape[-1]:
            x = F.interpolate(x, (size, size), mode="bilinear", antialias=True)
        source = f"CIFAR-10, official files in {root}"
        pair.append(ImageDataset(x, y, part.classes, "cifar10", source, CIFAR10_MEAN, CIFAR10_STD))
    return pair[0], pair[1]
