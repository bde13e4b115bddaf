import csv
import math
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import float32_rates
from matplotlib import pyplot
from matplotlib.figure import Figure

from expdecay_keras import (
    DecayRule,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    plot_learning_rate,
)
from expdecay_keras.plotting import text_chart

RAMP = (0.1, 1e-4, 12, 3, 1e-3)


@pytest.fixture
def ax():
    return Figure(figsize=(6, 4)).subplots()


def drawn(line):
    """The value a line shows at every x, its steps taken as such."""
    x, y = line.get_xdata(), line.get_ydata()
    if line.get_drawstyle() == "steps-post":
        return lambda epoch: y[np.searchsorted(x, epoch, side="right") - 1]
    return lambda epoch: np.exp(np.interp(epoch, x, np.log(y)))


def texts(ax):
    return [text.get_text() for text in ax.texts]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_the_curve_is_the_rule_on_a_log_axis(ax):
    falling, rising = DecayRule(0.1, 1e-4, 20, 2), DecayRule(0.001, 0.1, 12, 4, 1e-5)
    assert plot_learning_rate(falling, rising, ax=ax) is ax
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "learning rate")
    for line, rule in zip(ax.get_lines(), (falling, rising)):
        epochs = np.arange(rule.n_epochs)
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        np.testing.assert_array_equal(line.get_ydata(), rule.learning_rate(epochs, "float64").numpy())
    assert texts(ax) == ["0.1", "0.0001", "1e-05", "0.001", "0.1"]
    assert legend(ax) == [
        "rule: 0.1 to 0.0001 in 20 epochs, 2 of warm-up",
        "rule: 0.001 to 0.1 in 12 epochs, 4 of warm-up from 1e-05",
        "warm-up",
    ]
    shaded = [patch.get_window_extent().transformed(ax.transData.inverted()) for patch in ax.patches]
    assert sorted((round(box.x0, 9), round(box.x1, 9)) for box in shaded) == [(0, 2), (0, 4)]


def test_callback_and_schedules_share_an_axis_in_epochs(ax):
    rule = DecayRule(*RAMP)
    callback = WarmupExponentialDecay(*RAMP)
    staircase = WarmupExponentialSchedule(*RAMP, steps_per_epoch=7)
    continuous = WarmupExponentialSchedule(*RAMP, steps_per_epoch=7, staircase=False)
    plot_learning_rate(callback, staircase, continuous, ax=ax)
    lines = ax.get_lines()
    for line in lines:
        assert (line.get_xdata()[0], line.get_xdata()[-1]) == (0, 12)
    for epoch in np.linspace(0, 11.9, 120):
        held = float(rule.learning_rate(np.floor(epoch), "float32"))
        assert [np.float32(drawn(line)(epoch)) for line in lines[:2]] == [held, held]
        if epoch > 0.5:  # the ramp is bent most at its start
            np.testing.assert_allclose(
                drawn(lines[2])(epoch), rule.learning_rate(epoch, "float64"), rtol=1e-3
            )
    numbers = "0.1 to 0.0001 in 12 epochs, 3 of warm-up from 0.001"
    kinds = ["callback", "staircase schedule", "continuous schedule"]
    assert legend(ax) == [*(f"{kind}: {numbers}" for kind in kinds), "warm-up"]
    assert texts(ax) == ["0.001", "0.1", "0.0001"]  # not one on top of the other


@pytest.fixture
def history(model, data):
    decay = WarmupExponentialDecay(*RAMP)
    return model.fit(*data, epochs=12, callbacks=[decay], verbose=0)


def test_history(history, tmp_path, ax):
    path = tmp_path / "history.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["epoch", "learning_rate", "loss"])
        writer.writerows(zip(history.epoch, history.history["learning_rate"], history.history["loss"]))
    plot_learning_rate(history, path, str(path), ax=ax)
    for line in ax.get_lines():
        np.testing.assert_array_equal(line.get_xdata(), range(12))
        np.testing.assert_array_equal(line.get_ydata(), float32_rates(DecayRule(*RAMP), range(12)))
    tail = f"history ...{str(path)[-50:]}"
    assert legend(ax) == ["history", tail, f"{tail} #2"]
    assert len({line.get_linestyle() for line in ax.get_lines()}) == 3  # they lie on one another
    assert texts(ax) == ["0.001", "0.0001"]


def test_history_of_several_optimizers(ax):
    history = tf.keras.callbacks.History()
    history.epoch, history.history = [3, 4], {"learning_rate_a": [0.5, 0.25], "learning_rate_b": [1, 2]}
    plot_learning_rate(history, ax=ax)
    assert legend(ax) == ["history: learning_rate_a", "history: learning_rate_b"]
    assert [list(line.get_xdata()) for line in ax.get_lines()] == [[3, 4], [3, 4]]
    assert [list(line.get_ydata()) for line in ax.get_lines()] == [[0.5, 0.25], [1, 2]]


