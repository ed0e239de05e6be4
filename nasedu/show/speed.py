"""Where the time goes: bars of seconds, ratios of before and after, and the roofline."""

from collections.abc import Mapping, Sequence

import numpy as np

from nasedu.show.pictures import OKABE_ITO, Picture, figure, finish, legend, sentence, styled
from nasedu.study.timing import Limits, Work, ratio


@styled()
def time_bars(shares: Mapping[str, float], title: str = "Where the time goes", unit: str = "ms") -> Picture:
    """A bar for each kind of work, the largest first, with its share of the whole."""
    order = sorted(shares, key=lambda name: -shares[name])
    whole = sum(shares.values())
    made, axes = figure(size=(11, 1.2 + 0.55 * len(order)))
    axes.barh(order, [shares[name] for name in order], color=OKABE_ITO[0])
    for row, name in enumerate(order):
        axes.text(shares[name], row, f" {100 * shares[name] / whole:.0f} %", va="center", size=15)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.grid(False, axis="y")
    axes.set(title=title, xlabel=unit)
    said = ", ".join(f"{name} {100 * shares[name] / whole:.0f} %" for name in order)
    return finish(made, f"{sentence(title)} {said}.")


@styled()
def ratio_chart(
    measured: Mapping[str, Mapping[str, Sequence[float]]], title: str = "After, in units of before"
) -> Picture:
    """For each idea the time after it, in units of before: median and quartiles over rounds, 1 as a line.

    `measured` is idea -> {"before": seconds, "after": seconds} as `timing.take_turns` gives them.
    """
    made, axes = figure(size=(11, 1.6 + 0.44 * len(measured)))
    said = []
    for row, (name, seconds) in enumerate(measured.items()):
        middle, low, high = ratio(seconds, "after", "before")
        color = OKABE_ITO[2] if high < 1 else OKABE_ITO[5] if low > 1 else "#777777"
        axes.plot([low, high], [row, row], color=color, lw=5, solid_capstyle="butt")
        axes.plot([middle], [row], "o", color=color, ms=13)
        beside = {"va": "center", "size": 15, "bbox": {"color": "white", "pad": 1}}
        axes.annotate(f"{middle:.2f}", (high, row), (14, 0), textcoords="offset points", **beside)
        said.append(f"{name} {middle:.2f}, quartiles {low:.2f} to {high:.2f}")
    axes.axvline(1, color="#555555", ls=":", lw=2)
    axes.set_yticks(range(len(measured)), list(measured))
    axes.set_ylim(len(measured) - 0.5, -0.5)
    axes.margins(x=0.15)
    axes.set_xlim(left=0)
    axes.grid(False, axis="y")
    axes.set(title=title, xlabel="time after / time before")
    return finish(made, f"{sentence(title)} {'; '.join(said)}. Below 1 it pays.")


@styled()
def roofline(
    limits: Limits, layers: Mapping[str, tuple[Work, float]], title: str = "The roofline of this machine"
) -> Picture:
    """What the machine allows against what layers reach: name -> (their work, the seconds it took).

    Left of the ridge memory is the limit, right of it arithmetic. Williams, Waterman, Patterson, CACM 2009.
    """
    made, axes = figure(size=(11, 6))
    at = np.geomspace(0.05, 20 * limits.ridge, 200)
    axes.plot(at, np.minimum(at * limits.bytes, limits.flops) / 1e9, color="#222222", lw=3, label="the limit")
    axes.axvline(limits.ridge, color="#777777", ls=":", lw=2)
    said = []
    markers = "osDv^P*X"
    for i, (name, (work, seconds)) in enumerate(layers.items()):
        reached = work.flops / seconds
        share = limits.seconds(work.flops, work.moved) / seconds
        style = {"color": OKABE_ITO[i % len(OKABE_ITO)], "ms": 14, "ls": "none"}
        axes.plot(
            [work.intensity], [reached / 1e9], markers[i % 8], label=f"{name}: {100 * share:.0f} %", **style
        )
        said.append(
            f"{name} has {work.intensity:.2f} FLOP a byte and reaches {100 * share:.0f} % of its limit"
        )
    axes.set(xscale="log", yscale="log", title=title, xlabel="FLOP for each byte moved", ylabel="GFLOP/s")
    legend(axes, outside=True)
    words = (
        f"A copy moves {limits.bytes / 1e9:.1f} GB/s, a matrix product does {limits.flops / 1e9:.0f} GFLOP/s"
    )
    return finish(made, f"{sentence(title)} {words}; the ridge is at {limits.ridge:.1f}. {'; '.join(said)}.")


@styled()
def limit_chart(limits: Limits, works: Mapping[str, Work], title: str) -> Picture:
    """For each layer the shortest time of its arithmetic and of its memory; the longer of the two counts."""
    made, axes = figure(size=(11, 1.6 + 0.8 * len(works)))
    rows = np.arange(len(works))
    arithmetic = np.array([1e3 * work.flops / limits.flops for work in works.values()])
    memory = np.array([1e3 * work.moved / limits.bytes for work in works.values()])
    axes.barh(rows - 0.2, arithmetic, 0.38, label="arithmetic", color=OKABE_ITO[0])
    axes.barh(rows + 0.2, memory, 0.38, label="memory", color=OKABE_ITO[1])
    axes.set_yticks(rows, list(works))
    axes.invert_yaxis()
    axes.set(title=title, xlabel="ms at least")
    legend(axes)
    said = [
        f"{name}: {'arithmetic' if a > m else 'memory'}, {max(a, m):.3g} ms"
        for name, a, m in zip(works, arithmetic, memory, strict=True)
    ]
    return finish(
        made, f"{sentence(title)} What limits each layer, and the time at least: {'; '.join(said)}."
    )
