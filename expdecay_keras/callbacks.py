"""The rule as a Keras callback, and two that log any optimizer's learning rate."""

from __future__ import annotations

import importlib.util
import os
import warnings
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras import _keras
from expdecay_keras.rule import DecayRule, check_count


class _RateCallback(tf.keras.callbacks.Callback):
    """Logs each epoch's rates, except those of optimizers that made no update; warns once a `fit`."""

    def __init__(self) -> None:
        super().__init__()
        self._logged: dict[str, float] = {}  # the rates of this epoch, by name in the log
        self._n_updates: dict[str, int] = {}
        self._warned: set[str] = set()

    def on_train_begin(self, logs: Any = None) -> None:
        self._logged = {}
        self._warned = set()
        _keras.build_optimizers(self.model)
        self._n_updates = _keras.count_updates(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        before, idle = self._n_updates, []
        if before:  # else hooks are called by hand, without that of the beginning
            self._n_updates = _keras.count_updates(self.model)
            idle = [name for name, n in self._n_updates.items() if n == before.get(name)]
        if idle:
            self._warn_once(
                "idle",
                f"`{idle[0]}` is not logged: `model.optimizer` updated nothing in this epoch, so that "
                "rate trained nothing. Compile the model with the optimizer that trains it, or build "
                "that one with a WarmupExponentialSchedule.",
            )
        if logs is not None:
            logs.update({name: rate for name, rate in self._logged.items() if name not in idle})

    def _warn_once(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            warnings.warn(message, stacklevel=4)

    def _planned(self, name: str) -> Any:
        """Returns what `fit` said of `epochs` or `steps`; None if it said nothing or is not at work."""
        return (getattr(self, "params", None) or {}).get(name)


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class WarmupExponentialDecay(_RateCallback):
    """Sets the learning rate of every epoch by `DecayRule` and logs it as `learning_rate`.

    learning_rate = DecayRule(base_lr, ..., n_hold_epochs).learning_rate(epoch)

    The rate is a function of the epoch alone, so `fit(initial_epoch=...)`, `BackupAndRestore`, a
    fresh optimizer and a second `fit` all train at the right rate. Epochs up to
    `n_warmup_epochs + n_hold_epochs` train at `base_lr` (or on the ramp), the last one at
    `target_lr`; further ones stay there.

    The log holds the rate that was set when the epoch began, as a float: History, the progress bar,
    `CSVLogger` and `TensorBoard` show it. Put this callback first in the list: whatever reads the log
    before it finds no rate there. With a `MultiOptimizer` every optimizer gets the rate, logged as
    `learning_rate_<name>`.

    A warning, once a `fit`, says so if `fit(epochs=...)` is not `n_epochs`; if something else, such as
    `ReduceLROnPlateau`, changed the rate; and if `model.optimizer` made no update in an epoch, because
    another one trains the model. In the last case no rate is logged.

    Args:
        base_lr: Real number, the rate of warm-up and of the first real epoch. Finite, > 0 and
            normal in float32 (about 1.2e-38 to 3.4e38).
        target_lr: Real number, the rate of the last epoch and of any after it; same range. Above
            `base_lr` the rate grows, equal to it the rate is constant.
        n_epochs: Integer, the number of epochs, warm-up and hold included; from
            `n_warmup_epochs + n_hold_epochs + 2` to 2**53.
        n_warmup_epochs: Integer >= 0, the number of epochs of warm-up. Default 0.
        warmup_start_lr: Real number, the rate of epoch 0, from which warm-up is a linear ramp; same
            range as `base_lr`, or 0. Needs `n_warmup_epochs` >= 1. Default None: warm-up holds
            `base_lr`.
        n_hold_epochs: Integer >= 0, the number of epochs at `base_lr` between warm-up and the first
            real epoch. Default 0.
        verbose: 0 or 1, or a bool. 1 prints a line at the start of every epoch. Default 0.

    Raises:
        TypeError: An argument is of the wrong kind. When training begins: an optimizer was built
            with a schedule, a function or the `decay` of Keras's legacy optimizers.
        ValueError: An argument is outside its legal range. When training begins: a rate is not
            normal in the dtype of an optimizer's learning rate (float16).

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
        n_hold_epochs: int = 0,
        verbose: int = 0,
    ) -> None:
        rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs, warmup_start_lr, n_hold_epochs)
        verbose = check_count("verbose", int(verbose) if isinstance(verbose, bool) else verbose, 0, 1)
        super().__init__()
        self.rule = rule
        self.verbose = verbose
        self._rates = rule._table()

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order; `n_hold_epochs` only if it is not 0."""
        return {**self.rule._config(), "verbose": self.verbose}

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
        super().on_train_begin(logs)
        for _, optimizer in _keras.optimizers(self.model):
            if not _keras.is_settable(optimizer):
                raise TypeError(
                    "WarmupExponentialDecay cannot set the learning rate of the optimizer "
                    f"{type(optimizer).__name__}: it was built with a schedule, a function or `decay`. "
                    "Build it with a number, or with WarmupExponentialSchedule but not this callback."
                )
            if tf.as_dtype(optimizer.learning_rate.dtype) == tf.float16:
                self._check_float16()
        n_epochs, epochs = self.rule.n_epochs, self._planned("epochs")
        if epochs is not None and epochs != n_epochs:
            target = f"target_lr={self.rule.target_lr}"
            stops, holds = (
                f"stops before {target} is reached",
                f"holds {target} from epoch index {n_epochs - 1} on",
            )
            warnings.warn(
                f"fit(epochs={epochs}) {stops if epochs < n_epochs else holds}: "
                f"the rule has n_epochs={n_epochs}.",
                stacklevel=2,
            )

    def _check_float16(self) -> None:
        limits = np.finfo(np.float16)
        low, high = float(limits.tiny), float(limits.max)  # NumPy 2 compares in float16 otherwise
        for name in ("base_lr", "target_lr", "warmup_start_lr"):
            value = getattr(self.rule, name)
            if value and not low <= value <= high:
                raise ValueError(
                    f"Argument `{name}` must be normal in float16, the dtype of the optimizer's "
                    f"learning rate ({low:.8g} to {high:.8g}). Received: {name}={value!r}"
                )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._rates is None:
            rate = float(self.rule.learning_rate(epoch, tf.float64))
        else:
            rate = float(self._rates[min(max(int(epoch), 0), len(self._rates) - 1)])
        for name, optimizer in _keras.optimizers(self.model):
            self._check_unchanged(name, optimizer)
            self._logged[name] = _keras.set_learning_rate(optimizer, rate)
        if self.verbose:
            print(f"\nEpoch {epoch + 1}: WarmupExponentialDecay setting learning rate to {rate}.")

    def on_train_end(self, logs: Any = None) -> None:
        for name, optimizer in _keras.optimizers(self.model):
            self._check_unchanged(name, optimizer)

    def _check_unchanged(self, name: str, optimizer: Any) -> None:
        """Warns once if the optimizer does not hold the rate that this callback has set."""
        if name not in self._logged or "changed" in self._warned:
            return
        held = _keras.learning_rate(optimizer)
        if held != self._logged[name]:
            self._warn_once(
                "changed",
                f"Something else changed `{name}` from {self._logged[name]} to {held}. "
                "WarmupExponentialDecay overwrites it at the beginning of every epoch.",
            )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class LearningRateLogger(_RateCallback):
    """Logs the learning rate of any optimizer, with any schedule, as `learning_rate`.

    The log holds the rate as it was when the epoch began, as a float: at its end a schedule is already
    at the next epoch's. With a `MultiOptimizer` every optimizer's rate is logged, as
    `learning_rate_<name>`. Put it first in the list, but after a callback that sets the rate.

    A warning, once a `fit`, says so if an epoch has other than the `steps_per_epoch` of a
    `WarmupExponentialSchedule`, whose rates then drift away from the epochs; and if `model.optimizer`
    made no update in an epoch, because another one trains the model. In that case no rate is logged.

    Example:

    >>> schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5, staircase=True)
    >>> model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    >>> model.compile(tf.keras.optimizers.SGD(schedule), "mse")
    >>> x = y = tf.zeros((4, 1))
    >>> history = model.fit(x, y, epochs=3, callbacks=[LearningRateLogger()], verbose=0)
    >>> history.history["learning_rate"]
    [0.5, 0.25, 0.125]
    """

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments: none."""
        return {}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateLogger:
        """Returns a logger, also from a config of version 0.1.0 that names no `log_dir`."""
        old = {"log_dir": None, "update_freq": "epoch"}
        return cls(**{name: value for name, value in config.items() if (name, value) not in old.items()})

    def __reduce__(self) -> Any:
        return type(self), ()

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        optimizers = _keras.optimizers(self.model)
        self._logged = {name: _keras.learning_rate(optimizer) for name, optimizer in optimizers}
        self._n_updates = _keras.count_updates(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        before = self._n_updates
        super().on_epoch_end(epoch, logs)
        for name, optimizer in _keras.optimizers(self.model):
            steps_per_epoch = getattr(_keras.schedule(optimizer), "steps_per_epoch", None)
            if steps_per_epoch and self._n_updates.get(name, 0) > before.get(name, 0):
                self._check_drift(self._n_updates[name] - before[name], steps_per_epoch)

    def _check_drift(self, n_steps: int, steps_per_epoch: int) -> None:
        """Warns once if an epoch had other than `steps_per_epoch` steps."""
        is_cut_short = n_steps < steps_per_epoch == self._planned("steps") or self.model.stop_training
        if n_steps == steps_per_epoch or is_cut_short:
            return
        self._warn_once(
            "drift",
            f"The optimizer counted {n_steps} steps in an epoch, but its schedule has "
            f"steps_per_epoch={steps_per_epoch}: its rates drift away from the epochs. Give it the "
            "number of batches of an epoch. On a dataset of unknown length Keras may count a step too "
            "many: set the length with tf.data.experimental.assert_cardinality, or use "
            "WarmupExponentialDecay.",
        )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class LearningRateTensorBoard(tf.keras.callbacks.Callback):
    """Writes the learning rate before every `update_freq`-th step of the optimizer for TensorBoard.

    The scalar `learning_rate` (with a `MultiOptimizer` one `learning_rate_<name>` for each) stands at
    the optimizer's step, `iterations`: a second `fit` continues the curve. It is the way to see a
    schedule with `staircase=False` fall step by step.

    Args:
        log_dir: String or PathLike, the directory for TensorBoard's event files.
        update_freq: Integer from 1 to 2**53, the number of steps from one value to the next.
            Default 1.

    Raises:
        TypeError: An argument is of the wrong kind.
        ValueError: `update_freq` is outside its legal range.
        ImportError: When training begins: TensorBoard is not installed.

    Example:

    >>> writer = LearningRateTensorBoard("logs", update_freq=10)  # model.fit(..., callbacks=[writer])
    >>> writer.get_config()
    {'log_dir': 'logs', 'update_freq': 10}
    """

    def __init__(self, log_dir: str | os.PathLike[str], update_freq: int = 1) -> None:
        if not isinstance(log_dir, (str, os.PathLike)):
            raise TypeError(f"Argument `log_dir` must be a path. Received: log_dir={log_dir!r}")
        update_freq = check_count("update_freq", update_freq, 1)
        super().__init__()
        self.log_dir = os.fspath(log_dir)
        self.update_freq = update_freq

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python values."""
        return {"log_dir": self.log_dir, "update_freq": self.update_freq}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> LearningRateTensorBoard:
        """Returns the callback that `get_config` described."""
        return cls(**config)

    def __reduce__(self) -> Any:
        return type(self), (self.log_dir, self.update_freq)

    def on_train_begin(self, logs: Any = None) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "LearningRateTensorBoard needs TensorBoard: pip install 'expdecay-keras[tensorboard]'"
            )
        _keras.build_optimizers(self.model)
        self._writer = tf.summary.create_file_writer(self.log_dir)
        self._n_updates = self._count_updates() - 1

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        n_updates = self._count_updates()
        # With `steps_per_execution` the count goes up by several at once.
        if n_updates // self.update_freq > self._n_updates // self.update_freq:
            with self._writer.as_default():
                for name, optimizer in _keras.optimizers(self.model):
                    tf.summary.scalar(name, _keras.learning_rate(optimizer), step=n_updates)
        self._n_updates = n_updates

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._writer.flush()

    def on_train_end(self, logs: Any = None) -> None:
        self._writer.close()

    def _count_updates(self) -> int:
        return int(_keras.number(_keras.optimizers(self.model)[0][1].iterations))
