"""Methods by their regret, and two rankings of the same architectures.

regret_curves({"random": curves(random_search, table), ...})     regret against evaluations, with bands
rank_scatter(scores, true)                                       a dot for each architecture, tau, interval
"""

from collections.abc import Mapping
from itertools import cycle

import numpy as np
from matplotlib.ticker import NullFormatter
from torch import Tensor

from nasedu.show.pictures import DASHES, OKABE_ITO, Numbers, Picture, array, figure, finish, sentence, styled
from nasedu.study.statistics import mean_interval, tau_interval

TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


@styled()
def regret_curves(curves: Mapping[str, Tensor | np.ndarray], title: str = "Regret by evaluations") -> Picture:
    """Draw a panel for each method: median regret, and bands with the middle 50 % and 95 % of the seeds.

    Each method has an array (seeds, evaluations) of shares from 0 to 1, as `table_search.curves` gives; it is
    drawn in percentage points, linear from 0 to 1 and logarithmic above. The first method's median is drawn
    into the other panels too, dotted, for comparison. Raises ValueError for another shape.
    """
    made, grid = figure(1, len(curves), size=(1 + 4.2 * len(curves), 5), squeeze=False, sharey=True)
    said, reference = [], None
    for axes, (name, values), color in zip(grid[0], curves.items(), cycle(OKABE_ITO), strict=False):
        points = 100 * array(values)
        if points.ndim != 2 or not points.size:
            raise ValueError(f"{name}: wanted an array (seeds, evaluations), got shape {points.shape}")
        at = 1 + np.arange(points.shape[1])
        for low, high, alpha, label in ((0.025, 0.975, 0.15, "95 %"), (0.25, 0.75, 0.3, "50 %")):
            ends = np.quantile(points, [low, high], axis=0)
            axes.fill_between(at, *ends, color=color, alpha=alpha, lw=0, label=f"middle {label} of seeds")
        median = np.median(points, axis=0)
        axes.plot(at, median, color=color, label="median")
        if reference is None:
            reference = name, at, median
        else:
            axes.plot(*reference[1:], color="black", ls=DASHES[2], lw=2.2, label=f"median of {reference[0]}")
        axes.set(title=name, xlabel="evaluations", xscale="log", xlim=(1, len(at)))
        axes.set_xticks([t for t in TICKS if t <= len(at)], [str(t) for t in TICKS if t <= len(at)])
        axes.xaxis.set_minor_formatter(NullFormatter())
        said.append(f"{name}: {_at_some(points)}")
    axes.set_yscale("symlog", linthresh=1, linscale=1)
    top = axes.get_ylim()[1]
    axes.set(ylim=(0, top))
    axes.set_yticks(
        [0, 0.5, *(t for t in TICKS if t <= top)], ["0", "0.5", *(str(t) for t in TICKS if t <= top)]
    )
    grid[0, 0].set_ylabel("regret (percentage points)")
    handles, labels = axes.get_legend_handles_labels()
    made.legend(handles, labels, loc="outside lower center", ncols=len(labels), handlelength=2.6)
    made.suptitle(title)
    return finish(
        made, f"{sentence(title)} Regret in percentage points against evaluations. {' '.join(said)}"
    )


def _at_some(points: np.ndarray) -> str:
    """Say the regret (seeds, evaluations) after 1, 10, 100 and all evaluations."""
    n = points.shape[1]
    parts = []
    for count in sorted({count for count in (1, 10, 100) if count < n} | {n}):
        mean, low, high = mean_interval(points[:, count - 1].tolist())
        median = np.median(points[:, count - 1])
        parts.append(f"after {count} median {median:.2f}, mean {mean:.2f} ({low:.2f} to {high:.2f})")
    return f"{'; '.join(parts)}; {len(points)} seeds, intervals of 95 %."


@styled()
def rank_scatter(
    scores: Numbers,
    true: Numbers,
    title: str = "Does the supernet rank as training alone does?",
    xlabel: str = "accuracy with shared weights (%)",
    ylabel: str = "accuracy trained alone (%)",
) -> Picture:
    """Draw a dot for each architecture: its score against its true accuracy, both (n,) shares from 0 to 1.

    The favourite by score and the truly best are marked; the title says tau and its interval of 95 %
    (`tau_interval`). Raises ValueError as that does.
    """
    tau, low, high = tau_interval(scores, true)
    x, y = 100 * array(scores), 100 * array(true)
    made, axes = figure(size=(9, 6.5))
    axes.plot(x, y, "o", color=OKABE_ITO[0], ms=8, alpha=0.55, mec="white")
    favourite, best = int(x.argmax()), int(y.argmax())
    for i, marker, color, label in (
        (best, "s", OKABE_ITO[2], "truly best"),
        (favourite, "D", OKABE_ITO[1], "favourite by score"),
    ):
        label = f"{label}: {y[i]:.1f} % alone"
        axes.plot(x[i], y[i], marker, color=color, ms=15, mfc="none", mew=3, label=label)
    axes.legend(loc="best", numpoints=1)
    found = f"tau {tau:.2f} (95 %: {low:.2f} to {high:.2f})"
    axes.set(title=f"{title}\n{found}", xlabel=xlabel, ylabel=ylabel)
    return finish(
        made,
        f"{sentence(title)} {len(x)} dots, {ylabel} against {xlabel}. Kendall's {found}. The favourite by "
        f"score has {y[favourite]:.1f} % alone, the truly best {y[best]:.1f} %; scores go from {x.min():.1f} "
        f"to {x.max():.1f} %, true accuracies from {y.min():.1f} to {y.max():.1f} %.",
    )
