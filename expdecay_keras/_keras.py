"""What differs between Keras releases and backends: optimizers, rates, look-ups.

`tf.keras` is Keras 2 up to TensorFlow 2.15 and, as legacy Keras, in later releases with
TF_USE_LEGACY_KERAS=1. Keras 2 is frozen, so its private attributes may be used. In
Keras 3, schedules and wrapped optimizers are found by type among an optimizer's
attributes.
"""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Number
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

IS_KERAS_3 = hasattr(tf.keras, "ops")
BACKEND = tf.keras.backend.backend()  # Keras 3 may run on JAX or PyTorch
LARGEST_TABLE = 2**16 if BACKEND == "tensorflow" else 2**23
name_scope = tf.keras.name_scope if IS_KERAS_3 else tf.name_scope
# Keras's own does not turn a variable of a distribution strategy into a tensor.
to_tensor = tf.convert_to_tensor
if BACKEND != "tensorflow":
    to_tensor = tf.keras.ops.convert_to_tensor


# Optimizers


def is_loss_scaled(model: Any) -> bool:
    """Whether updates are skipped if their gradients overflow in float16."""
    return isinstance(model.optimizer, tf.keras.mixed_precision.LossScaleOptimizer)


def optimizers(model: Any) -> dict[str, Any]:
    """Returns the model's optimizers, keyed by the names of their rates in the log."""
    optimizer: Any = getattr(model, "optimizer", None)
    if optimizer is not None and is_loss_scaled(model):
        optimizer = optimizer.inner_optimizer
    named = {"learning_rate": optimizer}
    if hasattr(optimizer, "optimizers"):
        if not optimizer.optimizers and model.built:
            # A MultiOptimizer may find its optimizers only when it is built.
            model.optimizer.build(model.trainable_variables)
        named = _name_each(optimizer.optimizers)
    # Under Keras 2, a schedule that was assigned has no rate before the first step.
    names = ("learning_rate", "_learning_rate")
    named = {k: v for k, v in named.items() if any(hasattr(v, name) for name in names)}
    if not named:
        raise TypeError(
            "The model has no optimizer with a `learning_rate` that could be set or "
            "logged. Compile the model with the optimizer that trains it, or build "
            "that optimizer with a WarmupExponentialSchedule. Received: "
            f"model.optimizer={optimizer}"
        )
    return named


def _name_each(several: Any) -> dict[str, Any]:
    """Returns optimizers keyed by their names, numbered where names are the same."""
    named: dict[str, Any] = {}
    for optimizer in several.values() if isinstance(several, dict) else several:
        own_name = getattr(optimizer, "name", type(optimizer).__name__)
        name, number = f"learning_rate_{own_name}", 0
        while name in named:
            number += 1
            name = f"learning_rate_{own_name}_{number}"
        named[name] = optimizer
    return named


def with_wrapped(optimizer: Any) -> Iterator[Any]:
    """Yields an optimizer, and those that it wraps, which are among its attributes."""
    yield optimizer
    for value in vars(optimizer).values():
        if hasattr(value, "apply_gradients"):
            yield from with_wrapped(value)


def schedule(optimizer: Any) -> Any:
    """Returns the LearningRateSchedule that the optimizer evaluates, or None."""
    values = [*vars(optimizer).values(), _legacy_rate(optimizer)]
    base = tf.keras.optimizers.schedules.LearningRateSchedule
    return next((value for value in values if isinstance(value, base)), None)


def is_settable(optimizer: Any) -> bool:
    """Whether a number can be assigned to the optimizer's rate; assigns its own."""
    for one in with_wrapped(optimizer):  # a legacy one would take the number anyway
        if callable(_legacy_rate(one)) or _has_decay(one):
            return False
    try:
        optimizer.learning_rate = learning_rate(optimizer)
    except (AttributeError, TypeError):  # it has a schedule or a function
        return False
    return True


def learning_rate(optimizer: Any) -> float:
    """Returns the rate of the optimizer's next step."""
    if IS_KERAS_3:
        return float(to_tensor(optimizer.learning_rate))
    if _has_decay(optimizer):
        rate = optimizer._decayed_lr(tf.float32)
    else:
        rate = _keras_2_rate(optimizer)
    if isinstance(rate, tf.keras.optimizers.schedules.LearningRateSchedule):
        rate = rate(optimizer.iterations)
    return float(tf.keras.backend.get_value(rate))


def count_steps(optimizer: Any) -> int:
    """Returns the step count of an optimizer or, if it is 0, of one that it wraps.

    This is the step that the optimizer gives its schedule next: under gradient
    accumulation it counts batches, whereas `optimizer.iterations` counts updates.
    """
    counts = map(_own_count, with_wrapped(optimizer))
    return next(filter(None, counts), 0)


def _own_count(optimizer: Any) -> int:
    """Returns the steps that an optimizer has counted, or -1 if it does not count."""
    if not hasattr(optimizer, "iterations"):
        return -1
    if IS_KERAS_3:
        return int(to_tensor(optimizer.variables[0]))
    return int(tf.keras.backend.get_value(optimizer.iterations))


def resumes_inside_epochs(model: Any) -> bool:
    """Whether `BackupAndRestore` of Keras 2 is active: it can resume at any batch."""
    return not IS_KERAS_3 and getattr(model, "_training_state", None) is not None


