"""What `expdecay-keras train` leaves behind, and what it refuses before it touches anything."""

import json
import os
import random
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    CONSOLE_SCRIPT,
    OPTIONS,
    RUN,
    assert_equal_arrays,
    assert_same_run,
    history,
    save_model,
    scalars,
    state,
)

from expdecay_keras import DecayRule, WarmupExponentialDecay, WarmupExponentialSchedule
from expdecay_keras.command import main

RESULTS = ["history.csv", "learning_rate.png", "tensorboard", "model.keras", "callback.json"]


def test_results(unbroken):
    run_dir, output = unbroken
    rows = history(run_dir)
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates == DecayRule(**RUN).learning_rate(range(6)).numpy().tolist()
    assert [int(row["epoch"]) for row in rows] == list(range(6))
    assert float(rows[-1]["val_accuracy"]) > 0.8
    assert scalars(run_dir / "tensorboard" / "train", "epoch_learning_rate") == list(enumerate(rates))
    validation = [(int(row["epoch"]), np.float32(row["val_accuracy"])) for row in rows]
    assert scalars(run_dir / "tensorboard" / "validation", "epoch_accuracy") == validation
    assert (run_dir / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    saved = json.loads((run_dir / "callback.json").read_text())
    callback = tf.keras.utils.deserialize_keras_object(saved)
    assert callback.get_config() == WarmupExponentialDecay(**RUN).get_config()
    left = {path.name for path in run_dir.iterdir()} - {".lock"}
    assert left == {*RESULTS, "run.json"}
    assert "learning_rate: 0.1000" in output  # Keras's own line of an epoch
    shown = output.splitlines()[-len(RESULTS) - 2 - len(rows) : -len(RESULTS) - 1]
    assert shown[0].split() == list(rows[0])
    for line, row in zip(shown[1:], rows):
        assert line.split() == [f"{float(value):.6g}" for value in row.values()]
    assert output.splitlines()[-len(RESULTS) :] == [str(run_dir / name) for name in RESULTS]


def test_the_installed_command(unbroken, tmp_path):
    command = [CONSOLE_SCRIPT, "train", "--run-dir", str(tmp_path), *OPTIONS]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == ""
    assert_same_run(tmp_path, unbroken[0])


def test_a_tensorboard_server_shows_the_rates(unbroken):
    run_dir, _ = unbroken
    where = ["--logdir", str(run_dir / "tensorboard"), "--host", "127.0.0.1", "--port", "0"]
    server = subprocess.Popen(
        [sys.executable, "-m", "tensorboard.main", *where], stderr=subprocess.PIPE, text=True
    )
    try:
        said = iter(server.stderr.readline, "")
        url = next(found[0] for line in said if (found := re.search(r"http://127\.0\.0\.1:\d+/", line)))
        browser = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        query, answer = "data/plugin/scalars/scalars?run=train&tag=epoch_learning_rate", []
        deadline = time.monotonic() + 120
        while len(answer) < 6 and time.monotonic() < deadline:  # it reads the logs while it answers
            try:
                with browser.open(url + query) as response:
                    answer = json.load(response)
            except urllib.error.HTTPError as error:
                error.close()
    finally:
        server.terminate()
        server.communicate()
    rates = [(int(row["epoch"]), float(row["learning_rate"])) for row in history(run_dir)]
    assert [(step, value) for _, step, value in answer] == rates


def test_finished_run_is_not_trained_again(unbroken, capsys):
    run_dir, output = unbroken
    before = {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")}
    assert main(["train", "--run-dir", str(run_dir), *OPTIONS]) == 0
    shown = capsys.readouterr().out
    assert "finished. --overwrite trains it anew" in shown
    assert shown[shown.index("\n  epoch") :] == output[output.index("\n  epoch") :]
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


@pytest.mark.parametrize(
    "content, message",
    [
        ("a,b\n1,x\n", "could not convert"),
        ("", "epochs are missing"),
        ("epoch,loss\n0,1\n2,1\n", "epochs are missing"),
        ("epoch,loss\n0,1\n1,1\n", "epochs are missing"),
        (None, "No such file"),
    ],
)
def test_a_finished_run_without_its_history_is_refused(content, message, unbroken, tmp_path, refused):
    for name in ("run.json", "model.keras"):
        (tmp_path / name).write_bytes((unbroken[0] / name).read_bytes())
    if content is not None:
        (tmp_path / "history.csv").write_text(content)
    said = refused("train", "--run-dir", tmp_path, *OPTIONS)
    assert "history.csv is damaged, --overwrite starts anew" in said and message in said


@pytest.mark.parametrize(
    "option, value, differing",
    [
        ("--base-lr", "0.2", "rule"),
        ("--seed", "1", "seed"),
        ("--batch-size", "16", "batch_size"),
        ("--data", "data.npz", "data"),
        ("--model", "model.keras", "model"),
    ],
)
def test_another_run_is_refused(option, value, differing, unbroken, tmp_path, refused, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("data.npz", "model.keras"):
        (tmp_path / name).write_text("anything")
    before = history(unbroken[0])
    said = refused("train", "--run-dir", unbroken[0], *OPTIONS, option, value)
    assert f"holds another run (different: {differing})" in said
    assert history(unbroken[0]) == before


def test_overwrite_starts_anew_and_leaves_other_files(unbroken, tmp_path, train):
    train(tmp_path, "--n-epochs", "4")
    (tmp_path / "notes.txt").write_text("mine")
    train(tmp_path, "--overwrite", *OPTIONS)
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_same_run(tmp_path, unbroken[0])


def test_compare_constant(tmp_path, train):
    options = ["--base-lr", "0.1", "--n-epochs", "4", "--warmup-start-lr", "0.05", "--compare-constant"]
    shown = train(tmp_path, *options)
    rates = [float(row["learning_rate"]) for row in history(tmp_path / "constant")]
    assert rates == [float(np.float32(0.1))] * 4
    accuracies = [float(history(path)[-1]["val_accuracy"]) for path in (tmp_path, tmp_path / "constant")]
    said = "last val_accuracy: {:.4f} by the rule, {:.4f} at constant rate".format(*accuracies)
    assert f"\n{said}\n" in shown
    assert shown.splitlines()[-1] == str(tmp_path / "constant" / "callback.json")


# What the user's directory holds stays


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("name", ["history.csv", "model.keras", "tensorboard/mine", "checkpoint/mine"])
def test_a_users_files_are_not_overwritten(name, options, tmp_path, refused):
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    file.write_text("mine")
    said = refused("train", "--run-dir", tmp_path, *options)
    assert "is of no run. Choose another --run-dir" in said
    assert file.read_text() == "mine"


@pytest.mark.parametrize("options", [[], ["--overwrite"]], ids=["plain", "overwrite"])
@pytest.mark.parametrize("content", ["[1", "[]", "null", '{"mine": 1}'])
def test_a_run_json_of_someone_else(content, options, tmp_path, refused):
    (tmp_path / "run.json").write_text(content)
    assert "run.json is of no run" in refused("train", "--run-dir", tmp_path, *options)
    assert (tmp_path / "run.json").read_text() == content


def test_run_directory_that_cannot_be_written(tmp_path, train):
    (tmp_path / "file").write_text("mine")
    assert "Not a directory" in train(tmp_path / "file" / "run", status=2)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_run_that_version_0_1_0_left_unfinished(unbroken, tmp_path, refused, train):
    (tmp_path / "run.json").write_bytes((unbroken[0] / "run.json").read_bytes())
    (tmp_path / "state" / "snapshot-2" / "backup").mkdir(parents=True)
    said = refused("train", "--run-dir", tmp_path, *OPTIONS)
    assert "was left unfinished by version 0.1.0" in said
    train(tmp_path, "--overwrite", *OPTIONS)
    assert_same_run(tmp_path, unbroken[0])
    assert not (tmp_path / "state").exists()


# Data and models of the user's

GOOD = {
    "x_train": np.zeros((4, 3)),
    "y_train": np.arange(4),
    "x_test": np.zeros((2, 3)),
    "y_test": np.arange(2),
}
NUMBERS = "must be a non-empty array of numbers"
INTEGERS = "The built-in network needs integers from 0 to 65535"


@pytest.mark.parametrize(
    "arrays, message",
    [
        ({"x_train": np.zeros((4, 3))}, "is no .npz file of x_train, y_train, x_test, y_test"),
        ({**GOOD, "y_test": np.arange(3)}, "Data cardinality is ambiguous"),
        ({**GOOD, "x_train": np.zeros((0, 3))}, f"x_train {NUMBERS}"),
        ({**GOOD, "y_train": np.array(list("abcd"))}, f"y_train {NUMBERS}"),
        ({**GOOD, "y_train": np.array([None] * 4)}, "Object arrays cannot be loaded"),
        ({**GOOD, "x_test": np.array(1.0)}, f"x_test {NUMBERS}"),
        ({**GOOD, "x_test": np.zeros((2, 0))}, f"x_test {NUMBERS}"),
        ({**GOOD, "x_test": np.zeros((2, 4))}, "The model cannot train on the data"),
        ({**GOOD, "y_train": np.zeros(4)}, INTEGERS),
        ({**GOOD, "y_test": np.array([0, -1])}, INTEGERS),
        ({**GOOD, "y_train": np.zeros((4, 2), int)}, "The model cannot train on the data"),
    ],
    ids="missing rows empty strings pickled scalar no-columns shapes floats negative pairs".split(),
)
def test_bad_data_is_one_line(arrays, message, tmp_path, train):
    np.savez(tmp_path / "data.npz", **arrays)
    said = train(tmp_path / "run", "--data", tmp_path / "data.npz", status=2)
    assert message in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_built_in_network_on_a_users_data(data_file, tmp_path, train):
    train(tmp_path / "run", "--data", data_file, "--n-epochs", "4")
    model = tf.keras.models.load_model(tmp_path / "run" / "model.keras")
    assert model.input_shape == (None, 6, 6) and model.output_shape == (None, 3)


def test_bad_models_are_refused_and_nothing_is_lost(data_file, tmp_path, train):
    run_dir = tmp_path / "run"
    options = ["--data", data_file, "--n-epochs", "4"]
    (tmp_path / "garbage.keras").write_bytes(b"PK no zip")
    keras_schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    our_schedule = WarmupExponentialSchedule(0.1, 0.01, 4, steps_per_epoch=1)
    models = {
        "is no Keras model that loads": [tmp_path / "garbage.keras"],
        "is not compiled": [save_model(tmp_path / "uncompiled.keras", optimizer=None)],
        "cannot train on the data": [save_model(tmp_path / "narrow.keras", n_columns=5)],
        "it was built with a schedule": [
            save_model(tmp_path / f"{number}.keras", tf.keras.optimizers.SGD(schedule))
            for number, schedule in enumerate((keras_schedule, our_schedule))
        ],
    }
    train(run_dir, *options)
    before = history(run_dir), state(run_dir)
    for message, paths in models.items():
        for path in paths:
            said = train(run_dir, "--model", path, *options, "--overwrite", status=2)
            assert message in said and said.count("\n") == 1
            train(tmp_path / "other", "--model", path, *options, status=2)
            assert not (tmp_path / "other").exists()
    assert history(run_dir) == before[0]
    assert_equal_arrays(state(run_dir), before[1])


@pytest.mark.skipif(
    tf.__version__.startswith("2.12."), reason="the safe mode of Keras 2.12 lets Lambda layers through"
)
def test_unsafe_model_is_refused(data_file, tmp_path, train):
    model = tf.keras.Sequential([tf.keras.Input((6, 6)), tf.keras.layers.Lambda(lambda x: x)])
    model.compile("sgd", "mse")
    model.save(tmp_path / "lambda.keras")
    options = ["--model", tmp_path / "lambda.keras", "--data", data_file]
    assert "is no Keras model that loads" in train(tmp_path / "run", *options, status=2)


@pytest.mark.parametrize("where", ["y_train", "y_test"])
def test_a_label_the_model_has_no_output_for(where, data_file, tmp_path, train):
    data = dict(np.load(data_file))
    data[where][-1] = 3
    np.savez(data_file, **data)
    options = ["--model", save_model(tmp_path / "model.keras"), "--data", data_file, "--batch-size", "4"]
    said = train(tmp_path / "run", *options, status=2)
    assert "cannot train on the data: " in said and "[0, 3)" in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not hasattr(tf.keras.metrics, "F1Score"), reason="this Keras has no F1Score")
def test_a_metric_that_is_not_one_number(data_file, tmp_path, train):
    model = tf.keras.models.load_model(save_model(tmp_path / "model.keras"))
    model.compile("sgd", "mse", metrics=[tf.keras.metrics.F1Score()])
    model.save(tmp_path / "model.keras")
    data = dict(np.load(data_file))
    data["y_train"], data["y_test"] = np.eye(3)[data["y_train"]], np.eye(3)[data["y_test"]]
    np.savez(data_file, **data)
    options = ["--model", tmp_path / "model.keras", "--data", data_file]
    assert "cannot train on the data" in train(tmp_path / "run", *options, status=2)
    assert not (tmp_path / "run").exists()


# Damaged files


def damaged(content, rng):
    """The bytes, cut short, with flipped bits, with a stretch of noise or without one."""
    content, at = bytearray(content), rng.randrange(len(content))
    how = rng.randrange(4)
    if how == 0:
        del content[at:]
    elif how == 1:
        for _ in range(rng.choice([1, 3, 20])):
            content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    elif how == 2:
        content[at : at + 400] = rng.randbytes(rng.randrange(1, 400))
    else:
        del content[at : at + rng.randrange(1, 200)]
    return bytes(content)


@pytest.mark.parametrize(
    "n_damages", [pytest.param(4, id="some"), pytest.param(100, id="many", marks=pytest.mark.long)]
)
@pytest.mark.parametrize("name", ["model.keras", "data.npz"])
def test_damaged_files(name, n_damages, data_file, tmp_path, start_train):
    save_model(tmp_path / "model.keras")
    seed = random.randrange(2**32)
    print("seed", seed)
    content, rng, n_refused = (tmp_path / name).read_bytes(), random.Random(seed), 0
    options = ["--model", tmp_path / "model.keras", "--data", data_file, "--n-epochs", "4"]
    for number in range(n_damages):
        left = damaged(content, rng)
        (tmp_path / name).write_bytes(left)
        run_dir = tmp_path / str(number)
        done = start_train(run_dir, *options).wait()
        assert done.status in (0, 2), done.stderr  # the damage may be where nobody looks
        if done.status == 2:
            n_refused += 1
            assert done.stderr.splitlines()[-1].startswith("expdecay-keras train: error: ")
            assert "Traceback" not in done.stderr and not run_dir.exists()
        assert (tmp_path / name).read_bytes() == left
    assert n_refused > n_damages / 3 or n_damages < 10


def test_event_files_given_as_data_and_model(tmp_path, train, refused):
    with tf.summary.create_file_writer(str(tmp_path / "logs")).as_default():
        tf.summary.scalar("rate", 0.1, step=0)
    (events,) = (tmp_path / "logs").iterdir()
    assert "is no .npz file of" in train(tmp_path / "run", "--data", events, status=2)
    assert "not a .keras file" in refused("train", "--model", events)
    assert "holds no WarmupExponentialDecay" in refused("preview", "--callback", events)
    assert os.listdir(tmp_path) == ["logs"]
