"""Optimizers as users write them, one class for each assumption they break."""

import functools
import types

import numpy as np
import pytest
import tensorflow as tf
from models import (
    RATES,
    X,
    Y,
    build_model,
    decay,
    planned,
    step_count,
    train,
    warned,
)
from releases import (
    BACKEND,
    IS_KERAS_3,
    needs_keras_3,
    needs_legacy_optimizers,
    needs_multi_optimizer,
    needs_tensorflow,
)

from expdecay_keras import LearningRateLogger, LearningRateTensorBoard

SGD = tf.keras.optimizers.SGD
needs_keras_2 = pytest.mark.skipif(IS_KERAS_3, reason="this is Keras 3")

# A config of one's own


def not_implemented(self):
    raise NotImplementedError


CONFIGS = {
    "a NumPy float": lambda self: {
        **SGD.get_config(self),
        "learning_rate": np.float32(0.5),
    },
    "the variable": lambda self: {
        **SGD.get_config(self),
        "learning_rate": self.learning_rate,
    },
    "nothing returned": lambda self: SGD.get_config(self).update(gamma=1),
    "without the rate": lambda self: {"name": "own"},
    "not implemented": not_implemented,
}


@pytest.mark.parametrize("get_config", CONFIGS.values(), ids=list(CONFIGS))
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_a_config_of_ones_own(make, get_config):
    # tensorflow#36801: users' configs contain whatever they happen to have.
    model = build_model(type("Own", (SGD,), {"get_config": get_config})(0.5))
    assert train(model, make()) == (RATES if make is decay else [0.5] * 5)


# A rate of another type


class FloatRate(SGD):
    """Answers with a Python float where Keras has a variable."""

    @property
    def learning_rate(self):
        return float(tf.keras.backend.get_value(self._learning_rate))

    @learning_rate.setter
    def learning_rate(self, rate):
        self._learning_rate.assign(rate)

    def _backend_update_step(self, gradients, variables, rate):
        super()._backend_update_step(gradients, variables, self._learning_rate)


@needs_tensorflow
@needs_keras_3
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_a_rate_that_is_a_float(make):
    model = build_model(FloatRate(0.5), run_eagerly=True)
    assert train(model, make()) == (RATES if make is decay else [0.5] * 5)


class ReadOnly(SGD):
    """Has a rate that cannot be assigned."""

    @property
    def learning_rate(self):
        return self._learning_rate


class Quarter:
    """A rate that is computed; the first releases of Keras 3 pass it the step."""

    def __call__(self, *step):
        return 0.25


@needs_keras_3
@pytest.mark.parametrize(
    "optimizer",
    [
        pytest.param(lambda: ReadOnly(0.25), id="read-only"),
        pytest.param(lambda: SGD(lambda *step: 0.25), id="function"),
        pytest.param(lambda: SGD(functools.partial(Quarter(), 1)), id="partial"),
        pytest.param(lambda: SGD(Quarter()), id="object"),
        pytest.param(lambda: SGD(planned()), id="our-own-schedule"),
    ],
)
def test_a_rate_that_cannot_be_set_can_be_logged(optimizer):
    model = build_model(optimizer())
    with pytest.raises(TypeError, match="^WarmupExponentialDecay cannot set the learn"):
        train(model, decay())
    rates = train(model, LearningRateLogger())
    assert rates in (RATES, [0.25] * 5)


# None of Keras's own


class Plain:
    """Has a rate, and nothing else that Keras's optimizers have."""

    def __init__(self, rate):
        self.learning_rate = rate

    def apply_gradients(self, pairs):
        for gradient, weight in pairs:
            weight.assign_sub(self.learning_rate * gradient)


class TrainedByHand(tf.keras.Sequential):
    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        self.optimizer.apply_gradients(zip(gradients, weights, strict=True))
        return {"loss": loss}


