"""What `expdecay-keras train` does: a small network, and a `fit` that resumes."""

import contextlib
import csv
import dataclasses
import importlib.util
import json
import math
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras import _keras
from expdecay_keras.callbacks import WarmupExponentialDecay
from expdecay_keras.command.preview import save_plot
from expdecay_keras.rule import DecayRule

DEFAULT_RULE = DecayRule(0.2, 0.01, 20, n_warmup_epochs=2, warmup_start_lr=0.01)
N_ROWS, N_TEST_ROWS = 1797, 360
BATCH_SIZE = 32
STEPS_PER_EPOCH = math.ceil((N_ROWS - N_TEST_ROWS) / BATCH_SIZE)
METRICS = ("accuracy", "learning_rate", "loss", "val_accuracy", "val_loss")
RESULTS = (
    "callback.json",
    "model.keras",
    "history.csv",
    "learning_rate.png",
    "tensorboard",
)


def option_of(name: str) -> str:
    """Returns the command's option for an argument of a rule."""
    return f"--{name.replace('_', '-')}"


def train(rule: DecayRule, run_dir: Path, overwrite: bool) -> None:
    """Continues the run in the directory from where it stopped until it is finished.

    A run may be stopped at any moment, by `kill` as well as by Ctrl-C or a full disk,
    and every start is a recovery. `callback.json`, written first, records the rule of
    the run. When an epoch ends, its row is added to `history.csv`, then the model is
    saved with its optimizer. Each file is written under another name and replaces the
    old one in one step. So `model.keras` is always the state after a whole epoch, and
    `history.csv` has at most one row more. On every start the model is loaded, the
    number of epochs it has been trained for is read from its optimizer, the history is
    cut to that number, and training resumes. In the end the history and the weights are
    equal to those of a run that was never stopped. The directory is locked as long as
    this runs.
    """
    _check_packages()
    str(run_dir).encode("utf-8")  # an error if it cannot be: TensorFlow needs this
    if _keras.BACKEND == "tensorflow":
        tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(0)
    run_dir.mkdir(parents=True, exist_ok=True)
    with _lock(run_dir):
        if overwrite or not (run_dir / "callback.json").exists():
            _start_run(run_dir, rule)
        decay = _load_callback(run_dir, rule)
        model = _load_model(run_dir / "model.keras")
        n_epochs_done = _keras.count_steps(model.optimizer) // STEPS_PER_EPOCH
        history = _load(run_dir / "history.csv", _read_history, n_epochs_done)
        # Written before training, too: whatever prevents this is found at once.
        save_plot(rule, run_dir / "learning_rate.png")
        _write_history(history, run_dir / "history.csv")
        _write_scalars(history, run_dir / "tensorboard")
        if n_epochs_done == rule.n_epochs:
            print(f"{run_dir} already contains the finished run.")
            print("Pass --overwrite to train again.")
        else:
            _fit(model, n_epochs_done, rule.n_epochs, [decay, _Saver(history, run_dir)])
            _write_scalars(history, run_dir / "tensorboard")
    print(
        f"Test accuracy: {history[-1]['val_accuracy']:.3f}, test loss: "
        f"{history[-1]['val_loss']:.3f} (on the last {N_TEST_ROWS} digits, which are "
        "harder than the shuffled ones of the README's comparison)"
    )
    print("Results:")
    for name in RESULTS:
        print(f"  {run_dir / name}")


@contextlib.contextmanager
def _lock(run_dir: Path) -> Iterator[None]:
    """Keeps other processes from training in the directory, until this one ends."""
    import fcntl  # Windows has none

    directory = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(directory, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"another process is training in {run_dir}. Wait until it ends, or "
                "choose another --run-dir"
            ) from error
        yield
    finally:
        os.close(directory)


def _fit(model: Any, initial_epoch: int, epochs: int, callbacks: list[Any]) -> None:
    x_train, y_train, x_test, y_test = _load_data()
    model.fit(
        x_train,
        y_train,
        batch_size=BATCH_SIZE,
        initial_epoch=initial_epoch,
        epochs=epochs,
        shuffle=False,
        validation_data=(x_test, y_test),
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=callbacks,
    )


class _Saver(tf.keras.callbacks.Callback):
    """Saves the history, then the model with its optimizer, after each epoch."""

    def __init__(self, history: list[dict[str, float]], run_dir: Path) -> None:
        super().__init__()
        self.history, self.run_dir = history, run_dir

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.history.append({name: float(logs[name]) for name in METRICS})
        _write_history(self.history, self.run_dir / "history.csv")
        # TensorFlow 2.12 would otherwise write HDF5.
        options: Any = {} if _keras.IS_KERAS_3 else {"save_format": "keras_v3"}
        with _replacement(self.run_dir / "model.keras") as partial:
            self.model.save(partial, **options)


@contextlib.contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """Gives another path to write to; the whole file then replaces that at `path`."""
    partial = path.with_stem("partial")
    yield partial
    os.replace(partial, path)


