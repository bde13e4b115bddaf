import sys
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import tensorflow as tf
from matplotlib import pyplot
from matplotlib.figure import Figure
from oracle import float32_rates, true_rates

from expdecay_keras import (
    DecayRule,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    plot_learning_rate,
    plotting,
)

RAMP = {
    "base_lr": 0.1,
    "target_lr": 0.001,
    "n_epochs": 12,
    "n_warmup_epochs": 3,
    "warmup_start_lr": 0.01,
    "n_hold_epochs": 2,
}


@pytest.fixture
def ax():
    return Figure(figsize=(6, 4)).subplots()


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def rate_labels(ax):
    """The text and the place of each label in the plot, from left to right."""
    return sorted((text.xy[0], text.xy[1], text.get_text()) for text in ax.texts)


def shaded(ax):
    """The first and the last epoch of each shaded span."""
    to_data = ax.transData.inverted()
    boxes = [patch.get_window_extent().transformed(to_data) for patch in ax.patches]
    return sorted((round(box.x0, 9), round(box.x1, 9)) for box in boxes)


def shown_rate(line, epoch):
    """The rate that a line, which may be stepped, shows at an epoch."""
    x, y = line.get_xdata(), line.get_ydata()
    if line.get_drawstyle() == "steps-post":
        return y[np.searchsorted(x, epoch, side="right") - 1]
    return np.exp(np.interp(epoch, x, np.log(y)))


def make_history(epochs, **columns):
    history = tf.keras.callbacks.History()
    history.epoch = epochs
    history.history = columns
    return history


# Rules, callbacks and schedules


def test_a_rule_has_a_rate_at_each_epoch(ax):
    rules = [DecayRule(**RAMP), DecayRule(0.001, 0.1, 20)]
    assert plot_learning_rate(*rules, ax=ax) is ax
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "learning rate")
    for line, rule in zip(ax.get_lines(), rules, strict=True):
        epochs = np.arange(rule.n_epochs)
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        expected = true_rates(rule, epochs)
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-14, atol=0)


def test_labelled_rates_and_shaded_epochs(ax):
    plot_learning_rate(DecayRule(**RAMP), DecayRule(0.002, 0.2, 20, 4), ax=ax)
    assert rate_labels(ax) == [
        (0, 0.002, "0.002"),
        (0, 0.01, "0.01"),
        (3, 0.1, "0.1"),
        (11, 0.001, "0.001"),
        (19, 0.2, "0.2"),
    ]
    assert shaded(ax) == [(0, 3), (0, 4), (3, 5)]


def test_one_legend(ax):
    rule = DecayRule(**RAMP)
    schedule = WarmupExponentialSchedule(**RAMP, steps_per_epoch=7)
    continuous = WarmupExponentialSchedule(**RAMP, steps_per_epoch=7, staircase=False)
    plot_learning_rate(rule, WarmupExponentialDecay(**RAMP), ax=ax)
    plot_learning_rate(schedule, continuous, ax=ax)
    numbers = "0.1 to 0.001 in 12 epochs"
    assert sorted(legend(ax)) == [
        f"DecayRule: {numbers}",
        f"WarmupExponentialDecay: {numbers}",
        f"WarmupExponentialSchedule: {numbers}",
        f"WarmupExponentialSchedule: {numbers}, staircase=False",
        "hold",
        "warm-up",
    ]
    styles = {line.get_linestyle() for line in ax.get_lines()}
    assert len(styles) == 4  # the curves lie on top of each other


def test_callback_and_schedules_share_the_axis_of_epochs(ax):
    plot_learning_rate(
        WarmupExponentialDecay(**RAMP),
        WarmupExponentialSchedule(**RAMP, steps_per_epoch=7),
        WarmupExponentialSchedule(**RAMP, steps_per_epoch=7, staircase=False),
        ax=ax,
    )
    rule = DecayRule(**RAMP)
    for epoch in np.linspace(0, 11.9, 120):
        held, continuous = true_rates(rule, [np.floor(epoch), epoch])
        expected = [held, held, continuous]
        shown = [shown_rate(line, epoch) for line in ax.get_lines()]
        np.testing.assert_allclose(shown, expected, rtol=1e-4, atol=0)
    for line in ax.get_lines():
        assert line.get_xdata()[-1] == 12  # the end of the last epoch


