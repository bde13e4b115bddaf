"""What `plot_learning_rate` draws, on which Axes, and what it refuses."""

import math

import numpy as np
import pytest
import tensorflow as tf
from matplotlib import pyplot
from matplotlib.figure import Figure
from models import RATES, build_model, decay, train
from oracle import true_rates

from expdecay_keras import (
    DecayRule,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    plot_learning_rate,
)

callbacks = tf.keras.callbacks
RAMP = (0.1, 0.001, 12, 3, 0.01, 2)
RULE, CALLBACK = DecayRule(*RAMP), WarmupExponentialDecay(*RAMP)
SCHEDULE = WarmupExponentialSchedule(*RAMP, steps_per_epoch=7)
CONTINUOUS = WarmupExponentialSchedule(*RAMP, steps_per_epoch=7, staircase=False)
LONG = DecayRule(0.0123456, 1.23456e-05, 20, 3, 0.00123456)


@pytest.fixture
def ax():
    return Figure().subplots()


@pytest.fixture
def new_axes(monkeypatch):
    """Plots on new Axes, laid out, which must not be shown."""

    def plot(*rules):
        ax = plot_learning_rate(*rules)
        ax.figure.draw_without_rendering()
        return ax

    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "show", lambda: pytest.fail("shown"))
    yield plot
    pyplot.close("all")


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def points(ax):
    """The epochs and rates of each line."""
    return [line.get_xydata().tolist() for line in ax.get_lines()]


def rate_labels(ax):
    """The place, the text and the alignment of each label, from left to right."""
    return sorted((*text.xy, text.get_text(), text.get_ha()) for text in ax.texts)


def is_inside(artist, frame):
    """Whether the bounding box of an artist lies inside that of another."""
    inner, outer = artist.get_window_extent(), frame.get_window_extent()
    return (inner.min >= outer.min).all() and (inner.max <= outer.max).all()


def make_history(epochs, **columns):
    history = callbacks.History()
    history.epoch, history.history = epochs, columns
    return history


# Rules, callbacks and schedules


def test_a_rule_has_a_rate_at_each_epoch(ax):
    rules = [RULE, DecayRule(0.001, 0.1, 1000)]
    assert plot_learning_rate(*rules, ax=ax) is ax
    assert ax.get_yscale() == "log"
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("epoch", "learning rate")
    for line, rule in zip(ax.get_lines(), rules, strict=True):
        epochs = np.arange(rule.n_epochs)
        np.testing.assert_array_equal(line.get_xdata(), epochs)
        expected = true_rates(rule, epochs)
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-14, atol=0)


def test_labelled_rates_and_shaded_epochs(ax):
    plot_learning_rate(RULE, DecayRule(0.0002, 0.2, 20, 4), LONG, ax=ax)
    assert rate_labels(ax) == [
        (0, 0.0002, "0.0002", "right"),
        (0, 0.00123456, "0.001235", "right"),
        (0, 0.01, "0.01", "right"),
        (3, 0.0123456, "0.01235", "center"),
        (3, 0.1, "0.1", "center"),
        (11, 0.001, "0.001", "left"),
        (19, 1.23456e-05, "1.235e-05", "left"),
        (19, 0.2, "0.2", "left"),
    ]
    colors = {line.get_color() for line in ax.get_lines()}
    assert {text.get_color() for text in ax.texts} == colors
    spans = sorted(patch.get_bbox().intervalx.tolist() for patch in ax.patches)
    assert spans == [[0, 3], [0, 4], [3, 5]]
    assert legend(ax)[3:] == ["warm-up", "hold"]


def test_two_plots_in_the_same_axes_share_the_legend(ax):
    """And no two neighbours look the same."""
    plot_learning_rate(RULE, CALLBACK, RULE, ax=ax)
    plot_learning_rate(SCHEDULE, CONTINUOUS, ax=ax)
    sources = [RULE, CALLBACK, RULE, SCHEDULE, CONTINUOUS]
    labels = [f"{type(one).__name__}: 0.1 to 0.001 in 12 epochs" for one in sources]
    labels[4] += ", staircase=False"
    assert sorted(legend(ax)) == sorted([*labels, "hold", "warm-up"])
    styles = [line.get_linestyle() for line in ax.get_lines()]
    assert styles == ["-", "--", ":", "-.", "-"]


