"""shapes10 (provisional: gratings; the real generator follows)."""

import numpy as np

CLASSES = [f"class{i}" for i in range(10)]
N_TRAIN, N_VALID = 10_000, 2_000


def draw(n: int, split: str, seed: int = 0, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    """Images (n, 3, size, size) uint8 and labels (n,) int64 (provisional)."""
    rng = np.random.default_rng([seed, split == "train"])
    labels = np.arange(n) % 10
    y, x = np.mgrid[:size, :size] / size
    angle = labels * np.pi / 10
    wave = np.sin(
        20 * (x * np.cos(angle)[:, None, None] + y * np.sin(angle)[:, None, None]) + 6 * rng.random((n, 1, 1))
    )
    images = (
        128 + 60 * wave[:, None] * rng.random((n, 3, 1, 1)) + 30 * rng.standard_normal((n, 3, size, size))
    )
    return images.clip(0, 255).astype(np.uint8), labels.astype(np.int64)
