import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, settings
from models import build_model
from processes import Process

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture
def model():
    return build_model()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(16, 3)), rng.normal(size=(16, 2))
    return x.astype("float32"), y.astype("float32")


@pytest.fixture
def fit(data):
    """Trains without output, the rows in order; returns the history's dictionary."""

    def run(model, callbacks, epochs, **options):
        options = {"verbose": 0, "shuffle": False, **options}
        history = model.fit(*data, epochs=epochs, callbacks=callbacks, **options)
        return history.history

    return run


@pytest.fixture
def floatx():
    """Sets Keras's default dtype, for the test only."""
    yield tf.keras.backend.set_floatx
    tf.keras.backend.set_floatx("float32")


@pytest.fixture
def mixed_float16():
    """Calls a function under the policy, which scales the loss."""

    def call(function, *args):
        policies = tf.keras.mixed_precision
        before = policies.global_policy()
        policies.set_global_policy("mixed_float16")
        try:
            model = function(*args)
        finally:
            policies.set_global_policy(before)
        assert hasattr(model.optimizer, "inner_optimizer")
        return model

    return call


@pytest.fixture
def start(tmp_path_factory):
    """Starts a script in a fresh process, which does not outlive the test."""
    processes = []

    def start(script, *argv, **options):
        folder = tmp_path_factory.mktemp("process")
        processes.append(Process(folder, script, *argv, **options))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()


@pytest.fixture
def python(start):
    """Runs a script in a fresh process, which has to succeed."""

    def python(script, *argv, **options):
        done = start(script, *argv, **options).wait()
        assert done.status == 0, done.stderr
        return done

    return python
