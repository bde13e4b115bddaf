import copy
import dataclasses
import json
import pickle

import numpy as np
import pytest
import tensorflow as tf
from models import assert_equal_arrays, build_model, evaluate
from oracle import REFERENCE_TABLE, float32_rates, random_rules
from releases import BACKEND, needs_tensorflow

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)

STEPS_PER_EPOCH = 4  # the fixture's 16 rows in batches of 4
RULE = {
    "base_lr": 0.1,
    "target_lr": 1e-4,
    "n_epochs": 6,
    "n_warmup_epochs": 2,
    "warmup_start_lr": 0.01,
    "n_hold_epochs": 1,
}
CONFIG = {**RULE, "steps_per_epoch": 4, "staircase": False, "name": "planned"}
BOTH = pytest.mark.parametrize(
    "staircase", [True, False], ids=["staircase", "continuous"]
)


def build_scheduled(staircase=True, optimizer=tf.keras.optimizers.Adam):
    schedule = WarmupExponentialSchedule(
        **RULE, steps_per_epoch=STEPS_PER_EPOCH, staircase=staircase
    )
    return build_model(optimizer(schedule))


# Callback, schedules and rule agree


def assert_all_agree(rule, fit):
    arguments = dataclasses.astuple(rule)
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=STEPS_PER_EPOCH)
    options = {"epochs": rule.n_epochs, "batch_size": 4}
    model = build_model(tf.keras.optimizers.SGD())
    by_callback = fit(model, [WarmupExponentialDecay(*arguments)], **options)[
        "learning_rate"
    ]
    scheduled = build_model(tf.keras.optimizers.SGD(schedule))
    by_schedule = fit(scheduled, [LearningRateLogger()], **options)["learning_rate"]
    assert_equal_arrays(scheduled.get_weights(), model.get_weights())
    first_steps = np.arange(rule.n_epochs) * STEPS_PER_EPOCH
    for steps in (first_steps, first_steps + STEPS_PER_EPOCH - 1):
        assert by_callback == evaluate(schedule, steps).tolist()
        if BACKEND == "tensorflow":
            compiled = tf.function(schedule, jit_compile=True)(tf.constant(steps))
            assert by_callback == compiled.numpy().tolist()
    assert by_callback == by_schedule == float32_rates(rule, range(rule.n_epochs))
    # keras#2823, tensorflow#39782: users found a Variable, or a constant, instead.
    assert {type(rate) for rate in by_callback} == {float}


@REFERENCE_TABLE
def test_all_agree_on_the_reference_table(arguments, rates, fit):
    assert_all_agree(DecayRule(*arguments), fit)
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=1)
    assert (
        evaluate(schedule, np.arange(5)).round(6).tolist() == np.float32(rates).tolist()
    )


@pytest.mark.parametrize("seed", range(3))
def test_all_agree_on_random_rules(seed, fit):
    rng = np.random.default_rng(seed)
    base_lr, target_lr, start_lr = (
        float(rate) for rate in 10 ** rng.uniform(-8, -1, 3)
    )
    n_warmup_epochs = int(rng.integers(1, 5))
    n_hold_epochs = int(rng.integers(0, 3))
    n_epochs = n_warmup_epochs + n_hold_epochs + int(rng.integers(2, 8))
    rule = DecayRule(
        base_lr, target_lr, n_epochs, n_warmup_epochs, start_lr, n_hold_epochs
    )
    assert_all_agree(rule, fit)


@needs_tensorflow
def test_an_epoch_is_a_number_of_steps():
    # tensorflow#52529 asks whether decay_steps are epochs or steps.
    ours = WarmupExponentialSchedule(
        0.1, 1e-4, 31, steps_per_epoch=100, staircase=False
    )
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


STEPS = [
    pytest.param(17, id="int"),
    pytest.param(17.0, id="float"),
    pytest.param(np.float32(17), id="numpy"),
    pytest.param(tf.constant(17, tf.int32), id="int32"),
    pytest.param(tf.constant(17, tf.int64), id="int64"),
    pytest.param(tf.constant(17, tf.float32), id="float32"),
    pytest.param(tf.constant(17, tf.float64), id="float64"),
    pytest.param(
        tf.Variable(17, dtype=tf.int64), id="variable", marks=needs_tensorflow
    ),
    pytest.param([[17, 17], [17, 17]], id="list"),
]


@pytest.mark.parametrize("step", STEPS)
@BOTH
def test_step_of_any_type(step, staircase):
    # tensorflow#60649: an int64 step could not be multiplied with a float.
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=4, staircase=staircase)
    rate = evaluate(schedule, step)
    expected = DecayRule(**RULE).learning_rate(4 if staircase else 4.25).numpy()
    assert rate.dtype == np.float32
    np.testing.assert_array_equal(rate, np.full(np.shape(step), expected))


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
        "Argument `n_epochs * steps_per_epoch` must be at most 2**23 on the "
        f"{BACKEND} backend. Received: n_epochs=1677, steps_per_epoch=5005, "
        "staircase=False"
    )
    with pytest.raises(ValueError, match="^Argument `n_epochs` must be at most 2"):
        WarmupExponentialSchedule(0.1, 1e-4, 2**23 + 1, steps_per_epoch=1)


