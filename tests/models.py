"""Models that several tests search: the smallest supernet, its derived network, a model of one's own."""

import torch
from torch import nn

from nasedu import (
    CNN,
    DartsTrainer,
    Genotype,
    InputChoice,
    LayerChoice,
    Network,
    accuracy,
    get_dataset,
)
from nasedu.space import SmallCNN
from nasedu.space.genotype import edges


class Own(nn.Module):
    """A model of one's own: layer choices, an input choice, and a skip that may be left out."""

    def __init__(self):
        super().__init__()

        def convolutions(c_in):
            return {f"{k}x{k}": nn.Conv2d(c_in, 4, k, padding=k // 2) for k in (1, 3)}

        self.first = LayerChoice(convolutions(3), "first")
        self.second = LayerChoice(convolutions(4), "second", row=0)
        self.third = LayerChoice(convolutions(4), "second", row=1)
        self.which = InputChoice(3, n_chosen=2, label="which")
        self.skip = InputChoice(1, n_chosen=None, label="skip")
        self.head = nn.Linear(4, 10)

    def forward(self, x, arch):
        a = self.first(x, arch).relu()
        b = self.second(a, arch).relu()
        c = self.third(b, arch).relu()
        d = self.which([a, b, c], arch) + self.skip([a], arch)
        return self.head(d.mean((2, 3)))


def supernet(n_layers=3, channels=4, size=8, **options) -> CNN:
    torch.manual_seed(0)
    return CNN(size, 3, channels, 10, n_layers, **options).double()


def derived_with_the_weights_of(model: CNN, genotype: Genotype, n_layers: int) -> Network:
    """A derived network whose layers are the supernet's own: only the wiring is its own."""
    network = Network(genotype, 4, 10, n_layers).double()
    network.stem, network.classifier = model.stem, model.classifier
    row_of = {edge: row for row, edge in enumerate(edges(4))}
    for cell, derived in zip(model.cells, network.cells, strict=True):
        derived.preprocess = cell.preprocess
        pairs = [(op, row_of[src, node]) for node, ps in enumerate(derived.nodes, start=2) for op, src in ps]
        derived.ops = nn.ModuleList(cell.edges[row].layers[op] for op, row in pairs)
    return network


def small_darts(channels: int, images: int, **options) -> DartsTrainer:
    """A search of the small space by DARTS, on shapes10 of 8x8 pixels, in batches of 8, on one thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = SmallCNN(channels)
    data, _ = get_dataset("shapes10", subset=(images, 10), input_size=8)
    return DartsTrainer(
        model=model,
        loss=nn.CrossEntropyLoss(),
        metrics=accuracy,
        optimizer=torch.optim.SGD(model.parameters(), 0.05, momentum=0.9),
        dataset=data,
        batch_size=8,
        device="cpu",
        progress=False,
        **options,
    )
