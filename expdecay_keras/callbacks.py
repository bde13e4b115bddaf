"""The rule as a Keras callback, and two callbacks that log any optimizer's rate."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import time
import warnings
from typing import TYPE_CHECKING, Any

import tensorflow as tf

from expdecay_keras import _keras
from expdecay_keras.rule import DecayRule, check_count
from expdecay_keras.schedule import WarmupExponentialSchedule

if TYPE_CHECKING:
    from typing_extensions import Self


class _RateCallback(tf.keras.callbacks.Callback):
    """What the three callbacks share: configs, copies, warnings, the idle check."""

    def __init__(self) -> None:
        super().__init__()
        self._is_first_epoch = True  # of this `fit`
        self._warned: set[str] = set()

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
        self._warned = set()
        _keras.build_optimizers(self.model)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if self._is_first_epoch:
            self._is_first_epoch = False
            self._check_idle()

    def _warn_once(self, topic: str, message: str) -> None:
        """Warns, at most once per `fit` and topic."""
        if topic not in self._warned:
            self._warned.add(topic)
            warnings.warn(message, stacklevel=2)

    def _check_idle(self) -> None:
        """Warns if an optimizer has not taken a step yet."""
        if _keras.is_loss_scaled(self.model):  # all steps so far may have been skipped
            return
        for name, optimizer in _keras.optimizers(self.model).items():
            if _keras.count_steps(optimizer) == 0:
                self._warn_once(
                    "idle",
                    f"The optimizer whose rate is `{name}` has taken no steps, so its "
                    "rate has no effect. Compile the model with the optimizer that "
                    "trains it, or build that optimizer with a "
                    "WarmupExponentialSchedule.",
                )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class WarmupExponentialDecay(_RateCallback):
    """Sets the learning rate of every epoch according to `DecayRule`, and logs it.

    learning_rate = DecayRule(base_lr, ..., n_hold_epochs).learning_rate(epoch)

    The rate is a function of the epoch alone, so it is correct after
    `fit(initial_epoch=...)` or `BackupAndRestore`, with a fresh optimizer and in a
    second `fit`. Epochs up to `n_warmup_epochs + n_hold_epochs` train at `base_lr` (or
    on the ramp); the last epoch and all epochs after it train at `target_lr`.

    `logs["learning_rate"]` is the rate that was set when the epoch began, as a float:
    History, the progress bar, `CSVLogger` and `TensorBoard` show it. List this callback
    first: callbacks listed before it do not see the rate. With a `MultiOptimizer` every
    optimizer gets the same rate, logged as `learning_rate_<name>`; to give each
    optimizer a rate of its own, build each one with a `WarmupExponentialSchedule`.

    Warns, at most once per `fit` and reason, if

    - `fit` starts at epoch 0 and stops before `target_lr` is reached, or goes past
      `n_epochs`;
    - another callback changed the rate;
    - the optimizer has taken no steps, because another one trains the model.

    Args:
        base_lr: Real number, the rate during warm-up and hold and at the start of the
            decay. Finite, > 0 and normal in float32 (about 1.2e-38 to 3.4e38).
        target_lr: Real number in the same range, the rate of the last epoch and of all
            epochs after it. A target above `base_lr` makes the rate grow; an equal one
            makes it constant.
        n_epochs: Integer, the number of epochs including warm-up and hold, from
            `n_warmup_epochs + n_hold_epochs + 2` to 2**53.
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
            has no optimizer, or has one that was built with a schedule, a function or
            the `decay` of Keras's legacy optimizers.
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
        if isinstance(verbose, bool):
            verbose = int(verbose)
        self.verbose = check_count("verbose", verbose, 0, 1)
        self._set_rates: dict[str, float] = {}
        self._set_on: dict[str, int] = {}  # the ids of their optimizers

    @property
    def rule(self) -> DecayRule:
        """The rule, read-only."""
        return self._rule

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python numbers."""
        return {**dataclasses.asdict(self.rule), "verbose": self.verbose}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        self._set_on = {}
        for optimizer in _keras.optimizers(self.model).values():
            if not _keras.is_settable(optimizer):
                raise TypeError(
                    "WarmupExponentialDecay cannot set the learning rate of the "
                    f"optimizer {type(optimizer).__name__}: it was built with a "
                    "schedule, a function or `decay`. Build it with a number, or use a "
                    "WarmupExponentialSchedule instead of this callback."
                )

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        if self._is_first_epoch:
            self._check_epochs(epoch)
        optimizers = _keras.optimizers(self.model)
        self._check_unchanged(optimizers)
        rate = float(self.rule.rates(epoch))
        self._set_rates = {
            name: _keras.set_learning_rate(optimizer, rate)
            for name, optimizer in optimizers.items()
        }
        self._set_on = {name: id(optimizer) for name, optimizer in optimizers.items()}
        if self.verbose:
            print(
                f"\nEpoch {epoch + 1}: WarmupExponentialDecay setting learning rate to "
                f"{rate}."
            )

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update(self._set_rates)
        super().on_epoch_end(epoch, logs)

    def on_train_end(self, logs: Any = None) -> None:
        self._check_unchanged(_keras.optimizers(self.model))

    def _check_epochs(self, first_epoch: int) -> None:
        """Warns if the epochs of `fit` do not match those of the rule."""
        epochs = (getattr(self, "params", None) or {}).get("epochs")
        n_epochs, target_lr = self.rule.n_epochs, self.rule.target_lr
        if epochs is None:  # outside `fit`
            return
        if first_epoch == 0 and epochs < n_epochs:
            self._warn_once(
                "epochs",
                f"fit(epochs={epochs}) stops before target_lr={target_lr} is reached: "
                f"the rule has n_epochs={n_epochs}. Each `fit` counts its epochs from "
                f"0; to continue in another `fit`, pass initial_epoch={epochs}.",
            )
        if epochs > n_epochs:
            self._warn_once(
                "epochs",
                f"`fit` goes past the rule's n_epochs={n_epochs} and holds "
                f"target_lr={target_lr} from epoch index {n_epochs - 1} on.",
            )

    def _check_unchanged(self, optimizers: dict[str, Any]) -> None:
        """Warns if an optimizer no longer has the rate that this callback set."""
        for name, optimizer in optimizers.items():
            if self._set_on.get(name) != id(optimizer):  # the model was compiled again
                continue
            rate, found = self._set_rates[name], _keras.learning_rate(optimizer)
            if found != rate:
                self._warn_once(
                    "changed",
                    f"Another callback changed `{name}` from {rate} to {found}. "
                    "WarmupExponentialDecay sets it at the start of each epoch.",
                )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class LearningRateLogger(_RateCallback):
    """Logs any optimizer's rate, with or without a schedule, as `learning_rate`.

    The log contains the rate, a float, as it was when the epoch began: by the end of
    the epoch, a schedule has already moved to the next epoch. With a `MultiOptimizer`
    the rate of every optimizer is logged, as `learning_rate_<name>`. List this callback
    before those that read the log, and after one that sets the rate.

    Warns, at most once per `fit` and reason, if

    - when `fit` starts, a `WarmupExponentialSchedule` is behind `initial_epoch` (for
      example, with a fresh optimizer), in the middle of an epoch (where training was
      stopped), or past its own end;
    - the number of steps in an epoch is not `steps_per_epoch`, so that the schedule
      drifts away from the epochs;
    - the optimizer has taken no steps, because another one trains the model.

    A schedule that counts in steps (`steps_per_epoch=1`) is not checked against the
    epochs, nor is one under loss scaling, which skips steps.

    Raises:
        TypeError: The model has no optimizer (raised when training begins).

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
            self._first_steps[name] = _keras.count_steps(optimizer)
        if self._is_first_epoch:
            for name, schedule in self._schedules().items():
                self._check_position(schedule, self._first_steps[name], epoch)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        if logs is not None:
            logs.update(self._rates)
        super().on_epoch_end(epoch, logs)
        optimizers = _keras.optimizers(self.model)
        for name, schedule in self._schedules().items():
            if name in self._first_steps:
                step = _keras.count_steps(optimizers[name])
                self._check_drift(schedule, step - self._first_steps[name])

    def _schedules(self) -> dict[str, WarmupExponentialSchedule]:
        """Returns the schedules to check, keyed by the names of their rates."""
        if _keras.is_loss_scaled(self.model):
            return {}
        schedules = {}
        for name, optimizer in _keras.optimizers(self.model).items():
            schedule = _keras.schedule(optimizer)
            is_ours = isinstance(schedule, WarmupExponentialSchedule)
            if is_ours and schedule.steps_per_epoch > 1:
                schedules[name] = schedule
        return schedules

    def _check_position(
        self, schedule: WarmupExponentialSchedule, step: int, epoch: int
    ) -> None:
        """Warns if the schedule is not at the epoch at which `fit` starts."""
        steps_per_epoch, rule = schedule.steps_per_epoch, schedule.rule
        n_steps = rule.n_epochs * steps_per_epoch
        target = epoch
        if step >= n_steps:
            problem = f"is past its last step and stays at target_lr={rule.target_lr}"
        elif step < epoch * steps_per_epoch:
            problem = f"is behind epoch index {epoch}, at which `fit` starts"
        elif step % steps_per_epoch and not _keras.can_resume_inside_epoch(self.model):
            target = max(epoch, step // steps_per_epoch)
            problem = "is in the middle of an epoch"
        else:
            return
        count = "variables[0]" if _keras.IS_KERAS_3 else "iterations"
        self._warn_once(
            "position",
            f"The schedule {problem}: the optimizer has taken {step} steps, and the "
            f"schedule has {n_steps} (n_epochs={rule.n_epochs}, "
            f"steps_per_epoch={steps_per_epoch}). To move the schedule to the start of "
            f"epoch index {target}, call "
            f"optimizer.{count}.assign({target * steps_per_epoch}) on that optimizer.",
        )

    def _check_drift(self, schedule: WarmupExponentialSchedule, n_steps: int) -> None:
        """Warns if the number of steps in an epoch is not `steps_per_epoch`."""
        steps_per_epoch = schedule.steps_per_epoch
        if n_steps <= 0 or n_steps == steps_per_epoch:  # <= 0: the count was set back
            return
        if self.model.stop_training or _keras.can_resume_inside_epoch(self.model):
            return  # the epoch may have been cut short
        self._warn_once(
            "drift",
            f"The optimizer counted {n_steps} steps in an epoch, but its schedule has "
            f"steps_per_epoch={steps_per_epoch}: its rates drift away from the epochs. "
            "Set steps_per_epoch to the number of batches per epoch. On a dataset of "
            "unknown length Keras may count an extra step: set the length with "
            "tf.data.experimental.assert_cardinality, or use WarmupExponentialDecay.",
        )


@tf.keras.utils.register_keras_serializable(package="expdecay_keras")
class LearningRateTensorBoard(_RateCallback):
    """Writes the learning rate of every `update_freq`-th step for TensorBoard.

    The scalar `learning_rate` (with a `MultiOptimizer`, one `learning_rate_<name>` per
    optimizer) is plotted over the optimizer's step count, one step per batch, so a
    second `fit` continues the curve. The curve shows how a schedule with
    `staircase=False` falls step by step. Values are written when an epoch ends or a
    thousand are waiting, but at most once per second, and always when training ends; no
    file stays open in between.

    Warns, at most once per `fit`, if the optimizer has taken no steps, because another
    one trains the model.

    Args:
        log_dir: String or PathLike, the directory for TensorBoard's event files.
        update_freq: Integer from 1 to 2**53, the number of steps from one value to the
            next. Default 1.

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
            raise TypeError(
                f"Argument `log_dir` must be a path. Received: log_dir={log_dir!r}"
            )
        self.log_dir = os.fspath(log_dir)
        self.update_freq = check_count("update_freq", update_freq, 1)
        self._last_steps: dict[str, int] = {}  # of the latest values
        self._begun: dict[str, tuple[int, float]] = {}  # steps and rates of the batch
        self._values: list[tuple[str, int, float]] = []  # not yet written
        self._written_at = -math.inf

    def __getstate__(self) -> dict[str, Any]:
        """Leaves out values that this callback has yet to write, and its clock."""
        return {**super().__getstate__(), "_values": [], "_written_at": -math.inf}

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, in order, as plain Python values."""
        return {"log_dir": self.log_dir, "update_freq": self.update_freq}

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if importlib.util.find_spec("tensorboard") is None:
            raise ImportError(
                "LearningRateTensorBoard needs TensorBoard: pip install tensorboard"
            )
        self._write(at_once=True)  # values left over from an interrupted `fit`
        self._last_steps = {}

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._begun = {}
        for name, optimizer in _keras.optimizers(self.model).items():
            step = _keras.count_steps(optimizer)
            last_step = self._last_steps.setdefault(name, step - 1)
            # With `steps_per_execution` several steps are taken at once.
            if step < last_step:  # a rollback
                last_step = step - 1
            if step // self.update_freq > last_step // self.update_freq:
                self._begun[name] = step, _keras.learning_rate(optimizer)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        # To find the end of a dataset, Keras begins one more batch but never ends it.
        optimizers = _keras.optimizers(self.model)
        for name, (step, rate) in self._begun.items():
            if _keras.count_steps(optimizers[name]) > step:
                self._last_steps[name] = step
                self._values.append((name, step, rate))
        if len(self._values) >= 1000:
            self._write()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._write()

    def on_train_end(self, logs: Any = None) -> None:
        self._write(at_once=True)

    def _write(self, at_once: bool = False) -> None:
        """Writes the values to a new file, at most one per second unless `at_once`.

        If two files are created in the same second, TensorBoard may read either first.
        """
        is_due = at_once or time.monotonic() >= self._written_at + 1.0
        if self._values and is_due:
            with tf.summary.create_file_writer(self.log_dir).as_default():
                for name, step, rate in self._values:
                    tf.summary.scalar(name, rate, step=step)
            self._values = []
            self._written_at = time.monotonic()
