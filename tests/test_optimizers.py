"""Optimizers as users write them, one class for each assumption they break."""

import types

import models
import numpy as np
import pytest
import releases
import tensorflow as tf
from models import RATES, build_model, decay, multiple, planned, train, train_all
from releases import IS_KERAS_3, needs_keras_3, needs_legacy_optimizers

from expdecay_keras import LearningRateLogger, LearningRateTensorBoard

SGD = tf.keras.optimizers.SGD
legacy = tf.keras.optimizers if IS_KERAS_3 else tf.keras.optimizers.legacy
wraps = pytest.mark.skipif(
    releases.BACKEND == "jax" or not IS_KERAS_3,
    reason="the wrapper has no stateless form",
)

# A rate that can be set


class WithoutConfig(SGD):
    def get_config(self):
        # tensorflow#36801: users' configs contain whatever they happen to have.
        raise NotImplementedError


class DelegatedRate:
    """Has the rate of another optimizer."""

    @property
    def learning_rate(self):
        return self.inner.learning_rate if hasattr(self, "inner") else None

    @learning_rate.setter
    def learning_rate(self, rate):
        self.inner.learning_rate = rate


class Wrapper(DelegatedRate, tf.keras.optimizers.Optimizer):
    """Hands everything to another optimizer; its own count of steps stays 0."""

    def __init__(self, inner):
        super().__init__(learning_rate=0.0)
        self.inner = inner

    def build(self, variables):
        self.inner.build(variables)
        super().build(variables)

    def apply(self, gradients, variables=None):
        self.inner.apply(gradients, variables)


class LegacyWrapper(DelegatedRate, legacy.Optimizer):
    """Like those of TensorFlow Addons, which delegate `learning_rate`."""

    def __init__(self, inner):
        super().__init__("Wrapper")
        self.inner = inner

    def _resource_apply_dense(self, grad, var, apply_state=None):
        return self.inner._resource_apply_dense(grad, var)


@pytest.mark.parametrize(
    "make",
    [
        lambda: WithoutConfig(0.5),
        pytest.param(lambda: Wrapper(SGD(0.5)), marks=wraps),
        pytest.param(lambda: Wrapper(Wrapper(SGD(0.5))), marks=wraps),
        pytest.param(
            lambda: LegacyWrapper(legacy.SGD(0.5)), marks=needs_legacy_optimizers
        ),
    ],
    ids=["config", "wrapped", "wrapped-twice", "legacy"],
)
def test_a_rate_that_can_be_set(make):
    model = build_model(make(), run_eagerly=releases.BACKEND == "tensorflow")
    assert train(model, LearningRateLogger(), batch_size=64) == [0.5] * 5
    assert train(model, decay(), batch_size=64) == RATES


class Plain:
    """Has a rate, and nothing else that Keras's optimizers have."""

    def __init__(self, rate):
        self.learning_rate = rate

    def apply_gradients(self, pairs):
        for gradient, weight in pairs:
            weight.assign_sub(self.learning_rate * gradient)


@releases.needs_tensorflow
def test_an_object_with_a_rate():
    model = models.trained_by_hand(run_eagerly=True)
    model.optimizer = Plain(0.5)
    assert train(model, LearningRateLogger(), batch_size=64) == [0.5] * 5
    rates = train(model, decay(), batch_size=64)
    assert np.float32(rates).tolist() == RATES  # Keras 2 leaves it a float


# A rate that cannot be set can be logged


class ReadOnly(SGD):
    """Has a rate that cannot be assigned."""

    @property
    def learning_rate(self):
        return self._learning_rate


def halved():
    return tf.keras.optimizers.schedules.ExponentialDecay(0.25, 100, 0.5, True)


def falling(rate):
    return legacy.SGD(rate, decay=1e-30)


def refused(name, reason):
    return (
        "WarmupExponentialDecay cannot set the learning rate of the optimizer "
        f"{name}: {reason}. Build the optimizer with a number, or remove this "
        "callback: a WarmupExponentialSchedule sets the rate by itself."
    )


NOT_A_NUMBER = "it is a function, has `decay` or cannot be assigned"
KERAS_S = "its schedule, ExponentialDecay, sets it"
OURS = "its schedule, WarmupExponentialSchedule, sets it"


