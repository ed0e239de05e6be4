"""shapes10: the same bytes everywhere, and worth learning from."""

import hashlib

import numpy as np
import pytest
import torch
from torch import nn

from nasedu.data import shapes
from nasedu.data.datasets import Augment, ImageDataset, batch_at, batches, get_dataset, seeded


@pytest.mark.parametrize(
    "arguments, sha256",
    [
        ((1000, "train", 0, 32), "8f612ab25c8a32ab2afc5b541e49b087e6e9cbf9e3fa14e40df64a2ab496b5de"),
        ((300, "valid", 7, 32), "be5d9262297bb2b7ae95dcca63789cb99a64b41664b20bdb301e987028f11b96"),
        ((200, "train", 3, 20), "d2bf6448a4f14c0e223335e2d2354fe8127a7aecabf67f8b522311e5736f12a6"),
    ],
)
def test_the_bytes_are_these_on_every_machine(arguments, sha256):
    images, labels = shapes.draw(*arguments)
    assert hashlib.sha256(images.tobytes()).hexdigest() == sha256
    assert images.shape == (arguments[0], 3, arguments[3], arguments[3]) and labels.dtype == np.int64
    assert (labels == np.arange(arguments[0]) % 10).all()


@pytest.mark.parametrize("n", [1, 249, 250, 251, 500])
def test_fewer_images_are_a_prefix_of_more(n):
    more, _ = shapes.draw(510, "valid", seed=5, size=12)
    fewer, _ = shapes.draw(n, "valid", seed=5, size=12)
    assert (fewer == more[:n]).all()


def test_seeds_splits_and_images_differ():
    sets = [shapes.draw(300, split, seed)[0] for split in ("train", "valid") for seed in (0, 1)]
    flat = np.concatenate(sets).reshape(1200, -1)
    assert len(np.unique(flat, axis=0)) == 1200


def test_dice_are_uniform_and_stay_in_their_row():
    words = np.random.PCG64(0).random_raw(4000 * 4).reshape(4000, 4)
    dice = shapes._Dice(words)
    unit, choice = dice.uniform(-2, 4, 2), dice.choice(3, 1)
    assert unit.min() >= -2 and unit.max() <= 4 and abs(unit.mean() - 1) < 0.1
    assert (np.abs(np.bincount(choice.ravel()) - 4000 / 3) < 150).all()
    again = shapes._Dice(words[10:20])
    assert (again.uniform(-2, 4, 2) == unit[10:20]).all() and (again.choice(3, 1) == choice[10:20]).all()


@pytest.mark.parametrize(
    "arguments, culprit",
    [
        ((0, "train"), "n is 0"),
        ((5, "test"), "split is 'test'"),
        ((5, "train", -1), "seed is -1"),
        ((5, "train", 0, 7), "size is 7"),
    ],
)
def test_wrong_arguments_are_named(arguments, culprit):
    with pytest.raises(ValueError, match=culprit):
        shapes.draw(*arguments)


def accuracy(net: nn.Module, data: ImageDataset) -> float:
    net.eval()
    with torch.no_grad():
        hits = [(net(x).argmax(1) == y).float().mean().item() for x, y in batches(data, 500, drop_last=False)]
    return sum(hits) / len(hits)


@pytest.fixture(scope="module")
def data():
    return get_dataset("shapes10", subset=(4000, 1000))


@pytest.mark.parametrize("weight_decay", [0.0, 1.0])
def test_a_linear_classifier_fails(data, weight_decay):
    train, valid = data
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 10))
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, weight_decay=weight_decay)
    x, y = batch_at(train, torch.arange(len(train)))
    for step in range(300):
        part = torch.randint(len(train), (200,), generator=seeded(0, step))
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x[part]), y[part]).backward()
        optimizer.step()
    assert accuracy(net, train) > 0.35  # it did learn what a linear map can, by heart
    assert accuracy(net, valid) < 0.25  # measured 0.13; the promise is 0.45


def block(c_in: int, c_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv2d(c_in, c_out, 3, stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(c_out), nn.ReLU())


def test_a_small_cnn_learns(data):
    train, valid = data
    torch.manual_seed(0)
    layers = [block(3, 16, 1), block(16, 32, 2), block(32, 64, 2), block(64, 64, 1)]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.2, total_steps=320)
    for epoch in range(4):
        net.train()
        for x, y in batches(train, 50, seeded(0, epoch), Augment(crop_padding=2)):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            optimizer.step()
            schedule.step()
    assert accuracy(net, valid) > 0.5  # measured 0.71, and 0.97 after 2,000 steps on 5,000 images