@needs_tensorflow
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_an_object_with_a_rate(make):
    model = TrainedByHand([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.optimizer = Plain(0.5)
    rates = np.float32(train(model, make())).tolist()  # Keras 2 leaves it a float
    assert rates == (RATES if make is decay else [0.5] * 5)


# An optimizer that wraps another


class Wrapper(tf.keras.optimizers.Optimizer):
    """Hands everything to another optimizer, its rate included."""

    def __init__(self, inner):
        super().__init__(learning_rate=0.0) if IS_KERAS_3 else super().__init__("own")
        self.inner = inner

    def build(self, variables):
        self.inner.build(variables)
        super().build(variables)

    def apply(self, gradients, variables=None):
        self.inner.apply(gradients, variables)

    def apply_gradients(self, pairs, **options):
        self.inner.apply_gradients(pairs)

    def get_config(self):
        return {}

    @property
    def learning_rate(self):
        return self.inner.learning_rate if hasattr(self, "inner") else None

    @learning_rate.setter
    def learning_rate(self, rate):
        self.inner.learning_rate = rate


wraps = pytest.mark.skipif(
    BACKEND == "jax" or not IS_KERAS_3, reason="the wrapper has no stateless form"
)


@wraps
@pytest.mark.parametrize(
    "wrap",
    [Wrapper, lambda inner: Wrapper(Wrapper(inner))],
    ids=["once", "twice"],
)
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_a_wrapped_optimizer(make, wrap):
    """Its own count of steps stays 0: that is no reason to call it idle."""
    model = build_model(wrap(SGD(0.5)))
    assert train(model, make()) == (RATES if make is decay else [0.5] * 5)
    assert int(np.asarray(step_count(model.optimizer))) == 0


@wraps
def test_the_schedule_of_a_wrapped_optimizer(tmp_path):
    model = build_model(Wrapper(SGD(planned())))
    writer = LearningRateTensorBoard(tmp_path)
    assert train(model, LearningRateLogger(), writer) == RATES
    model = build_model(Wrapper(SGD(planned(2))))
    _, (message,) = warned(train, model, LearningRateLogger())
    assert message.endswith("Set steps_per_epoch=4.")
    with pytest.raises(TypeError, match="cannot set the learning rate"):
        train(model, decay())


@wraps
def test_a_wrapper_with_a_count_of_its_own():
    model = build_model(Wrapper(SGD(planned())))
    step_count(model.optimizer).assign(3)
    assert train(model, LearningRateLogger()) == RATES


@needs_legacy_optimizers
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_a_wrapped_legacy_optimizer(make):
    """Like those of TensorFlow Addons, which delegate `learning_rate`."""
    legacy = tf.keras.optimizers.legacy

    class LegacyWrapper(legacy.Optimizer):
        def __init__(self, inner):
            super().__init__("Wrapper")
            self.inner = inner

        def _create_slots(self, var_list):
            self.inner._create_slots(var_list)

        def _resource_apply_dense(self, grad, var, apply_state=None):
            return self.inner._resource_apply_dense(grad, var)

        def get_config(self):
            return {}

        @property
        def learning_rate(self):
            return self.inner.learning_rate

        @learning_rate.setter
        def learning_rate(self, rate):
            self.inner.learning_rate = rate

    model = build_model(LegacyWrapper(legacy.SGD(0.5)))
    assert train(model, make()) == (RATES if make is decay else [0.5] * 5)


# Several in one


class Several(SGD):
    """Shares the weights out among others, and knows nothing of `built`."""

    built = property(lambda self: None, lambda self, value: None)

    def __init__(self, optimizers):
        super().__init__(0.5)
        self.optimizers = optimizers

    def each(self):
        one = self.optimizers
        return list(one.values() if isinstance(one, dict) else one)

    def apply_gradients(self, pairs, **options):
        for optimizer, pair in zip(self.each(), list(pairs), strict=True):
            optimizer.apply_gradients([pair])


def named_rates(model, callback):
    options = {"epochs": 5, "batch_size": 16, "verbose": 0}
    history = model.fit(X, Y, callbacks=[callback], **options).history
    return {name: history[name] for name in history if "rate" in name}


@needs_tensorflow
@pytest.mark.parametrize(
    "hold", [list, tuple, lambda pair: dict(zip("ab", pair, strict=True))]
)
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_several_optimizers_in_a_class_of_ones_own(make, hold):
    # larq#347 and others have `optimizers` and no `built`.
    pair = SGD(0.5, name="one"), tf.keras.optimizers.Adam(0.25, name="two")
    model = build_model(Several(hold(pair)), run_eagerly=True)
    expected = (RATES, RATES) if make is decay else ([0.5] * 5, [0.25] * 5)
    names = ["learning_rate_one", "learning_rate_two"]
    assert named_rates(model, make()) == dict(zip(names, expected, strict=True))


@needs_tensorflow
def test_one_of_several_without_a_rate():
    rateless = types.SimpleNamespace(
        name="rateless", apply_gradients=lambda pairs: None
    )
    model = build_model(Several([SGD(0.5, name="one"), rateless]), run_eagerly=True)
    assert named_rates(model, decay()) == {"learning_rate_one": RATES}


@needs_multi_optimizer
@pytest.mark.parametrize(
    "names, logged",
    [
        (["sgd", "sgd"], ["sgd", "sgd_1"]),
        (["a", "a_1"], ["a", "a_1"]),
        (["a_1", "a"], ["a_1", "a"]),
    ],
)
def test_names_of_several_optimizers(names, logged):
    optimizers = tf.keras.optimizers
    default, other = (SGD(0.5, name=name) for name in names)
    chosen = optimizers.OptimizerMap(default, {".*bias": other})
    rates = named_rates(build_model(optimizers.MultiOptimizer(chosen)), decay())
    assert rates == {f"learning_rate_{name}": RATES for name in logged}


@needs_multi_optimizer
@needs_tensorflow
def test_optimizers_that_are_not_known_before_the_model_is_built():
    model = tf.keras.Sequential([tf.keras.layers.Dense(2)])
    chosen = SGD(0.5, name="one")
    model.compile(tf.keras.optimizers.MultiOptimizer(lambda variable: chosen), "mse")
    with pytest.raises(TypeError, match="no optimizer with a `learning_rate`"):
        train(model, decay())
    model.build((None, 3))
    assert named_rates(model, decay()) == {"learning_rate_one": RATES}


@needs_tensorflow
@pytest.mark.parametrize("names", ["aaa", ["a_2", "a", "a"], ["a_1", "a", "a"]])
def test_three_optimizers_are_never_merged(names):
    several = Several([SGD(0.5, name=name) for name in names])
    several.each = lambda: several.optimizers[:2]  # a model has two weights
    _, messages = warned(named_rates, build_model(several, run_eagerly=True), decay())
    assert len(messages) == 1 and "has taken no steps so far" in messages[0]
    assert {
        float(np.asarray(tf.keras.backend.get_value(one.learning_rate)))
        for one in several.optimizers
    } == {RATES[4]}


# Without a rate


@needs_keras_2
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_an_optimizer_of_tensorflow_1(make):
    model = build_model(tf.compat.v1.train.AdamOptimizer(0.5))
    with pytest.raises(TypeError, match="no optimizer with a `learning_rate` that"):
        train(model, make())
