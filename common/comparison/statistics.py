"""Learning curves of several settings, each over seeds: statistics and tables.

The curve of a setting is the interquartile mean (IQM) over its seeds: the mean of the middle
half, which one lucky or failed seed moves little and the median of few would not see. Its band
is a 95 % bootstrap confidence interval. Fewer than five seeds say little of others, so their band
is their range. Agarwal et al., 2021, "Deep reinforcement learning at the edge of the statistical
precipice".
"""

import csv
import io

import numpy as np
from scipy import integrate, stats

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