def test_a_ramp_from_zero(ax):
    plot_learning_rate(DecayRule(0.4, 0.1, 5, 2, warmup_start_lr=0.0), ax=ax)
    (line,) = ax.get_lines()
    np.testing.assert_allclose(line.get_ydata(), [np.nan, 0.2, 0.4, 0.2, 0.1])
    assert [text for _, _, text in rate_labels(ax)] == ["0.2", "0.4", "0.1"]


def test_of_many_epochs_about_1000_are_drawn(ax):
    arguments = {**RAMP, "n_epochs": 2**53}
    rule = DecayRule(**arguments)
    plot_learning_rate(rule, WarmupExponentialDecay(**arguments), ax=ax)
    for line in ax.get_lines():
        epochs = line.get_xdata()
        assert 1000 <= len(epochs) <= 1003
        assert {0, 3, 5, 2**53 - 1} <= set(epochs)
        assert np.diff(epochs).max() <= 2**53 / 998
        expected = true_rates(rule, epochs)
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-13, atol=0)


# Histories and files


def test_a_history_and_its_csv_file(model, data, tmp_path, ax):
    path = tmp_path / "log.csv"
    decay = WarmupExponentialDecay(**RAMP)
    callbacks = [decay, tf.keras.callbacks.CSVLogger(path)]
    history = model.fit(*data, epochs=12, callbacks=callbacks, verbose=0)
    plot_learning_rate(history, path, str(path), ax=ax)
    for line in ax.get_lines():
        assert line.get_xdata().tolist() == list(range(12))
        assert line.get_ydata().tolist() == float32_rates(decay.rule, range(12))
    assert legend(ax) == ["history", "history log.csv", "history log.csv"]


def test_a_history_of_several_optimizers(ax):
    columns = {"learning_rate_a": [0.5, 0.25], "learning_rate_b": [1, 2]}
    plot_learning_rate(make_history([3, 4], **columns), ax=ax)
    assert legend(ax) == ["history: learning_rate_a", "history: learning_rate_b"]
    first, second = ax.get_lines()
    assert first.get_xydata().tolist() == [[3, 0.5], [4, 0.25]]
    assert second.get_xydata().tolist() == [[3, 1], [4, 2]]


def test_the_name_that_keras_2_gives_the_rate(ax):
    plot_learning_rate(make_history([0, 1], lr=[0.5, 0.25]), ax=ax)
    (line,) = ax.get_lines()
    assert line.get_ydata().tolist() == [0.5, 0.25]


def test_gaps(tmp_path, ax):
    path = tmp_path / "log.csv"
    path.write_text("epoch,learning_rate\n0,0.5\n1,NA\n2,\n3,nan\n4,0.25\n")
    rates = [0.5, None, None, float("nan"), 0.25]
    plot_learning_rate(path, make_history(range(5), learning_rate=rates), ax=ax)
    for line in ax.get_lines():
        np.testing.assert_array_equal(line.get_ydata(), np.array(rates, float))
    assert rate_labels(ax) == [(0, 0.5, "0.5")] * 2 + [(4, 0.25, "0.25")] * 2


def test_a_history_without_any_known_rate(ax):
    plot_learning_rate(make_history([0, 1], learning_rate=[None, None]), ax=ax)
    assert legend(ax) == ["history"]
    assert rate_labels(ax) == []


def test_empty_lines_and_the_line_that_is_being_written_are_left_out(tmp_path, ax):
    path = tmp_path / "log.csv"
    path.write_text("epoch,learning_rate,loss\n\n0,0.5,1\n1,0.2")
    plot_learning_rate(path, ax=ax)
    (line,) = ax.get_lines()
    assert line.get_xydata().tolist() == [[0, 0.5]]


