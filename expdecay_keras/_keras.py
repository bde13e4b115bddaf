"""All that differs between the releases of Keras: optimizers, their rates, the look-up in a step.

Keras 2 is `tf.keras` up to TensorFlow 2.15 and, as legacy Keras, with TF_USE_LEGACY_KERAS=1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from expdecay_keras.rule import as_float64

IS_KERAS_3 = hasattr(tf.keras, "ops")
BACKEND = tf.keras.backend.backend()  # Keras 3 may have JAX or PyTorch
ON_TENSORFLOW = BACKEND == "tensorflow"
name_scope = tf.keras.name_scope if IS_KERAS_3 else tf.name_scope


def build_optimizers(model: Any) -> None:
    """Has a MultiOptimizer (Keras 3.15), which may ask each weight for its optimizer, do so."""
    if hasattr(model.optimizer, "optimizers") and model.built and not model.optimizer.built:
        with model.distribute_strategy.scope():
            model.optimizer.build(model.trainable_variables)


def optimizers(model: Any) -> list[tuple[str, Any]]:
    """Returns the model's optimizers, each with the name its rate is logged under."""
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # LossScaleOptimizer
    if hasattr(optimizer, "optimizers"):  # MultiOptimizer, Keras 3.15
        return [(f"learning_rate_{inner.name}", inner) for inner in optimizer.optimizers]
    return [("learning_rate", optimizer)]


def schedule(optimizer: Any) -> Any:
    """Returns the schedule or function that the optimizer was built with, or None."""
    rate = getattr(optimizer, "_learning_rate", optimizer.learning_rate)
    return rate if callable(rate) else None


def is_settable(optimizer: Any) -> bool:
    """Whether the optimizer's rate is a number, not a schedule or function."""
    has_decay = getattr(optimizer, "_initial_decay", False)  # Keras 2: a legacy optimizer, built with it
    return schedule(optimizer) is None and not has_decay


def count_updates(model: Any) -> dict[str, int]:
    """Returns each optimizer's count of updates, by the name its rate is logged under.

    Nothing under loss scaling, where Keras 3 does not count what it skips, be it a whole epoch.
    """
    if hasattr(model.optimizer, "inner_optimizer"):
        return {}
    return {name: int(number(optimizer.iterations)) for name, optimizer in optimizers(model)}


def number(variable: Any) -> Any:
    """Returns the value of a scalar variable or tensor of the backend as a Python number."""
    if ON_TENSORFLOW:
        return tf.convert_to_tensor(variable).numpy().item()
    return tf.keras.ops.convert_to_tensor(variable).item()


def learning_rate(optimizer: Any) -> float:
    """Returns the rate of the optimizer's next step."""
    if hasattr(optimizer, "_decayed_lr"):  # Keras 2: a legacy optimizer, with its own `decay`
        return float(optimizer._decayed_lr(tf.float32))
    if hasattr(optimizer, "_current_learning_rate"):  # Keras 2: as the schedule was at the last step
        return float(optimizer._learning_rate(optimizer.iterations))
    return float(number(optimizer.learning_rate))


def set_learning_rate(optimizer: Any, rate: float) -> float:
    """Sets the rate; returns it rounded to the optimizer's dtype."""
    if ON_TENSORFLOW:  # a tensor: for a number Keras 3 takes half as long again
        new = tf.constant(rate, optimizer.learning_rate.dtype)
        optimizer.learning_rate = new
        return float(new)
    optimizer.learning_rate = rate
    return learning_rate(optimizer)


def look_up(rates: Any, step: Any, n_steps: int) -> Any:
    """Returns rates[step // n_steps], clipped to the first and last rate, in dtype `floatx()`."""
    dtype, last = tf.keras.backend.floatx(), len(rates) - 1
    if ON_TENSORFLOW:
        step = as_int64(step)
        # An integer division: XLA turns a float one into a product with 1 / n_steps, which is inexact.
        index = tf.clip_by_value(step if n_steps == 1 else step // n_steps, 0, last)
        return tf.gather(tf.constant(rates, dtype), index)
    ops, step = tf.keras.ops, tf.keras.ops.convert_to_tensor(step)
    if "int" not in tf.keras.backend.standardize_dtype(step.dtype):
        step = ops.cast(ops.clip(step, 0, 2**31 - 128), "int32")  # the largest float32 below 2**31
    if n_steps >= 2**31 and tf.keras.backend.standardize_dtype(step.dtype) == "int32":
        step = step * 0  # the first rate is that of every int32, which cannot be divided by n_steps
    elif n_steps > 1:
        step = step // n_steps
    return ops.take(ops.convert_to_tensor(rates, dtype), ops.clip(step, 0, last))


def as_int64(step: Any) -> Any:
    """Returns numbers, an array or a tensor as TensorFlow's integers, fractions cut off."""
    if hasattr(step, "dtype") and tf.as_dtype(step.dtype) in (tf.int32, tf.int64):
        return tf.cast(step, tf.int64)
    return tf.cast(tf.clip_by_value(as_float64(step), 0.0, 2.0**62), tf.int64)


def state(model: Any) -> dict[str, list[Any]]:
    """Returns all that training needs to resume, as what a `tf.train.Checkpoint` can hold.

    Keras 3 has the seeds of dropout among a model's variables; its optimizers were no trackables in
    3.0. An optimizer of Keras 2 has a loss scale that is not among its variables, but is tracked.
    """
    optimizer = model.optimizer
    if hasattr(optimizer, "build") and not getattr(optimizer, "built", False):  # not so: Keras 2, legacy
        optimizer.build(model.trainable_variables)
    if not IS_KERAS_3:
        return {"keras_2": [*model.variables, optimizer]}
    variables = (*model.variables, *optimizer.variables)
    if ON_TENSORFLOW:
        return {"keras_3": [variable.value for variable in variables]}
    return {BACKEND: [_Bytes(variable, model) for variable in variables]}


class _Bytes(tf.train.experimental.PythonState):
    """A variable of JAX or PyTorch as TensorFlow's checkpoints can hold it."""

    def __init__(self, variable: Any, model: Any) -> None:
        self.variable, self.model = variable, model

    def serialize(self) -> Any:
        if BACKEND == "jax":  # whose variables are not up to date while it trains
            self.model.jax_state_sync()
        return tf.keras.ops.convert_to_numpy(self.variable).tobytes()

    def deserialize(self, content: Any) -> None:
        held = tf.keras.ops.convert_to_numpy(self.variable)
        self.variable.assign(np.frombuffer(content, held.dtype).reshape(held.shape))


def save(model: Any, path: Path) -> None:
    """Saves a model as a .keras archive; Keras 2.12 otherwise writes HDF5, which a full disk crashes."""
    model.save(path, **({} if IS_KERAS_3 else {"save_format": "keras_v3"}))
