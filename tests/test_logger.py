"""The logger logs the rate of any optimizer, and says where a schedule is not right."""

import re

import models
import numpy as np
import pytest
import releases
import tensorflow as tf
from models import RATES, RULE, X, build_model, decay, planned, scheduled, train, warned
from oracle import float32_rates

from expdecay_keras import LearningRateLogger, WarmupExponentialSchedule

callbacks, optimizers = tf.keras.callbacks, tf.keras.optimizers
BOTH_OPTIMIZERS = pytest.mark.parametrize(
    "optimizer",
    [lambda rate: optimizers.SGD(rate, momentum=0.9), optimizers.Adam],
    ids=["momentum", "adam"],
)
COUNT = "variables[0]" if releases.IS_KERAS_3 else "iterations"


def train_at(rates, model):
    """Sets each rate by hand, for one step."""
    for rate in rates:
        model.optimizer.learning_rate = float(rate)
        model.train_on_batch(X[:16], models.Y[:16])


# What it logs


def test_the_rate_that_the_epoch_was_trained_with():
    # keras#20069: under a schedule the rate read back is constant.
    schedule = WarmupExponentialSchedule(
        0.1, 1e-4, 6, 2, 0.01, 1, steps_per_epoch=4, staircase=False
    )
    model, by_hand = build_model(optimizers.SGD(schedule)), build_model()
    logged = train(model, LearningRateLogger(), epochs=6)
    assert logged == float32_rates(schedule.rule, range(6))
    train_at(schedule.rule.learning_rate(np.arange(24) / 4), by_hand)
    models.assert_equal_arrays(model.get_weights(), by_hand.get_weights())


@releases.needs_multi_optimizer
def test_one_logger_of_several_optimizers_and_then_of_one():
    pair = optimizers.SGD(0.5, name="a"), optimizers.SGD(planned(), name="b")
    logger = LearningRateLogger()
    rates = {"learning_rate_a": [0.5] * 5, "learning_rate_b": RATES}
    assert models.train_all(models.multiple(*pair), logger) == rates
    other = build_model(optimizers.SGD(0.25))
    assert models.train_all(other, logger, epochs=1) == {"learning_rate": [0.25]}


@releases.needs_legacy_optimizers
def test_legacy_optimizers():
    schedule = optimizers.schedules.ExponentialDecay(0.5, 4, 0.5, staircase=True)
    model = build_model(optimizers.legacy.SGD(schedule))
    assert train(model, LearningRateLogger(), epochs=3) == [0.5, 0.25, 0.125]
    model = build_model(optimizers.legacy.SGD(0.5, decay=0.25))
    third = float(np.float32(0.5) / np.float32(3))  # 0.5 / (1 + 0.25 * step)
    assert train(model, LearningRateLogger(), epochs=3) == [0.5, 0.25, third]


@releases.needs_keras_2
def test_keras_2_logs_a_schedule_before_its_first_step():
    # keras#19492: Keras 2 has no current rate before the first step.
    model = build_model()
    model.optimizer.learning_rate = planned()
    assert train(model, LearningRateLogger()) == RATES


# Where the schedule is when training starts


def begin(model, epoch):
    """Calls the hooks of an epoch at which `fit` starts; returns the rate logged."""
    return models.begin(LearningRateLogger(), model, epoch)["learning_rate"]


def position(epoch, count, cure, name="", n_steps=20, steps_per_epoch=4):
    return (
        f"LearningRateLogger: `fit` starts at epoch index {epoch}, but the schedule"
        f"{name} is at step {count} of {n_steps} (n_epochs={n_steps // steps_per_epoch}"
        f", steps_per_epoch={steps_per_epoch}). {cure}"
    )


def state_cure(start):
    return (
        "Load the optimizer's state: with the model (load_model or a checkpoint), or "
        "with the weights (build the optimizer before load_weights). Without that "
        "state, use WarmupExponentialDecay. (With SGD, you can also set the step "
        f"count, optimizer.{COUNT}.assign({start}). Adam corrects its bias by this "
        "count, and its first steps would be several times too large.)"
    )


def count_cure(start):
    return (
        "Set the step count to the start of an epoch: "
        f"optimizer.{COUNT}.assign({start})."
    )


SPENT = (
    "Past its last step, the rate stays at target_lr. To train again, compile the "
    "model with a fresh optimizer; to train on, give the optimizer a schedule of more "
    "epochs and compile the model again."
)


