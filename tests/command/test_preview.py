"""What `expdecay-keras preview` prints and plots."""

import csv
import io
import json
import os
import sys

import pytest
from oracle import float32_rates
from processes import COMMAND
from runs import CLOSED_PIPE, interrupt, options_of

from expdecay_keras import DecayRule
from expdecay_keras.command import main

PREVIEW = ["preview", *options_of(0.1, 1e-4, 5, 2)]


@pytest.fixture
def preview(call, monkeypatch):
    """Returns the lines, 80 columns wide, that `preview` prints for a rule."""
    monkeypatch.setenv("COLUMNS", "80")

    def preview(rule, *options):
        status, output, error = call("preview", *options_of(*rule), *options)
        assert (status, error, output.count("\r")) == (0, "", 0)
        return output.splitlines()

    return preview


@pytest.fixture
def chart(preview):
    """Returns the lines above a chart, its epochs, its rates, and its bars' lengths."""

    def chart(*rule):
        lines = preview(rule)
        start = lines.index("")
        assert lines[start + 1].split() == ["epoch", "rate"]
        assert max(map(len, lines)) == 80
        rows = [[*line.split(), ""][:3] for line in lines[start + 2 :]]
        return (
            lines[:start],
            [int(epoch) for epoch, _, _ in rows],
            [rate for _, rate, _ in rows],
            [bar.count("\u2588") for _, _, bar in rows],
        )

    return chart


STEEP = "note: a steep decay: with momentum, the loss can rise"
NUMBERS = [
    ((1, 1e-2, 3), "-2.30259", "0.1", "half-life: 0.30103 epochs"),
    ((0.1, 0.01, 2), "-2.30259", "0.1", "half-life: 0.30103 epochs"),
    ((1, 0.099, 2), "-2.31264", "0.099", "half-life: 0.299722 epochs", STEEP),
    ((1, 0.5, 2), "-0.693147", "0.5", "half-life: 1 epoch"),
    ((0.1, 0.2, 11, 2, 0.05), "0.0866434", "1.09051", "doubling time: 8 epochs"),
    ((0.1, 0.1, 3), "0", "1"),
]


@pytest.mark.parametrize("row", NUMBERS)
def test_the_decay_in_numbers(row, chart):
    rule, rate, factor, *others = row
    numbers, *_ = chart(*rule)
    expected = [f"decay rate: {rate} per epoch", f"factor: {factor} per epoch"]
    assert numbers == [*expected, *others]


@pytest.mark.parametrize(
    "rule, rates, lengths",
    [
        ((1, 1e-2, 3), "1.000000 0.100000 0.010000", [63, 32, 1]),
        ((0.1, 1, 3, 1, 0), "0.000000 0.100000 1.000000", [0, 1, 63]),
        ((0.1, 1e-3, 3, 1, 1e-7), "1e-07 0.1 0.001", [1, 66, 44]),
        ((0.1, 1e-7, 2), "0.1 1e-07", [66, 1]),
        ((0.1234567, 0.1, 2), "0.123457 0.1", [63, 1]),
        ((0.123456, 0.1, 2), "0.123456 0.100000", [63, 1]),
        ((1000, 10, 3), "1000 100 10", [67, 34, 1]),
        ((999, 999, 2), "999.000000 999.000000", [61, 61]),
    ],
)
def test_given_rates_are_shown_exactly_with_bars_on_a_log_scale(
    rule, rates, lengths, chart
):
    _, _, shown, bars = chart(*rule)
    assert (shown, bars) == (rates.split(), lengths)


def test_chart_is_ascii_where_stdout_cannot_encode_blocks(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    monkeypatch.setenv("COLUMNS", "40")
    assert main(PREVIEW) == 0
    lines = sys.stdout.buffer.getvalue().decode("ascii").splitlines()
    assert [line.count("#") for line in lines[-5:]] == [23, 23, 23, 12, 1]


@pytest.mark.parametrize("n_epochs, n_rows", [(50, 50), (51, 48), (2**53, 50)])
def test_of_many_epochs_about_50_are_shown(n_epochs, n_rows, chart):
    """They include the first, the last and the two at which another phase starts."""
    _, epochs, _, _ = chart(0.1, 1e-4, n_epochs, 3, 0.01, 5)
    assert len(epochs) == n_rows
    assert epochs == sorted(set(epochs))
    assert {0, 3, 8, n_epochs - 1} <= set(epochs)


@pytest.mark.parametrize("form", ["csv", "json"])
def test_data_contains_every_rate_to_the_bit(form, preview):
    rule = (0.3, 1e-7, 300, 20, 0.02, 3)
    lines = preview(rule, "--format", form)
    rows = csv.DictReader(lines) if form == "csv" else json.loads("\n".join(lines))
    shown = [(int(row["epoch"]), float(row["learning_rate"])) for row in rows]
    assert shown == list(enumerate(float32_rates(DecayRule(*rule), range(300))))


def test_plot(preview, tmp_path):
    for name, start in [("a.svg", b"<?xml"), ("a.pdf", b"%PDF")]:
        lines = preview((1, 0.1, 5), "--plot", tmp_path / name, "--format", "csv")
        assert len(lines) == 6
        assert (tmp_path / name).read_bytes().startswith(start)


def test_plot_that_cannot_be_written(refused, tmp_path, monkeypatch):
    error = refused(*PREVIEW, "--plot", tmp_path / "a.xyz")
    assert "Format 'xyz' is not supported" in error
    error = refused(*PREVIEW, "--plot", tmp_path / "no" / "a.png")
    assert "No such file or directory" in error
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    error = refused(*PREVIEW, "--plot", tmp_path / "a.png")
    assert "A plot needs matplotlib: pip install matplotlib" in error
    assert os.listdir(tmp_path) == []


def test_ctrl_c(call, monkeypatch):
    monkeypatch.setattr(json, "dumps", interrupt)
    assert call(*PREVIEW, "--format", "json") == (130, "", "\nInterrupted.\n")


FULL_DISK = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
FULL = "expdecay-keras preview: error: [Errno 28] No space left on device\n"


@pytest.mark.parametrize(
    "script, status, error",
    [(CLOSED_PIPE, 0, ""), (FULL_DISK, 2, FULL)],
    ids=["into `head`, which has read enough", "onto a full disk"],
)
def test_output_that_is_cut_off(script, status, error, start):
    done = start(script + COMMAND, *PREVIEW).wait()
    assert (done.status, done.stderr) == (status, error)
