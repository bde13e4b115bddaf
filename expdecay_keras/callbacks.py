"""The rule as a Keras callback, and two callbacks that log any optimizer's rate."""

from __future__ import annotations

import dataclasses
import importlib.util
import os
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import tensorflow as tf

from expdecay_keras import _keras
from expdecay_keras.rule import DecayRule, check_count, illegal
from expdecay_keras.schedule import WarmupExponentialSchedule

if TYPE_CHECKING:
    from typing_extensions import Self


def _logged_as(name: str) -> str:
    """Returns text that identifies an optimizer in a warning if there are several."""
    return "" if name == "learning_rate" else f" logged as `{name}`"


class _RateCallback(tf.keras.callbacks.Callback):
    """What the three callbacks share: configs, copies, warnings, the idle check."""

    def __init__(self) -> None:
        super().__init__()
        self._is_first_epoch = True  # of this `fit`
        self._topics: set[str] = set()  # of the warnings of this `fit`
        self._warnings: list[str] = []  # found, but not given yet

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns the callback that `get_config` described."""
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments: none."""
        return {}

    def __repr__(self) -> str:
        arguments = (f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({', '.join(arguments)})"

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the model out of copies and pickles."""
        model = self.model
        return {k: None if v is model else v for k, v in vars(self).items()}

    def on_train_begin(self, logs: Any = None) -> None:
        self._is_first_epoch = True
        self._topics = set()
        self._warnings = []
        _keras.optimizers(self.model)  # an error if there is none

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._give_warnings()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._is_first_epoch:
            self._is_first_epoch = False
            self._check_idle()

    def on_train_end(self, logs: Any = None) -> None:
        self._give_warnings()

    def _warn(self, topic: str, message: str) -> None:
        """Holds back a warning, one per `fit` and topic, until no bar is open."""
        if topic not in self._topics:
            self._topics.add(topic)
            self._warnings.append(f"{type(self).__name__}: {message}")

    def _give_warnings(self) -> None:
        while self._warnings:
            warnings.warn(self._warnings.pop(0), stacklevel=2)

    def _check_idle(self) -> None:
        """Warns if an optimizer has not taken a step yet."""
        # Loss scaling may have skipped all steps. Keras warns if there are no weights.
        if _keras.is_loss_scaled(self.model) or not self.model.trainable_weights:
            return
        for name, optimizer in _keras.optimizers(self.model).items():
            if _keras.count_steps(optimizer) == 0:
                self._warn(
                    f"idle {name}",
                    f"the model's optimizer{_logged_as(name)} has taken no steps so "
                    "far, so its learning rate has had no effect. If another optimizer "
                    "trains the model, compile the model with that one, or build that "
                    "one with a WarmupExponentialSchedule.",
                )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class WarmupExponentialDecay(_RateCallback):
    """Sets the learning rate of every epoch according to `DecayRule`, and logs it.

        learning_rate = DecayRule(base_lr, ..., n_hold_epochs).learning_rate(epoch)

    The rate is a function of the epoch alone, so it is also correct with
    `initial_epoch`, after `BackupAndRestore`, with a fresh optimizer, and in a second
    `fit`. Epochs up to `n_warmup_epochs + n_hold_epochs` train at `base_lr` (or on the
    ramp); the last epoch and all epochs after it train at `target_lr`.

    `logs["learning_rate"]` is the rate that was set when the epoch began, as a float:
    History, the progress bar, `CSVLogger` and `TensorBoard` show it. List this callback
    first: callbacks listed before it do not see the rate. With a `MultiOptimizer` every
    optimizer gets the same rate, logged as `learning_rate_<name>`; to give each
    optimizer a rate of its own, build each one with a `WarmupExponentialSchedule`.

    Warns, at most once per `fit` and reason, if

    - `fit` starts at epoch 0 and stops before `target_lr` is reached, or goes past
      `n_epochs` (unless the two rates are equal);
    - another callback changed the rate;
    - the optimizer has taken no steps by the end of the first epoch.

    Args:
        base_lr: Real number, the rate during warm-up and hold and at the start of the
            decay. Finite, between about 1.2e-38 and 3.4e38 (normal in float32).
        target_lr: Real number in the same range, the rate of the last epoch and of all
            epochs after it. A target above `base_lr` makes the rate grow; an equal one
            makes it constant.
        n_epochs: Integer, the number of epochs including warm-up and hold, at least
            `n_warmup_epochs + n_hold_epochs + 2`, at most 2**53.
        n_warmup_epochs: Integer >= 0, the number of warm-up epochs. Default 0.
        warmup_start_lr: Real number, the rate of epoch 0, where a linear ramp
            starts. Same range as `base_lr`, or 0, which wastes the first epoch:
            start at `base_lr / n_warmup_epochs` instead, or use a schedule with
            `staircase=False`. Requires `n_warmup_epochs` >= 1. Default None: warm-up
            holds `base_lr`.
        n_hold_epochs: Integer >= 0, the number of epochs at `base_lr` between warm-up
            and the start of the decay. Default 0.
        verbose: 0 or 1, or a bool. 1 prints a line at the start of every epoch.
            Default 0.

    Raises:
        TypeError: An argument has the wrong type; or, when training begins, the model
            has no optimizer, or has one whose rate cannot be set: it has no
            `learning_rate`, or was built with a schedule, a function or the `decay` of
            Keras's legacy optimizers.
        ValueError: An argument is outside its legal range.

    Example:

    >>> model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> decay = WarmupExponentialDecay(base_lr=1e-2, target_lr=1e-4, n_epochs=5)
    >>> x = y = tf.zeros((4, 1))
    >>> history = model.fit(x, y, epochs=5, callbacks=[decay], verbose=0)
    >>> [round(rate, 6) for rate in history.history["learning_rate"]]
    [0.01, 0.003162, 0.001, 0.000316, 0.0001]

    Reference:
        mondrasovic, "Exponential Learning Rate Scheduler", blog post, 2022,
        https://mondrasovic.github.io/research/2022/07/08/learning_rate_scheduler.html
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
        super().__init__()
        self._rule = DecayRule(
            base_lr,
            target_lr,
            n_epochs,
            n_warmup_epochs,
            warmup_start_lr,
            n_hold_epochs,
        )
        if isinstance(verbose, (bool, np.bool_)):
            verbose = int(verbose)
        self.verbose = check_count("verbose", verbose, 0, 1)
        self._rates_set: dict[str, tuple[Any, float]] = {}  # optimizers and their rates

    @property
    def rule(self) -> DecayRule:
        """The `DecayRule` of this callback, read-only."""
        return self._rule

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the model and its optimizers out of copies and pickles."""
        return {**super().__getstate__(), "_rates_set": {}}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python numbers."""
        return {**dataclasses.asdict(self.rule), "verbose": self.verbose}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._rates_set = {}
        for optimizer in _keras.optimizers(self.model).values():
            if not _keras.is_settable(optimizer):
                schedule = _keras.schedule(optimizer)
                reason = "it is a function, has `decay` or cannot be assigned"
                if schedule is not None:
                    reason = f"its schedule, {type(schedule).__name__}, sets it"
                raise TypeError(
                    "WarmupExponentialDecay cannot set the learning rate of the "
                    f"optimizer {type(optimizer).__name__}: {reason}. Build the "
                    "optimizer with a number, or remove this callback: a "
                    "WarmupExponentialSchedule sets the rate by itself."
                )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._is_first_epoch:
            self._check_epochs(epoch)
        self._check_unchanged()
        self._give_warnings()
        rate = float(self.rule.rates(epoch))
        self._rates_set = {}
        for name, optimizer in _keras.optimizers(self.model).items():
            optimizer.learning_rate = rate
            self._rates_set[name] = optimizer, _keras.learning_rate(optimizer)
        if self.verbose:
            print(
                f"\nEpoch {epoch + 1}: WarmupExponentialDecay setting learning rate to "
                f"{rate}."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update({name: rate for name, (_, rate) in self._rates_set.items()})
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._check_unchanged()
        super().on_train_end(logs)

    def _check_epochs(self, first_epoch: int) -> None:
        """Warns if the epochs of `fit` do not match those of the rule."""
        epochs = (getattr(self, "params", None) or {}).get("epochs")
        n_epochs, target_lr = self.rule.n_epochs, self.rule.target_lr
        if epochs is None or target_lr == self.rule.base_lr:  # outside `fit`; held
            return
        if first_epoch == 0 and epochs < n_epochs:
            self._warn(
                "epochs",
                f"fit(epochs={epochs}) stops before target_lr={target_lr:.6g} is "
                f"reached, because n_epochs={n_epochs}. Make the two equal, or "
                f"continue later with fit(initial_epoch={epochs}, epochs={n_epochs}).",
            )
        if epochs > n_epochs:
            cure = "make the two equal"
            if first_epoch > 0:  # in a run that has begun, the rate would jump
                cure = (
                    "decay from this rate to a new target, with "
                    f"n_warmup_epochs={max(first_epoch, n_epochs)}"
                )
            self._warn(
                "epochs",
                f"fit(epochs={epochs}) goes past n_epochs={n_epochs}: all further "
                f"epochs train at target_lr={target_lr:.6g}. If that is not intended, "
                f"{cure}.",
            )

    def _check_unchanged(self) -> None:
        """Warns if an optimizer no longer has the rate that this callback set."""
        for name, optimizer in _keras.optimizers(self.model).items():
            set_on, rate = self._rates_set.get(name, (None, None))
            if set_on is not optimizer:  # the model was compiled again
                continue
            found = _keras.learning_rate(optimizer)
            if found != rate:
                self._warn(
                    f"changed {name}",
                    f"another callback changed `{name}` from {rate:.6g} to "
                    f"{found:.6g}, but this one sets it again at the start of each "
                    "epoch. Remove one of the two; to combine the rule with "
                    "ReduceLROnPlateau, use make_lr_scheduler.",
                )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class LearningRateLogger(_RateCallback):
    """Logs any optimizer's rate, with or without a schedule, as `learning_rate`.

    The log contains the rate, a float, as it was when the epoch began: by the end of
    the epoch, a schedule has already moved to the next epoch. With a `MultiOptimizer`
    the rate of every optimizer is logged, as `learning_rate_<name>`. List this callback
    before those that read the log, and after one that sets the rate.

    Warns, at most once per `fit`, optimizer and reason, if

    - the step of a `WarmupExponentialSchedule` does not match the start of `fit`: with
      `initial_epoch`, it should be the first step of that epoch; without, the first
      step of any epoch of the rule;
    - the number of steps in an epoch is not `steps_per_epoch`, so that the schedule
      drifts away from the epochs;
    - the optimizer has taken no steps by the end of the first epoch.

    If a schedule counts in steps (`steps_per_epoch=1`), only whether it has ended is
    checked. Under loss scaling, which skips steps, none of this is checked.

    Raises:
        TypeError: The model has no optimizer, or one without a `learning_rate` (raised
            when training begins).

    Example:

    >>> schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 1, 0.5)
    >>> model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])
    >>> model.compile(tf.keras.optimizers.SGD(schedule), "mse")
    >>> x = y = tf.zeros((4, 1))
    >>> logger = LearningRateLogger()
    >>> history = model.fit(x, y, epochs=3, callbacks=[logger], verbose=0)
    >>> history.history["learning_rate"]
    [0.5, 0.25, 0.125]
    """

    def __init__(self) -> None:
        super().__init__()
        self._rates: dict[str, float] = {}
        self._first_steps: dict[str, int] = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._rates, self._first_steps = {}, {}
        for name, optimizer in _keras.optimizers(self.model).items():
            self._rates[name] = _keras.learning_rate(optimizer)
        for name, schedule, step in self._schedules():
            self._first_steps[name] = step
            if self._is_first_epoch:
                self._check_position(name, schedule, step, epoch)
        super().on_epoch_begin(epoch, logs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update(self._rates)
        for name, schedule, step in self._schedules():
            if name in self._first_steps:
                self._check_drift(name, schedule, step - self._first_steps[name])
        super().on_epoch_end(epoch, logs)

    def _schedules(self) -> Iterator[tuple[str, WarmupExponentialSchedule, int]]:
        """Yields the name, schedule and step of each optimizer that has one of ours."""
        if _keras.is_loss_scaled(self.model):
            return
        for name, optimizer in _keras.optimizers(self.model).items():
            for wrapped in _keras.with_wrapped(optimizer):
                schedule = _keras.schedule(wrapped)
                if isinstance(schedule, WarmupExponentialSchedule):
                    yield name, schedule, _keras.count_steps(wrapped)

    def _check_position(
        self, name: str, schedule: WarmupExponentialSchedule, step: int, epoch: int
    ) -> None:
        """Warns if the schedule is not at the step at which `fit` starts."""
        n_epochs, steps_per_epoch = schedule.rule.n_epochs, schedule.steps_per_epoch
        n_steps = n_epochs * steps_per_epoch
        if epoch == 0 or steps_per_epoch == 1:  # this `fit` may carry on
            start = step - step % steps_per_epoch
            is_right = step == start and step < n_steps
        else:
            start = epoch * steps_per_epoch
            is_right = step == start or min(step, start) >= n_steps
        is_inside = step // steps_per_epoch == epoch
        if is_right or (is_inside and _keras.resumes_inside_epochs(self.model)):
            return
        count = "variables[0]" if _keras.IS_KERAS_3 else "iterations"
        assignment = f"optimizer.{count}.assign({start})"
        if min(step, start) >= n_steps:
            cure = (
                "Past its last step, the rate stays at target_lr. To train again, "
                "compile the model with a fresh optimizer; to train on, give the "
                "optimizer a schedule of more epochs and compile the model again."
            )
        elif step == 0:
            cure = (
                "Load the optimizer's state: with the model (load_model or a "
                "checkpoint), or with the weights (build the optimizer before "
                "load_weights). Without that state, use WarmupExponentialDecay. (With "
                f"SGD, you can also set the step count, {assignment}. Adam corrects "
                "its bias by this count, and its first steps would be several times "
                "too large.)"
            )
        else:
            cure = f"Set the step count to the start of an epoch: {assignment}."
        self._warn(
            f"position {name}",
            f"`fit` starts at epoch index {epoch}, but the schedule{_logged_as(name)} "
            f"is at step {step} of {n_steps} (n_epochs={n_epochs}, "
            f"steps_per_epoch={steps_per_epoch}). {cure}",
        )

    def _check_drift(
        self, name: str, schedule: WarmupExponentialSchedule, n_steps: int
    ) -> None:
        """Warns if the number of steps in an epoch is not `steps_per_epoch`."""
        steps_per_epoch = schedule.steps_per_epoch
        if steps_per_epoch == 1 or n_steps == steps_per_epoch:
            return
        is_cut_short = getattr(self.model, "stop_training", False)
        if n_steps <= 0 or is_cut_short:  # set back; cut short
            return
        if self._is_first_epoch and _keras.resumes_inside_epochs(self.model):
            return
        cure = f"Set steps_per_epoch={n_steps}."
        if n_steps == steps_per_epoch + 1:
            cure += (
                " If the length of the dataset is unknown, Keras counts one step too "
                "many: set the length with tf.data.experimental.assert_cardinality "
                "instead, or use WarmupExponentialDecay."
            )
        self._warn(
            f"drift {name}",
            f"the model's optimizer{_logged_as(name)} took {n_steps} steps in an "
            f"epoch, but its schedule has steps_per_epoch={steps_per_epoch}, so the "
            f"rates drift away from the epochs. {cure}",
        )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class LearningRateTensorBoard(_RateCallback):
    """Writes the learning rate of every `update_freq`-th step for TensorBoard.

    The scalar `learning_rate` (with a `MultiOptimizer`, one `learning_rate_<name>` per
    optimizer) is plotted over the optimizer's step count, one step per batch, so a
    second `fit` continues the curve. The curve shows how a schedule with
    `staircase=False` falls step by step. A callback writes one file, which is complete
    after each epoch. If batches take several steps each, the rate is written every
    `update_freq` batches.

    Warns, at most once per `fit`, if the optimizer has taken no steps by the end of the
    first epoch.

    Args:
        log_dir: String or PathLike, the directory for TensorBoard's event files.
        update_freq: Integer >= 1, the number of steps from one value to the next.
            Default 1. On JAX, training waits for each value: choose a large number.

    Raises:
        TypeError: An argument has the wrong type; or, when training begins, the model
            has no optimizer.
        ValueError: `update_freq` is outside its legal range.
        ImportError: TensorBoard is not installed (raised when training begins).

    Example:

    >>> writer = LearningRateTensorBoard("logs", update_freq=10)
    >>> writer.get_config()  # model.fit(..., callbacks=[writer])
    {'log_dir': 'logs', 'update_freq': 10}
    """

    def __init__(self, log_dir: str | os.PathLike[str], update_freq: int = 1) -> None:
        super().__init__()
        if not isinstance(log_dir, (str, os.PathLike)):
            raise illegal(TypeError, "log_dir", log_dir, "be a path")
        self.log_dir = os.fspath(log_dir)
        self.update_freq = check_count("update_freq", update_freq, 1)
        self._last_steps: dict[str, int] = {}  # of the latest values
        self._begun: dict[str, tuple[int, float]] = {}  # steps and rates of the batch
        self._next_batch = 0  # of the epoch, in which a value may be due
        self._writer: Any = None

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the model and the open file out of copies and pickles."""
        return {**super().__getstate__(), "_writer": None}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python values."""
        return {"log_dir": self.log_dir, "update_freq": self.update_freq}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "LearningRateTensorBoard needs TensorBoard: pip install tensorboard"
            )
        self._last_steps = {}

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_begin(epoch, logs)
        self._next_batch = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch < self._next_batch:  # on JAX, training waits while the model is read
            return
        self._begun, waits = {}, []
        for name, optimizer in _keras.optimizers(self.model).items():
            step = _keras.count_steps(optimizer)
            last_step = self._last_steps.setdefault(name, step - 1)
            if step < last_step:  # a rollback
                last_step = step - 1
            # With `steps_per_execution` several steps are taken at once.
            if step // self.update_freq > last_step // self.update_freq:
                self._begun[name] = step, _keras.learning_rate(optimizer)
            waits.append(self.update_freq - step % self.update_freq)
        self._next_batch = batch + min(waits)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if not self._begun:
            return
        # To find the end of a dataset, Keras begins one more batch but never ends it.
        optimizers = _keras.optimizers(self.model)
        for name, (step, rate) in self._begun.items():
            if _keras.count_steps(optimizers[name]) > step:
                self._last_steps[name] = step
                self._write(name, rate, step)
        self._begun = {}

    def _write(self, name: str, rate: float, step: int) -> None:
        # TensorBoard reads the files of one second in any order, so there is one file.
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self.log_dir)
        # Keras's `TensorBoard(update_freq=n)` restricts what may be recorded. Leaving
        # the context flushes the file.
        with self._writer.as_default(), tf.summary.record_if(True):
            tf.summary.scalar(name, rate, step=step)
