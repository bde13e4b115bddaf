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
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras import _keras, plotting
from expdecay_keras.callbacks import WarmupExponentialDecay
from expdecay_keras.rule import DecayRule

DEFAULT_RULE = DecayRule(0.2, 0.01, 20, n_warmup_epochs=2, warmup_start_lr=0.01)
N_ROWS, N_TEST_ROWS = 1797, 360
BATCH_SIZE = 32
STEPS_PER_EPOCH = math.ceil((N_ROWS - N_TEST_ROWS) / BATCH_SIZE)
HEADER = b"epoch,accuracy,learning_rate,loss,val_accuracy,val_loss"  # of history.csv
RESULTS = (
    "callback.json",
    "model.keras",
    "history.csv",
    "learning_rate.png",
    "tensorboard",
)
FROM_SCRATCH = "Pass --overwrite to start from scratch"


class RunError(Exception):
    """A run cannot start, resume or finish for a reason that the user can fix."""


def option_of(name: str) -> str:
    """Returns the command's option for an argument of a rule."""
    return f"--{name.replace('_', '-')}"


def train(rule: DecayRule, run_dir: Path, overwrite: bool) -> None:
    """Continues the run in the directory from where it stopped until it is finished.

    A run may be stopped at any moment, by `kill` as well as by Ctrl-C or a full disk,
    and every start is a recovery. `callback.json`, written first, records the rule of
    the run. When an epoch ends, its row is written to `history.csv`; then the model,
    with its optimizer, is saved to another file, which replaces `model.keras` in one
    step. So `model.keras` is always the state after a whole epoch, and `history.csv`
    has at most one row more. On every start the model is loaded, the number of epochs
    it has been trained for is read from its optimizer, the history is cut to that
    number, and training resumes. In the end the history and the weights are equal to
    those of a run that was never stopped. The plot and the scalars for TensorBoard are
    made when the run ends and once before training starts, so that a history that
    cannot be read, or a path that TensorFlow does not accept, is found before any time
    is spent. The directory is locked as long as this runs.
    """
    _check_packages()
    try:
        str(run_dir).encode("utf-8")
    except UnicodeEncodeError as error:
        raise RunError(
            "TensorFlow accepts only paths in UTF-8. Received: --run-dir "
            f"{str(run_dir)!r}"
        ) from error
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
        rows = _read_history(run_dir / "history.csv", n_epochs_done)
        _write_results(rule, rows, run_dir)
        if n_epochs_done == rule.n_epochs:
            print(f"{run_dir} already contains the finished run.")
            print("Pass --overwrite to train again.")
        else:
            _fit(model, decay, n_epochs_done, run_dir)
            rows = _read_history(run_dir / "history.csv", rule.n_epochs)
            _write_results(rule, rows, run_dir)
    print(
        f"Test accuracy: {rows[-1]['val_accuracy']:.3f}, test loss: "
        f"{rows[-1]['val_loss']:.3f} (on the last {N_TEST_ROWS} digits, which are "
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
            raise RunError(
                f"another process is training in {run_dir}. Wait until it ends, or "
                "choose another --run-dir"
            ) from error
        yield
    finally:
        os.close(directory)


def _fit(
    model: Any, decay: WarmupExponentialDecay, n_epochs_done: int, run_dir: Path
) -> None:
    x_train, y_train, x_test, y_test = _load_data()
    logger: Any = tf.keras.callbacks.CSVLogger(
        str(run_dir / "history.csv"), append=True
    )
    try:
        model.fit(
            x_train,
            y_train,
            batch_size=BATCH_SIZE,
            initial_epoch=n_epochs_done,
            epochs=decay.rule.n_epochs,
            shuffle=False,
            validation_data=(x_test, y_test),
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[decay, logger, _ModelSaver(run_dir / "model.keras")],
        )
    except (OSError, tf.errors.OpError):
        # On a full disk, closing the file fails as well. If left to do it, Python
        # would print a second error.
        with contextlib.suppress(OSError, tf.errors.OpError):
            file = getattr(logger, "csv_file", None)
            if file is not None:  # it was opened
                file.close()
        raise


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
            raise RunError(
                f"{run_dir / name} does not belong to a run of this command. Choose "
                "another --run-dir"
            )
    model.unlink(missing_ok=True)  # before the rule changes: two runs must not mix
    decay = WarmupExponentialDecay(**dataclasses.asdict(rule))
    partial = run_dir / "partial.json"
    partial.write_text(json.dumps(tf.keras.utils.serialize_keras_object(decay)))
    os.replace(partial, path)


def _load_callback(run_dir: Path, rule: DecayRule) -> WarmupExponentialDecay:
    """Returns the callback of the run in the directory; its rule must be `rule`."""
    path = run_dir / "callback.json"
    deserialize = tf.keras.utils.deserialize_keras_object
    decay = _load(path, lambda: deserialize(json.loads(path.read_text())))
    if not isinstance(decay, WarmupExponentialDecay):
        raise RunError(
            f"{path} does not contain a WarmupExponentialDecay. {FROM_SCRATCH}"
        )
    found, wanted = dataclasses.asdict(decay.rule), dataclasses.asdict(rule)
    if found != wanted:
        options = " ".join(
            f"{option_of(name)} {value}"
            for name, value in found.items()
            if value not in (None, wanted[name])
        )
        raise RunError(
            f"{run_dir} contains a run with other options: {options}. Choose another "
            "--run-dir, or pass --overwrite to discard that run"
        )
    return decay


def _load(path: Path, load: Any) -> Any:
    """Returns what a function loads from a file; a failure becomes a RunError."""
    try:
        return load()
    except Exception as error:  # a loader may raise anything, depending on the file
        # Keras 3 puts the cause behind the whole config.
        text = str(error).rpartition("Exception encountered: ")[2]
        reason = (text.strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"{path} cannot be loaded ({reason}). {FROM_SCRATCH}") from error


def _load_model(path: Path) -> Any:
    """Returns the saved model, or a new one if there is none."""
    if path.exists():
        return _load(path, lambda: tf.keras.models.load_model(path))
    return build_model()


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
    """Returns the rows of the first epochs, and cuts the file off after them."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    kept = lines[: n_epochs + 1] if n_epochs else []
    epochs = [line.split(b",")[0] for line in kept[1:] if line.endswith(b"\n")]
    if epochs != [b"%d" % epoch for epoch in range(n_epochs)]:
        raise RunError(
            f"{path} does not contain every epoch that model.keras was trained for "
            f"({n_epochs}). {FROM_SCRATCH}"
        )
    rows = _load(path, lambda: _parse_history(kept))
    if lines:
        os.truncate(path, sum(map(len, kept)))
    return rows


def _parse_history(lines: list[bytes]) -> list[dict[str, float]]:
    names, *rows = csv.reader(line.decode("utf-8") for line in lines or [HEADER])
    if names != HEADER.decode().split(","):
        raise ValueError(f"its columns must be {HEADER.decode()}")
    if any(len(row) != len(names) for row in rows):
        raise ValueError("each row must have as many values as the header")
    return [dict(zip(names, map(float, row), strict=True)) for row in rows]


class _ModelSaver(tf.keras.callbacks.Callback):
    """Saves the model with its optimizer after each epoch, completely or not at all."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        partial = self.path.with_name("partial.keras")
        # TensorFlow 2.12 would otherwise write HDF5.
        options: dict[str, Any] = (
            {} if _keras.IS_KERAS_3 else {"save_format": "keras_v3"}
        )
        self.model.save(partial, **options)
        os.replace(partial, self.path)


def _write_results(
    rule: DecayRule, rows: list[dict[str, float]], run_dir: Path
) -> None:
    """Makes the plot of the rule, and the scalars of the history so far."""
    plotting.figure_of(rule).savefig(run_dir / "learning_rate.png", dpi=150)
    log_dir = run_dir / "tensorboard"
    shutil.rmtree(log_dir, ignore_errors=True)
    for part, prefix in [("train", ""), ("validation", "val_")]:
        # As Keras's own callback would have written them.
        with tf.summary.create_file_writer(str(log_dir / part)).as_default():
            for row in rows:
                for name in ("accuracy", "learning_rate", "loss"):
                    if prefix + name in row:
                        value, step = row[prefix + name], int(row["epoch"])
                        tf.summary.scalar(f"epoch_{name}", value, step=step)
