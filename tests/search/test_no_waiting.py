"""A whole step of every trainer waits for no device, but where it says so; on a fake one, see `fake_gpu`."""

import pytest
import torch
from fake_gpu import GPU, FakeGpu
from torch import nn

from nasedu import (
    CNN,
    DartsTrainer,
    EnasTrainer,
    Network,
    RandomSearch,
    StandaloneTrainer,
    accuracy,
    get_dataset,
    reward_accuracy,
)
from nasedu.search import EdgeShares, Gumbel, evaluate, evaluation
from nasedu.space import PUBLISHED, random_arch

OPTIONS = {"loss": nn.CrossEntropyLoss(), "metrics": accuracy, "num_epochs": 2, "batch_size": 8}
FEW = {"reward_function": reward_accuracy, "n_candidates": 2, "candidate_images": 16}


def trainer(cls, network=None, **options):
    with GPU:
        model = network or CNN(16, 3, 2, 10, 3, n_nodes=2)
    data, valid = get_dataset("shapes10", subset=(64, 10), input_size=16)
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=3e-4)
    given = {"dataset": data, "optimizer": optimizer, "device": GPU, "progress": False, **OPTIONS, **options}
    if cls is StandaloneTrainer:
        given["valid"] = valid
    return cls(model, **given)


def waits(search, *steps):
    """The shapes of what came to the host in these steps of the second epoch."""
    with FakeGpu() as gpu:
        for step in steps:
            numbers = search.train_step(1, step)
    assert gpu.blocking == []
    assert all(x.device == GPU for name, x in numbers.items() if name.startswith("train_"))
    return gpu.reads


@pytest.mark.parametrize("unrolled", [False, True], ids=["first order", "second order"])
@pytest.mark.parametrize("options", [{}, {"relaxation": EdgeShares()}], ids=["Softmax", "EdgeShares"])
def test_a_step_of_darts_waits_for_nothing(unrolled, options):
    assert waits(trainer(DartsTrainer, unrolled=unrolled, **options), 0, 1) == []


def test_a_step_of_enas_waits_for_the_rewards_alone():
    search = trainer(EnasTrainer, **FEW, ctrl_steps=2, ctrl_steps_aggregate=3)
    assert waits(search, 0, 1) == [], "steps of the child"
    with FakeGpu() as gpu:
        search.train_step(0, search.child_steps)
    assert gpu.reads == [(3 + 3 * 2,)], "3 rewards, losses and accuracies, in one copy"
    assert gpu.blocking == []


def test_a_step_of_random_search_waits_for_nothing():
    assert waits(trainer(RandomSearch, **FEW), 0, 1) == []


def test_a_candidate_alone_is_waited_for_when_it_is_judged():
    search = trainer(RandomSearch, **FEW, weight_sharing=False)  # 2 candidates, 4 steps each
    assert waits(search, 0, 1, 2) == []
    assert waits(search, 3) == [(3,)], "loss, accuracy and reward of one batch"


def test_a_step_of_standalone_training_waits_for_nothing():
    arch = random_arch(CNN(16, 3, 2, 10, 3, n_nodes=2))
    assert waits(trainer(StandaloneTrainer, arch=arch), 0, 1) == []
    with GPU:
        network = Network(PUBLISHED["DARTS_V2"], 4, 10, 3)
    assert waits(trainer(StandaloneTrainer, network, drop_path=0.2), 0, 1) == []


def test_gdas_must_know_what_it_has_drawn():
    """It runs what it draws, and draws by a matrix on the device: for alpha's batch, and for the weights'."""
    assert waits(trainer(DartsTrainer, relaxation=Gumbel()), 0) == 4 * [(5, 8)], "two cells, two draws"


def test_an_evaluation_is_read_once():
    with GPU:
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 10))
    data, _ = get_dataset("shapes10", subset=50, input_size=8)
    data = data.to(GPU)
    with FakeGpu() as gpu:
        evaluate(model, data, batch_size=16, device=GPU)
    assert gpu.reads == [(4 * 2,)] and gpu.blocking == []


def test_the_fake_gpu_sees_what_waits():
    near, far = torch.rand(3), torch.rand(3, device=GPU)
    for wait in (
        lambda: far[0].item(),
        lambda: bool(far[0] > 0),
        lambda: far[far > 0],
        lambda: far + near,
        lambda: near.copy_(far),
        lambda: far[torch.tensor([0, 1])],
    ):
        with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), FakeGpu():
            wait()
    with FakeGpu() as gpu:
        far.tolist(), near.to(GPU), near.to(GPU, non_blocking=True)
        evaluation.read([{"a": far[0]}, {"b": far[1], "c": near[0]}])
    assert gpu.reads == [(3,), (2,)] and gpu.blocking == [(3,)]