@pytest.mark.parametrize(
    "make, rate, reason",
    [
        (SGD, halved(), KERAS_S),
        (SGD, planned(), OURS),
        pytest.param(SGD, lambda *step: 0.25, NOT_A_NUMBER, marks=needs_keras_3),
        pytest.param(ReadOnly, 0.25, NOT_A_NUMBER, marks=needs_keras_3),
        pytest.param(legacy.SGD, halved(), KERAS_S, marks=needs_legacy_optimizers),
        pytest.param(
            legacy.SGD, lambda: 0.25, NOT_A_NUMBER, marks=needs_legacy_optimizers
        ),
        pytest.param(falling, 0.25, NOT_A_NUMBER, marks=needs_legacy_optimizers),
    ],
)
def test_a_schedule_or_function_is_refused_but_logged(make, rate, reason):
    # tensorflow#36612, keras#14331: training died of an obscure error.
    model = build_model(make(rate))
    with pytest.raises(TypeError) as raised:
        train(model, decay())
    assert str(raised.value) == refused(type(model.optimizer).__name__, reason)
    rates = train(model, LearningRateLogger())
    assert rates == (RATES if reason is OURS else [0.25] * 5)


@wraps
def test_the_schedule_of_a_wrapped_optimizer(tmp_path):
    model, logger = build_model(Wrapper(SGD(planned()))), LearningRateLogger()
    assert train(model, logger, LearningRateTensorBoard(tmp_path)) == RATES
    with pytest.raises(TypeError) as raised:
        train(model, decay())
    assert str(raised.value) == refused("Wrapper", NOT_A_NUMBER)
    model = build_model(Wrapper(SGD(planned(2))))
    models.step_count(model.optimizer).assign(3)  # its own count does not matter
    _, (message,) = models.warned(train, model, logger)
    assert message.endswith("Set steps_per_epoch=4.")


# No rate at all


def test_an_optimizer_that_cannot_be_served(tmp_path):
    message = (
        "The model has no optimizer with a `learning_rate` that could be set or "
        "logged. Compile the model with the optimizer that trains it, or build that "
        "optimizer with a WarmupExponentialSchedule. Received: model.optimizer="
    )
    uncompiled = tf.keras.Sequential([tf.keras.layers.Dense(2)])
    model, without_a_rate = build_model(), object()
    model.optimizer = without_a_rate
    for callback in (decay(), LearningRateLogger(), LearningRateTensorBoard(tmp_path)):
        for one, received in [(uncompiled, None), (model, without_a_rate)]:
            callback.set_model(one)
            with pytest.raises(TypeError) as raised:
                callback.on_train_begin()
            assert str(raised.value) == f"{message}{received}"


# Several in one


@releases.needs_multi_optimizer
def test_several_are_refused_if_one_has_a_schedule():
    model = multiple(SGD(0.5), tf.keras.optimizers.Adam(halved()))
    with pytest.raises(TypeError) as raised:
        train(model, decay())
    assert str(raised.value) == refused("Adam", KERAS_S)


@releases.needs_multi_optimizer
def test_the_callback_sets_all_of_several():
    # keras PR 22959: with several optimizers only one was set.
    model = multiple(SGD(0.5, name="a"), tf.keras.optimizers.Adam(0.5, name="b"))
    rates = {"learning_rate_a": RATES, "learning_rate_b": RATES}
    assert train_all(model, decay()) == rates


@releases.needs_multi_optimizer
@releases.needs_tensorflow
def test_optimizers_that_are_not_known_before_the_model_is_built():
    model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
    chosen = SGD(0.5, name="one")
    model.compile(tf.keras.optimizers.MultiOptimizer(lambda variable: chosen), "mse")
    with pytest.raises(TypeError, match="no optimizer with a `learning_rate`"):
        train(model, decay())
    model.build((None, 3))
    assert train_all(model, decay()) == {"learning_rate_one": RATES}


@pytest.mark.parametrize(
    "names, logged",
    [
        (["a", "a", "a"], ["a", "a_1", "a_2"]),
        (["a_1", "a", "a"], ["a_1", "a", "a_2"]),
        (["a_2", "a", "a"], ["a_2", "a", "a_1"]),
    ],
)
@pytest.mark.parametrize("hold", [list, lambda several: dict(enumerate(several))])
def test_optimizers_of_the_same_name_are_told_apart(names, logged, hold):
    """None is left out, but one without a rate is skipped."""
    # larq#347 and others have `optimizers` and no `built`.
    several = [SGD(0.5, name=name) for name in names]
    model, own, logger = build_model(), decay(), LearningRateLogger()
    rateless = types.SimpleNamespace(name="rateless")
    model.optimizer = types.SimpleNamespace(optimizers=hold([*several, rateless]))
    for callback in (logger, own):
        logs = {}
        callback.set_model(model)
        callback.on_train_begin()  # it asks each whether it can be set
        assert {float(np.asarray(one.learning_rate)) for one in several} == {0.5}
        callback.on_epoch_begin(4)
        callback.on_epoch_end(4, logs)
        rate = RATES[4] if callback is own else 0.5
        assert logs == {f"learning_rate_{name}": rate for name in logged}
    rates = [float(np.asarray(one.learning_rate)) for one in several]
    assert rates == [RATES[4]] * 3