@pytest.mark.parametrize("name, label", [("$x$.csv", r"\$x\$.csv"), ("_.csv", "_.csv")])
def test_names_of_files_are_taken_literally(name, label, tmp_path, ax):
    (tmp_path / name).write_text("epoch,learning_rate\n0,0.5\n")
    plot_learning_rate(tmp_path / name, ax=ax)
    assert legend(ax) == [f"history {label}"]


# Errors


NONE = "history log.csv contains no learning rate for any epoch"


@pytest.mark.parametrize(
    "content, message",
    [
        pytest.param("", NONE, id="empty"),
        pytest.param("epoch,loss\n0,1\n", NONE, id="no rate"),
        pytest.param("learning_rate\n1\n", NONE, id="no epoch"),
        pytest.param("epoch,learning_rate\n", NONE, id="no rows"),
        pytest.param(
            "epoch,learning_rate\n0,0.5\n1\n",
            "{path}, line 3 must have 2 values, like the header. Received: 1",
            id="too few values",
        ),
        pytest.param(
            "epoch,learning_rate\n0,0.5,1\n",
            "{path}, line 2 must have 2 values, like the header. Received: 3",
            id="too many values",
        ),
        pytest.param(
            "epoch,learning_rate\n0,0.5\nepoch,learning_rate\n0,0.5\n",
            "{path}, line 3, epoch: could not convert string to float: 'epoch'",
            id="two headers",
        ),
        pytest.param(
            "epoch,learning_rate,lr_note\n0,x,a\n",
            "{path}, line 2, learning_rate: could not convert string to float: 'x'",
            id="not a number",
        ),
    ],
)
def test_files_that_are_refused(content, message, tmp_path):
    path = tmp_path / "log.csv"
    path.write_text(content)
    with pytest.raises(ValueError) as raised:
        plot_learning_rate(path)
    assert str(raised.value) == message.format(path=path)


@pytest.mark.parametrize(
    "history, message",
    [
        pytest.param(
            make_history([0, 1], loss=[0.5, 0.25]),
            "history contains no learning rate for any epoch",
            id="no rate",
        ),
        pytest.param(
            tf.keras.callbacks.History(),
            "history contains no learning rate for any epoch",
            id="not trained",
        ),
        pytest.param(
            make_history([0, 1], learning_rate=[0.5]),
            "history must have one value of learning_rate per epoch. "
            "Received: 1 values, 2 epochs",
            id="too few rates",
        ),
    ],
)
def test_histories_that_are_refused(history, message):
    with pytest.raises(ValueError) as raised:
        plot_learning_rate(history)
    assert str(raised.value) == message


def test_no_arguments():
    with pytest.raises(TypeError) as raised:
        plot_learning_rate()
    message = "Argument `rules` must not be empty. Received: rules=()"
    assert str(raised.value) == message


@pytest.mark.parametrize("source", [0.1, None, {"learning_rate": [0.1]}])
def test_arguments_of_another_type(source):
    with pytest.raises(TypeError) as raised:
        plot_learning_rate(source)
    assert str(raised.value) == (
        "Argument `rules` must contain only rules, callbacks, schedules, histories and "
        f"paths of CSV files. Received: {source!r}"
    )


@pytest.mark.parametrize("function", [plot_learning_rate, plotting.figure_of])
def test_without_matplotlib(function, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    rule = DecayRule(0.1, 0.01, 5)
    with pytest.raises(ImportError) as raised:
        function(rule)
    assert str(raised.value) == "A plot needs matplotlib: pip install matplotlib"
    assert rule._repr_svg_() is None


# Figures


def test_new_axes_are_not_shown(monkeypatch):
    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "show", lambda: pytest.fail("shown"))
    ax = plot_learning_rate(DecayRule(0.1, 0.01, 5))
    assert tuple(ax.figure.get_size_inches()) == (6, 4)
    pyplot.close(ax.figure)


def test_a_notebook_shows_the_plot_without_a_window():
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        svg = DecayRule(0.1, 0.01, 5)._repr_svg_()
    texts = [element.text for element in ElementTree.fromstring(svg).iter()]
    assert {"DecayRule: 0.1 to 0.01 in 5 epochs", "0.1", "0.01"} <= set(texts)
    assert pyplot.get_fignums() == []
