import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pytest
import tensorflow as tf
from hypothesis import HealthCheck, settings
from processes import Process

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("repeatable")


@pytest.fixture
def floatx():
    """Sets Keras's default dtype, for the test only."""
    yield tf.keras.backend.set_floatx
    tf.keras.backend.set_floatx("float32")


@pytest.fixture
def mixed_float16():
    """Sets the policy that scales the loss, for the test only."""
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    yield
    tf.keras.mixed_precision.set_global_policy("float32")


@pytest.fixture
def start(tmp_path_factory, request):
    """Starts a script in a fresh process, which does not outlive the test."""

    def start(script, *argv, **options):
        folder = tmp_path_factory.mktemp("process")
        process = Process(folder, script, *argv, **options)
        request.addfinalizer(process.kill)
        return process

    return start


@pytest.fixture
def python(start):
    """Runs a script in a fresh process, which has to succeed."""

    def python(script, *argv, **options):
        done = start(script, *argv, **options).wait()
        assert done.status == 0, done.stderr
        return done

    return python
