"""What `expdecay-keras preview` prints and plots."""

import csv
import io
import json
import os
import signal
import sys

import pytest
from oracle import REFERENCE_TABLE, float32_rates
from processes import COMMAND
from runs import CLOSED_PIPE, options_of, stop_before

from expdecay_keras import DecayRule
from expdecay_keras.command import main

PREVIEW = ["preview", *options_of(0.1, 1e-4, 5, 2)]


@pytest.fixture
def preview(capsys, monkeypatch):
    """Returns the lines, 80 columns wide, that `preview` prints for a rule."""
    monkeypatch.setenv("COLUMNS", "80")

    def preview(rule, *options):
        assert main(["preview", *options_of(*rule), *options]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        return captured.out.splitlines()

    return preview


@pytest.fixture
def chart(preview):
    """Returns the lines above a chart, its epochs and rates, and its bars' lengths."""

    def chart(*rule):
        lines = preview(rule)
        start = lines.index("")
        assert lines[start + 1].split() == ["epoch", "rate"]
        rows = [[*line.split(), ""][:3] for line in lines[start + 2 :]]
        assert max(map(len, lines)) == 80
        return (
            lines[:start],
            [(int(epoch), rate) for epoch, rate, _ in rows],
            [bar.count("\u2588") for *_, bar in rows],
        )

    return chart


@REFERENCE_TABLE
def test_chart_of_the_reference_table(arguments, rates, chart):
    _, shown, _ = chart(*arguments)
    assert shown == [(i, f"{rate:.6f}") for i, rate in enumerate(rates)]


STEEP = "note: a steep decay: with momentum, the loss can rise"
NUMBERS = [
    ((1, 1e-2, 3), "-2.30259", "0.1", "half-life: 0.30103 epochs"),
    ((0.1, 0.01, 2), "-2.30259", "0.1", "half-life: 0.30103 epochs"),
    ((1, 0.099, 2), "-2.31264", "0.099", "half-life: 0.299722 epochs", STEEP),
    ((1, 0.5, 2), "-0.693147", "0.5", "half-life: 1 epoch"),
    ((1, 0.25, 5), "-0.346574", "0.707107", "half-life: 2 epochs"),
    ((1, 2, 2), "0.693147", "2", "doubling time: 1 epoch"),
    ((0.1, 0.2, 11, 2, 0.05), "0.0866434", "1.09051", "doubling time: 8 epochs"),
    ((0.1, 0.1, 3), "0", "1"),
]


@pytest.mark.parametrize("row", NUMBERS)
def test_the_decay_in_numbers(row, chart):
    rule, rate, factor, *others = row
    numbers, _, _ = chart(*rule)
    expected = [f"decay rate: {rate} per epoch", f"factor: {factor} per epoch"]
    assert numbers == [*expected, *others]


SHOWN = [
    (
        (0.1, 1e-4, 5, 2, 0),
        ["0.000000", "0.050000", "0.100000", "0.003162", "0.000100"],
    ),
    ((0.1, 1e-3, 3, 1, 1e-7), ["1e-07", "0.1", "0.001"]),
    ((1e-7, 1e-9, 3), ["1e-07", "1e-08", "1e-09"]),
    ((0.1234567, 0.1, 2), ["0.123457", "0.1"]),
    ((0.123456, 0.1, 2), ["0.123456", "0.100000"]),
    ((1000, 10, 3), ["1000", "100", "10"]),
    ((999, 999, 2), ["999.000000", "999.000000"]),
]


@pytest.mark.parametrize("rule, rates", SHOWN)
def test_digits_in_which_the_given_rates_are_exact(rule, rates, chart):
    _, shown, _ = chart(*rule)
    assert shown == list(enumerate(rates))


BARS = [
    ((1, 1e-2, 3), [63, 32, 1]),
    ((1e-2, 1, 3), [1, 32, 63]),
    ((0.1, 0.1, 3), [63, 63, 63]),
    ((1, 0.01, 4, 1, 0.0), [0, 63, 32, 1]),  # as without the rate of 0
]


@pytest.mark.parametrize("rule, lengths", BARS)
def test_bars_are_on_a_log_scale(rule, lengths, chart):
    assert chart(*rule)[2] == lengths


def test_chart_is_ascii_where_stdout_cannot_encode_blocks(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    monkeypatch.setenv("COLUMNS", "40")
    assert main(PREVIEW) == 0
    lines = sys.stdout.buffer.getvalue().decode("ascii").splitlines()
    assert [line.count("#") for line in lines[-5:]] == [23, 23, 23, 12, 1]


@pytest.mark.parametrize("n_epochs, n_rows", [(50, 50), (51, 48), (2**53, 50)])
def test_of_many_epochs_about_50_are_shown(n_epochs, n_rows, chart):
    """They include the first, the last and the two at which another phase starts."""
    _, shown, _ = chart(0.1, 1e-4, n_epochs, 3, 0.01, 5)
    epochs = [epoch for epoch, _ in shown]
    assert len(epochs) == n_rows
    assert epochs == sorted(set(epochs))
    assert {0, 3, 8, n_epochs - 1} <= set(epochs)


@pytest.mark.parametrize("form", ["csv", "json"])
@pytest.mark.parametrize(
    "rule", [(0.1, 1e-4, 8, 2, 0.02, 3), (0.3, 1e-7, 10_003, 2)], ids=["ramp", "many"]
)
def test_data_contains_every_rate_to_the_bit(form, rule, preview):
    lines = preview(rule, "--format", form)
    rows = csv.DictReader(lines) if form == "csv" else json.loads("\n".join(lines))
    shown = [(int(row["epoch"]), float(row["learning_rate"])) for row in rows]
    rates = float32_rates(DecayRule(*rule), range(rule[2]))
    assert shown == list(enumerate(rates))


@pytest.mark.parametrize(
    "name, start", [("a.png", b"\x89PNG"), ("a.svg", b"<?xml"), ("a.pdf", b"%PDF")]
)
def test_plot(name, start, tmp_path, preview):
    lines = preview((0.1, 1e-4, 5), "--plot", str(tmp_path / name), "--format", "csv")
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


FULL_DISK = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
FULL = "expdecay-keras preview: error: [Errno 28] No space left on device\n"
INTERRUPT = stop_before("json.dumps", signum=signal.SIGINT)


@pytest.mark.parametrize(
    "script, form, status, error",
    [
        (CLOSED_PIPE, "table", 0, ""),  # for example by `| head` that has read enough
        (CLOSED_PIPE, "csv", 0, ""),
        (FULL_DISK, "table", 2, FULL),
        (FULL_DISK, "csv", 2, FULL),
        (INTERRUPT, "json", 130, "\nInterrupted.\n"),
    ],
)
def test_output_that_is_cut_off(script, form, status, error, start):
    done = start(script + COMMAND, *PREVIEW, "--format", form).wait()
    assert (done.status, done.stderr) == (status, error)
