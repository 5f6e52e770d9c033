"""The picture of a comparison: learning curves with their bands."""

import numpy as np

from common.comparison.statistics import band, band_name, curves, iqm
from common.files.figures import new_figure, save_figure

# Okabe and Ito's, which colour-blind people can tell apart; the dashes are for grey printers.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
_DASHES = ["-", (0, (6, 1.5)), (0, (2, 1)), (0, (6, 1, 1, 1)), (0, (1, 1))]


def draw(path, settings, every, title, optimum=None, styles=None):
    """Draw the learning curves, and once more where they end; needs no display.

    The picture has 1300 x 750 pixels. The second panel is the last quarter of the steps, as high
    as the curves are there, or agents that have all learned the task could not be told apart.

    Args:
        path: of the png.
        settings, every: as for statistics.table().
        title: str, to which it is added what curve and band are.
        optimum: the best mean return from the validation starts, or None: no line.
        styles: which colour and dashes each setting has, a list of int; None: 0, 1, 2...
    """
    with new_figure(13, 7.5) as figure:
        whole, end = figure.subplots(1, 2, width_ratios=[2, 1])
        found = [curves(results, every) for results in settings.values()]
        last = max(steps[-1] for steps, _ in found)
        late = [] if optimum is None else [optimum]  # what the second panel has to show
        for i, label, (steps, returns) in zip(styles or range(len(settings)), settings, found):
            look = {"color": _COLOURS[i % len(_COLOURS)], "linestyle": _DASHES[i % len(_DASHES)]}
            middle, edges = iqm(returns), band(returns)
            late += list(middle[steps >= 0.75 * last])
            seeds = f"{len(returns)} seed{'s' * (len(returns) > 1)}"
            for axes in (whole, end):
                axes.fill_between(steps, *edges, color=look["color"], alpha=0.2, linewidth=0)
                axes.plot(steps, middle, **look, linewidth=2.5, label=f"{label} ({seeds})")
        margin = 0.3 * np.ptp(late) or 1.0
        end.set_ylim(min(late) - margin, max(late) + margin)
        for axes, left in ((whole, 0), (end, 0.75 * last)):
            axes.set_xlim(left, 1.01 * last)
            axes.xaxis.set_major_formatter(lambda x, _: f"{x:,.0f}")
            axes.locator_params("x", nbins=5)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
        if optimum is not None:
            for axes in (whole, end):
                axes.axhline(optimum, color="0.3", linestyle="--", linewidth=1.5)
            label = f"best possible from these starts: {optimum:.0f}".replace("-", "\N{MINUS SIGN}")
            whole.annotate(label, (1, optimum), (-4, 5), ("axes fraction", "data"),
                           "offset points", ha="right", color="0.3", fontsize=13)
        figure.suptitle(f"{title}: IQM and {band_name(map(len, settings.values()))} over seeds")
        whole.set_xlabel("environment steps")
        whole.set_ylabel("return of the greedy policy")
        end.set_title("the last quarter, enlarged", fontsize=16)
        figure.legend(*whole.get_legend_handles_labels(), loc="outside lower center",
                      ncols=3 if len(settings) < 4 else 2, frameon=False)
        save_figure(path, figure)
