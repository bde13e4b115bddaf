"""What `expdecay-keras train` does: a network, its callbacks and one `fit`."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras.callbacks import WarmupExponentialDecay
from expdecay_keras.plotting import save_plot
from expdecay_keras.run import DAMAGED, RunDirectory, RunError, RunStopped, one_line
from expdecay_keras.schedule import WarmupExponentialSchedule


class Snapshots(tf.keras.callbacks.BackupAndRestore):
    """Keras's backup, kept so that a kill while one is written leaves the last one whole.

    No Keras backs up the seeds of dropout and other random layers. Under Keras 3 they are variables
    and start every epoch at their first value plus the epoch, wherever the run was interrupted.

    Training ends after an epoch if `signals` is not empty by then.
    """

    def __init__(self, directory: RunDirectory, model: Any, signals: Sequence[int]) -> None:
        super().__init__(str(directory.backup), delete_checkpoint=False)
        self.directory = directory
        self.signals = signals
        self.seeds = [(v, v.numpy()) for v in model.variables if v.name == "seed_generator_state"]

    def on_train_begin(self, logs: Any = None) -> None:
        n_iterations = self.directory.n_iterations_done
        try:
            super().on_train_begin(logs)
        except (*DAMAGED, tf.errors.OpError) as error:
            raise RunError(f"{self.directory.state} is damaged. --overwrite starts anew") from error
        if n_iterations not in (None, int(self.model.optimizer.iterations.numpy())):
            raise RunError(
                f"{self.directory.state} was not restored: another Keras wrote it, or it is damaged. "
                "--overwrite starts anew"
            )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        for variable, (seed, counter) in self.seeds:
            variable.assign([seed + epoch, counter])

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.directory.check_room(_n_bytes(self.model))
        super().on_epoch_end(epoch, logs)
        self.directory.snapshot(epoch + 1, int(self.model.optimizer.iterations.numpy()))
        if self.signals:
            raise KeyboardInterrupt


class EpochScalars(tf.keras.callbacks.Callback):
    """Writes each epoch's log for TensorBoard, under the tags of Keras's own callback.

    That one keeps values in memory for minutes, and a resumed run adds to what is there: a kill
    would leave gaps and epochs with two values. This one starts from the history's rows.
    """

    def __init__(self, log_dir: Path, history: list[dict[str, float]]) -> None:
        super().__init__()
        self.writers = {
            part: tf.summary.create_file_writer(str(log_dir / part)) for part in ("train", "validation")
        }
        for row in history:
            self.on_epoch_end(int(row["epoch"]), {k: v for k, v in row.items() if k != "epoch"})

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        for name, value in logs.items():
            part = "validation" if name.startswith("val_") else "train"
            with self.writers[part].as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value, step=epoch)
        for writer in self.writers.values():
            writer.flush()


def load_model(path: Path | None, data: dict[str, Any], seed: int) -> Any:
    """Returns the user's compiled model; without one, a small classifier for the data."""
    tf.keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()
    if path is None:
        return _classifier(data)
    try:
        # Named here, so that a model saved with it loads and can be told what is the matter.
        names = {"WarmupExponentialSchedule": WarmupExponentialSchedule}
        with warnings.catch_warnings():  # that a model never trained has no optimizer state to load
            warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
            model = tf.keras.models.load_model(path, custom_objects=names, safe_mode=True)
    except (*DAMAGED, tf.errors.OpError) as error:
        raise RunError(f"{path} is no Keras model that loads: {one_line(error)}") from error
    if getattr(model, "optimizer", None) is None:
        raise RunError(f"{path} is not compiled: call model.compile(...) before model.save(...)")
    return model