def _check_packages() -> None:
    packages = {  # the name to import: the name to install
        "matplotlib": "matplotlib",
        "sklearn": "scikit-learn",
        "tensorboard": "tensorboard",
    }
    missing = [packages[n] for n in packages if importlib.util.find_spec(n) is None]
    if missing:
        raise ImportError(f"Missing packages: pip install {' '.join(missing)}")


def _load_data() -> tuple[Any, Any, Any, Any]:
    """Returns images and labels to train on, in a fixed order, then those to test on.

    The order stays the same in every epoch, so it does not depend on how often the run
    was stopped.
    """
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(N_ROWS - N_TEST_ROWS)
    return x[order], y[order], x[-N_TEST_ROWS:], y[-N_TEST_ROWS:]


def _start_run(run_dir: Path, rule: DecayRule) -> None:
    """Sets the directory up for a new run, even if it contains another run."""
    path, model = run_dir / "callback.json", run_dir / "model.keras"
    for name in RESULTS:
        if not path.exists() and (run_dir / name).exists():
            raise ValueError(
                f"{run_dir / name} does not belong to a run of this command. Choose "
                "another --run-dir"
            )
    model.unlink(missing_ok=True)  # before the rule changes: two runs must not mix
    decay = WarmupExponentialDecay(**dataclasses.asdict(rule))
    with _replacement(path) as partial:
        partial.write_text(json.dumps(tf.keras.utils.serialize_keras_object(decay)))


def _load_callback(run_dir: Path, rule: DecayRule) -> WarmupExponentialDecay:
    """Returns the callback of the run in the directory; its rule must be `rule`."""
    decay = _load(run_dir / "callback.json", _read_callback)
    found, wanted = dataclasses.asdict(decay.rule), dataclasses.asdict(rule)
    if found != wanted:
        options = " ".join(
            f"{option_of(name)} {value}"
            for name, value in found.items()
            if value not in (None, wanted[name])
        )
        raise ValueError(
            f"{run_dir} contains a run with other options: {options}. Choose another "
            "--run-dir, or pass --overwrite to discard that run"
        )
    return decay


def _read_callback(path: Path) -> WarmupExponentialDecay:
    decay = tf.keras.utils.deserialize_keras_object(json.loads(path.read_text()))
    if not isinstance(decay, WarmupExponentialDecay):
        raise TypeError("it does not contain a WarmupExponentialDecay")
    return decay


def _load_model(path: Path) -> Any:
    """Returns the saved model, or a new one if there is none."""
    if path.exists():
        return _load(path, tf.keras.models.load_model)
    return build_model()


def _load(path: Path, read: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function reads from a file; names the file if it fails."""
    try:
        return read(path, *arguments)
    except Exception as error:  # a loader may raise anything, depending on the file
        # Keras 3 puts the cause behind the whole config.
        cause = str(error).rpartition("Exception encountered: ")[2].strip()
        reason = f"{type(error).__name__}: {cause}".splitlines()[0]
        raise ValueError(
            f"{path} cannot be loaded ({reason}). Pass --overwrite to start from "
            "scratch"
        ) from error


def build_model() -> Any:
    """Returns the network that the command trains, compiled."""
    layers = [
        tf.keras.Input((64,)),
        tf.keras.layers.Rescaling(1 / 16),
        tf.keras.layers.Dense(64, activation="relu"),
        tf.keras.layers.Dense(10),
    ]
    model = tf.keras.Sequential(layers)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(momentum=0.9), loss, metrics=["accuracy"])
    return model


def _read_history(path: Path, n_epochs: int) -> list[dict[str, float]]:
    """Returns the metrics of the epochs that the model was trained for."""
    if n_epochs == 0:
        return []
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))[:n_epochs]
    if [row["epoch"] for row in rows] != [str(epoch) for epoch in range(n_epochs)]:
        raise ValueError(
            f"it does not contain all {n_epochs} epochs that model.keras was trained "
            "for"
        )
    return [{name: float(row[name]) for name in METRICS} for row in rows]


def _write_history(history: list[dict[str, float]], path: Path) -> None:
    """Writes a file as CSVLogger does."""
    rows = [{"epoch": epoch, **metrics} for epoch, metrics in enumerate(history)]
    with _replacement(path) as partial, partial.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["epoch", *METRICS])
        writer.writeheader()
        writer.writerows(rows)


def _write_scalars(history: list[dict[str, float]], log_dir: Path) -> None:
    """Writes curves for TensorBoard as Keras's own callback does."""
    shutil.rmtree(log_dir, ignore_errors=True)
    for part, prefix in [("train", ""), ("validation", "val_")]:
        with tf.summary.create_file_writer(str(log_dir / part)).as_default():
            for epoch, metrics in enumerate(history):
                for name in ("accuracy", "learning_rate", "loss"):
                    if prefix + name in metrics:
                        value = metrics[prefix + name]
                        tf.summary.scalar(f"epoch_{name}", value, step=epoch)
