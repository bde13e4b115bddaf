import contextlib
import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_callbacks import IS_KERAS_3

from expdecay_keras import DecayRule
from expdecay_keras.cli import main
from expdecay_keras.run import RunDirectory

RULE = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 8, "n_warmup_epochs": 2}
OPTIONS = ["--target-lr", "1e-4", "--n-epochs", "8"]


def command(run_dir, *options):
    return [sys.executable, "-m", "expdecay_keras", "train", "--run-dir", str(run_dir), *options]


def train(run_dir, *options):
    return subprocess.run(command(run_dir, *options), capture_output=True, text=True)


def start(run_dir, *options):
    """Starts a run and returns when its first epoch has begun."""
    process = subprocess.Popen(
        command(run_dir, *options), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if line.startswith("Epoch"):
            break
    return process


def interrupt(run_dir, *options, after, signum):
    """Starts a run, sends it a signal some seconds after its first epoch began, waits for its end."""
    process = start(run_dir, *options)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(after)
    process.send_signal(signum)
    _, stderr = process.communicate()
    return process.returncode, stderr


def history(run_dir):
    with (run_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def weights(run_dir):
    """The weights of a run's model and the variables of its optimizer."""
    model = tf.keras.models.load_model(run_dir / "model.keras")
    variables = model.optimizer.variables if IS_KERAS_3 else model.optimizer.variables()
    return [*model.get_weights(), *(variable.numpy() for variable in variables)]


def scalars(run_dir, part, tag):
    events = EventAccumulator(str(run_dir / "tensorboard" / part), size_guidance={"tensors": 0}).Reload()
    values = [(event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors(tag)]
    return values


def assert_same_run(run_dir, other):
    assert (run_dir / "history.csv").read_bytes() == (other / "history.csv").read_bytes()
    held, expected = weights(run_dir), weights(other)
    assert len(held) == len(expected) >= 6
    for variable, other_variable in zip(held, expected):
        np.testing.assert_array_equal(variable, other_variable)
    for part, tag in [("train", "epoch_learning_rate"), ("validation", "epoch_loss")]:
        assert scalars(run_dir, part, tag) == scalars(other, part, tag)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory):
    run_dir = tmp_path_factory.mktemp("unbroken") / "run"
    done = train(run_dir, *OPTIONS)
    assert done.returncode == 0, done.stderr
    return run_dir, done.stdout


def test_results(unbroken):
    run_dir, output = unbroken
    rates = [float(row["learning_rate"]) for row in history(run_dir)]
    assert rates == DecayRule(**RULE).learning_rate(range(8)).numpy().tolist()
    assert [int(row["epoch"]) for row in history(run_dir)] == list(range(8))
    assert float(history(run_dir)[-1]["val_accuracy"]) > 0.85
    assert scalars(run_dir, "train", "epoch_learning_rate") == list(enumerate(rates))
    validation = [(int(row["epoch"]), np.float32(row["val_accuracy"])) for row in history(run_dir)]
    assert scalars(run_dir, "validation", "epoch_accuracy") == validation
    assert (run_dir / "learning_rate.png").read_bytes().startswith(b"\x89PNG")
    callback = tf.keras.utils.deserialize_keras_object(
        json.loads((run_dir / "callback.json").read_text())
    )
    assert callback.get_config() == {**RULE, "warmup_start_lr": None, "verbose": 0}
    assert sorted(path.name for path in run_dir.iterdir()) == [
        "callback.json",
        "history.csv",
        "learning_rate.png",
        "model.keras",
        "run.json",
        "tensorboard",
    ]
    assert "learning_rate: 0.1000" in output  # Keras's own line of an epoch
    for row in history(run_dir):
        assert f"{float(row['learning_rate']):13.6g}  {float(row['loss']):13.6g}" in output
    for name in ("history.csv", "learning_rate.png", "tensorboard", "model.keras", "callback.json"):
        assert f"\n{run_dir / name}\n" in output


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
        while len(answer) < 8 and time.monotonic() < deadline:  # it reads the logs while it answers
            with contextlib.suppress(urllib.error.HTTPError), browser.open(url + query) as response:
                answer = json.load(response)
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
    assert shown[shown.index("\nepoch") :] == output[output.index("\nepoch") :]
    assert {path: path.stat().st_mtime_ns for path in run_dir.rglob("*")} == before


@pytest.mark.parametrize(
    "option, value, differing",
    [
        ("--base-lr", "0.2", "rule"),
        ("--seed", "1", "seed"),
        ("--batch-size", "16", "batch_size"),
        ("--data", "data.npz", "data"),
    ],
)
def test_another_run_is_refused(option, value, differing, unbroken, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    x, y = np.zeros((4, 3)), np.arange(4)
    np.savez("data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    before = history(unbroken[0])
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--run-dir", str(unbroken[0]), *OPTIONS, option, value])
    assert stopped.value.code == 2
    assert f"holds another run (different: {differing})" in capsys.readouterr().err
    assert history(unbroken[0]) == before


@pytest.mark.parametrize("n_kills", [3, pytest.param(24, marks=pytest.mark.long)])
def test_killed_at_random_moments(n_kills, unbroken, tmp_path):
    """Kills fall into the start-up, epochs and writes; a run that got through them is compared."""
    rng, n_runs = random.Random(), 0
    for i in range(n_kills):
        run_dir = tmp_path / str(n_runs)
        if i % 6 == 5:
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(
                    command(run_dir, *OPTIONS), capture_output=True, timeout=rng.uniform(0, 8)
                )
        else:
            interrupt(run_dir, *OPTIONS, after=rng.uniform(0, 1), signum=signal.SIGKILL)
        if (run_dir / "model.keras").exists() or i == n_kills - 1:
            done = train(run_dir, *OPTIONS)
            assert done.returncode == 0, done.stderr
            assert_same_run(run_dir, unbroken[0])
            n_runs += 1


def test_a_full_disk_leaves_the_last_epoch_to_go_on_from(unbroken, stopped_run_of_eight):
    """A file that may not grow stands for it: the backup of the next epoch cannot be written."""
    run_dir = stopped_run_of_eight
    limit = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))"
    script = f"{limit}; import expdecay_keras.cli as cli; sys.exit(cli.main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", script, *command(run_dir, *OPTIONS)[3:]]
    done = subprocess.run(arguments, capture_output=True, text=True)
    assert done.returncode == 2
    said = done.stderr.splitlines()[-1]
    assert said.startswith("expdecay-keras train: error: The run stopped (")
    assert "File too large" in said
    assert said.endswith("): 2 of 8 epochs are done. The same command goes on from there.")
    done = train(run_dir, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert_same_run(run_dir, unbroken[0])


def test_a_second_run_in_the_same_directory_is_refused(unbroken, tmp_path, capsys):
    process = start(tmp_path, *OPTIONS)
    for options in (OPTIONS, ["--overwrite"]):
        assert f"Another run is at work in {tmp_path}" in refused(
            capsys, "--run-dir", tmp_path, *options
        )
    assert process.wait() == 0
    process.communicate()
    assert_same_run(tmp_path, unbroken[0])


def test_a_run_that_began_meanwhile_is_left_alone(tmp_path, monkeypatch, capsys):
    """The other one starts, and ends, while this one is loading TensorFlow."""
    from expdecay_keras import training

    load_model, run_dir = training.load_model, tmp_path / "run"

    def load_model_late(*args):
        assert train(run_dir, "--n-epochs", "4").returncode == 0
        return load_model(*args)

    monkeypatch.setattr(training, "load_model", load_model_late)
    message = refused(capsys, "--run-dir", run_dir, "--n-epochs", 4)
    assert f"Another run was at work in {run_dir} meanwhile" in message
    assert len(history(run_dir)) == 4 and (run_dir / "model.keras").exists()


@pytest.mark.parametrize(
    "signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_interrupted(signum, status, unbroken, tmp_path):
    returned, stderr = interrupt(tmp_path, *OPTIONS, after=0.1, signum=signum)
    assert returned == status
    assert "of 8 epochs are done. The same command goes on from there." in stderr
    assert "Traceback" not in stderr
    done = train(tmp_path, *OPTIONS)
    assert done.returncode == 0, done.stderr
    assert_same_run(tmp_path, unbroken[0])


class Killed(BaseException):
    """Stands for a kill: nothing catches it, nothing cleans up after it."""


def killed_at(function, call, afterwards):
    """The function, but the run dies in the given call, before or after doing the work."""
    calls = []

    def dying(*args, **options):
        calls.append(args)
        if len(calls) == call and not afterwards:
            raise Killed
        result = function(*args, **options)
        if len(calls) == call:
            raise Killed
        return result

    return dying


@pytest.mark.parametrize("name", ["copytree", "copy", "rename", "rmtree"])
def test_killed_while_a_snapshot_is_written(name, unbroken, tmp_path, monkeypatch):
    """The run dies right before and right after each step of keeping a snapshot."""
    module = os if name == "rename" else shutil
    arguments = ["train", "--run-dir", str(tmp_path), *OPTIONS]
    for call, afterwards in [(5, False), (6, True)]:
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(module, name, killed_at(getattr(module, name), call, afterwards))
            main(arguments)
    assert main(arguments) == 0
    assert_same_run(tmp_path, unbroken[0])


@pytest.mark.parametrize("name", ["finish", "tidy"])
def test_killed_at_the_end(name, unbroken, tmp_path, monkeypatch):
    """All epochs are done, the model is not yet written or the state not yet removed."""
    arguments = ["train", "--run-dir", str(tmp_path), *OPTIONS]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunDirectory, name, killed_at(getattr(RunDirectory, name), 1, afterwards=False))
        main(arguments)
    assert main(arguments) == 0
    assert_same_run(tmp_path, unbroken[0])
    assert not (tmp_path / "state").exists()


def test_overwrite_starts_anew_and_leaves_other_files(unbroken, tmp_path):
    assert main(["train", "--run-dir", str(tmp_path), "--n-epochs", "4"]) == 0
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["train", "--run-dir", str(tmp_path), "--overwrite", *OPTIONS]) == 0
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert_same_run(tmp_path, unbroken[0])


def test_compare_constant(unbroken, tmp_path, capsys):
    options = ["--n-epochs", "4", "--compare-constant", "--run-dir", str(tmp_path)]
    assert main(["train", *options]) == 0
    rates = [float(row["learning_rate"]) for row in history(tmp_path / "constant")]
    assert rates == [float(np.float32(0.1))] * 4
    # The same network, seed and batches: warm-up and the first real epoch are the same.
    assert history(tmp_path / "constant")[:3] == history(tmp_path)[:3]
    accuracies = [float(history(path)[-1]["val_accuracy"]) for path in (tmp_path, tmp_path / "constant")]
    expected = "val_accuracy of the last epoch: {:.4f} by the rule, {:.4f} at constant".format(
        *accuracies
    )
    assert expected in capsys.readouterr().out


# Models and data of the user's


@pytest.fixture
def data_file(tmp_path):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (40, 6, 6), dtype=np.uint8)
    path = tmp_path / "data.npz"
    np.savez(path, x_train=x[:32], y_train=x[:32, 0, 0] // 86, x_test=x[32:], y_test=x[32:, 0, 0] // 86)
    return path


def save_model(path, optimizer="sgd", units=3, n_columns=6):
    tf.keras.utils.set_random_seed(0)
    layers = tf.keras.layers
    model = tf.keras.Sequential(
        [
            tf.keras.Input((6, n_columns)),
            layers.Flatten(),
            layers.Rescaling(1 / 255),
            layers.Dropout(0.5),
            layers.Dense(units),
        ]
    )
    if optimizer is not None:
        model.compile(optimizer, tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.save(path)
    return path


def test_built_in_network_on_a_users_data(data_file, tmp_path):
    run_dir = tmp_path / "run"
    assert main(["train", "--data", str(data_file), "--run-dir", str(run_dir), "--n-epochs", "4"]) == 0
    model = tf.keras.models.load_model(run_dir / "model.keras")
    assert model.input_shape == (None, 6, 6) and model.output_shape == (None, 3)


@pytest.mark.skipif(not IS_KERAS_3, reason="Keras 2 keeps dropout's random state out of reach")
def test_a_users_model_with_dropout_goes_on_to_the_bit(data_file, tmp_path, monkeypatch):
    model = save_model(tmp_path / "model.keras", tf.keras.optimizers.Adam())
    arguments = [
        "train",
        "--model",
        str(model),
        "--data",
        str(data_file),
        "--n-epochs",
        "6",
        "--run-dir",
    ]
    assert main([*arguments, str(tmp_path / "unbroken")]) == 0

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunDirectory, "snapshot", killed_at(RunDirectory.snapshot, 4, afterwards=True))
        main([*arguments, str(tmp_path / "broken")])
    assert main([*arguments, str(tmp_path / "broken")]) == 0
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


def refused(capsys, *options):
    with pytest.raises(SystemExit) as stopped:
        main(["train", *map(str, options)])
    assert stopped.value.code == 2
    captured = capsys.readouterr()
    message = captured.err.splitlines()[-1]
    assert message.startswith("expdecay-keras train: error: ")
    assert "Traceback" not in captured.err
    return message


def test_bad_models_are_refused_and_nothing_is_lost(data_file, tmp_path, capsys):
    run_dir = tmp_path / "run"
    options = ["--data", data_file, "--run-dir", run_dir, "--n-epochs", 4]
    (tmp_path / "garbage.keras").write_bytes(b"PK no zip")
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    models = {
        "is no Keras model that loads": tmp_path / "garbage.keras",
        "is not compiled": save_model(tmp_path / "uncompiled.keras", optimizer=None),
        "cannot train on the data": save_model(tmp_path / "narrow.keras", n_columns=5),
        "it was built with a schedule": save_model(
            tmp_path / "schedule.keras", tf.keras.optimizers.SGD(schedule)
        ),
    }
    for message, model in models.items():
        assert message in refused(capsys, "--model", model, *options)
        assert not run_dir.exists()

    assert main(["train", *map(str, options)]) == 0
    before = history(run_dir), weights(run_dir)
    for message, model in models.items():
        assert message in refused(capsys, "--model", model, *options, "--overwrite")
    assert history(run_dir) == before[0]
    for weight, expected in zip(weights(run_dir), before[1]):
        np.testing.assert_array_equal(weight, expected)


@pytest.mark.skipif(
    tf.__version__.startswith("2.12."), reason="the safe mode of Keras 2.12 lets Lambda layers through"
)
def test_unsafe_model_is_refused(data_file, tmp_path, capsys):
    model = tf.keras.Sequential([tf.keras.Input((6, 6)), tf.keras.layers.Lambda(lambda x: x)])
    model.compile("sgd", "mse")
    model.save(tmp_path / "lambda.keras")
    options = ["--model", tmp_path / "lambda.keras", "--data", data_file, "--run-dir", tmp_path / "run"]
    assert "is no Keras model that loads" in refused(capsys, *options)


def test_labels_the_built_in_network_cannot_learn(tmp_path, capsys):
    x = np.zeros((4, 3))
    np.savez(tmp_path / "data.npz", x_train=x, y_train=x[:, 0], x_test=x, y_test=x[:, 0])
    message = refused(capsys, "--data", tmp_path / "data.npz", "--run-dir", tmp_path / "run")
    assert "one integer label per row" in message
    assert not (tmp_path / "run").exists()


def die_after_two_epochs(options, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(RunDirectory, "snapshot", killed_at(RunDirectory.snapshot, 2, afterwards=True))
        main(["train", *options])


@pytest.fixture
def stopped_run(tmp_path, monkeypatch):
    """The directory and options of a run of 4 epochs that died after 2."""
    options = ["--run-dir", str(tmp_path / "run"), "--n-epochs", "4"]
    die_after_two_epochs(options, monkeypatch)
    return tmp_path / "run", options


@pytest.fixture
def stopped_run_of_eight(tmp_path, monkeypatch):
    die_after_two_epochs(["--run-dir", str(tmp_path), *OPTIONS], monkeypatch)
    return tmp_path


def files(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("damage", ["empty", "garbage"])
def test_a_backup_that_cannot_be_restored_is_refused(damage, stopped_run, capsys):
    run_dir, options = stopped_run
    backup = run_dir / "state" / "snapshot-2" / "backup"
    for file in [path for path in backup.rglob("*") if path.is_file()]:
        if damage == "empty":  # as another Keras leaves it: nothing there that this one knows
            file.unlink()
        else:
            file.write_bytes(b"garbage")
    before = files(backup)
    assert re.search(
        r"state (was not restored|is damaged).*--overwrite starts anew", refused(capsys, *options)
    )
    assert files(backup) == before


@pytest.mark.parametrize("afterwards", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name, module", [("rename", os), ("rmtree", shutil), ("replace", os)])
def test_a_killed_overwrite_does_not_mix_two_runs(
    name, module, afterwards, stopped_run, capsys, monkeypatch
):
    run_dir, options = stopped_run
    other = ["train", *options, "--seed", "1"]
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(module, name, killed_at(getattr(module, name), 1, afterwards))
        main([*other, "--overwrite"])
    try:
        assert main(other) == 0
    except SystemExit:
        assert "holds another run (different: seed)" in capsys.readouterr().err
        assert main([*other, "--overwrite"]) == 0
    fresh = run_dir.with_name("fresh")
    assert main(["train", "--run-dir", str(fresh), "--n-epochs", "4", "--seed", "1"]) == 0
    assert_same_run(run_dir, fresh)


def cut_history(run_dir):
    history = run_dir / "state" / "snapshot-2" / "history.csv"
    history.write_text("".join(history.read_text().splitlines(keepends=True)[:2]))


DAMAGES = {
    "state-lost": lambda run_dir: shutil.rmtree(run_dir / "state"),
    "state-a-file": lambda run_dir: (shutil.rmtree(run_dir / "state"), (run_dir / "state").touch()),
    "history-cut": cut_history,
    "history-lost": lambda run_dir: (run_dir / "state" / "snapshot-2" / "history.csv").unlink(),
    "backup-lost": lambda run_dir: shutil.rmtree(run_dir / "state" / "snapshot-2" / "backup"),
    "iterations-lost": lambda run_dir: (run_dir / "state" / "snapshot-2" / "iterations").unlink(),
    "iterations-empty": lambda run_dir: (run_dir / "state" / "snapshot-2" / "iterations").write_text(""),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_state_is_refused_and_left_as_it_is(damage, stopped_run, capsys):
    run_dir, options = stopped_run
    DAMAGES[damage](run_dir)
    before = files(run_dir)
    message = refused(capsys, *options)
    assert "is damaged" in message and "--overwrite starts anew" in message
    assert files(run_dir) == before


def test_a_stray_directory_in_the_state_is_ignored(stopped_run):
    run_dir, options = stopped_run
    (run_dir / "state" / "snapshot-old").mkdir()
    assert main(["train", *options]) == 0


def test_a_finished_run_without_its_history_is_refused(stopped_run, capsys):
    run_dir, options = stopped_run
    assert main(["train", *options]) == 0
    capsys.readouterr()
    damages = [
        ("a,b\n1,x\n", "could not convert"),
        ("", "epochs are missing"),
        ("epoch,loss\n0,1\n2,1\n", "epochs are missing"),
        ("epoch,loss\n0,1\n1,1\n", "epochs are missing"),
        (None, "No such file"),
    ]
    for content, message in damages:
        (run_dir / "history.csv").unlink()
        if content is not None:
            (run_dir / "history.csv").write_text(content)
        assert message in refused(capsys, *options)
        (run_dir / "history.csv").touch()


@pytest.mark.parametrize("where", ["y_train", "y_test"])
def test_a_label_the_model_has_no_output_for(where, data_file, tmp_path, capsys):
    data = dict(np.load(data_file))
    data[where][-1] = 3
    np.savez(data_file, **data)
    model = save_model(tmp_path / "model.keras")
    options = ["--model", model, "--data", data_file, "--run-dir", tmp_path / "run", "--batch-size", "4"]
    assert "cannot train on the data" in refused(capsys, *options)
    assert not (tmp_path / "run").exists()


def test_a_swallowed_interrupt_stops_the_run_after_the_epoch(tmp_path, monkeypatch, capsys):
    from expdecay_keras.training import EpochScalars

    on_epoch_end = EpochScalars.on_epoch_end

    def swallow(*args):
        with contextlib.suppress(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
        on_epoch_end(*args)

    with monkeypatch.context() as patch:
        patch.setattr(EpochScalars, "on_epoch_end", swallow)
        assert main(["train", "--run-dir", str(tmp_path), "--n-epochs", "4"]) == 130
    assert "Interrupted: 1 of 4 epochs are done. The same command goes on" in capsys.readouterr().err
