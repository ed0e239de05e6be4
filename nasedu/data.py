"""Datasets as uint8 tensors in memory, and batches of them, cropped, flipped and normalised on the training device.

The whole of CIFAR-10 is 180 MB, so nothing is read from a file while a network trains, and no worker process is needed.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from struct import error as StructError

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Generator, Tensor
from tqdm.auto import tqdm

from nasedu import download, shapes
from nasedu.images import DatasetError, ImageDataset

CIFAR10_MEAN = (0.4914, 0.4822, 0.4465)  # of the 50,000 training images, as in the DARTS reference code
CIFAR10_STD = (0.2470, 0.2435, 0.2616)
SUFFIXES = (".png", ".jpg", ".jpeg")
Transform = Callable[[Tensor, Generator | None], Tensor]


class Augment:
    """Random crop after padding with black, random flip, and a square hole, drawn for each image by itself.

    Called with x (B, C, H, W), uint8 or float in [0, 1], and a generator (any device; a CPU one draws the same on every device);
    gives the same shape and type, in channels-last memory. `cutout` is the side of the hole in pixels (0: none), cut off where it
    passes the border; `fill` is its colour in [0, 1] units, by default the mean of CIFAR-10, which normalises to 0.
    The defaults are those of the DARTS search (section 3.1.1, arXiv 1806.09055); cutout=16 is for its evaluation
    (DeVries and Taylor, arXiv 1708.04552).
    """

    def __init__(
        self,
        crop_padding: int = 4,
        flip: bool = True,
        cutout: int = 0,
        fill: Sequence[float] | Tensor = CIFAR10_MEAN,
    ) -> None:
        if crop_padding < 0 or cutout < 0:
            raise ValueError(f"crop_padding={crop_padding}, cutout={cutout}; wanted pixels, 0 or more")
        self.crop_padding, self.flip, self.cutout = crop_padding, flip, cutout
        self.fill = torch.as_tensor(fill, dtype=torch.float32)

    def __call__(self, x: Tensor, generator: Generator | None = None) -> Tensor:
        """The augmented batch."""
        b, _, h, w = x.shape

        def draw(high: int, n: int = 1) -> Tensor:  # integers in [0, high), shape (n, B, 1)
            source = generator.device if generator is not None else "cpu"
            return torch.randint(high, (n, b, 1), generator=generator, device=source).to(x.device)

        down, right = draw(2 * self.crop_padding + 1, 2)
        rows = torch.arange(h, device=x.device) + down  # (B, H), of the padded image
        cols = torch.arange(w, device=x.device) + right  # (B, W)
        if self.flip:
            cols = torch.where(draw(2)[0] == 1, cols.flip(1), cols)
        padded = F.pad(x, (self.crop_padding,) * 4)
        image = torch.arange(b, device=x.device)[:, None, None]
        x = padded.permute(0, 2, 3, 1)[image, rows[:, :, None], cols[:, None, :]].permute(
            0, 3, 1, 2
        )  # (B, C, H, W)
        if self.cutout:
            top, left = draw(h)[0] - self.cutout // 2, draw(w)[0] - self.cutout // 2  # (B, 1)
            y, z = torch.arange(h, device=x.device), torch.arange(w, device=x.device)
            hole = ((y >= top) & (y < top + self.cutout))[:, None, :, None] & (
                (z >= left) & (z < left + self.cutout)
            )[:, None, None, :]
            fill = self.fill if x.is_floating_point() else (self.fill * 255).round()
            x = torch.where(hole, fill.to(x)[:, None, None], x)
        return x


def batch_at(
    dataset: ImageDataset,
    indices: Tensor,
    augment: Transform | None = None,
    generator: Generator | None = None,
    device: torch.device | str | None = None,
) -> tuple[Tensor, Tensor]:
    """The images of these numbers as one batch: x (B, C, H, W) float32, normalised, channels-last, and y (B,), on `device`.

    `augment(x, generator)` sees x in [0, 1], before it is normalised. The batch is a function of the arguments and of the
    generator's state alone, so a resumed run can draw any batch by itself.
    """
    indices = indices.to(dataset.images.device)
    x, y = dataset.images[indices], dataset.labels[indices]
    x, y = x.to(device or x.device).float() / 255, y.to(device or y.device)
    if augment is not None:
        x = augment(x, generator)
    return dataset.normalise(x).contiguous(memory_format=torch.channels_last), y


def batches(
    dataset: ImageDataset,
    batch_size: int,
    generator: Generator | None = None,
    augment: Transform | None = None,
    drop_last: bool = True,
    device: torch.device | str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """One epoch of batches (see batch_at), in an order drawn from the generator; without a generator, in the dataset's order.

    Raises DatasetError if there is not a single batch to give.
    """
    n = len(dataset)
    if batch_size < 1 or n < (batch_size if drop_last else 1):
        raise DatasetError(
            f"{n} images give no batch of {batch_size}; use a smaller batch_size, more images or drop_last=False"
        )
    order = (
        torch.arange(n)
        if generator is None
        else torch.randperm(n, generator=generator, device=generator.device)
    )
    for start in range(0, n - batch_size + 1 if drop_last else n, batch_size):
        yield batch_at(dataset, order[start : start + batch_size], augment, generator, device)


def seeded(*numbers: int) -> Generator:
    """A CPU generator that is a function of these integers, e.g. seeded(seed, epoch, step); every combination gives its own stream."""
    state = np.random.SeedSequence([int(n) for n in numbers]).generate_state(1, np.uint64)[0]
    return Generator().manual_seed(int(state) >> 1)


def balanced_order(labels: Sequence[int] | np.ndarray, seed: int = 0) -> np.ndarray:
    """Numbers of all images, shuffled by `seed`, with the classes taking turns: any first n hold each class equally often."""
    y = np.asarray(labels)
    order = np.random.default_rng(seed).permutation(len(y))
    turn = np.empty(len(y), dtype=np.int64)
    for label in np.unique(y):
        mine = order[y[order] == label]
        turn[mine] = np.arange(len(mine))
    return np.lexsort((y, turn))


def get_dataset(
    name: str | Path,
    root: str | Path | None = None,
    subset: int | tuple[int, int] | None = None,
    seed: int = 0,
    input_size: int = 32,
) -> tuple[ImageDataset, ImageDataset]:
    """(train, valid) of "cifar10", of "shapes10", of an image folder (`train/<class>/*.jpg`, `test/...`), or "auto".

    `subset`: n training and at most n validation images, or a pair of numbers; each class equally often, drawn by `seed`.
    Images are resized and centre-cropped to `input_size` pixels. "cifar10" looks in `root`, in $NASEDU_DATA and in the cache
    folder, then downloads. "auto" takes `root` or $NASEDU_DATA if given, else CIFAR-10 if it is at hand or can be fetched, else
    shapes10, and prints which and why. Raises DatasetError, or DownloadError if CIFAR-10 cannot be had.
    """
    if name == "auto":
        name, root, why = _choose(root)
        train, valid = get_dataset(name, root, subset, seed, input_size)
        print(f"data: {train.source}; {len(train):,} training and {len(valid):,} validation images ({why})")
        return train, valid
    if name == "shapes10":
        n_train, n_valid = _sizes(subset, shapes.N_TRAIN, shapes.N_VALID, "shapes10")
        train_x, train_y = shapes.draw(n_train, "train", seed, input_size)
        valid_x, valid_y = shapes.draw(n_valid, "valid", seed, input_size)
        source = f"shapes10, drawn by nasedu (seed {seed})"
        train = ImageDataset(
            torch.from_numpy(train_x), torch.from_numpy(train_y), shapes.CLASSES, "shapes10", source
        )
        return train, train._like(torch.from_numpy(valid_x), torch.from_numpy(valid_y))
    if name == "cifar10":
        place = root or os.environ.get("NASEDU_DATA")
        if place and not root and _is_image_folder(Path(place)):
            return _folder(Path(place), subset, seed, input_size)
        return _cifar10(download.cifar10_folder(place or download.cache_folder()), subset, seed, input_size)
    path = Path(name).expanduser()
    if (path / download.CIFAR10_FOLDER).is_dir():
        return _cifar10(download.cifar10_folder(path), subset, seed, input_size)
    if not path.is_dir():
        raise DatasetError(
            f"no dataset {str(name)!r}: it is neither 'cifar10', 'shapes10' or 'auto' nor an existing folder with "
            "train/<class>/*.jpg and test/<class>/*.jpg"
        )
    return _folder(path, subset, seed, input_size)


def _is_image_folder(path: Path) -> bool:
    return (path / "train").is_dir() and (path / "test").is_dir()


def _choose(root: str | Path | None) -> tuple[str | Path, Path | None, str]:
    if root or os.environ.get("NASEDU_DATA"):
        return root or os.environ["NASEDU_DATA"], None, "root names it" if root else "NASEDU_DATA names it"
    cache = download.cache_folder()
    if (cache / download.CIFAR10_FOLDER).is_dir():
        return "cifar10", cache, f"found in {cache}"
    try:
        download.cifar10_folder(cache)
    except download.DownloadError as error:
        return "shapes10", None, f"no CIFAR-10: {error.reason}"
    return "cifar10", cache, f"downloaded to {cache}"


def _sizes(subset: int | tuple[int, int] | None, n_train: int, n_valid: int, what: str) -> tuple[int, int]:
    if subset is None:
        return n_train, n_valid
    want_train, want_valid = (subset, min(subset, n_valid)) if isinstance(subset, int) else subset
    for got, most, split in ((want_train, n_train, "training"), (want_valid, n_valid, "validation")):
        if not 0 < got <= most:
            raise DatasetError(f"subset={subset} asks for {got} {split} images of {what}; wanted 1 to {most}")
    return want_train, want_valid


def _cifar10(
    root: Path, subset: int | tuple[int, int] | None, seed: int, size: int
) -> tuple[ImageDataset, ImageDataset]:
    from torchvision.datasets import CIFAR10

    source = f"CIFAR-10, official files in {root}"
    splits = []
    for part, n in zip(
        (CIFAR10(root, train=True), CIFAR10(root, train=False)),
        _sizes(subset, 50_000, 10_000, "CIFAR-10"),
        strict=True,
    ):
        order = balanced_order(part.targets, seed)[:n]
        images = torch.from_numpy(part.data[order]).permute(0, 3, 1, 2).contiguous()
        if size != 32:
            images = torch.cat(
                [
                    F.interpolate(chunk.float(), (size, size), mode="bilinear", antialias=True)
                    .round()
                    .clamp(0, 255)
                    .byte()
                    for chunk in images.split(1000)
                ]
            )
        splits.append(
            ImageDataset(
                images,
                torch.tensor(part.targets)[order],
                part.classes,
                "cifar10",
                source,
                CIFAR10_MEAN,
                CIFAR10_STD,
            )
        )
    return splits[0], splits[1]


def _folder(
    root: Path, subset: int | tuple[int, int] | None, seed: int, size: int
) -> tuple[ImageDataset, ImageDataset]:
    train_files, train_labels, classes = _scan(root, "train")
    valid_files, valid_labels, others = _scan(root, "test")
    if classes != others:
        raise DatasetError(
            f"{root}: train/ and test/ must hold the same classes; only in train/: {sorted(set(classes) - set(others))}, "
            f"only in test/: {sorted(set(others) - set(classes))}"
        )
    n_train, n_valid = _sizes(subset, len(train_files), len(valid_files), str(root))
    chosen_train, chosen_valid = (
        balanced_order(train_labels, seed)[:n_train],
        balanced_order(valid_labels, seed)[:n_valid],
    )
    images = _decode([train_files[i] for i in chosen_train] + [valid_files[i] for i in chosen_valid], size)
    labels = torch.tensor([train_labels[i] for i in chosen_train] + [valid_labels[i] for i in chosen_valid])
    train = ImageDataset(
        images[:n_train], labels[:n_train], classes, root.resolve().name, f"image folder {root}"
    )
    return train, train._like(images[n_train:], labels[n_train:])


def _scan(root: Path, split: str) -> tuple[list[str], list[int], list[str]]:
    folder = root / split
    if not folder.is_dir():
        raise DatasetError(
            f"{root} has no {split}/; wanted {root}/train/<class>/*.jpg and {root}/test/<class>/*.jpg (or .png)"
        )
    classes = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    files: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(
            entry.path for entry in os.scandir(folder / name) if entry.name.lower().endswith(SUFFIXES)
        )
        if not found:
            raise DatasetError(f"{folder / name} holds no image; wanted files named *.png, *.jpg or *.jpeg")
        files += found
        labels += [label] * len(found)
    if not files:
        raise DatasetError(f"{folder} holds no class; wanted one folder of images for each class in it")
    return files, labels, classes


def _decode(files: list[str], size: int) -> Tensor:
    images = torch.empty(len(files), 3, size, size, dtype=torch.uint8)
    array = images.numpy()

    def decode(i: int) -> None:
        try:
            with Image.open(files[i]) as opened:
                opened.draft("RGB", (2 * size, 2 * size))
                image = ImageOps.exif_transpose(opened).convert("RGB")
        except (OSError, SyntaxError, ValueError, StructError, Image.DecompressionBombError) as error:
            raise DatasetError(
                f"{files[i]} cannot be read as an image ({error}); repair or remove it"
            ) from error
        if image.size != (size, size):
            image = ImageOps.fit(image, (size, size), Image.Resampling.BILINEAR)
        array[i] = np.asarray(image).transpose(2, 0, 1)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for _ in tqdm(
            pool.map(decode, range(len(files))),
            total=len(files),
            desc="decoding images",
            disable=len(files) < 5000,
        ):
            pass
    return images