def _keras_2_rate(optimizer: Any) -> Any:
    """Returns the variable, schedule or function that sets a Keras 2 optimizer's rate.

    It is `_learning_rate`; `learning_rate` may be the rate of the last step. A legacy
    optimizer, or one that wraps another, has only `learning_rate`.
    """
    if hasattr(optimizer, "_learning_rate"):
        return optimizer._learning_rate
    return getattr(optimizer, "learning_rate", None)


def _legacy_rate(optimizer: Any) -> Any:
    """Returns the number, schedule or function that a legacy optimizer was given."""
    return getattr(optimizer, "_hyper", {}).get("learning_rate")


def _has_decay(optimizer: Any) -> bool:
    """Whether the optimizer is a legacy one that was created with `decay`."""
    return bool(getattr(optimizer, "_initial_decay", 0.0))


# The look-up of a schedule's rates

# Types, because `torch.compile` cannot trace `tf.is_tensor`.
TENSORS: Any = (tf.Tensor, tf.Variable)
if IS_KERAS_3 and BACKEND == "tensorflow":
    TENSORS += (tf.keras.Variable,)


def table(rates: npt.NDArray[np.float64], dtype: str) -> Any:
    """Returns rates in a dtype, in the form that `look_up` takes."""
    if BACKEND == "torch":  # on the CPU, so that no GPU is initialized
        with tf.keras.device("cpu"):
            return tf.keras.ops.convert_to_tensor(rates, dtype)
    return rates.astype(tf.as_dtype(dtype).as_numpy_dtype)


def rate_index(step: Any, steps_per_rate: int, last: int) -> Any:
    """Returns step // steps_per_rate, clipped to the indices from 0 to `last`.

    Numbers, arrays and TensorFlow's eager tensors give a NumPy array, other tensors
    give a tensor.
    """
    if isinstance(step, TENSORS) and tf.executing_eagerly():
        step = step.numpy()
    if isinstance(step, (Number, np.generic, np.ndarray, list, tuple, range)):
        # Long double is exact for every integer of 64 bits.
        steps = np.clip(np.asarray(step, np.longdouble), 0, last * steps_per_rate)
        return (steps // steps_per_rate).astype(np.int64)
    if BACKEND == "tensorflow" and not _is_symbolic(step):
        return _tensorflow_index(step, steps_per_rate, last)
    return _keras_index(step, steps_per_rate, last)


def _tensorflow_index(step: Any, steps_per_rate: int, last: int) -> tf.Tensor:
    """Returns the index in a graph, by ops that are built into TFLite."""
    step = tf.convert_to_tensor(step)
    if step.dtype.is_floating:
        step = tf.cast(step, tf.float64)
    elif step.dtype == tf.uint64:
        step = tf.cast(tf.minimum(step, 2**63 - 1), tf.int64)
    elif step.dtype != tf.int32:
        step = tf.cast(step, tf.int64)
    # The lower bound is not 0, because TFLite would turn some pairs of bounds into an
    # activation, such as Relu6, which does not take integers.
    largest = last * steps_per_rate
    step = tf.clip_by_value(step, -2, min(largest, step.dtype.max))
    # TFLite cannot divide int64.
    step = tf.cast(step, tf.int32 if largest <= tf.int32.max else tf.int64)
    index = step // steps_per_rate if steps_per_rate > 1 else step
    return tf.maximum(index, 0)


def _keras_index(step: Any, steps_per_rate: int, last: int) -> Any:
    """Returns the index on JAX or PyTorch, or of a symbolic tensor of Keras 3."""
    ops = tf.keras.ops
    if not _is_symbolic(step):
        step = ops.convert_to_tensor(step)
    dtype = tf.keras.backend.standardize_dtype(step.dtype)
    if BACKEND == "torch" and dtype.startswith("uint"):  # it supports few operations
        step = ops.cast(step, "float64")
    elif dtype.endswith(("8", "16")):  # it may not hold `steps_per_rate`
        step = ops.cast(step, "int32" if "int" in dtype else "float32")
    # Divided before it is clipped, because a float32 or int32 may not hold the product.
    index = step // steps_per_rate if steps_per_rate > 1 else step
    return ops.cast(ops.clip(index, 0, last), "int32")


def look_up(rates: Any, index: Any) -> Any:
    """Returns rates[index] as a tensor of the backend."""
    if BACKEND == "tensorflow" and not _is_symbolic(index):
        if isinstance(index, np.ndarray):
            return tf.constant(rates[index])
        return tf.gather(rates, index)
    ops = tf.keras.ops
    if BACKEND == "torch" and not _is_symbolic(index):
        # Indexed by a scalar tensor, the table would be read back as a number, which
        # `torch.compile(fullgraph=True)` refuses.
        index = ops.convert_to_tensor(index).cpu()  # the table's device
        found = rates.index_select(0, index.reshape(-1)).reshape(index.shape)
        return ops.convert_to_tensor(found)
    return ops.take(rates, index)


def _is_symbolic(step: Any) -> bool:
    """Whether a value is a symbolic tensor of Keras 3."""
    return IS_KERAS_3 and isinstance(step, tf.keras.KerasTensor)
