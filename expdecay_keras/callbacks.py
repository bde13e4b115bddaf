"""The rule as a Keras callback, and a logger of any optimizer's learning rate."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras.rule import DecayRule, check_count


def _optimizers(model: Any) -> list[tuple[str, Any]]:
    """Returns the model's optimizers, each with the name its rate is logged under."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # LossScaleOptimizer
    if hasattr(optimizer, "optimizers"):  # MultiOptimizer
        if not model.optimizer.built:  # it may learn only now which optimizers it has
            with model.distribute_strategy.scope():
                model.optimizer.build(model.trainable_variables)
        return [(f"learning_rate_{inner.name}", inner) for inner in optimizer.optimizers]
    return [("learning_rate", optimizer)]


def _learning_rate(optimizer: Any) -> Any:
    """Returns the rate of the optimizer's next step, a NumPy scalar of its own dtype."""
    if hasattr(optimizer, "_decayed_lr"):  # a legacy optimizer of Keras 2, with its own `decay`
        rate = optimizer._decayed_lr(tf.float32)
    elif hasattr(optimizer, "_current_learning_rate"):  # Keras 2: as the schedule was at the last step
        rate = optimizer._learning_rate(optimizer.iterations)
    else:
        rate = optimizer.learning_rate
    return tf.convert_to_tensor(rate).numpy()


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class WarmupExponentialDecay(tf.keras.callbacks.Callback):
    """Sets the learning rate of every epoch by `DecayRule` and logs it as `learning_rate`.

    learning_rate = DecayRule(base_lr, ..., warmup_start_lr).learning_rate(epoch)

    The rate is a function of the epoch alone, so `fit(initial_epoch=...)`, `BackupAndRestore`, a
    fresh optimizer and a second `fit` all train at the right rate. Epochs up to `n_warmup_epochs`
    train at `base_lr` (or on the ramp), the last one at `target_lr`; further ones stay there.

    The log holds the rate the epoch was trained with, as a float: History, the progress bar,
    `CSVLogger` (put it after this callback) and `TensorBoard` show it. With a `MultiOptimizer`
    every optimizer gets the rate, logged as `learning_rate_<name>`. If something else, such as
    `ReduceLROnPlateau`, changed the rate, a warning says so, once a `fit`.

    Args:
        base_lr, target_lr, n_epochs, n_warmup_epochs, warmup_start_lr: As in `DecayRule`.
        verbose: 0 or 1. 1 prints a line at the start of every epoch. Default 0.

    Raises:
        TypeError, ValueError: From the constructor, as in `DecayRule`. When training begins,
            TypeError if an optimizer was built with a schedule, ValueError if a rate is not normal
            in the dtype of an optimizer's learning rate (float16).

    Example:

    >>> model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> decay = WarmupExponentialDecay(base_lr=1e-2, target_lr=1e-4, n_epochs=5, n_warmup_epochs=1)
    >>> x = y = tf.zeros((4, 1))
    >>> history = model.fit(x, y, epochs=5, callbacks=[decay], verbose=0)
    >>> [round(rate, 6) for rate in history.history["learning_rate"]]
    [0.01, 0.01, 0.002154, 0.000464, 0.0001]

    Reference:
        "Exponential Learning Rate Scheduler", blog post, 8 July 2022.
    """

    def __init__(
        self,
        base_lr: float,
        target_lr: float,
        n_epochs: int,
        n_warmup_epochs: int = 0,
        warmup_start_lr: float | None = None,
        verbose: int = 0,
    ) -> None:
        rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs, warmup_start_lr)
        verbose = check_count("verbose", int(verbose) if isinstance(verbose, bool) else verbose, 0, 1)
        super().__init__()
        self.rule = rule
        self.verbose = verbose
        self._rates: dict[int, Any] = {}
        self._set: dict[str, float] = {}  # what the optimizers were given, by name in the log
        self._warned = False

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python numbers."""
        return {**dataclasses.asdict(self.rule), "verbose": self.verbose}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> WarmupExponentialDecay:
        """Returns the callback that `get_config` described."""
        return cls(**config)

    def __reduce__(self) -> Any:
        # A copy or pickle takes the config along and leaves the model behind.
        return type(self).from_config, (self.get_config(),)

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(arguments)})"

    def on_train_begin(self, logs: Any = None) -> None:
        self._set = {}
        self._warned = False
        for _, optimizer in _optimizers(self.model):
            rate = getattr(optimizer, "_learning_rate", optimizer.learning_rate)
            if callable(rate) or getattr(optimizer, "_initial_decay", False):
                raise TypeError(
                    "WarmupExponentialDecay cannot set the learning rate of the optimizer "
                    f"{type(optimizer).__name__}: it was built with a schedule, a function or `decay`. "
                    "Build it with a number, or with WarmupExponentialSchedule but not this callback."
                )
            if tf.as_dtype(optimizer.learning_rate.dtype) == tf.float16:
                self._check_float16()
        n_epochs, epochs = self.rule.n_epochs, (getattr(self, "params", None) or {}).get("epochs")
        if epochs is not None and epochs < n_epochs:
            warnings.warn(
                f"fit(epochs={epochs}) stops before target_lr={self.rule.target_lr} is reached: "
                f"the rule has n_epochs={n_epochs}.",
                stacklevel=2,
            )
        elif epochs is not None and epochs > n_epochs:
            warnings.warn(
                f"fit(epochs={epochs}) holds target_lr={self.rule.target_lr} from epoch index "
                f"{n_epochs - 1} on: the rule has n_epochs={n_epochs}.",
                stacklevel=2,
            )

    def _check_float16(self) -> None:
        float16 = np.finfo(np.float16)
        for name in ("base_lr", "target_lr", "warmup_start_lr"):
            value = getattr(self.rule, name)
            if value and not float16.tiny <= value <= float16.max:
                raise ValueError(
                    f"Argument `{name}` must be normal in float16, the dtype of the optimizer's "
                    f"learning rate ({float16.tiny} to {float16.max}). Received: {name}={value!r}"
                )

    def _rate(self, epoch: int) -> Any:
        """Returns the rate of an epoch, a float64 tensor; evaluates the rule for 1000 epochs at once."""
        epoch, rates = int(epoch), self._rates
        if epoch not in rates:
            epochs = range(epoch, epoch + 1000)
            rates = dict(zip(epochs, tf.unstack(self.rule.learning_rate(epochs, dtype=tf.float64))))
            self._rates = rates
        return rates[epoch]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        rate = self._rate(epoch)
        for name, optimizer in _optimizers(self.model):
            held = self._check_unchanged(name, optimizer)
            optimizer.learning_rate = new = tf.cast(rate, held.dtype)
            self._set[name] = float(new)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: WarmupExponentialDecay setting learning rate to {float(rate)}.")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update(self._set)

    def on_train_end(self, logs: Any = None) -> None:
        for name, optimizer in _optimizers(self.model):
            self._check_unchanged(name, optimizer)

    def _check_unchanged(self, name: str, optimizer: Any) -> Any:
        """Returns the rate the optimizer holds; warns once if this callback did not set it."""
        held = _learning_rate(optimizer)
        if name in self._set and held != self._set[name] and not self._warned:
            self._warned = True
            warnings.warn(
                f"Something else changed `{name}` from {self._set[name]} to {float(held)}. "
                "WarmupExponentialDecay overwrites it at the beginning of every epoch.",
                stacklevel=3,
            )
        return held


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class LearningRateLogger(tf.keras.callbacks.Callback):
    """Logs the learning rate of any optimizer, with any schedule, as `learning_rate`.

    The log holds the rate as it was when the epoch began, as a float: at its end a schedule is already
    at the next epoch's. With a `MultiOptimizer` every optimizer's rate is logged, as
    `learning_rate_<name>`. Put it after callbacks that set the rate and before `CSVLogger`.

    Given a `log_dir` it also writes the rate there for TensorBoard, under the same name: once an
    epoch, or before every `update_freq`-th update of the weights, to see a schedule step by step.

    Args:
        log_dir: String or PathLike, the directory for TensorBoard's event files. Default None:
            nothing is written.
        update_freq: "epoch", or an integer from 1 to 2**53, which needs `log_dir`. Default
            "epoch": nothing is done between the batches.

    Raises:
        TypeError, ValueError: An argument is of the wrong kind or outside its legal range.
        ImportError: When training begins, if there is a `log_dir` and TensorBoard is not installed.

    Example:

    >>> schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5, staircase=True)
    >>> model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    >>> model.compile(tf.keras.optimizers.SGD(schedule), "mse")
    >>> x = y = tf.zeros((4, 1))
    >>> history = model.fit(x, y, epochs=3, callbacks=[LearningRateLogger()], verbose=0)
    >>> history.history["learning_rate"]
    [0.5, 0.25, 0.125]
    """

    def __init__(
        self, log_dir: str | os.PathLike[str] | None = None, update_freq: int | str = "epoch"
    ) -> None:
        if log_dir is not None and not isinstance(log_dir, (str, os.PathLike)):
            raise TypeError(f"Argument `log_dir` must be a path or None. Received: log_dir={log_dir!r}")
        if update_freq != "epoch":
            if isinstance(update_freq, str):
                raise ValueError(
                    "Argument `update_freq` must be 'epoch' or an integer. "
                    f"Received: update_freq={update_freq!r}"
                )
            update_freq = check_count("update_freq", update_freq, 1)
            if log_dir is None:
                raise ValueError(
                    "Argument `update_freq` needs `log_dir`. "
                    f"Received: update_freq={update_freq!r}, log_dir=None"
                )
        super().__init__()
        self.log_dir = None if log_dir is None else os.fspath(log_dir)
        self.update_freq: Any = update_freq
        self._rates: dict[str, float] = {}
        if isinstance(update_freq, int):  # else the class has no batch hook that Keras would call
            self.on_train_batch_begin = self._write_update

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python values."""
        return {"log_dir": self.log_dir, "update_freq": self.update_freq}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateLogger:
        """Returns the callback that `get_config` described."""
        return cls(**config)

    def __reduce__(self) -> Any:
        return type(self).from_config, (self.get_config(),)

    def on_train_begin(self, logs: Any = None) -> None:
        if self.log_dir is None:
            return
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "LearningRateLogger with a log_dir needs TensorBoard: "
                "pip install 'expdecay-keras[tensorboard]'"
            )
        self._writer = tf.summary.create_file_writer(self.log_dir)
        self._n_updates = self._count_updates() - 1

    def on_train_end(self, logs: Any = None) -> None:
        if self.log_dir is not None:
            self._writer.close()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._rates = self._read_rates()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update(self._rates)
        if self.log_dir is not None:
            if self.update_freq == "epoch":
                self._write(self._rates, epoch)
            self._writer.flush()

    def _write_update(self, batch: int, logs: Any = None) -> None:
        """Writes the rate of the coming update if a multiple of `update_freq` is reached."""
        n_updates = self._count_updates()
        if n_updates // self.update_freq > self._n_updates // self.update_freq:
            self._write(self._read_rates(), n_updates)
        self._n_updates = n_updates

    def _count_updates(self) -> int:
        return int(_optimizers(self.model)[0][1].iterations.numpy())

    def _read_rates(self) -> dict[str, float]:
        optimizers = _optimizers(self.model)
        return {name: float(_learning_rate(optimizer)) for name, optimizer in optimizers}

    def _write(self, rates: dict[str, float], step: int) -> None:
        with self._writer.as_default():
            for name, rate in rates.items():
                tf.summary.scalar(name, rate, step=step)