def test_callback_and_schedules_share_the_axis_of_epochs(ax):
    plot_learning_rate(CALLBACK, SCHEDULE, CONTINUOUS, ax=ax)
    *stepped, continuous = ax.get_lines()
    epochs = np.linspace(0, 11.9, 120)
    for line in stepped:
        assert line.get_drawstyle() == "steps-post"
        index = np.searchsorted(line.get_xdata(), epochs, side="right") - 1
        expected = true_rates(RULE, np.floor(epochs))
        np.testing.assert_allclose(line.get_ydata()[index], expected, rtol=1e-14)
    x, y = continuous.get_data()
    shown = np.exp(np.interp(epochs, x, np.log(y)))
    np.testing.assert_allclose(shown, true_rates(RULE, epochs), rtol=1e-4, atol=0)
    assert continuous.get_drawstyle() == "default"
    ends = [line.get_xdata()[-1] for line in ax.get_lines()]
    assert ends == [12, 12, 12]  # the end of the last epoch
    markers = [line.get_marker() for line in ax.get_lines()]
    assert markers == [".", ".", ""]  # 1000 points would be a thick line


@pytest.mark.parametrize("n_epochs", [1500, 2**53])
def test_of_many_epochs_about_1000_are_drawn(n_epochs, ax):
    rule = DecayRule(0.1, 0.001, n_epochs, 3, 0.01, 2)
    callback = WarmupExponentialDecay(0.1, 0.001, n_epochs, 3, 0.01, 2)
    plot_learning_rate(rule, callback, ax=ax)
    for line in ax.get_lines():
        epochs = line.get_xdata()
        assert 1000 <= len(epochs) <= 1003
        assert {0, 3, 5, n_epochs - 1} <= set(epochs)
        assert (epochs == epochs.round()).all()
        assert np.diff(epochs).max() <= math.ceil(n_epochs / 998)
        expected = true_rates(rule, epochs)
        np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-13, atol=0)


def test_a_rate_of_0_is_said_to_be_left_out(ax):
    history = {"learning_rate": [0, 0.5, None]}
    plot_learning_rate(DecayRule(0.4, 0.1, 5, 2, 0.0), history, ax=ax)
    rule, logged = (line.get_ydata() for line in ax.get_lines())
    np.testing.assert_allclose(rule, [np.nan, 0.2, 0.4, 0.2, 0.1], rtol=1e-14)
    np.testing.assert_array_equal(logged, [np.nan, 0.5, np.nan])
    label = "DecayRule: 0.4 to 0.1 in 5 epochs (0 not shown)"
    assert legend(ax) == [label, "history (0 not shown)", "warm-up"]
    assert [row[2] for row in rate_labels(ax)] == ["0.2", "0.5", "0.4", "0.1"]


# Histories and files


