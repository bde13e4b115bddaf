"""All that differs between the releases of Keras: optimizers, their rates, the look-up in a step.

Keras 2 is `tf.keras` up to TensorFlow 2.15 and, as legacy Keras, with TF_USE_LEGACY_KERAS=1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import tensorflow as tf

IS_KERAS_3 = hasattr(tf.keras, "ops")


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


def is_settable(optimizer: Any) -> bool:
    """Whether the optimizer's rate is a number, not a schedule or function."""
    rate = getattr(optimizer, "_learning_rate", optimizer.learning_rate)
    return not (callable(rate) or getattr(optimizer, "_initial_decay", False))  # Keras 2: legacy `decay`


def learning_rate(optimizer: Any) -> float:
    """Returns the rate of the optimizer's next step."""
    if hasattr(optimizer, "_decayed_lr"):  # Keras 2: a legacy optimizer, with its own `decay`
        return float(optimizer._decayed_lr(tf.float32))
    if hasattr(optimizer, "_current_learning_rate"):  # Keras 2: as the schedule was at the last step
        return float(optimizer._learning_rate(optimizer.iterations))
    return float(tf.convert_to_tensor(optimizer.learning_rate))


def count_updates(optimizer: Any) -> int:
    """Returns how often the optimizer has updated the weights."""
    return int(tf.convert_to_tensor(optimizer.iterations))


def set_learning_rate(optimizer: Any, rate: float) -> float:
    """Sets the rate, and returns it as the dtype of the optimizer's has it."""
    new = tf.constant(rate, optimizer.learning_rate.dtype)
    optimizer.learning_rate = new  # a tensor: for a number Keras 3 takes half as long again
    return float(new)


def look_up(rates: Any, index: Any) -> Any:
    """Returns the rates at the indices, beyond the ends the first and last, in `floatx()`."""
    index = tf.clip_by_value(index, 0, len(rates) - 1)
    return tf.gather(tf.constant(rates, tf.keras.backend.floatx()), index)


def state(model: Any) -> dict[str, list[Any]]:
    """Returns all that training needs to resume, as what a `tf.train.Checkpoint` can hold.

    Keras 3 has the seeds of dropout among a model's variables; its optimizers were no trackables in
    3.0. An optimizer of Keras 2 has a loss scale that is not among its variables, but is tracked.
    """
    optimizer = model.optimizer
    if hasattr(optimizer, "build") and not getattr(optimizer, "built", False):  # not so: Keras 2, legacy
        optimizer.build(model.trainable_variables)
    if IS_KERAS_3:
        return {"keras_3": [variable.value for variable in (*model.variables, *optimizer.variables)]}
    return {"keras_2": [*model.variables, optimizer]}


def save(model: Any, path: Path) -> None:
    """Saves a model as a .keras archive; Keras 2.12 otherwise writes HDF5, which a full disk crashes."""
    model.save(path, **({} if IS_KERAS_3 else {"save_format": "keras_v3"}))