def test_histories_without_a_learning_rate(tmp_path):
    history = tf.keras.callbacks.History()
    with pytest.raises(ValueError, match="there is no learning rate of any epoch. Columns: epoch"):
        plot_learning_rate(history)
    history.epoch, history.history = [0, 1], {"loss": [0.5, 0.25]}
    with pytest.raises(ValueError, match="there is no learning rate of any epoch. Columns: epoch, loss"):
        plot_learning_rate(history)
    for content, message in [
        ("", "there is no learning rate"),
        ("epoch,loss\n0,1\n", "there is no learning rate"),
        ("epoch,learning_rate\n", "there is no learning rate of any epoch"),
        ("learning_rate\n1\n", "there is no learning rate"),
        ("epoch,learning_rate\n0,x\n", "could not convert string to float: 'x'"),
        ("\udc80", "invalid start byte"),
    ]:
        (tmp_path / "log.csv").write_text(content, encoding="utf-8", errors="surrogateescape")
        with pytest.raises(ValueError, match=f"log.csv is no CSV file of a history: .*{message}"):
            plot_learning_rate(tmp_path / "log.csv")


def test_a_history_that_is_being_written(tmp_path, ax, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "_$x$ #3.csv").write_text("epoch,learning_rate,loss\n0,0.5,1\n1,0.2")
    plot_learning_rate("_$x$ #3.csv", "_$x$ #3.csv", ax=ax)
    assert [list(line.get_ydata()) for line in ax.get_lines()] == [[0.5], [0.5]]
    assert texts(ax) == ["0.5"]
    assert legend(ax) == [r"history _\$x\$ #3.csv", r"history _\$x\$ #3.csv #2"]


def test_ends_that_are_close_are_written_side_by_side(ax):
    plot_learning_rate(DecayRule(0.1, 1e-3, 9), DecayRule(0.09, 1.1e-3, 9), ax=ax)
    first, last, other_first, other_last = ax.texts
    assert first.xy[0] == other_first.xy[0] and other_first.get_position()[0] > first.get_position()[0]
    assert last.xy[0] == other_last.xy[0] and other_last.get_position()[0] < last.get_position()[0]


def test_a_ramp_from_zero(ax):
    plot_learning_rate(DecayRule(0.1, 1e-3, 9, 2, 0.0), ax=ax)
    (line,) = ax.get_lines()
    assert np.isnan(line.get_ydata()[0]) and line.get_ydata()[1] == 0.05
    assert texts(ax) == ["0", "0.1", "0.001"]


def test_nothing_to_draw():
    with pytest.raises(TypeError, match="at least one rule"):
        plot_learning_rate()


@pytest.mark.parametrize("source", [0.1, None, tf.keras.optimizers.schedules.ExponentialDecay(1, 1, 1)])
def test_something_else(source):
    with pytest.raises(TypeError, match="^Argument `rules` must be rules, .* Received: "):
        plot_learning_rate(source)


def test_a_second_call_adds_to_the_axes(ax):
    rule = DecayRule(0.1, 0.01, 9, 3)
    plot_learning_rate(rule, ax=plot_learning_rate(rule, ax=ax))
    label = "rule: 0.1 to 0.01 in 9 epochs, 3 of warm-up"
    assert sorted(legend(ax)) == [label, f"{label} #2", "warm-up"]


def test_axes_of_its_own_are_not_shown(monkeypatch):
    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "show", lambda: pytest.fail("shown"))
    ax = plot_learning_rate(DecayRule(0.1, 0.01, 5))
    assert tuple(ax.figure.get_size_inches()) == (6, 4)
    pyplot.close(ax.figure)


@pytest.mark.parametrize("n_epochs", [10**6, 2**53])
def test_many_epochs_are_drawn_in_part(n_epochs, ax):
    rule = DecayRule(0.1, 1e-4, n_epochs, 5, 0.0)
    schedule = WarmupExponentialSchedule(0.1, 1e-4, n_epochs, 5, 0.0, steps_per_epoch=3)
    plot_learning_rate(rule, schedule, ax=ax)
    for line in ax.get_lines():
        assert len(line.get_xdata()) < 1010
        assert {0, 5, n_epochs - 1} <= set(line.get_xdata())
        assert line.get_ydata()[-1] == 1e-4


def test_without_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'expdecay-keras\[plot\]'"):
        plot_learning_rate(DecayRule(0.1, 0.01, 5))
    assert DecayRule(0.1, 0.01, 5)._repr_svg_() is None


def test_a_notebook_shows_the_curve():
    svg = DecayRule(0.1, 0.01, 5)._repr_svg_()
    assert svg.startswith("<?xml") and "</svg>" in svg


