"""Learning curves of several settings, each over seeds: statistics, a picture, a table.

The curve of a setting is the interquartile mean (IQM) over its seeds: the mean of the middle
half, which one lucky or failed seed moves little and the median of few would not see. Its band
is a 95 % bootstrap confidence interval: how far the IQM of as many other seeds may be. Fewer than
five seeds say little of others, so their band is their range. Agarwal et al., 2021, "Deep
reinforcement learning at the edge of the statistical precipice".
"""

import csv
import io

import numpy as np
from scipy import integrate, stats

from common import curve

# Okabe and Ito's, which colour-blind people can tell apart; the dashes are for grey printers.
_COLOURS = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]
_DASHES = ["-", (0, (6, 1.5)), (0, (2, 1)), (0, (6, 1, 1, 1)), (0, (1, 1))]
_HEAD = """\
| setting | seeds | mean | IQM | {} | worst seed | area | seconds |
|---|---|---|---|---|---|---|---|
"""
_ROW = ("| {setting} | {seeds} | {mean:.1f} | {IQM:.1f} | {low:.1f} to {high:.1f} "
        "| {worst_seed:.1f} | {area:.1f} | {seconds:.1f} |\n")
_FEW = 5  # seeds


def iqm(values, axis=0):
    """The mean of what is left without the lowest and the highest quarter."""
    return stats.trim_mean(values, 0.25, axis=axis)


def band(values):
    """Around iqm(values): its 95 % confidence interval, by the percentile bootstrap over axis 0.

    Args:
        values: (n_seeds, ...); of fewer than five seeds, it is their range.

    Returns:
        (low, high), each of the shape of one seed's values.
    """
    values = np.asarray(values, float)
    if len(values) < _FEW:
        return values.min(axis=0), values.max(axis=0)
    found = stats.bootstrap(
        (values,), iqm, axis=0, n_resamples=5000, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    return found.low, found.high


def band_name(seeds):
    """What the bands of settings are, for a title: str. seeds: how many each setting has."""
    return " or ".join(sorted({"range" if n < _FEW else "95 % interval" for n in seeds}))


def curves(results, every):
    """Mean returns of the evaluations on common steps.

    Episodes end where they end, so evaluations are made a little after each multiple of
    `every`; between them, the curve is taken to be straight.

    Args:
        results: list of dict, one for each seed, see `runs.execute()`.
        every: steps between the points.

    Returns:
        steps (n,), returns (n_seeds, n).
    """
    last = min(result["evaluations"][-1][0] for result in results)
    steps = np.arange(0, last + 1, every)
    returns = []
    for result in results:
        at, of_each_start = zip(*result["evaluations"])
        returns.append(np.interp(steps, at, np.mean(of_each_start, axis=1)))
    return steps, np.array(returns)


def table(settings, every):
    """A row for each setting: list of dict.

    mean, IQM, its band (low, high) and worst_seed are over seeds, of the mean return of
    the weights that were kept from the 100 test starts. area is the mean height of the learning
    curve. seconds is the median time of a training, evaluations left out.

    Args:
        settings: dict from label to list of results.
        every: as for curves().
    """
    rows = []
    for label, results in settings.items():
        kept = np.array([np.mean(result["test_returns"]) for result in results])
        low, high = map(float, band(kept))
        steps, returns = curves(results, every)
        area = np.mean(integrate.trapezoid(returns, steps, axis=1) / steps[-1])
        seconds = np.median([result["seconds"] for result in results])
        rows.append({"setting": label, "seeds": len(results), "mean": kept.mean(),
                     "IQM": float(iqm(kept)), "low": low, "high": high, "worst_seed": kept.min(),
                     "area": float(area), "seconds": float(seconds)})
    return rows


def as_markdown(rows, optimum=None):
    """The rows of table() as a Markdown table, str; optimum: the best mean possible, or None."""
    best = "" if optimum is None else f"| best possible | | {optimum:.1f} | | | | | |\n"
    head = _HEAD.format(band_name(row["seeds"] for row in rows))
    return head + "".join(map(_ROW.format_map, rows)) + best


def as_csv(rows):
    """The rows of table() as CSV, str, with all digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def draw(path, settings, every, title, optimum=None, styles=None):
    """Draw the learning curves, and once more where they end; needs no display.

    The picture has 1300 x 750 pixels. The second panel is the last quarter of the steps, as high
    as the curves are there, or agents that have all learned the task could not be told apart.

    Args:
        path: of the png.
        settings, every: as for table().
        title: str, to which it is added what curve and band are.
        optimum: the best mean return from the validation starts, or None: no line.
        styles: which colour and dashes each setting has, a list of int; None: 0, 1, 2...
    """
    with curve.new_figure(13, 7.5) as figure:
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
            label = f"best possible: {optimum:.0f}".replace("-", "\N{MINUS SIGN}")
            whole.annotate(label, (1, optimum), (-4, 5), ("axes fraction", "data"),
                           "offset points", ha="right", color="0.3", fontsize=13)
        figure.suptitle(f"{title}: IQM and {band_name(map(len, settings.values()))} over seeds")
        figure.supxlabel("environment steps")
        whole.set_ylabel("return of the greedy policy")
        end.set_title("the last quarter, enlarged", fontsize=16)
        whole.legend(loc="best", framealpha=0.9)
        curve.save_figure(path, figure)