@pytest.mark.parametrize("steps_per_epoch", [3, 2**31 - 1])
def test_int32_steps(steps_per_epoch):
    schedule = WarmupExponentialSchedule(0.1, 1e-4, 4, steps_per_epoch=steps_per_epoch)
    steps = np.array([-(2**31), -1, 0, 2, 3, 5, 6, 2**31 - 2, 2**31 - 1])
    rates = evaluate(schedule, steps.astype("int32"))
    assert rates.tolist() == float32_rates(schedule.rule, steps // steps_per_epoch)


@needs_tensorflow
@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@BOTH
def test_steps_beyond_int32(jit_compile, staircase):
    """More rates than are looked up, and steps that a float32 would round."""
    n_epochs, steps_per_epoch = 2**17, 2**30 + 11
    schedule = WarmupExponentialSchedule(
        0.1,
        1e-4,
        n_epochs,
        steps_per_epoch=steps_per_epoch,
        staircase=staircase,
    )
    epochs = np.array([0, 1, 499, 2**16, n_epochs - 2, n_epochs - 1, n_epochs])
    first_steps = epochs * steps_per_epoch
    steps = np.concatenate([first_steps, first_steps[1:] - 1])
    rates = tf.function(schedule, jit_compile=jit_compile)(tf.constant(steps)).numpy()
    epochs = steps // steps_per_epoch if staircase else steps / steps_per_epoch
    assert rates.tolist() == float32_rates(schedule.rule, epochs)
    first_step = float(steps_per_epoch)  # a Python float, which float32 would round
    assert schedule(first_step).numpy() == schedule.rule.learning_rate(1).numpy()
    far = np.float32(1e-4)
    assert schedule(1e30).numpy() == schedule(np.uint64(2**63)).numpy() == far


# Training with it


@BOTH
def test_logger_logs_the_rate_the_epoch_was_trained_with(staircase, data, fit):
    # keras#20069: under a schedule the rate read back is constant.
    model = build_scheduled(staircase, tf.keras.optimizers.SGD)
    logged = fit(model, [LearningRateLogger()], epochs=6, batch_size=4)["learning_rate"]
    rule, by_hand = DecayRule(**RULE), build_model(tf.keras.optimizers.SGD())
    assert logged == float32_rates(rule, range(6))
    assert [type(rate) for rate in logged] == [float] * 6
    for step in range(24):
        epoch = step // 4 if staircase else step / 4
        by_hand.optimizer.learning_rate = float(rule.learning_rate(epoch))
        batch = slice(step % 4 * 4, step % 4 * 4 + 4)
        by_hand.train_on_batch(data[0][batch], data[1][batch])
    assert_equal_arrays(model.get_weights(), by_hand.get_weights())


@needs_tensorflow
def test_gradient_tape_loop(data):
    model, expected = build_scheduled(), build_scheduled()
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
        for start in range(0, 16, 4):
            train_step(data[0][start : start + 4], data[1][start : start + 4])
    expected.fit(*data, batch_size=4, epochs=3, shuffle=False, verbose=0)
    assert int(optimizer.iterations.numpy()) == 12
    for weight, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-5)


def test_jit_compiled_model(fit):
    model = build_scheduled()
    model.compile(model.optimizer, "mse", jit_compile=True)
    rates = fit(model, [LearningRateLogger()], epochs=6, batch_size=4)["learning_rate"]
    assert rates == float32_rates(DecayRule(**RULE), range(6))


