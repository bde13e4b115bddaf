"""The schedule agrees with rule and callback and trains; so does the function."""

import numpy as np
import pytest
import tensorflow as tf
from models import assert_equal_arrays, build_model, evaluate, planned, train
from oracle import REFERENCE_TABLE, float32_rates, random_rules
from releases import BACKEND, needs_tensorflow

from expdecay_keras import (
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)

# It agrees with the rule and the callback


@REFERENCE_TABLE
def test_reference_table(arguments, rates):
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=1)
    shown = evaluate(schedule, np.arange(5)).round(6)
    assert shown.tolist() == np.float32(rates).tolist()


def test_it_trains_as_the_callback_does():
    arguments = (0.1, 1e-3, 6, 2, 0.02, 1)
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=4)
    callback = WarmupExponentialDecay(*arguments)
    model, other = build_model(tf.keras.optimizers.SGD(schedule)), build_model()
    rates = train(model, LearningRateLogger(), epochs=6)
    assert rates == train(other, callback, epochs=6)
    assert rates == float32_rates(schedule.rule, range(6))
    assert_equal_arrays(model.get_weights(), other.get_weights())


def test_staircase_and_continuous_follow_the_rule():
    for rule, epochs in random_rules(20, seed=4):
        arguments = {**vars(rule), "steps_per_epoch": 7}
        continuous = WarmupExponentialSchedule(**arguments, staircase=False)
        staircase = WarmupExponentialSchedule(**arguments)
        for step_in_epoch in (0, 3, 6):
            steps = epochs * 7 + step_in_epoch
            rates = rule.learning_rate(steps / 7)
            np.testing.assert_array_equal(evaluate(continuous, steps), rates)
            rates = rule.learning_rate(epochs)
            np.testing.assert_array_equal(evaluate(staircase, steps), rates)


@needs_tensorflow
@pytest.mark.parametrize("n_epochs", [6, 2**17], ids=["table", "equation"])
def test_the_dtype_is_that_of_floatx_when_it_was_made(n_epochs, floatx):
    floatx("float64")
    schedule = planned(4, n_epochs)
    floatx("float32")
    for step in (5, tf.constant(5)):
        assert schedule(step).dtype == tf.float64
        assert float(schedule(step)) == schedule.rule.rates(1)


# The table


@pytest.mark.skipif(BACKEND == "tensorflow", reason="it evaluates any number of rates")
def test_at_most_2_to_the_23_rates():
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
    assert evaluate(planned(1, 2**23), 2**23 - 1) == np.float32(1e-4)
    with pytest.raises(ValueError, match="^A schedule can have at most 2"):
        planned(1, 2**23 + 1)


@needs_tensorflow
@pytest.mark.parametrize(
    "steps_per_epoch, n_epochs, expected",
    [
        (4, 2**16, {"FloorDiv", "GatherV2"}),
        (1, 2**16, {"GatherV2"}),  # no division where it is by one
        (4, 2**16 + 1, {"FloorDiv", "Exp"}),  # each trace would embed the table
    ],
)
def test_operations_in_a_graph_and_their_names(steps_per_epoch, n_epochs, expected):
    schedule = planned(steps_per_epoch, n_epochs, name="mine")
    graph = tf.function(schedule).get_concrete_function(tf.constant(5)).graph
    operations = graph.get_operations()
    types = {operation.type for operation in operations}
    assert types & {"FloorDiv", "GatherV2", "Exp"} == expected
    assert any(operation.name.startswith("mine/") for operation in operations)


# The function


@REFERENCE_TABLE
def test_reference_table_of_the_function(arguments, rates):
    f, rate, found = make_lr_scheduler(*arguments), 0.5, []
    for epoch in range(5):
        rate = f(epoch, rate)
        found.append(round(rate, 6))
    assert found == rates


@pytest.mark.parametrize("lr", [np.float32(0.5), np.array(0.5), 1])
def test_returns_a_python_float(lr):
    # tensorflow#28631: LearningRateScheduler refuses a function that returns a tensor.
    f = make_lr_scheduler(1, 0.5, 3, 1)
    assert type(f(0, lr)) is type(f(2, lr)) is float
    assert f(0, lr) == f(1, lr) == 1
    assert f(2, lr) == pytest.approx(float(lr) / 2)


def test_learning_rate_scheduler_with_reduce_lr_on_plateau():
    # keras PR 8829: what ReduceLROnPlateau did was undone.
    model, f = build_model(), make_lr_scheduler(0.8, 0.1, 4)
    scheduler = tf.keras.callbacks.LearningRateScheduler(f)
    reduce = tf.keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.1, patience=1, min_delta=1e9
    )
    rates = train(model, scheduler, reduce, LearningRateLogger(), epochs=4)
    # Reduced tenfold after epochs 1 and 2, on top of the decay from 0.8 to 0.1.
    np.testing.assert_allclose(rates, [0.8, 0.4, 0.02, 0.001], rtol=1e-6)
