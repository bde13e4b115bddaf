"""What `expdecay-keras preview` prints, draws and refuses."""

import csv
import json
import os
import subprocess
import sys

import pytest
import tensorflow as tf
from conftest import COMMAND, CONSOLE_SCRIPT, float32_rates, options_of

from expdecay_keras import DecayRule, WarmupExponentialDecay
from expdecay_keras.command import main

PREVIEW = ["preview", *options_of(0.1, 1e-4, 5, 2)]


def test_table_of_the_seed(seed_row, seed_rates, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["preview", *options_of(*seed_row)]) == 0
    lines = capsys.readouterr().out.splitlines()
    shown = [line.split()[:2] for line in lines[-5:]]
    assert shown == [[str(epoch), f"{rate:.6f}"] for epoch, rate in enumerate(seed_rates)]
    assert "λ" in lines[0] and "█" in lines[-1] and max(map(len, lines)) == 80


def test_the_installed_command():
    environment = {**os.environ, "COLUMNS": "50", "PYTHONIOENCODING": "latin-1"}
    done = subprocess.run([CONSOLE_SCRIPT, *PREVIEW], capture_output=True, text=True, env=environment)
    assert done.returncode == 0 and done.stderr == "" and done.stdout.isascii()
    lines = done.stdout.splitlines()
    assert [line.split()[:2] for line in lines[-2:]] == [["3", "0.003162"], ["4", "0.000100"]]
    assert max(map(len, lines)) == 50


