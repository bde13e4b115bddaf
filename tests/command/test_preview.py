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


@REFERENCE_TABLE
def test_chart_of_the_reference_table(arguments, rates, preview):
    lines = preview(arguments)
    assert lines[-6] == "epoch  rate"
    shown = [line.split()[:2] for line in lines[-5:]]
    assert shown == [[str(i), f"{rate:.6f}"] for i, rate in enumerate(rates)]
    assert max(map(len, lines)) == 80


def test_chart_has_the_decay_in_numbers_and_bars_on_a_log_scale(preview):
    lines = preview((1, 1e-2, 3))
    assert lines[:3] == [
        "decay rate: -2.30259 per epoch",
        "factor: 0.1 per epoch",
        "half-life: 0.30103 epochs",
    ]
    longest = 80 - len("epoch  0.010000  ")
    lengths = [longest, (longest + 1) // 2, 1]
    assert [line.split()[-1] for line in lines[-3:]] == [n * "\u2588" for n in lengths]


def test_chart_of_other_rates(preview):
    assert "doubling time: 1 epochs" in preview((1, 2, 2))
    constant = preview((0.1, 0.1, 3))
    assert "decay rate: 0 per epoch" in constant
    assert [len(line) for line in constant[-3:]] == [80] * 3
    assert preview((0.1, 1e-4, 4, 1, 0))[-4].split() == ["0", "0.000000"]
    assert preview((1e-7, 1e-9, 3))[-1].split()[1] == "1e-09"
    assert "a steep decay: " not in "\n".join(preview((1, 0.1, 2)))
    assert "a steep decay: " in "\n".join(preview((1, 0.099, 2)))


def test_chart_is_ascii_where_stdout_cannot_encode_blocks(monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "latin-1"))
    monkeypatch.setenv("COLUMNS", "40")
    assert main(PREVIEW) == 0
    lines = sys.stdout.buffer.getvalue().decode("ascii").splitlines()
    assert [line.count("#") for line in lines[-5:]] == [23, 23, 23, 12, 1]


@pytest.mark.parametrize("n_epochs", [50, 51, 2**53])
def test_chart_of_many_epochs_shows_about_50(n_epochs, preview):
    """They include the first, the last and the two at which another phase starts."""
    lines = preview((0.1, 1e-4, n_epochs, 3, 0.01, 5))
    rows = lines[lines.index("") + 2 :]
    epochs = [int(row.split()[0]) for row in rows]
    assert 45 <= len(epochs) <= 52
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


@pytest.mark.parametrize("form", ["table", "csv"])
def test_into_a_pipe_that_is_closed(form, start):
    """For example by `| head`, once it has read enough."""
    done = start(CLOSED_PIPE + COMMAND, *PREVIEW, "--format", form).wait()
    assert (done.status, done.stderr) == (0, "")


@pytest.mark.parametrize("form", ["table", "csv"])
def test_into_a_full_disk(form, start):
    full = "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n"
    done = start(full + COMMAND, *PREVIEW, "--format", form).wait()
    error = "expdecay-keras preview: error: [Errno 28] No space left on device\n"
    assert (done.status, done.stderr) == (2, error)


def test_interrupted(start):
    patch = stop_before("json.dumps", signum=signal.SIGINT)
    done = start(patch + COMMAND, *PREVIEW, "--format", "json").wait()
    assert done.status == 130
    assert done.stderr.split() == ["Interrupted."]
