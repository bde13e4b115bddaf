import numpy as np
import pytest
import tensorflow as tf

from expdecay_keras import DecayRule

# The table of the text the rule comes from: arguments and the rates of five epochs, 6 decimals.
SEED_TABLE = [
    pytest.param((1e-1, 1e-6, 5, 0), [0.100000, 0.005623, 0.000316, 0.000018, 0.000001], id="W=0"),
    pytest.param((1e-2, 1e-4, 5, 1), [0.010000, 0.010000, 0.002154, 0.000464, 0.000100], id="W=1"),
    pytest.param((1e-2, 1e-5, 5, 2), [0.010000, 0.010000, 0.010000, 0.000316, 0.000010], id="W=2"),
]


def pytest_generate_tests(metafunc):
    if "seed_row" in metafunc.fixturenames:
        metafunc.parametrize("seed_row, seed_rates", SEED_TABLE)


def build_model(optimizer="sgd"):
    """A small regression network, built, with the same weights each time."""
    tf.keras.utils.set_random_seed(0)
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile(optimizer, "mse")
    return model


@pytest.fixture
def model():
    return build_model()


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.normal(size=(16, 3)).astype("float32"), rng.normal(size=(16, 2)).astype("float32")


@pytest.fixture
def fit(data):
    """Trains without output, the rows in order, and returns the history's dictionary."""

    def run(model, callbacks, epochs, **options):
        x, y = data
        history = model.fit(
            x, y, epochs=epochs, callbacks=callbacks, verbose=0, shuffle=False, **options
        )
        return history.history

    return run


def float32_rates(rule: DecayRule, epochs) -> list:
    return [float(rate) for rate in rule.learning_rate(epochs, dtype="float32").numpy()]
