"""Plots of learning rates."""

from __future__ import annotations

import csv
import importlib.util
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from expdecay_keras.rule import DecayRule

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class _Curve(NamedTuple):
    label: str
    epochs: npt.NDArray[np.float64]
    rates: npt.NDArray[np.float64]
    is_stepped: bool = False
    rule: DecayRule | None = None


def plot_learning_rate(*rules: Any, ax: Axes | None = None) -> Axes:
    """Plots learning rates over epochs on a log axis.

    Both ends of each curve and its highest point are labelled with their rates, unless
    there are more than four curves; warm-up and hold are shaded. A rule or a history is
    drawn as joined points, one per epoch; a callback or a staircase schedule as steps,
    each lasting until the next epoch. If a rule has more than 1000 epochs, about 1000
    of them, evenly spaced, are drawn. Where a history or a file has no rate (None, NaN,
    NA), the curve has a gap. A rate of 0 has no place on a log axis: the legend says
    that it is not shown.

    Args:
        *rules: One or more of the following: a `DecayRule`, a `WarmupExponentialDecay`,
            a `WarmupExponentialSchedule`, a `tf.keras.callbacks.History` that contains
            a learning rate or its dictionary `history.history`, or the path (str or
            PathLike) of a CSV file with the columns `epoch` and `learning_rate`, as
            `CSVLogger` writes it, separated by commas, semicolons or tabs.
        ax: The matplotlib Axes to draw on. Default None: new Axes of 6 by 4 inches, or
            higher if the legend is long.

    Returns:
        The matplotlib Axes. Nothing is shown or saved.

    Raises:
        ImportError: matplotlib is not installed.
        TypeError: An argument has an unsupported type, or no argument is given.
        ValueError: A history or file contains no learning rate, or a line of a file
            does not match its header; the message names the line.
        OSError: A file cannot be read.

    Example:

    >>> from expdecay_keras import DecayRule
    >>> ax = plot_learning_rate(DecayRule(base_lr=1e-2, target_lr=1e-4, n_epochs=5))
    >>> ax.get_yscale()
    'log'
    """
    if not rules:
        raise TypeError("Argument `rules` must not be empty. Received: rules=()")
    curves = list(_curves(rules))
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("A plot needs matplotlib: pip install matplotlib")
    from matplotlib.ticker import MaxNLocator

    longest = max(len(curve.label) for curve in curves)
    n_columns = max(1, 72 // (longest + 8))
    if ax is None:
        from matplotlib import pyplot

        n_rows = (len(curves) + 2) / n_columns  # with warm-up and hold
        height = max(4.0, 1.3 + 0.38 * n_rows)  # at least half of it for the curves
        _, ax = pyplot.subplots(figsize=(6, height), layout="constrained")
        ax.margins(0.2, 0.15)  # room for the labels
    ax.set_yscale("log")
    for curve in curves:
        _draw(curve, ax, has_labels=len(curves) <= 4)
    _shade([curve.rule for curve in curves if curve.rule is not None], ax)
    locator = ax.xaxis.get_major_locator()
    if isinstance(locator, MaxNLocator):  # others may not take `integer`
        locator.set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.set_ylabel("learning rate")
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(0, 1),  # above the axes
        ncols=n_columns,
        frameon=False,
        fontsize="small",
    )
    return ax


def _curves(sources: tuple[Any, ...]) -> Iterator[_Curve]:
    """Yields the curves to draw for all arguments."""
    history_types = (tf.keras.callbacks.History, dict)
    n_histories = sum(isinstance(source, history_types) for source in sources)
    number = 0
    for source in sources:
        if isinstance(source, (str, os.PathLike)):
            name = "/".join(Path(source).parts[-2:])
            yield from _logged_curves(f"history {name}", _read_csv(source))
        elif isinstance(source, history_types):
            number += 1
            label = f"history {number}" if n_histories > 1 else "history"
            columns: Any = source
            if not isinstance(source, dict):
                columns = {**source.history, "epoch": getattr(source, "epoch", [])}
            yield from _logged_curves(label, columns)
        else:
            yield _rule_curve(source)


def _rule_curve(source: Any) -> _Curve:
    """Returns the curve of a rule, or of a callback or schedule that has one."""
    rule = getattr(source, "rule", source)
    if not isinstance(rule, DecayRule):
        raise TypeError(
            "Argument `rules` must contain only rules, callbacks, schedules, histories "
            f"and paths of CSV files. Received: {source!r}"
        )
    label = (
        f"{type(source).__name__}: {rule.base_lr:g} to {rule.target_lr:g} in "
        f"{rule.n_epochs} epochs"
    )
    epochs = np.linspace(0, rule.n_epochs - 1, min(rule.n_epochs, 1000)).round()
    epochs = np.union1d(epochs, [rule.n_warmup_epochs, rule.decay_start])
    is_stepped = source is not rule and getattr(source, "staircase", True)
    if is_stepped:  # the last epoch is drawn to its end
        epochs = np.append(epochs, rule.n_epochs)
    elif source is not rule:
        epochs = np.union1d(epochs, np.linspace(0, rule.n_epochs, 1000))
        label += ", staircase=False"
    return _Curve(label, epochs, rule.rates(epochs), is_stepped, rule)


