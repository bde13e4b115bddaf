"""What differs between Keras releases and backends.

`tf.keras` is Keras 2 up to TensorFlow 2.15 and, as legacy Keras, in later releases with
TF_USE_LEGACY_KERAS=1. Keras 2 is frozen, so its private attributes may be used; of
Keras 3, only the public API is used.
"""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

IS_KERAS_3 = hasattr(tf.keras, "ops")
BACKEND = tf.keras.backend.backend()  # Keras 3 may run on JAX or PyTorch
LARGEST_TABLE = 2**16 if BACKEND == "tensorflow" else 2**23
name_scope = tf.keras.name_scope if IS_KERAS_3 else tf.name_scope


def is_loss_scaled(model: Any) -> bool:
    """Whether updates are skipped if their gradients overflow in float16."""
    return hasattr(model.optimizer, "inner_optimizer")


def _unscaled_optimizer(model: Any) -> Any:
    """Returns the optimizer that a LossScaleOptimizer wraps, or the model's own."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise TypeError(
            "The model has no optimizer whose learning rate could be set or logged. "
            "Compile the model with the optimizer that trains it, or build that "
            "optimizer with a WarmupExponentialSchedule. Received: model.optimizer=None"
        )
    return getattr(optimizer, "inner_optimizer", optimizer)


def build_optimizers(model: Any) -> None:
    """Builds a MultiOptimizer, which until then may not know its inner optimizers."""
    optimizer = _unscaled_optimizer(model)
    if not hasattr(optimizer, "optimizers") or optimizer.built or not model.built:
        return
    # Only models on the TensorFlow backend have a strategy.
    strategy = getattr(model, "distribute_strategy", None)
    with strategy.scope() if strategy else contextlib.nullcontext():
        model.optimizer.build(model.trainable_variables)


def optimizers(model: Any) -> dict[str, Any]:
    """Returns the model's optimizers, keyed by the names of their rates in the log."""
    optimizer = _unscaled_optimizer(model)
    if not hasattr(optimizer, "optimizers"):
        return {"learning_rate": optimizer}
    named: dict[str, Any] = {}  # of a MultiOptimizer, in Keras 3.15 and later
    for inner in optimizer.optimizers:
        name = f"learning_rate_{inner.name}"
        if name in named:
            name = f"{name}_{len(named)}"
        named[name] = inner
    return named


def can_resume_inside_epoch(model: Any) -> bool:
    """Whether `BackupAndRestore` of Keras 2 is active: it can resume at any batch."""
    return not IS_KERAS_3 and getattr(model, "_training_state", None) is not None


def schedule(optimizer: Any) -> Any:
    """Returns the LearningRateSchedule that the optimizer evaluates, or None."""
    if IS_KERAS_3:
        candidates = list(vars(optimizer).values())
    else:
        candidates = [_keras_2_rate(optimizer)]
    base = tf.keras.optimizers.schedules.LearningRateSchedule
    return next((value for value in candidates if isinstance(value, base)), None)


def is_settable(optimizer: Any) -> bool:
    """Whether the optimizer's rate is a number, not a schedule or a function."""
    if IS_KERAS_3:
        return isinstance(optimizer.get_config().get("learning_rate", 0.0), float)
    return not (callable(_keras_2_rate(optimizer)) or _has_decay(optimizer))


def learning_rate(optimizer: Any) -> float:
    """Returns the rate of the optimizer's next step."""
    if IS_KERAS_3:
        return float(_number(optimizer.learning_rate))
    if _has_decay(optimizer):
        rate = optimizer._decayed_lr(tf.float32)
    else:
        rate = _keras_2_rate(optimizer)
    if isinstance(rate, tf.keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(optimizer.iterations)
    return float(tf.keras.backend.get_value(rate))


def set_learning_rate(optimizer: Any, rate: float) -> float:
    """Sets the rate; returns it rounded to the optimizer's dtype."""
    dtype = tf.as_dtype(optimizer.learning_rate.dtype)
    rate = np.array(rate, dtype.as_numpy_dtype).item()
    if BACKEND != "tensorflow":
        optimizer.learning_rate = rate
    elif tf.executing_eagerly():
        optimizer.learning_rate = tf.constant(rate, dtype)  # faster than a float
    else:  # graph mode, in Keras 2
        tf.keras.backend.set_value(optimizer.learning_rate, rate)
    return rate


def count_steps(optimizer: Any) -> int:
    """Returns the step that the optimizer gives its schedule next.

    Under gradient accumulation this step counts batches, whereas
    `optimizer.iterations` counts updates.
    """
    if IS_KERAS_3:
        return int(_number(optimizer.variables[0]))
    return int(tf.keras.backend.get_value(optimizer.iterations))


def _number(value: Any) -> Any:
    """Returns a scalar variable or tensor of Keras 3 as a Python number."""
    if BACKEND == "tensorflow":
        return tf.convert_to_tensor(value).numpy().item()
    return tf.keras.ops.convert_to_tensor(value).item()


def _keras_2_rate(optimizer: Any) -> Any:
    """Returns the variable, schedule or function that sets a Keras 2 optimizer's rate.

    It is `_learning_rate`; `learning_rate` may be the rate of the last step. A legacy
    optimizer, or one that wraps another, has only `learning_rate`.
    """
    if hasattr(optimizer, "_learning_rate"):
        return optimizer._learning_rate
    return optimizer.learning_rate


def _has_decay(optimizer: Any) -> bool:
    """Whether the optimizer is a legacy one that was created with `decay`."""
    return bool(getattr(optimizer, "_initial_decay", 0.0))


def table(rates: npt.NDArray[np.float64], dtype: str) -> Any:
    """Returns rates in a dtype, in the form that `look_up` takes."""
    if BACKEND == "torch":  # on the CPU, so that no GPU is initialized
        with tf.keras.device("cpu"):
            return tf.keras.ops.convert_to_tensor(rates, dtype)
    return rates.astype(tf.as_dtype(dtype).as_numpy_dtype)


def look_up(rates: Any, step: Any, steps_per_rate: int) -> Any:
    """Returns rates[step // steps_per_rate], clipped to the first and the last rate."""
    last = len(rates) - 1
    if BACKEND == "tensorflow":
        index = tf.clip_by_value(as_int64(step) // steps_per_rate, 0, last)
        return tf.gather(rates, index)
    ops = tf.keras.ops
    step = ops.convert_to_tensor(step)
    if "int" not in tf.keras.backend.standardize_dtype(step.dtype):
        # The largest float32 below 2**31.
        step = ops.cast(ops.clip(step, 0, 2**31 - 128), "int32")
    index = ops.clip(step // steps_per_rate, 0, last)
    if BACKEND == "torch":  # move the index to the table's device
        return ops.convert_to_tensor(rates[index.cpu()])
    return ops.take(rates, index)


def as_int64(step: Any) -> tf.Tensor:
    """Returns numbers, an array or a tensor as TensorFlow integers, truncated."""
    dtype = tf.as_dtype(step.dtype) if hasattr(step, "dtype") else None
    if dtype in (tf.int32, tf.int64):
        return tf.cast(step, tf.int64)
    # A Python float must not pass through float32, as it would in `tf.cast`.
    step = tf.constant(step, tf.float64) if dtype is None else tf.cast(step, tf.float64)
    return tf.cast(tf.clip_by_value(step, 0.0, 2.0**62), tf.int64)