def test_mixed_precision(fit):
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build_scheduled()
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    optimizer = model.optimizer.inner_optimizer
    rule, counted = DecayRule(**RULE), []
    count = tf.keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: counted.append(
            int(optimizer.iterations.numpy())
        )
    )
    rates = fit(model, [count, LearningRateLogger()], epochs=6, batch_size=4)[
        "learning_rate"
    ]
    # Loss scaling skips an update now and then, and does not count it as a step.
    assert rates == float32_rates(rule, [steps // STEPS_PER_EPOCH for steps in counted])
    assert counted[0] == 0 and counted[-1] > 10


def test_counted_in_steps(fit):
    # k-diffusion#50: warm-up shorter than an epoch, given in steps.
    schedule = WarmupExponentialSchedule(0.1, 1e-3, 20, 5, 0.02, steps_per_epoch=1)
    model = build_model(tf.keras.optimizers.SGD(schedule))
    rates = fit(model, [LearningRateLogger()], epochs=5, batch_size=4)["learning_rate"]
    assert rates == float32_rates(schedule.rule, range(0, 20, 4))


@BOTH
def test_before_step_0_the_rate_is_that_of_step_0(staircase):
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=3, staircase=staircase)
    assert set(evaluate(schedule, np.array([-100, -4, -1, 0]))) == {np.float32(0.01)}
    if BACKEND == "tensorflow":
        for jit_compile in (False, True):
            function = tf.function(schedule, jit_compile=jit_compile)
            rates = function(tf.constant([-(2**40), -4, -1, 0], tf.int64)).numpy()
            assert set(rates) == {np.float32(0.01)}


# Configs and copies


def test_config_contains_the_constructors_arguments():
    # tensorflow/addons PR 1623: a schedule's config lacked an argument.
    config = WarmupExponentialSchedule(**CONFIG).get_config()
    assert list(config.items()) == list(CONFIG.items())
    numpy = WarmupExponentialSchedule(
        np.float32(0.5), 1, np.int32(9), steps_per_epoch=np.int64(5)
    )
    types = [type(value) for value in numpy.get_config().values()]
    assert types == [float, float, int, int, type(None), int, int, bool, str]


@pytest.mark.parametrize("name", ["rule", "steps_per_epoch", "staircase"])
def test_attributes_are_read_only(name):
    schedule = WarmupExponentialSchedule(**CONFIG)
    with pytest.raises(AttributeError):
        setattr(schedule, name, getattr(schedule, name))
    assert schedule.get_config() == CONFIG


def test_repr_can_be_pasted():
    schedule = WarmupExponentialSchedule(**CONFIG)
    pasted = eval(repr(schedule))
    assert type(pasted) is WarmupExponentialSchedule and pasted.get_config() == CONFIG
    assert repr(pasted) == repr(schedule)


SCHEDULE_JSON = """{"module": "expdecay_keras.schedule",
    "class_name": "WarmupExponentialSchedule",
    "config": {"base_lr": 0.1, "target_lr": 0.0001, "n_epochs": 6,
               "n_warmup_epochs": 2, "warmup_start_lr": 0.01, "n_hold_epochs": 1,
               "steps_per_epoch": 4, "staircase": false, "name": "planned"},
    "registered_name": "expdecay_keras>WarmupExponentialSchedule"}"""


def test_the_form_in_which_a_schedule_is_saved():
    """What every later version must be able to read."""
    literal = json.loads(SCHEDULE_JSON)
    if tf.__version__.startswith("2.12."):  # it writes and reads the older form
        name = literal["registered_name"]
        literal = {"class_name": name, "config": literal["config"]}
    schedules = tf.keras.optimizers.schedules
    serialized = schedules.serialize(WarmupExponentialSchedule(**CONFIG))
    serialized = json.loads(json.dumps(serialized))
    assert {key: serialized[key] for key in literal} == literal
    restored = schedules.deserialize(literal)
    assert type(restored) is WarmupExponentialSchedule
    assert restored.get_config() == CONFIG


class Noted(WarmupExponentialSchedule):
    """A user's subclass with an attribute of its own."""

    note = None


@pytest.mark.parametrize(
    "duplicate",
    [lambda schedule: pickle.loads(pickle.dumps(schedule)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_copies_are_equal_and_small(duplicate):
    schedule = Noted(**{**CONFIG, "n_epochs": 10_000})
    schedule.note = "mine"
    copied = duplicate(schedule)
    assert type(copied) is Noted and copied.note == "mine"
    assert copied.get_config() == schedule.get_config()
    steps = np.arange(0, 40_000, 7)
    np.testing.assert_array_equal(evaluate(copied, steps), evaluate(schedule, steps))
    assert len(pickle.dumps(schedule)) < 1000


# The function


@REFERENCE_TABLE
def test_reference_table_in_learning_rate_scheduler(arguments, rates, model, fit):
    # tensorflow#28631: LearningRateScheduler refuses a function that returns a tensor.
    function = make_lr_scheduler(*arguments)
    history = fit(model, [tf.keras.callbacks.LearningRateScheduler(function)], epochs=5)
    logged = history.get("learning_rate", history.get("lr"))  # Keras 2 logs `lr`
    assert [round(float(rate), 6) for rate in logged] == rates


@pytest.mark.parametrize(
    "lr", [0.5, np.float32(0.5), np.array(0.5)], ids=["float", "numpy", "0d"]
)
def test_returns_a_python_float(lr):
    schedule = make_lr_scheduler(0.5, 0.25, 3, 1)
    assert type(schedule(0, lr)) is float and schedule(0, lr) == 0.5
    assert type(schedule(2, lr)) is float and schedule(2, lr) == pytest.approx(0.25)


def test_composes_with_reduce_lr_on_plateau(model, fit):
    # keras PR 8829: what ReduceLROnPlateau did was undone.
    scheduler = tf.keras.callbacks.LearningRateScheduler(make_lr_scheduler(0.8, 0.1, 4))
    reduce = tf.keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.1, patience=1, min_delta=1e9
    )
    history = fit(model, [scheduler, reduce], epochs=4)
    # Reduced tenfold after epochs 1, 2 and 3, on top of the decay from 0.8 to 0.1.
    np.testing.assert_allclose(
        model.optimizer.learning_rate.numpy(), 0.1 * 0.001, rtol=1e-6
    )
    assert len(history["loss"]) == 4
