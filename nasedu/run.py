"""What `make run` does: search a cell with DARTS and one with ENAS, and draw both."""

from pathlib import Path

from nasedu.data.datasets import get_dataset
from nasedu.profiles import Profile
from nasedu.search.registry import METHODS
from nasedu.show import page
from nasedu.space.genotype import Genotype
from nasedu.study.recipe import Recipe
from nasedu.study.record import stamp


def make(sizes: Profile, data: str, out: Path, seed: int) -> Path:
    """Search twice on the images `data`, by the sizes of a profile, and write the page into `out`."""
    name = sizes.dataset if data == "auto" else data
    recipe = Recipe(
        pixels=sizes.image_size, images=sizes.run_images, valid_images=0, test_images=sizes.test_images,
        data_seed=seed, channels=sizes.channels, layers=sizes.layers, epochs=sizes.run_epochs,
        batch_size=sizes.batch_size, lr_min=0.001, crop_padding=sizes.image_size // 8,
        methods={
            "DARTS 1st": {"arc_learning_rate": 0.02},
            "ENAS": {"ctrl_lr": 3.5e-3, "ctrl_steps": 10, "ctrl_steps_aggregate": 10},
        },
    )  # fmt: skip
    subset = (sizes.run_images, sizes.test_images)
    train, valid = get_dataset(name, subset=subset, seed=seed, input_size=recipe.pixels)
    if name != "auto":  # "auto" says it by itself
        print(f"data: {train.source}; {len(train):,} training and {len(valid):,} validation images")
    out.mkdir(parents=True, exist_ok=True)
    searches, checkpoints = [], []
    for method in recipe.methods:
        checkpoints.append(out / f"{method.split()[0].lower()}.checkpoint.pt")
        options = {"checkpoint": checkpoints[-1], "progress": True, "device": sizes.device}
        trainer = recipe.search(method, train, seed, **options)
        trainer.fit()
        if not trainer.finished():
            print("to go on: the same command again")
            raise KeyboardInterrupt
        genotype = Genotype.from_dict(trainer.export())
        last = trainer.history.epochs[-1]
        shared = trainer.score(genotype.arch(), valid)["acc1"]
        results = {
            "Time": f"{trainer.history.seconds:.0f} s",
            "Accuracy on the training half, last epoch": f"{last['train_acc1']:.1%}",
            "Accuracy on the architecture half, last epoch": f"{last['valid_acc1']:.1%}",
            f"Accuracy of the cell in the supernet, on {len(valid):,} other images": f"{shared:.1%}",
        }
        explained = METHODS[method].about
        searches.append(
            page.Search(method.split()[0], explained, genotype, last["arch"], trainer.history, results)
        )
    facts = {
        "Data": f"{train.source}: {len(train):,} images, half for the weights, half for the architecture",
        "Supernet": f"{recipe.channels} channels, {recipe.layers} cells, "
        f"images of {recipe.pixels}x{recipe.pixels} pixels",
        "Search": f"{recipe.epochs} epochs, batches of {recipe.batch_size}, seed {seed}",
        "Device": f"{stamp(sizes.device)['device']} (profile {sizes.name})",
        "Read with care": "These searches are small: another seed may well give another cell. Notebooks 06 "
        "to 09 build both methods, step by step.",
    }
    written = page.write(out, "Two cells, searched for and drawn", facts, searches)
    for path in checkpoints:
        path.unlink()
    return written
