"""Which Keras the tests run under, and marks for what only some releases have."""

import importlib.metadata

import pytest
import tensorflow as tf

IS_KERAS_3 = hasattr(tf.keras, "ops")
BACKEND = tf.keras.backend.backend()
KERAS_VERSION = tuple(
    int(n) for n in importlib.metadata.version("keras").split(".")[:2]
)

needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="only for TensorFlow"
)
needs_jax = pytest.mark.skipif(BACKEND != "jax", reason="only for JAX")
needs_torch = pytest.mark.skipif(BACKEND != "torch", reason="only for PyTorch")
needs_keras_2 = pytest.mark.skipif(IS_KERAS_3, reason="this is Keras 3")
needs_keras_3 = pytest.mark.skipif(not IS_KERAS_3, reason="this is Keras 2")
needs_legacy_optimizers = pytest.mark.skipif(
    IS_KERAS_3 or not hasattr(tf.keras.optimizers, "legacy"),
    reason="this Keras has no legacy optimizers",
)
needs_multi_optimizer = pytest.mark.skipif(
    not hasattr(tf.keras.optimizers, "MultiOptimizer"),
    reason="this Keras has no MultiOptimizer",
)
needs_accumulation = pytest.mark.skipif(
    not IS_KERAS_3 or KERAS_VERSION < (3, 3),
    reason="this Keras has no gradient_accumulation_steps",
)