def _read_csv(path: str | os.PathLike[str]) -> dict[str, list[float]]:
    """Returns the columns to draw from a file that CSVLogger wrote, or is writing."""
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        text = file.read()
    header_line = text.partition("\n")[0].strip()
    separator = max(",;\t", key=header_line.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = next(reader, [])
    names = ["epoch", *(_rate_names(header) or ["learning_rate"])]
    for name in names:
        if name not in header:
            raise ValueError(
                f"{path} has no column `{name}`; its header is {header_line!r}. "
                "CSVLogger writes `epoch` and `learning_rate` if it is listed after "
                "WarmupExponentialDecay or LearningRateLogger"
            )
    rows = [(reader.line_num, row) for row in reader if row]
    if rows and not text.endswith(("\n", "\r")) and len(rows[-1][1]) < len(header):
        del rows[-1]  # half written
    columns: dict[str, list[float]] = {name: [] for name in names}
    for number, row in rows:
        where = f"{path}, line {number}"
        if len(row) != len(header):
            raise ValueError(
                f"{where} must have {len(header)} values, like the header. "
                f"Received: {len(row)}"
            )
        for name, column in columns.items():
            try:
                column.append(_number(row[header.index(name)]))
            except ValueError as error:
                raise ValueError(f"{where}, {name}: {error}") from error
    return columns


def _rate_names(names: Iterable[str]) -> list[str]:
    """Returns the names of learning rates; Keras 2 itself logs `lr`."""
    return [n for n in names if n == "lr" or n.startswith("learning_rate")]


def _logged_curves(label: str, columns: dict[str, Any]) -> Iterator[_Curve]:
    """Yields the curve of each learning rate in the columns of a history."""
    names = _rate_names(columns)
    n_rates = len(columns[names[0]]) if names else 0
    epochs = columns.get("epoch", range(n_rates))
    if n_rates == 0:
        raise ValueError(
            f"{label} contains no learning rate. Train with WarmupExponentialDecay or "
            "LearningRateLogger; list either before CSVLogger"
        )
    for name in names:
        rates = columns[name]
        if len(rates) != len(epochs):
            raise ValueError(
                f"{label} must have one value of {name} per epoch. "
                f"Received: {len(rates)} values, {len(epochs)} epochs"
            )
        yield _Curve(
            label if len(names) == 1 else f"{label}: {name}",
            np.array(epochs, float),
            np.array([_number(rate) for rate in rates]),
        )


def _number(value: Any) -> float:
    return float("nan") if value in (None, "", "NA") else float(value)


def _draw(curve: _Curve, ax: Axes, has_labels: bool) -> None:
    """Draws a curve, and labels both of its ends and its highest point."""
    label = curve.label.replace("$", r"\$")
    if (curve.rates == 0).any():
        label += " (0 not shown)"
    rates = np.where(curve.rates > 0, curve.rates, np.nan)  # a log axis has no 0
    n_lines = len(ax.get_lines())
    (line,) = ax.plot(
        curve.epochs,
        rates,
        label=label,
        drawstyle="steps-post" if curve.is_stepped else "default",
        linestyle=("-", "--", ":", "-.")[n_lines % 4],  # curves may coincide
        marker="." if len(curve.epochs) <= 100 else "",
    )
    known = np.flatnonzero(np.isfinite(rates))
    if not (has_labels and len(known)):
        return
    first, highest, last = known[0], np.nanargmax(rates), known[-1]
    labels = {highest: (0, 4, "center", "bottom")}
    labels[first] = (-4, 0, "right", "center")
    labels[last] = (4, 0, "left", "center")
    for index, (x, y, horizontal, vertical) in labels.items():
        ax.annotate(
            f"{rates[index]:.4g}",
            (curve.epochs[index], rates[index]),
            textcoords="offset points",
            xytext=(x, y),
            ha=horizontal,
            va=vertical,
            color=line.get_color(),
            fontsize="small",
        )


def _shade(rules: list[DecayRule], ax: Axes) -> None:
    """Shades each distinct warm-up and hold once."""
    spans = {(0, rule.n_warmup_epochs, "warm-up", 0.2) for rule in rules}
    spans |= {(rule.n_warmup_epochs, rule.decay_start, "hold", 0.1) for rule in rules}
    labels = ax.get_legend_handles_labels()[1]
    for start, end, name, alpha in sorted(spans):
        if start < end:
            label = "" if name in labels else name
            ax.axvspan(start, end, color="gray", alpha=alpha, linewidth=0, label=label)
            labels.append(name)
