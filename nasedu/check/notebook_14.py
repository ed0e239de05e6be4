"""Checks of notebook 14: an input choice, a virtual step, and a model of one's own that can be searched."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from nasedu.check.contract import Cases, exercise
from nasedu.data.images import ImageDataset
from nasedu.search.darts import DartsTrainer
from nasedu.search.enas import EnasTrainer
from nasedu.search.evaluation import accuracy
from nasedu.search.random_search import RandomSearch
from nasedu.space.choice import InputChoice, LayerChoice, points, random_arch


@exercise("an input choice", hint="start the sum with torch.zeros_like(inputs[0])")
def input_choice(answer: Callable[[Sequence[Tensor], Sequence[int]], Tensor]) -> Cases:
    """Check exercise 14.2: `answer(inputs, chosen)` adds the chosen inputs, or gives zeros."""
    inputs = [torch.full((2, 3), float(i)) for i in (1, 10, 100)]
    yield "two of three", answer(inputs, [0, 2]), torch.full((2, 3), 101.0)
    yield "one of three", answer(inputs, [1]), torch.full((2, 3), 10.0)
    yield "none of three gives zeros of the same shape", answer(inputs, []), torch.zeros(2, 3)
    yield "the inputs are as they were", [x.mean().item() for x in inputs], [1.0, 10.0, 100.0]


@exercise("a virtual step", hint="{name: weight.detach() - lr * gradient[name] for name, weight in ...}")
def virtual_step(answer: Callable[[nn.Module, Mapping[str, Tensor], float], Mapping[str, Tensor]]) -> Cases:
    """Check exercise 14.3: `answer(model, gradient, lr)` is the dict of stepped weights; the model stays."""
    model = nn.Linear(2, 1)
    start = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([3.0])}
    model.load_state_dict(start)
    gradient = {"weight": torch.tensor([[10.0, -10.0]]), "bias": torch.tensor([1.0])}
    stepped = answer(model, gradient, 0.1)
    expected = {"weight": torch.tensor([[0.0, 3.0]]), "bias": torch.tensor([2.9])}
    yield "the stepped weights", {name: t.detach() for name, t in stepped.items()}, expected
    yield "the model has not moved", dict(model.state_dict()), start
    yield "the new weights do not hang on the old ones", any(t.requires_grad for t in stepped.values()), False


@exercise("a space of your own", hint="see `Own` in section 7; both inputs of the InputChoice need one shape")
def own_model(answer: Callable[[], nn.Module]) -> Cases:
    """Check exercise 14.1: `answer()` is a module with points "first" and "merge" that can be searched."""
    model = answer()
    found = {label: rows[0] for label, rows in points(model).items()}
    yield "the labels of its decision points", sorted(found), ["first", "merge"]
    first, merge = found["first"], found["merge"]
    enough = isinstance(first, LayerChoice) and len(first.names) >= 2
    yield '"first" is a LayerChoice of two layers or more', enough, True
    one_of_two = isinstance(merge, InputChoice) and (merge.n_candidates, merge.n_chosen) == (2, 1)
    yield '"merge" is an InputChoice of 1 of 2 inputs', one_of_two, True
    x = torch.zeros(4, 3, 16, 16)
    logits = model(x, random_arch(model, torch.Generator().manual_seed(0)))
    yield "the shape of its logits for 4 images", tuple(logits.shape), (4, 10)
    noise = torch.randint(256, (8, 3, 16, 16), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    images = ImageDataset(noise, torch.arange(8), [str(i) for i in range(10)])
    rewarded = {"reward_function": lambda o, t: 0.5, "ctrl_steps": 1, "ctrl_steps_aggregate": 1}
    searches: list[tuple[str, Callable[..., Any], dict[str, Any]]] = [
        ("DARTS", DartsTrainer, {}),
        (
            "ENAS",
            EnasTrainer,
            rewarded,
        ),
        ("random search", RandomSearch, {}),
    ]
    for name, make, options in searches:
        sgd = torch.optim.SGD(model.parameters(), 0.01)
        arguments = (model, nn.CrossEntropyLoss(), accuracy)
        trainer = make(
            *arguments,
            optimizer=sgd,
            num_epochs=1,
            dataset=images,
            batch_size=4,
            device="cpu",
            progress=False,
            **options,
        )
        trainer.fit()
        yield f"what {name} decides about", sorted(trainer.export()), ["first", "merge"]
