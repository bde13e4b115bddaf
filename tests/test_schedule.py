"""The schedule agrees with rule and callback and trains; so does the function."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf
from models import (
    RATES,
    X,
    Y,
    assert_equal_arrays,
    build_model,
    evaluate,
    planned,
    scheduled,
    train,
)
from oracle import REFERENCE_TABLE, float32_rates, random_rules
from releases import BACKEND, needs_tensorflow

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)

# Callback, schedules and rule agree


def assert_all_agree(rule):
    arguments = dataclasses.astuple(rule)
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=4)
    options = {"epochs": rule.n_epochs}
    model = build_model()
    by_callback = train(model, WarmupExponentialDecay(*arguments), **options)
    of_schedule = build_model(tf.keras.optimizers.SGD(schedule))
    by_schedule = train(of_schedule, LearningRateLogger(), **options)
    assert_equal_arrays(of_schedule.get_weights(), model.get_weights())
    first_steps = np.arange(rule.n_epochs) * 4
    for steps in (first_steps, first_steps + 3):
        assert by_callback == evaluate(schedule, steps).tolist()
        if BACKEND == "tensorflow":
            compiled = tf.function(schedule, jit_compile=True)(tf.constant(steps))
            assert by_callback == compiled.numpy().tolist()
    assert by_callback == by_schedule == float32_rates(rule, range(rule.n_epochs))


@REFERENCE_TABLE
def test_all_agree_on_the_reference_table(arguments, rates):
    assert_all_agree(DecayRule(*arguments))
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=1)
    shown = evaluate(schedule, np.arange(5)).round(6)
    assert shown.tolist() == np.float32(rates).tolist()


@pytest.mark.parametrize("seed", range(3))
def test_all_agree_on_random_rules(seed):
    rng = np.random.default_rng(seed)
    base_lr, target_lr, start_lr = (10 ** rng.uniform(-8, -1, 3)).tolist()
    n_warmup_epochs, n_hold_epochs = rng.integers(1, 5), rng.integers(0, 3)
    n_epochs = n_warmup_epochs + n_hold_epochs + rng.integers(2, 8)
    rule = DecayRule(
        base_lr, target_lr, n_epochs, n_warmup_epochs, start_lr, n_hold_epochs
    )
    assert_all_agree(rule)


@needs_tensorflow
def test_an_epoch_is_a_number_of_steps():
    # tensorflow#52529 asks whether decay_steps are epochs or steps.
    ours = planned(100, n_epochs=31, staircase=False)
    keras = tf.keras.optimizers.schedules.ExponentialDecay(
        tf.constant(0.1, tf.float64), decay_steps=30 * 100, decay_rate=1e-4 / 0.1
    )
    steps = np.arange(0, 3001, 7)
    expected = [float(keras(tf.constant(step, tf.float64))) for step in steps]
    np.testing.assert_allclose(ours(steps).numpy(), expected, rtol=2e-7)


def test_continuous_is_the_curve_through_the_staircase():
    for rule, epochs in random_rules(20, seed=4):
        arguments = {**vars(rule), "steps_per_epoch": 7}
        continuous = WarmupExponentialSchedule(**arguments, staircase=False)
        staircase = WarmupExponentialSchedule(**arguments)
        first_steps = epochs * 7
        at_first = evaluate(continuous, first_steps)
        np.testing.assert_array_equal(at_first, evaluate(staircase, first_steps))
        within = evaluate(continuous, first_steps + 3)
        np.testing.assert_array_equal(within, rule.learning_rate(epochs + 3 / 7))
        np.testing.assert_array_equal(
            evaluate(staircase, first_steps + 6), rule.learning_rate(epochs)
        )


@needs_tensorflow
@pytest.mark.parametrize("n_epochs", [6, 2**17], ids=["table", "equation"])
def test_the_dtype_is_that_of_floatx_when_it_was_made(n_epochs, floatx):
    floatx("float64")
    schedule = planned(4, n_epochs)
    floatx("float32")
    for step in (5, tf.constant(5)):
        assert schedule(step).dtype == tf.float64
        assert float(schedule(step)) == schedule.rule.rates(1)


@needs_tensorflow
def test_the_name_is_that_of_its_operations():
    function = tf.function(planned(name="mine")).get_concrete_function(tf.constant(5))
    names = [op.name for op in function.graph.get_operations()]
    assert any(name.startswith("mine/") for name in names)


# The table


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it evaluates any number of rates")
def test_more_rates_than_a_table_may_have():
    # tensorflow/models PR 6739: ImageNet's 300 epochs of 5005 steps.
    options = {"steps_per_epoch": 5005, "staircase": False}
    imagenet = WarmupExponentialSchedule(0.1, 1e-4, 300, 5, 0.0, **options)
    steps = np.array([0, 5, 5004, 5005 * 5, 5005 * 150 + 7, 5005 * 299])
    expected = float32_rates(imagenet.rule, steps / 5005)
    assert evaluate(imagenet, steps).tolist() == expected
    with pytest.raises(ValueError) as raised:
        WarmupExponentialSchedule(0.1, 1e-4, 1677, **options)
    assert str(raised.value) == (
        f"A schedule can have at most 2**23 rates on the {BACKEND} backend: one per "
        "epoch with staircase=True, otherwise one per step. Received: n_epochs=1677, "
        "steps_per_epoch=5005, staircase=False"
    )
    largest = WarmupExponentialSchedule(0.1, 1e-4, 2**23, steps_per_epoch=1)
    assert evaluate(largest, 2**23 - 1) == np.float32(1e-4)
    with pytest.raises(ValueError, match="^A schedule can have at most 2"):
        WarmupExponentialSchedule(0.1, 1e-4, 2**23 + 1, steps_per_epoch=1)


@needs_tensorflow
@pytest.mark.parametrize("n_rates, ops", [(2**16, {"GatherV2"}), (2**16 + 1, set())])
def test_how_a_rate_reaches_a_graph(n_rates, ops):
    """A table would be embedded in each trace, so there is none of many rates."""
    schedule = planned(4, n_rates)
    graph = tf.function(schedule).get_concrete_function(tf.constant(5)).graph
    types = {op.type for op in graph.get_operations()}
    assert types & {"GatherV2", "Exp"} == (ops or {"Exp"})


@needs_tensorflow
def test_no_division_where_it_is_by_one():
    for schedule, divides in [(planned(1), False), (planned(4), True)]:
        function = tf.function(schedule).get_concrete_function(tf.constant(5))
        types = {op.type for op in function.graph.get_operations()}
        assert ("FloorDiv" in types) == divides


# Training with it


@needs_tensorflow
def test_gradient_tape_loop():
    model, expected = scheduled(), scheduled()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)

    @tf.function(autograph=False)  # zip(strict=True) fails in TensorFlow 2.12
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        weights = model.trainable_variables
        gradients = tape.gradient(loss, weights)
        optimizer.apply_gradients(zip(gradients, weights, strict=True))

    for _ in range(3):
        for start in range(0, 64, 16):
            train_step(X[start : start + 16], Y[start : start + 16])
    train(expected, LearningRateLogger(), epochs=3)
    assert int(optimizer.iterations.numpy()) == 12
    for weight, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-5)


def test_jit_compiled_model():
    model = scheduled()
    model.compile(model.optimizer, "mse", jit_compile=True)
    assert train(model, LearningRateLogger()) == RATES


# The function


@REFERENCE_TABLE
def test_reference_table_in_learning_rate_scheduler(arguments, rates, fit):
    # tensorflow#28631: LearningRateScheduler refuses a function that returns a tensor.
    scheduler = tf.keras.callbacks.LearningRateScheduler(make_lr_scheduler(*arguments))
    history = fit(build_model(), [scheduler], epochs=5)
    logged = history.get("learning_rate", history.get("lr"))  # Keras 2 logs `lr`
    assert [round(float(rate), 6) for rate in logged] == rates


@pytest.mark.parametrize(
    "lr", [0.5, np.float32(0.5), np.array(0.5), 1], ids=["float", "numpy", "0d", "int"]
)
@pytest.mark.parametrize("base_lr", [1.0, 1, np.float32(1)])
def test_returns_a_python_float(base_lr, lr):
    f = make_lr_scheduler(base_lr, 0.5, 3, 1)
    assert type(f(0, lr)) is type(f(2, lr)) is float
    assert f(0, lr) == f(1, lr) == 1
    assert f(2, lr) == pytest.approx(float(lr) / 2)


def test_composes_with_reduce_lr_on_plateau(fit):
    # keras PR 8829: what ReduceLROnPlateau did was undone.
    model = build_model()
    scheduler = tf.keras.callbacks.LearningRateScheduler(make_lr_scheduler(0.8, 0.1, 4))
    reduce = tf.keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.1, patience=1, min_delta=1e9
    )
    history = fit(model, [scheduler, reduce], epochs=4)
    # Reduced tenfold after epochs 1, 2 and 3, on top of the decay from 0.8 to 0.1.
    rate = model.optimizer.learning_rate.numpy()
    np.testing.assert_allclose(rate, 0.1 * 0.001, rtol=1e-6)
    assert len(history["loss"]) == 4