def test_a_history_and_its_csv_files(tmp_path, ax):
    """Names are literal; folders tell files of the same name from each other."""
    names = ["a/$x$.csv", "a/log.csv", "b/log.csv"]
    loggers = []
    for name, separator in zip(names, ",;\t", strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        loggers.append(callbacks.CSVLogger(str(tmp_path / name), separator))
    model = build_model()
    train(model, decay(), *loggers)
    plot_learning_rate(model.history, *(tmp_path / name for name in names), ax=ax)
    assert points(ax) == [list(map(list, enumerate(RATES)))] * 4
    labels = [r"history a/\$x\$.csv", "history a/log.csv", "history b/log.csv"]
    assert legend(ax) == ["history", *labels]


HEADER = "epoch,note,learning_rate\n"
LINES = HEADER + "0,mine,0.5\n1,,0.25\n"
DRAWN = [[0, 0.5], [1, 0.25]]
READ = {
    "byte order mark": "\ufeff" + LINES,
    "semicolons": LINES.replace(",", ";").replace("mine", '"a;b"'),
    "tabs": LINES.replace(",", "\t").replace("mine", "1,5"),
    "line separators in a note": LINES.replace("mine", "a\u2028b\x0bc\x1cd\x85e"),
    "not UTF-8": LINES.replace("mine", "\udcff"),
    "empty lines": LINES.replace("\n", "\n\n"),
    "no line break at the end": LINES.removesuffix("\n"),
    "half a line at the end": LINES + "2,c",
    "another column": LINES.replace("note", "lr_note"),
    "the name in Keras 2": LINES.replace("learning_rate", "lr"),
}


@pytest.mark.parametrize("content", READ.values(), ids=READ)
def test_files_that_are_read(content, tmp_path, ax):
    path = tmp_path / "log.csv"
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    plot_learning_rate(path, ax=ax)
    assert points(ax) == [DRAWN]


TWO = {"learning_rate": [0.5, 0.25]}
SEVERAL = {"learning_rate_a": [0.5, 0.25], "loss": [1, 2], "learning_rate_b": [2, 3]}
A, B = "history: learning_rate_a", "history: learning_rate_b"
HISTORIES = [
    ([TWO], {"history": DRAWN}),
    ([make_history([3, 4], **TWO)], {"history": [[3, 0.5], [4, 0.25]]}),
    ([{"lr": [0.5, 0.25], "lr_note": [1]}], {"history": DRAWN}),
    ([SEVERAL], {A: DRAWN, B: [[0, 2], [1, 3]]}),
    ([make_history([7], lr=[2]), TWO], {"history 1": [[7, 2]], "history 2": DRAWN}),
]


@pytest.mark.parametrize("histories, curves", HISTORIES)
def test_histories_and_their_dictionaries(histories, curves, ax):
    plot_learning_rate(*histories, ax=ax)
    assert dict(zip(legend(ax), points(ax), strict=True)) == curves


def test_gaps(tmp_path, ax):
    path = tmp_path / "log.csv"
    path.write_text("epoch,learning_rate\n0,NA\n1,0.5\n2,\n3,nan\n4,0.25\n")
    rates = [None, 0.5, None, float("nan"), 0.25]
    history, unknown = {"learning_rate": rates}, {"learning_rate": [None, None]}
    plot_learning_rate(path, history, unknown, ax=ax)
    for line in ax.get_lines()[:2]:
        np.testing.assert_array_equal(line.get_ydata(), np.array(rates, float))
    assert legend(ax)[1:] == ["history 1", "history 2"]
    ends = [(1, 0.5, "0.5", "right"), (4, 0.25, "0.25", "left")]
    assert rate_labels(ax) == [ends[0]] * 2 + [ends[1]] * 2


# Errors

NO_RATE = (
    "%s contains no learning rate. Train with WarmupExponentialDecay or "
    "LearningRateLogger; list either before CSVLogger"
)
NO_COLUMN = (
    "log.csv has no column `%s`; its header is %r. CSVLogger writes `epoch` and "
    "`learning_rate` if it is listed after WarmupExponentialDecay or LearningRateLogger"
)
N_VALUES = "log.csv, line %d must have 3 values, like the header. Received: %d"
NO_NUMBER = "log.csv, line %d, %s: could not convert string to float: %r"
REFUSED = {
    "empty": ("", NO_COLUMN % ("epoch", "")),
    "no epoch": ("lr;note\n1;2\n", NO_COLUMN % ("epoch", "lr;note")),
    "no rate": ("epoch,lr_x\r\n0,1\r\n", NO_COLUMN % ("learning_rate", "epoch,lr_x")),
    "no rows": (HEADER, NO_RATE % "history log.csv"),
    "no whole row": (HEADER + "0,a", NO_RATE % "history log.csv"),
    "a short row": (HEADER + "0,a\n", N_VALUES % (2, 2)),
    "a short row, not the last": (HEADER + "0,a\n1,b", N_VALUES % (2, 2)),
    "a long row at the end": (HEADER + "0,a,0.5\n1,b,2,3", N_VALUES % (3, 4)),
    "two headers": (LINES + LINES, NO_NUMBER % (4, "epoch", "epoch")),
    "text": (HEADER + '0,"a\nb",0.5\n1,b,x\n', NO_NUMBER % (4, "learning_rate", "x")),
}


@pytest.mark.parametrize("content, message", REFUSED.values(), ids=REFUSED)
def test_files_that_are_refused(content, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_bytes(content.encode())
    with pytest.raises(ValueError) as raised:
        plot_learning_rate("log.csv")
    assert str(raised.value) == message


EMPTY = "Argument `rules` must not be empty. Received: rules=()"
OTHER = (
    "Argument `rules` must contain only rules, callbacks, schedules, histories and "
    "paths of CSV files. Received: {}"
)
TOO_FEW = "history must have one value of %s per epoch. Received: 1 values, 2 epochs"
ILLEGAL = [
    ([], TypeError, EMPTY),
    ([RULE, [RULE]], TypeError, OTHER.format([RULE])),
    ([make_history([0], loss=[0.5])], ValueError, NO_RATE % "history"),
    ([callbacks.History()], ValueError, NO_RATE % "history"),
    ([TWO, {"lr": []}], ValueError, NO_RATE % "history 2"),
    ([make_history([0, 1], lr=[1])], ValueError, TOO_FEW % "lr"),
    ([{"lr": [1, 2], "learning_rate_b": [1]}], ValueError, TOO_FEW % "learning_rate_b"),
]


@pytest.mark.parametrize("sources, error, message", ILLEGAL)
def test_arguments_that_are_refused(sources, error, message):
    with pytest.raises(error) as raised:
        plot_learning_rate(*sources)
    assert str(raised.value) == message


# Axes


@pytest.mark.parametrize("rule", [RULE, CALLBACK, LONG, DecayRule(1.5e-7, 98765, 3)])
def test_labels_lie_inside_new_axes(rule, new_axes):
    ax = new_axes(rule)
    assert tuple(ax.figure.get_size_inches()) == (6, 4)
    assert len(ax.texts) in (2, 3)
    assert all(is_inside(text, ax) for text in ax.texts)
    assert is_inside(ax.get_legend(), ax.figure)


@pytest.mark.parametrize("n_curves", [6, 20])
@pytest.mark.parametrize(
    "source, n_columns", [(TWO, 4), (CONTINUOUS, 1)], ids=["history", "schedule"]
)
def test_curves_take_at_least_half_of_the_height(source, n_columns, n_curves, new_axes):
    ax = new_axes(*[source] * n_curves)
    assert ax.get_position().height >= 0.5
    assert is_inside(ax.get_legend(), ax.figure)
    texts = ax.get_legend().get_texts()
    assert len({round(text.get_window_extent().x0) for text in texts}) == n_columns


@pytest.mark.parametrize("n_curves, n_labels", [(4, 8), (5, 0)])
def test_more_than_four_curves_have_no_labels(n_curves, n_labels, ax):
    plot_learning_rate(*[TWO] * n_curves, ax=ax)
    assert len(ax.texts) == n_labels
    assert legend(ax) == [f"history {i + 1}" for i in range(n_curves)]


PREPARED = {
    "ticks": lambda ax: ax.set_xticks([0, 5.5, 19]),
    "log axis": lambda ax: ax.set_xscale("log"),
    "categories": lambda ax: ax.bar(["a", "b"], [1, 2]),
}


@pytest.mark.parametrize("prepare", PREPARED.values(), ids=PREPARED)
def test_prepared_axes_keep_their_ticks(prepare, ax):
    # matplotlib#3658: `locator_params` raises an error with most locators.
    def ticks():
        axis = ax.xaxis
        return ax.get_xscale(), axis.get_major_locator(), axis.get_major_formatter()

    prepare(ax)
    before = ticks()
    for _ in range(2):
        plot_learning_rate(RULE, ax=ax)
        ax.figure.draw_without_rendering()
    assert ticks() == before


def test_axes_keep_their_margins_limits_and_title(ax):
    ax.margins(0.01, 0.02)
    ax.set_xlim(2, 4)
    ax.set_title("mine")
    plot_learning_rate(RULE, ax=ax)
    assert ax.margins() == (0.01, 0.02)
    assert ax.get_xlim() == (2, 4)
    assert ax.get_title() == "mine"
    assert tuple(ax.figure.get_size_inches()) == (6.4, 4.8)
    assert (ax.get_xticks() % 1 == 0).all()  # though 2 to 4 has room for halves