@pytest.mark.parametrize(
    "count, epoch, cure",
    [
        pytest.param(16, 0, None, id="carries on with the last epoch"),
        pytest.param(20, 7, None, id="past the end, as planned"),
        pytest.param(28, 5, None, id="past the end, as planned, further"),
        pytest.param(0, 2, state_cure(8), id="a fresh optimizer"),
        pytest.param(11, 2, count_cure(8), id="inside the epoch"),
        pytest.param(12, 2, count_cure(8), id="an epoch ahead"),
        pytest.param(20, 2, count_cure(8), id="spent, but not planned so"),
        pytest.param(19, 5, count_cure(20), id="a step behind the end"),
        pytest.param(3, 0, count_cure(0), id="carries on inside an epoch"),
        pytest.param(11, 0, count_cure(8), id="carries on inside another epoch"),
        pytest.param(20, 0, SPENT, id="spent"),
    ],
)
def test_warns_of_a_schedule_at_the_wrong_step(count, epoch, cure):
    # tensorflow#49208, keras#16252, keras#4446, simpletransformers#72.
    model = scheduled()
    models.step_count(model.optimizer).assign(count)
    rate, messages = warned(begin, model, epoch)
    assert [rate] == float32_rates(RULE, [count // 4])
    assert messages == ([] if cure is None else [position(epoch, count, cure)])
    found = re.search(r"optimizer\.(\S+)\.assign\((\d+)\)", cure or "")
    if found:  # followed, it ends the warnings
        exec(found[0], {"optimizer": model.optimizer})
        start = epoch if epoch else int(found[2]) // 4
        assert [begin(model, epoch)] == float32_rates(RULE, [start])


def test_of_a_schedule_in_steps_only_the_end_is_checked():
    # k-diffusion#50: warm-up shorter than an epoch, given in steps.
    schedule = WarmupExponentialSchedule(0.1, 1e-3, 21, 5, 0.02, steps_per_epoch=1)
    model, logger = build_model(optimizers.SGD(schedule)), LearningRateLogger()
    rates = [*train(model, logger, epochs=2), *train(model, logger, initial_epoch=2)]
    assert rates == float32_rates(schedule.rule, range(0, 20, 4))
    for count, epoch in [(0, 2), (3, 0)]:
        models.step_count(model.optimizer).assign(count)
        assert [begin(model, epoch)] == float32_rates(schedule.rule, [count])
    models.step_count(model.optimizer).assign(21)
    for epoch in (0, 2):
        _, messages = warned(begin, model, epoch)
        assert messages == [position(epoch, 21, SPENT, "", 21, 1)]


@releases.needs_multi_optimizer
def test_each_of_several_optimizers_is_named_and_told_of_once():
    pair = optimizers.SGD(planned(), name="a"), optimizers.SGD(planned(2), name="b")
    logger, options = LearningRateLogger(), {"epochs": 3, "initial_epoch": 1}
    _, messages = warned(models.train_all, models.multiple(*pair), logger, **options)
    a, b = (f" logged as `learning_rate_{name}`" for name in "ab")
    assert sorted(messages) == [
        position(1, 0, state_cure(4), a),
        position(1, 0, state_cure(2), b, 10, 2),
        drift(4, 2, name=b),
    ]


# Its cures, on weights (see also test_saving and test_extending)


@BOTH_OPTIMIZERS
def test_cures_of_a_fresh_optimizer(optimizer):
    """The callback trains as a loop does; a schedule with its count set, with SGD."""
    # keras#22010 asks how to resume an exponential decay.
    own, by_hand = (build_model(optimizer(0.5)) for _ in range(2))
    assert train(own, decay(), initial_epoch=2) == RATES[2:]
    train_at(np.repeat(RATES[2:], 4), by_hand)
    models.assert_equal_arrays(own.get_weights(), by_hand.get_weights())
    model = scheduled(optimizer=optimizer)
    models.step_count(model.optimizer).assign(8)
    assert train(model, LearningRateLogger(), initial_epoch=2) == RATES[2:]
    is_same = np.array_equal(model.get_weights()[0], own.get_weights()[0])
    assert is_same == (optimizer is not optimizers.Adam)


@BOTH_OPTIMIZERS
def test_a_count_set_after_a_stop_inside_an_epoch(optimizer):
    """The run equals the callback's, whose optimizer has the same state and count."""
    model, own = scheduled(optimizer=optimizer), build_model(optimizer(0.5))
    for one, callback in [(model, LearningRateLogger()), (own, decay())]:
        with pytest.raises(KeyboardInterrupt):
            train(one, callback, models.Interrupt(at=11))
    _, messages = warned(begin, model, 2)
    assert messages == [position(2, 11, count_cure(8))]
    for one in (model, own):
        models.step_count(one.optimizer).assign(8)
    rates = train(model, LearningRateLogger(), initial_epoch=2)
    assert rates == train(own, decay(), initial_epoch=2) == RATES[2:]
    models.assert_equal_arrays(model.get_weights(), own.get_weights())


@BOTH_OPTIMIZERS
def test_a_cure_of_a_spent_schedule(optimizer):
    model, fresh = (scheduled(optimizer=optimizer) for _ in range(2))
    train(model, LearningRateLogger())
    fresh.set_weights(model.get_weights())
    model.compile(optimizer(planned()), "mse")
    for one in (model, fresh):
        assert train(one, LearningRateLogger()) == RATES
    models.assert_equal_arrays(model.get_weights(), fresh.get_weights())


# A schedule that drifts

UNKNOWN = (
    " If the length of the dataset is unknown, Keras counts one step too many: set the "
    "length with tf.data.experimental.assert_cardinality instead, or use "
    "WarmupExponentialDecay."
)


def drift(n_steps, steps_per_epoch, cure="", name=""):
    return (
        f"LearningRateLogger: the model's optimizer{name} took {n_steps} steps in an "
        f"epoch, but its schedule has steps_per_epoch={steps_per_epoch}, so the rates "
        f"drift away from the epochs. Set steps_per_epoch={n_steps}.{cure}"
    )


@pytest.mark.parametrize("steps, cure", [(2, ""), (3, UNKNOWN), (5, "")])
def test_a_wrong_steps_per_epoch(steps, cure):
    rates, messages = warned(train, scheduled(steps), LearningRateLogger())
    assert messages == [drift(4, steps, cure)]
    assert rates == float32_rates(RULE, [4 * epoch // steps for epoch in range(5)])


def test_of_a_model_that_is_not_compiled():
    """In a loop of one's own, the model has no `stop_training`."""
    model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.optimizer, logger = optimizers.SGD(planned(2)), LearningRateLogger()
    model.optimizer.build(model.trainable_variables)
    logger.set_model(model)
    logger.on_train_begin()
    logger.on_epoch_begin(0)
    models.step_count(model.optimizer).assign(3)
    logger.on_epoch_end(0)
    _, messages = warned(logger.on_train_end)
    assert messages == [drift(3, 2, UNKNOWN)]


@releases.needs_tensorflow
def test_several_updates_per_batch():
    # SkyRL#872: the advice to count batches could be followed for ever.
    for steps, expected in [(4, [drift(12, 4)]), (12, [])]:
        model = models.trained_by_hand(optimizers.SGD(planned(steps)), n_steps=3)
        rates, messages = warned(train, model, LearningRateLogger())
        assert messages == expected
    assert rates == RATES


@releases.needs_accumulation
def test_accumulation_counts_batches():
    # diffusers#2632: a schedule built for updates instead of batches.
    model = scheduled(gradient_accumulation_steps=8)  # more than an epoch has
    _, messages = warned(begin, model, 2)
    assert messages == [position(2, 0, state_cure(8))]
    assert train(model, LearningRateLogger(), epochs=2) == RATES[:2]
    assert begin(model, 2) == RATES[2]
    models.step_count(model.optimizer).assign(12)
    assert begin(model, 3) == RATES[3]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_dataset_of_unknown_length():
    """On TensorFlow, Keras 3 counts an extra step per epoch, Keras 2 one per `fit`."""
    unknown, logger = models.unknown_length(), LearningRateLogger()
    rates, messages = warned(models.train_on, unknown, scheduled(), logger)
    if releases.BACKEND == "tensorflow":
        assert messages == [drift(5, 4, UNKNOWN)]
    else:
        assert messages == [] and rates == RATES
    known = unknown.apply(tf.data.experimental.assert_cardinality(4))
    assert models.train_on(known, scheduled(), logger) == RATES
    assert models.train_on(unknown, build_model(), decay()) == RATES


# No false alarm: a warning that is not expected fails a test


def test_steps_per_epoch_are_the_batches_trained_on():
    """A quarter of 64 rows is kept for validation; the last batch is not full."""
    options = {"validation_split": 0.25, "batch_size": 20}
    assert train(scheduled(3), LearningRateLogger(), **options) == RATES


def test_an_epoch_cut_short_and_one_whose_beginning_was_not_seen():
    class Stop(LearningRateLogger):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    model, late = scheduled(), LearningRateLogger()
    assert train(model, Stop()) == RATES[:1]
    late.set_model(model)
    late.on_epoch_end(0, {})


def test_a_count_set_back_is_no_drift():
    # keras#13568: warm restarts set the count of steps back.
    rates = train(scheduled(), models.SetCount(2, 4), LearningRateLogger())
    assert rates == float32_rates(RULE, [0, 1, 2, 1, 2])


@releases.needs_keras_2
def test_keras_2_resumes_inside_an_epoch(tmp_path):
    def run(steps, *others, **options):
        backup = callbacks.BackupAndRestore(str(tmp_path / str(steps)), save_freq=2)
        model = scheduled(steps)
        return train(model, LearningRateLogger(), backup, *others, **options), model

    with pytest.raises(KeyboardInterrupt):
        run(4, models.Interrupt(at=11))
    rates, model = run(4)
    assert rates == RATES[2:] and int(model.optimizer.iterations.numpy()) == 20
    # A wrong `steps_per_epoch` is told nevertheless, once an epoch was whole, and so
    # is a fresh optimizer.
    _, messages = warned(run, 2)
    assert messages == [drift(4, 2)]
    _, messages = warned(run, 5, initial_epoch=2, epochs=3)
    assert messages == [position(2, 0, state_cure(10), "", 25, 5)]