def test_as_csv_and_json_reads_back_to_the_bit(seed_row, seed_rates, capsys):
    rates = float32_rates(DecayRule(*seed_row), range(5))
    assert [round(rate, 6) for rate in rates] == seed_rates
    assert main(["preview", *options_of(*seed_row), "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    assert [(int(row["epoch"]), float(row["learning_rate"])) for row in rows] == list(enumerate(rates))
    assert main(["preview", *options_of(*seed_row), "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["epoch"], row["learning_rate"]) for row in rows] == list(enumerate(rates))


@pytest.mark.parametrize("form", ["csv", "json"])
def test_shows_every_epoch(form, capsys, monkeypatch):
    numbers = (0.1, 1e-4, 100_003, 2)
    assert main(["preview", *options_of(*numbers), "--format", form]) == 0
    shown = capsys.readouterr().out
    rows = json.loads(shown) if form == "json" else list(csv.DictReader(shown.splitlines()))
    assert [int(row["epoch"]) for row in rows] == list(range(100_003))
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == float32_rates(DecayRule(*numbers), range(100_003))


def test_of_ramp_and_hold(capsys):
    options = [*options_of(0.1, 1e-4, 8, 2), "--warmup-start-lr", "0.02", "--n-hold-epochs", "3"]
    assert main(["preview", *options, "--format", "csv"]) == 0
    rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
    rates = float32_rates(DecayRule(0.1, 1e-4, 8, 2, 0.02, 3), range(8))
    assert [float(row["learning_rate"]) for row in rows] == rates


@pytest.mark.parametrize("suffix, start", [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_draws(suffix, start, tmp_path, capsys):
    file = tmp_path / f"rates{suffix}"
    options = [*options_of(0.1, 1e-4, 5, 2), "--plot", str(file), "--format", "csv"]
    assert main(["preview", *options]) == 0
    assert file.read_bytes().startswith(start)
    assert len(capsys.readouterr().out.splitlines()) == 6


def save_callback(path, *arguments):
    saved = tf.keras.utils.serialize_keras_object(WarmupExponentialDecay(*arguments))
    path.write_text(json.dumps(saved))
    return saved


def test_of_a_saved_callback(tmp_path, capsys):
    numbers = (0.1, 1e-4, 5, 2, 0.02, 1)
    saved = save_callback(tmp_path / "callback.json", *numbers)
    rates = float32_rates(DecayRule(*numbers), range(5))
    for name in ("WarmupExponentialDecay", "expdecay_keras>WarmupExponentialDecay"):
        (tmp_path / "callback.json").write_text(json.dumps({**saved, "class_name": name}))
        options = ["--callback", str(tmp_path / "callback.json"), "--format", "csv"]
        assert main(["preview", *options]) == 0
        rows = csv.DictReader(capsys.readouterr().out.splitlines())
        assert [float(row["learning_rate"]) for row in rows] == rates


@pytest.mark.parametrize("form", ["table", "csv"])
def test_into_a_pipe_that_closes(form, start):
    options = [*options_of(0.1, 1e-4, 2**53, 2), "--format", form]
    process = start(COMMAND, "preview", *options)
    if form == "csv":
        assert process.stdout.readline() == "epoch,learning_rate\n"
    process.stdout.close()
    process.process.join()
    assert process.process.exitcode == 0 and process.err.read_text() == ""


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["preview"], "required: --base-lr, --target-lr, --n-epochs"),
        (
            [*PREVIEW, "--n-epochs", "3"],
            "`n_epochs` must be at least n_warmup_epochs + n_hold_epochs + 2",
        ),
        ([*PREVIEW, "--base-lr", "inf"], "`base_lr` must be a finite number > 0. Received: base_lr=inf"),
        ([*PREVIEW, "--warmup-start-lr", "-1"], "`warmup_start_lr` must be a finite number >= 0"),
        ([*PREVIEW, "--format", "xml"], "argument --format: invalid choice: 'xml'"),
        (
            [*PREVIEW, "--plot", "rates.gif"],
            "argument --plot: must end in .png, .svg or .pdf",
        ),
        ([*PREVIEW, "--plot", "rates"], "argument --plot: must end in .png, .svg or .pdf: rates"),
        ([*PREVIEW, "--plot", "no/rates.png"], "argument --plot: cannot be written: no/rates.png"),
        ([*PREVIEW, "--plot", "here.png"], "argument --plot: cannot be written: here.png"),
        ([*PREVIEW, "--plot", "a.png", "--target-lr", "0"], "`target_lr` must be a finite number > 0"),
        (["preview", "--callback", "no.json"], "No such file or directory: 'no.json'"),
        ([*PREVIEW, "--callback", "here.json"], "--callback: not allowed with the numbers of a rule"),
    ],
)
def test_refuses_before_anything_is_written(arguments, message, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.png").mkdir()
    (tmp_path / "here.json").write_text("{}")
    assert message in refused(*arguments)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here.json", "here.png"]


@pytest.mark.parametrize("options", [["--plot", "no/rates.png"], ["--n-epochs", "3"]])
def test_refuses_without_tensorflow(options):
    environment = {**os.environ, "PYTHONPROFILEIMPORTTIME": "1"}
    command = [CONSOLE_SCRIPT, *PREVIEW, *options]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 2 and done.stdout == ""
    assert "argparse" in done.stderr and "tensorflow" not in done.stderr and "numpy" not in done.stderr


SCHEDULE = '{"class_name": "ExponentialDecay", "config": {"initial_learning_rate": 0.1}}'


@pytest.mark.parametrize(
    "content, message",
    [
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("[" * 100_000, "maximum recursion depth"),
        ("\udc80", "invalid start byte"),
        ("[]", "list indices must be integers"),
        ("null", "'NoneType' object is not subscriptable"),
        ("{}", "'class_name'"),
        (SCHEDULE, "class_name is 'ExponentialDecay'"),
        ('{"class_name": "WarmupExponentialDecay"}', "'config'"),
        ('{"class_name": "WarmupExponentialDecay", "config": {}}', "base_lr"),
        ({"base_lr": -1}, "Argument `base_lr` must be a finite number > 0. Received: base_lr=-1"),
        ({"base_lr": float("nan")}, "Argument `base_lr` must be a finite number > 0"),
        ({"line\nbreak": 1}, "unexpected keyword argument 'line break'"),
    ],
)
def test_of_a_file_that_holds_no_callback(content, message, tmp_path, refused):
    file = tmp_path / "callback.json"
    if isinstance(content, dict):
        saved = save_callback(file, 0.1, 1e-4, 5)
        content = json.dumps({**saved, "config": {**saved["config"], **content}})
    file.write_text(content, errors="surrogateescape", encoding="utf-8")
    said = refused("preview", "--callback", file, "--plot", tmp_path / "a.png")
    assert f"{file} holds no WarmupExponentialDecay: " in said and message in said
    assert [path.name for path in tmp_path.iterdir()] == ["callback.json"]


def test_without_matplotlib(monkeypatch, tmp_path, refused):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    said = refused(*PREVIEW, "--plot", tmp_path / "a.png")
    assert "A picture needs matplotlib: pip install 'expdecay-keras[plot]'" in said


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no /dev/full")
@pytest.mark.parametrize("form", ["table", "csv"])
def test_into_a_full_disk(form, start):
    process = start(
        "os.dup2(os.open('/dev/full', os.O_WRONLY), 1)\n" + COMMAND, *PREVIEW, "--format", form
    )
    done = process.wait()
    assert done.status == 2
    assert done.stderr == (
        "expdecay-keras preview: error: [Errno 28] No space left on device: 'standard output'\n"
    )


def test_a_picture_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch, refused):
    from matplotlib.figure import Figure

    def fill(self, file, **options):
        file.write_text("half a picture")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fill)
    (tmp_path / "rates.png").write_text("mine")
    said = refused(*PREVIEW, "--plot", tmp_path / "rates.png")
    assert said.endswith("No space left on device\n")
    assert [path.name for path in tmp_path.iterdir()] == ["rates.png"]
    assert (tmp_path / "rates.png").read_text() == "mine"
