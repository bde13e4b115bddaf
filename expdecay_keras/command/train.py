"""What `expdecay-keras train` does: a network, its callbacks and one `fit`."""

import json
import sys
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras import _keras
from expdecay_keras.callbacks import WarmupExponentialDecay
from expdecay_keras.command.run import RunDirectory, RunError, refused
from expdecay_keras.plotting import save_plot
from expdecay_keras.schedule import WarmupExponentialSchedule


def train(run: RunDirectory, args: Any) -> None:
    """Trains from wherever the run has got to until it is finished."""
    args.training = True
    tf.get_logger().setLevel("ERROR")  # else it warns of what is refused below
    tf.config.experimental.enable_op_determinism()
    tf.keras.utils.set_random_seed(args.seed)
    data = _load_data(args.data)
    model = _load_model(args.model) if args.model else _classifier(data)
    decay = WarmupExponentialDecay(**run.identity["rule"])
    _check(model, decay, data, run, args)
    with run.lock(), refused("The run stopped", tf.errors.OpError):
        if run.check():  # another command has been here meanwhile
            return
        run.resume(_keras.state(model))
        _fit(model, decay, data, run, args)
        run.callback.write_text(json.dumps(tf.keras.utils.serialize_keras_object(decay), indent=2))
        save_plot(decay, run.picture)
        _keras.save(model, run.checkpoint / "model.keras")
        run.finish(run.checkpoint / "model.keras")


def _load_data(path: Any) -> dict[str, Any]:
    """Returns the arrays of the file; without one, scikit-learn's digits, the last 360 for the test."""
    names = ("x_train", "y_train", "x_test", "y_test")
    if path is None:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return dict(zip(names, (x[:-360], y[:-360], x[-360:], y[-360:])))
    no_data = f"{path} is no .npz file of {', '.join(names)}"
    with refused(no_data), np.load(path, allow_pickle=False) as file:
        data = {name: np.asarray(file[name]) for name in names}
    for name, array in data.items():
        if array.dtype.kind not in "biuf" or array.ndim == 0 or array.size == 0:
            raise RunError(f"{path}: {name} must be a non-empty array of numbers")
    return data


def _load_model(path: Any) -> Any:
    with refused(f"{path} is no Keras model that loads"), warnings.catch_warnings():
        # That a model which was never trained has no optimizer state to load.
        warnings.filterwarnings("ignore", "Skipping variable loading for optimizer")
        names = {"WarmupExponentialSchedule": WarmupExponentialSchedule}
        model = tf.keras.models.load_model(path, custom_objects=names, safe_mode=True)
    if getattr(model, "optimizer", None) is None:
        raise RunError(f"{path} is not compiled: call model.compile(...) before model.save(...)")
    return model


def _classifier(data: dict[str, Any]) -> Any:
    """Returns a small compiled network for data with an integer label a row."""
    x, labels = data["x_train"], np.append(data["y_train"], data["y_test"])
    if labels.dtype.kind not in "iu" or not 0 <= labels.min() <= labels.max() < 2**16:
        raise RunError("The built-in network needs integers from 0 to 65535 in y_train and y_test")
    layers = [
        tf.keras.Input(x.shape[1:]),
        tf.keras.layers.Rescaling(1.0 / max(1.0, float(x.max()))),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(64, activation="relu"),
        tf.keras.layers.Dense(int(labels.max()) + 1),
    ]
    model = tf.keras.Sequential(layers)
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(momentum=0.9), loss, metrics=["accuracy"])
    return model


def _check(model: Any, decay: Any, data: dict[str, Any], run: RunDirectory, args: Any) -> None:
    """Raises RunError unless the model can be evaluated on all the data and its rate can be set."""
    with refused("The model cannot train on the data"):
        for part in ("train", "test"):
            x, y, keeper = data[f"x_{part}"], data[f"y_{part}"], _Keeper(run, args)
            results = model.evaluate(x, y, args.batch_size, 0, callbacks=[keeper], return_dict=True)
            [float(value) for value in results.values()]  # a metric must be a number
        decay.set_model(model)
        decay.on_train_begin()


def _fit(model: Any, decay: Any, data: dict[str, Any], run: RunDirectory, args: Any) -> None:
    # Shuffled once: an epoch's batches must not depend on how often the run was interrupted.
    order = np.random.default_rng(args.seed).permutation(len(data["x_train"]))
    model.fit(
        data["x_train"][order],
        data["y_train"][order],
        batch_size=args.batch_size,
        initial_epoch=run.n_epochs_done,
        epochs=run.n_epochs,
        shuffle=False,
        validation_data=(data["x_test"], data["y_test"]),
        verbose=1 if sys.stdout.isatty() else 2,
        callbacks=[decay, tf.keras.callbacks.CSVLogger(run.history, append=True), _Keeper(run, args)],
    )


class _Keeper(tf.keras.callbacks.Callback):
    """Writes each epoch's log for TensorBoard, then keeps its state; ends the run if interrupted."""

    def __init__(self, run: RunDirectory, args: Any) -> None:
        super().__init__()
        self.run, self.args = run, args

    def on_train_begin(self, logs: Any = None) -> None:
        # Keras's own callback holds values back for minutes and adds to those there: gaps after a kill.
        self.writers = [tf.summary.create_file_writer(str(path), 0) for path in self.run.scalars]
        for row in self.run.read_history(self.run.n_epochs_done or 0):
            self.write(int(row.pop("epoch")), row)

    def write(self, epoch: int, logs: dict[str, float]) -> None:
        for name, value in logs.items():
            with self.writers[name.startswith("val_")].as_default():
                tf.summary.scalar(f"epoch_{name.removeprefix('val_')}", value, step=epoch)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if self.args.signum:
            raise KeyboardInterrupt

    on_test_batch_end = on_train_batch_end

    def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
        self.write(epoch, logs)
        self.run.save(epoch + 1)
        self.on_train_batch_end(epoch)