def _classifier(data: dict[str, Any]) -> Any:
    n_classes = 0
    for labels in (data["y_train"], data["y_test"]):
        if labels.dtype.kind not in "iu" or labels.size != len(labels):
            raise RunError("The built-in network needs one integer label per row in y_train and y_test")
        if not 0 <= labels.min() <= labels.max() < 2**16:
            raise RunError("The built-in network needs labels from 0 to 65535 in y_train and y_test")
        n_classes = max(n_classes, int(labels.max()) + 1)
    x_train = data["x_train"]
    model = tf.keras.Sequential(
        [
            tf.keras.Input(x_train.shape[1:]),
            tf.keras.layers.Rescaling(1.0 / max(1.0, float(x_train.max()))),
            tf.keras.layers.Flatten(),
            tf.keras.layers.Dense(64, activation="relu"),
            tf.keras.layers.Dense(n_classes),
        ]
    )
    model.compile(
        tf.keras.optimizers.SGD(momentum=0.9),
        tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    return model


def _n_bytes(model: Any) -> int:
    """Returns the size of weights and optimizer. HDF5 may crash where a disk has no room for them."""
    variables = model.optimizer.variables
    variables = [*model.variables, *(variables() if callable(variables) else variables)]
    return sum(int(np.prod(v.shape)) * tf.as_dtype(v.dtype).size for v in variables)


def _try(model: Any, x: Any, y: Any, batch_size: int) -> None:
    """Evaluates a first batch and the rows of the least and greatest target; raises what Keras does."""
    targets = y.reshape(len(y), -1)
    rows = [*range(min(batch_size, len(y))), targets.min(axis=1).argmin(), targets.max(axis=1).argmax()]
    results = model.evaluate(x[rows], y[rows], batch_size=batch_size, verbose=0, return_dict=True)
    for name, value in results.items():
        if np.ndim(value) > 0:
            raise ValueError(f"metric {name} is not one number")


def train(
    directory: RunDirectory,
    identity: dict[str, Any],
    data: dict[str, Any],
    model: Any,
    overwrite: bool = False,
    signals: Sequence[int] = (),
) -> None:
    """Trains from wherever the directory has got to, and leaves a finished run in it.

    Raises:
        RunError: The model cannot train on the data, or the state cannot be restored.
        RunStopped: The disk is full, say; the run can go on later.
        KeyboardInterrupt: A signal was put into `signals`; the run can go on later.
    """
    batch_size = identity["batch_size"]
    decay = WarmupExponentialDecay(**identity["rule"])
    # Shuffled once: an epoch's batches must not depend on how often the run was interrupted.
    order = np.random.default_rng(identity["seed"]).permutation(len(data["x_train"]))
    x_train, y_train = data["x_train"][order], data["y_train"][order]
    x_test, y_test = data["x_test"], data["y_test"]
    try:
        _try(model, x_train, y_train, batch_size)
        _try(model, x_test, y_test, batch_size)
        decay.set_model(model)
        decay.on_train_begin()
    except (*DAMAGED, tf.errors.OpError) as error:
        raise RunError(f"The model cannot train on the data: {one_line(error)}") from error
    # Keras 2 restores an optimizer's variables, and the first releases of Keras 3 any, only once they
    # are there; those releases do not restore the epoch either.
    if hasattr(model.optimizer, "build") and not getattr(model.optimizer, "built", False):
        model.optimizer.build(model.trainable_variables)
    try:
        directory.start(identity, overwrite)
        model.fit(
            x_train,
            y_train,
            batch_size=batch_size,
            initial_epoch=directory.n_epochs_done,
            epochs=decay.rule.n_epochs,
            shuffle=False,
            validation_data=(x_test, y_test),
            verbose=1 if sys.stdout.isatty() else 2,
            callbacks=[
                decay,
                tf.keras.callbacks.CSVLogger(str(directory.history), append=True),
                EpochScalars(directory.tensorboard, directory.read_history()),
                Snapshots(directory, model, signals),
            ],
        )
        saved = json.dumps(tf.keras.utils.serialize_keras_object(decay), indent=2)
        directory.callback.write_text(saved)
        save_plot(decay, directory.picture)
        directory.check_room(_n_bytes(model))
        directory.finish(model)
    except (OSError, RuntimeError, tf.errors.OpError) as error:  # h5py raises RuntimeError too
        raise RunStopped(f"The run stopped ({one_line(error)})") from error
