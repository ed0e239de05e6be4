"""Checks of notebook 01: count a space, how many draws, the best of n, cells that are the same."""

from collections.abc import Callable
from itertools import combinations, count, product
from statistics import mean

from nasedu.check.contract import Cases, exercise


@exercise(
    "count the macro space", hint="an operation for each layer; for each pair of layers, skip or no skip"
)
def macro_space(n_architectures: Callable[[int, int], int]) -> Cases:
    """Check exercise 01.1: `n_architectures(n_layers, n_ops)`, the chain of layers with any skip connections.

    ENAS, arXiv:1802.03268, section 2.3.
    """
    yield "1 layer of 4 operations", n_architectures(1, 4), 4
    pairs = list(combinations(range(3), 2))
    listed = sum(1 for _ in product(product("ab", repeat=3), product((False, True), repeat=len(pairs))))
    yield "3 layers of 2 operations, listed one by one", n_architectures(3, 2), listed
    yield "12 layers of 6 operations, as in ENAS, exactly", n_architectures(12, 6) == 6**12 * 2**66, True


@exercise("how many draws", hint="n draws all miss the best share q with probability (1 - q)^n")
def draws_needed(n_draws: Callable[[float, float], int]) -> Cases:
    """Check exercise 01.3: the smallest n for which n draws hit the best share `q` with probability `p`."""
    for q, p in ((0.05, 0.95), (0.01, 0.95), (0.001, 0.99), (0.4, 0.3)):
        wanted = next(n for n in count(1) if 1 - (1 - q) ** n >= p)
        yield f"best {100 * q:g} % with probability {p:g}", n_draws(q, p), wanted


@exercise("the expected best of n", hint="P(best of n <= i-th smallest of N) = (i/N)^n; take differences")
def best_of(expected_best: Callable[[list[float], int], float]) -> Cases:
    """Check exercise 01.2: the mean of the largest of n draws, with replacement, from a list of results.

    Dodge et al. 2019, arXiv:1909.03004, section 3.
    """
    results = [0.31, 0.52, 0.44, 0.52, 0.27]
    yield "one draw is the mean", expected_best(results, 1), mean(results)
    yield "two draws from 0 and 1", expected_best([1.0, 0.0], 2), 0.75
    for n in (2, 3, 5):
        listed = mean(max(draw) for draw in product(results, repeat=n))
        yield f"{n} draws, against all {len(results) ** n:,} listed", expected_best(results, n), listed


@exercise("cells that are the same", hint="only where node 3 takes both inputs can the nodes change places")
def distinct_cells(n_distinct: Callable[[int], int]) -> Cases:
    """Check exercise 01.4: `n_distinct(n_ops)` two-node cells that are no renaming of each other."""
    for n_ops in (1, 2, 3, 7):
        yield f"{n_ops} operation{'s' if n_ops > 1 else ''}", n_distinct(n_ops), len(_classes(n_ops))


def _classes(n_ops: int) -> set[tuple]:
    """List all two-node cells and write each in one form for all its renamings."""
    ops = range(n_ops)
    node_2 = [((a, 0), (b, 1)) for a, b in product(ops, repeat=2)]
    inputs = combinations(range(3), 2)
    node_3 = [((a, i), (b, j)) for i, j in inputs for a, b in product(ops, repeat=2)]
    # Only nodes that both take the two inputs have a mirror image among the others.
    return {tuple(sorted(nodes)) for nodes in product(node_2, node_3)}