# The text chart


def rows(chart):
    """The lines of the epochs, split into epoch, rate and bar."""
    header, *lines = chart.partition("\n\n")[2].splitlines()
    assert header.split() == ["epoch", "rate"]
    return [(line.split() + [""])[:3] for line in lines]


def test_chart_of_the_seed_table(seed_row, seed_rates):
    chart = text_chart(DecayRule(*seed_row), 80, ascii_only=False)
    assert [(epoch, rate) for epoch, rate, _ in rows(chart)] == [
        (str(epoch), f"{rate:.6f}") for epoch, rate in enumerate(seed_rates)
    ]


def test_chart_of_the_decay_in_numbers():
    lines = text_chart(DecayRule(0.8, 0.1, 4), 80, ascii_only=False).splitlines()
    assert lines[:4] == [
        "decay rate λ: -0.693147 per epoch",
        "factor e^λ: 0.5 per epoch",
        "half-life: 1 epochs",
        "",
    ]
    lines = text_chart(DecayRule(0.1, 0.8, 4), 80, ascii_only=True).splitlines()
    assert lines[:3] == [
        "decay rate lambda: 0.693147 per epoch",
        "factor e^lambda: 2 per epoch",
        "doubling time: 1 epochs",
    ]
    lines = text_chart(DecayRule(0.5, 0.5, 4), 80, ascii_only=True).splitlines()
    assert lines[1:4] == ["factor e^lambda: 1 per epoch", "half-life: inf epochs", ""]


@pytest.mark.parametrize("target_lr, is_steep", [(0.0099, True), (0.01, False), (0.5, False)])
def test_chart_says_so_of_a_factor_below_a_tenth(target_lr, is_steep):
    lines = text_chart(DecayRule(0.1, target_lr, 2), 80, ascii_only=True).splitlines()
    assert lines[3] == ("steep: momentum keeps the old rate's size" if is_steep else "")


@pytest.mark.parametrize("width", [40, 80, 200])
def test_bars_are_logarithmic_and_fit_the_width(width):
    chart = text_chart(DecayRule(1.0, 1e-4, 5), width, ascii_only=True)
    bars = [len(bar) for _, _, bar in rows(chart)]
    assert set("".join(bar for _, _, bar in rows(chart))) == {"#"}
    assert bars[-1] == 1 and max(map(len, chart.splitlines())) == width
    assert all(abs((a - b) - (bars[0] - 1) / 4) <= 1 for a, b in zip(bars, bars[1:]))


def test_bars_of_a_constant_and_of_zero():
    bars = [bar for _, _, bar in rows(text_chart(DecayRule(0.5, 0.5, 3), 50, ascii_only=False))]
    assert set(bars) == {"█" * len(bars[0])} and len(bars[0]) > 30
    bars = [bar for _, _, bar in rows(text_chart(DecayRule(0.5, 0.5, 4, 2, 0), 50, ascii_only=False))]
    assert bars[0] == "" and len(bars[1]) == 1 and len(bars[2]) > 30
    narrow = rows(text_chart(DecayRule(0.5, 0.1, 3), 5, ascii_only=False))
    assert [rate for _, rate, _ in narrow] == ["0.500000", "0.223607", "0.100000"]


@pytest.mark.parametrize(
    "numbers, expected",
    [
        ((0.1, 1.4e-6, 3), ["0.1", "0.000374166", "1.4e-06"]),
        ((1e-10, 1e-12, 3), ["1e-10", "1e-11", "1e-12"]),
        ((1e30, 1.0, 3), ["1e+30", "1e+15", "1"]),
        ((1 / 3, 0.1, 3), ["0.333333", "0.182574", "0.1"]),
    ],
)
def test_six_digits_where_six_decimals_do_not_hold_the_numbers(numbers, expected):
    assert [rate for _, rate, _ in rows(text_chart(DecayRule(*numbers), 80, True))] == expected


@pytest.mark.parametrize("n_epochs, n_warmup_epochs", [(51, 0), (51, 7), (1000, 333), (2**53, 2**52)])
def test_of_many_epochs_some_are_shown(n_epochs, n_warmup_epochs):
    rule = DecayRule(0.1, 1e-4, n_epochs, n_warmup_epochs)
    shown = [int(epoch) for epoch, _, _ in rows(text_chart(rule, 80, True))]
    assert {0, n_warmup_epochs, n_warmup_epochs + 1, n_epochs - 1} <= set(shown)
    assert shown == sorted(set(shown)) and 40 <= len(shown) <= 50
    assert max(b - a for a, b in zip(shown, shown[1:])) <= math.ceil(n_epochs / 47)


def test_fifty_epochs_are_all_shown():
    assert len(rows(text_chart(DecayRule(0.1, 0.01, 50), 80, True))) == 50
