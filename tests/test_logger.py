"""The logger logs the rate of any optimizer, and says where a schedule is not right."""

import re

import numpy as np
import pytest
import tensorflow as tf
from models import (
    RATES,
    RULE,
    Interrupt,
    X,
    Y,
    assert_equal_arrays,
    build_model,
    decay,
    planned,
    scalars,
    scheduled,
    step_count,
    train,
    warned,
)
from oracle import float32_rates
from releases import (
    BACKEND,
    IS_KERAS_3,
    needs_accumulation,
    needs_legacy_optimizers,
    needs_multi_optimizer,
    needs_steps_per_execution,
    needs_tensorflow,
)

from expdecay_keras import DecayRule, LearningRateLogger, WarmupExponentialSchedule

callbacks, optimizers = tf.keras.callbacks, tf.keras.optimizers


def momentum(rate):
    return optimizers.SGD(rate, momentum=0.9)


BOTH_OPTIMIZERS = pytest.mark.parametrize(
    "optimizer", [momentum, optimizers.Adam], ids=["momentum", "adam"]
)

# What it logs


@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
def test_the_rate_that_the_epoch_was_trained_with(staircase):
    # keras#20069: under a schedule the rate read back is constant.
    schedule = WarmupExponentialSchedule(
        0.1, 1e-4, 6, 2, 0.01, 1, steps_per_epoch=4, staircase=staircase
    )
    model, by_hand = build_model(optimizers.SGD(schedule)), build_model()
    logged = train(model, LearningRateLogger(), epochs=6)
    assert logged == float32_rates(schedule.rule, range(6))
    assert {type(rate) for rate in logged} == {float}
    for step in range(24):
        epoch = step // 4 if staircase else step / 4
        by_hand.optimizer.learning_rate = float(schedule.rule.learning_rate(epoch))
        by_hand.train_on_batch(X[:16], Y[:16])
    assert_equal_arrays(model.get_weights(), by_hand.get_weights())


def test_beside_a_callback_that_sets_the_rate():
    scheduler = callbacks.LearningRateScheduler(lambda epoch, lr: 2.0**-epoch)
    assert train(build_model(), scheduler, LearningRateLogger(), epochs=3) == [
        1.0,
        0.5,
        0.25,
    ]


@needs_legacy_optimizers
def test_legacy_optimizers():
    schedule = optimizers.schedules.ExponentialDecay(0.5, 4, 0.5, staircase=True)
    model = build_model(optimizers.legacy.SGD(schedule))
    assert train(model, LearningRateLogger(), epochs=3) == [0.5, 0.25, 0.125]
    model = build_model(optimizers.legacy.SGD(0.5, decay=0.25))
    third = float(np.float32(0.5) / np.float32(3))  # 0.5 / (1 + 0.25 * step)
    assert train(model, LearningRateLogger(), epochs=3) == [0.5, 0.25, third]


def test_beside_tensorboard(tmp_path):
    tensorboard = callbacks.TensorBoard(str(tmp_path))
    assert train(scheduled(), LearningRateLogger(), tensorboard) == RATES
    # Keras's TensorBoard asks the schedule after the epoch: it gets the next rate.
    curve = scalars(tmp_path / "train", "epoch_learning_rate")
    assert curve == list(enumerate([*RATES[1:], RATES[4]]))


def test_counted_in_steps():
    # k-diffusion#50: warm-up shorter than an epoch, given in steps.
    schedule = WarmupExponentialSchedule(0.1, 1e-3, 21, 5, 0.02, steps_per_epoch=1)
    model, logger = build_model(optimizers.SGD(schedule)), LearningRateLogger()
    rates = [*train(model, logger, epochs=2), *train(model, logger, initial_epoch=2)]
    assert rates == float32_rates(schedule.rule, range(0, 20, 4))


def test_mixed_precision(mixed_float16):
    model = mixed_float16(scheduled)
    counted = []
    count = callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: counted.append(
            int(model.optimizer.inner_optimizer.iterations.numpy())
        )
    )
    rates = train(model, count, LearningRateLogger(), epochs=6)
    # Loss scaling skips an update now and then, and does not count it as a step.
    assert rates == float32_rates(RULE, [steps // 4 for steps in counted])
    assert counted[0] == 0 and counted[-1] > 10


def test_one_logger_of_two_models():
    """Nothing of the first model is left in the history of the second."""
    logger = LearningRateLogger()
    assert train(scheduled(), logger) == RATES
    other = build_model(momentum(0.25))
    assert train(other, logger, epochs=2) == [0.25, 0.25]
    assert train(scheduled(), logger) == RATES


@needs_multi_optimizer
def test_one_logger_of_several_optimizers_and_then_of_one():
    chosen = optimizers.OptimizerMap(
        optimizers.SGD(0.5, name="a"), {".*bias": optimizers.SGD(planned(), name="b")}
    )
    model, logger = build_model(optimizers.MultiOptimizer(chosen)), LearningRateLogger()
    history = model.fit(X, Y, 16, 5, verbose=0, callbacks=[logger]).history
    assert history["learning_rate_a"] == [0.5] * 5
    assert history["learning_rate_b"] == RATES
    other = build_model(optimizers.SGD(0.25))
    history = other.fit(X, Y, 16, 1, verbose=0, callbacks=[logger]).history
    rates = {name: history[name] for name in history if "rate" in name}
    assert rates == {"learning_rate": [0.25]}


def test_hooks_by_hand_without_the_beginning_of_an_epoch():
    logger = LearningRateLogger()
    logger.set_model(scheduled())
    logger.on_epoch_end(0, {})


# Where the schedule is when training starts


def state_cure(start):
    count = "variables[0]" if IS_KERAS_3 else "iterations"
    return (
        "Load the optimizer's state: with the model (load_model or a checkpoint), or "
        "with the weights (build the optimizer before load_weights). Without that "
        "state, use WarmupExponentialDecay. (With SGD, you can also set the step "
        f"count, optimizer.{count}.assign({start}). Adam corrects its bias by this "
        "count, and its first steps would be several times too large.)"
    )


def count_cure(start):
    count = "variables[0]" if IS_KERAS_3 else "iterations"
    return (
        "Set the step count to the start of an epoch: "
        f"optimizer.{count}.assign({start})."
    )


SPENT = (
    "Past its last step, the rate stays at target_lr. To train again, compile the "
    "model with a fresh optimizer; to train on, give the optimizer a schedule of more "
    "epochs and compile the model again."
)


@pytest.mark.parametrize(
    "count, epoch, cure",
    [
        pytest.param(0, 0, None, id="a new run"),
        pytest.param(8, 0, None, id="a run that carries on"),
        pytest.param(16, 0, None, id="carries on with the last epoch"),
        pytest.param(8, 2, None, id="resumed"),
        pytest.param(20, 5, None, id="past the end, as planned"),
        pytest.param(20, 7, None, id="past the end, as planned, with another count"),
        pytest.param(28, 5, None, id="past the end, as planned, further"),
        pytest.param(0, 2, state_cure(8), id="a fresh optimizer"),
        pytest.param(0, 7, state_cure(28), id="a fresh optimizer past the end"),
        pytest.param(4, 2, count_cure(8), id="an epoch behind"),
        pytest.param(7, 2, count_cure(8), id="a step behind"),
        pytest.param(11, 2, count_cure(8), id="inside the epoch"),
        pytest.param(12, 2, count_cure(8), id="an epoch ahead"),
        pytest.param(20, 2, count_cure(8), id="spent, but not planned so"),
        pytest.param(19, 5, count_cure(20), id="a step behind the end"),
        pytest.param(3, 0, count_cure(0), id="carries on inside an epoch"),
        pytest.param(11, 0, count_cure(8), id="carries on inside another epoch"),
        pytest.param(20, 0, SPENT, id="spent"),
        pytest.param(23, 0, SPENT, id="spent, inside an epoch"),
    ],
)
def test_where_the_schedule_is(count, epoch, cure):
    # tensorflow#49208, keras#16252, keras#4446, simpletransformers#72.
    model = scheduled()
    step_count(model.optimizer).assign(count)
    options = {"initial_epoch": epoch, "epochs": epoch + 1}
    _, messages = warned(train, model, LearningRateLogger(), **options)
    where = (
        f"LearningRateLogger: `fit` starts at epoch index {epoch}, but the schedule is "
        f"at step {count} of 20 (n_epochs=5, steps_per_epoch=4). "
    )
    assert messages == ([] if cure is None else [where + cure])
    found = re.search(r"optimizer\.(\S+)\.assign\((\d+)\)", cure or "")
    if found:  # followed, it ends the warnings
        exec(found[0], {"optimizer": model.optimizer})
        rates = train(model, LearningRateLogger(), **options)
        start = epoch if epoch else int(found[2]) // 4
        assert rates == float32_rates(RULE, [start])


@pytest.mark.parametrize(
    "count, epoch, is_told", [(0, 2, False), (3, 0, False), (5, 0, True), (5, 2, True)]
)
def test_of_a_schedule_in_steps_only_the_end_is_checked(count, epoch, is_told):
    model = scheduled(steps_per_epoch=1)
    step_count(model.optimizer).assign(count)
    options = {"initial_epoch": epoch, "epochs": epoch + 1}
    _, messages = warned(train, model, LearningRateLogger(), **options)
    assert [SPENT in message for message in messages] == [True] * is_told


@needs_accumulation
def test_a_fresh_optimizer_that_accumulates():
    options = {"gradient_accumulation_steps": 2}
    _, (message,) = warned(
        train, scheduled(**options), LearningRateLogger(), initial_epoch=2
    )
    assert message.endswith(state_cure(8))
    model = scheduled(**options)
    step_count(model.optimizer).assign(8)
    assert train(model, LearningRateLogger(), initial_epoch=2) == RATES[2:]


@needs_multi_optimizer
def test_each_of_several_optimizers_is_named_and_told_of_once():
    slow, quick = (
        optimizers.SGD(planned(4), name="slow"),
        optimizers.SGD(planned(2), name="quick"),
    )
    chosen = optimizers.OptimizerMap(slow, {".*bias": quick})
    model = build_model(optimizers.MultiOptimizer(chosen))
    options = {"epochs": 3, "initial_epoch": 1, "batch_size": 16, "verbose": 0}
    _, messages = warned(model.fit, X, Y, callbacks=[LearningRateLogger()], **options)
    starts = [message.partition(" (n_epochs")[0] for message in messages]
    assert sorted(starts) == [
        "LearningRateLogger: `fit` starts at epoch index 1, but the schedule logged as "
        "`learning_rate_quick` is at step 0 of 10",
        "LearningRateLogger: `fit` starts at epoch index 1, but the schedule logged as "
        "`learning_rate_slow` is at step 0 of 20",
        "LearningRateLogger: the model's optimizer logged as `learning_rate_quick` "
        "took 4 steps in an epoch, but its schedule has steps_per_epoch=2, so the "
        "rates drift away from the epochs. Set steps_per_epoch=4.",
    ]
    assert any(state_cure(2) in message for message in messages)
    assert any(state_cure(4) in message for message in messages)


def test_other_schedules_are_not_checked():
    class Own(optimizers.schedules.LearningRateSchedule):
        steps_per_epoch = 3
        rule = RULE

        def __call__(self, step):
            return 0.1

        def get_config(self):
            return {}

    model = build_model(optimizers.SGD(Own()))
    assert len(train(model, LearningRateLogger(), initial_epoch=2)) == 3


# Its cures, on weights. (That of the optimizer's state is tested in test_saving.)


@BOTH_OPTIMIZERS
def test_the_callback_in_place_of_a_fresh_optimizers_schedule(optimizer):
    """It trains as a loop that sets the rates by hand."""
    own, by_hand = build_model(optimizer(0.5)), build_model(optimizer(0.5))
    assert train(own, decay(), initial_epoch=2) == RATES[2:]
    for rate in RATES[2:]:
        by_hand.optimizer.learning_rate = rate
        for _ in range(4):
            by_hand.train_on_batch(X[:16], Y[:16])
    assert_equal_arrays(own.get_weights(), by_hand.get_weights())


def test_a_count_set_on_a_fresh_optimizer():
    """Right with SGD; Adam would take steps that are three times too large."""
    own, model = build_model(momentum(0.5)), scheduled(optimizer=momentum)
    step_count(model.optimizer).assign(8)
    train(own, decay(), initial_epoch=2)
    assert train(model, LearningRateLogger(), initial_epoch=2) == RATES[2:]
    assert_equal_arrays(model.get_weights(), own.get_weights())
    constant = WarmupExponentialSchedule(0.01, 0.01, 20_000, steps_per_epoch=1)
    for count, times in [(0, 1.0), (12_000, 0.1 / 0.001**0.5)]:
        model = build_model(optimizers.Adam(constant))
        before = model.get_weights()[0]
        step_count(model.optimizer).assign(count)
        train(model, LearningRateLogger(), epochs=1, batch_size=64)
        taken = np.abs(model.get_weights()[0] - before)
        np.testing.assert_allclose(taken, 0.01 * times, rtol=1e-3)


@BOTH_OPTIMIZERS
def test_a_count_set_after_a_stop_inside_an_epoch(optimizer):
    """The run equals the callback's, whose optimizer has the same state and count."""
    model, own = scheduled(optimizer=optimizer), build_model(optimizer(0.5))
    for one, callback in [(model, LearningRateLogger()), (own, decay())]:
        with pytest.raises(KeyboardInterrupt):
            train(one, callback, Interrupt(at=11))
    _, (message,) = warned(
        lambda: train(model, LearningRateLogger(), Interrupt(at=99), initial_epoch=2)
    )
    assert message.endswith(count_cure(8))
    other = scheduled(optimizer=optimizer)
    with pytest.raises(KeyboardInterrupt):
        train(other, LearningRateLogger(), Interrupt(at=11))
    for one in (other, own):
        step_count(one.optimizer).assign(8)
    rates = train(other, LearningRateLogger(), initial_epoch=2)
    assert rates == train(own, decay(), initial_epoch=2) == RATES[2:]
    assert_equal_arrays(other.get_weights(), own.get_weights())


@BOTH_OPTIMIZERS
def test_a_spent_schedule_and_a_fresh_optimizer(optimizer):
    model, fresh = scheduled(optimizer=optimizer), scheduled(optimizer=optimizer)
    train(model, LearningRateLogger())
    fresh.set_weights(model.get_weights())
    model.compile(optimizer(planned()), "mse")
    assert train(model, LearningRateLogger()) == RATES
    train(fresh, LearningRateLogger())
    assert_equal_arrays(model.get_weights(), fresh.get_weights())


@BOTH_OPTIMIZERS
def test_a_spent_schedule_and_one_of_more_epochs(optimizer):
    """It trains on as the callback of the new rule does."""
    rule = DecayRule(1e-4, 1e-6, 10, 5)
    longer = WarmupExponentialSchedule(1e-4, 1e-6, 10, 5, steps_per_epoch=4)
    model, own = scheduled(optimizer=optimizer), build_model(optimizer(0.5))
    train(model, LearningRateLogger())
    train(own, decay())
    model.optimizer.learning_rate = longer
    model.compile(model.optimizer, "mse")
    options = {"initial_epoch": 5, "epochs": 10}
    rates = train(model, LearningRateLogger(), **options)
    assert rates == float32_rates(rule, range(5, 10))
    own_callback = type(decay())(1e-4, 1e-6, 10, 5)
    assert train(own, own_callback, **options) == rates
    assert_equal_arrays(model.get_weights(), own.get_weights())


# A schedule that drifts


def drift(n_steps, steps_per_epoch, cure=""):
    return (
        f"LearningRateLogger: the model's optimizer took {n_steps} steps in an epoch, "
        f"but its schedule has steps_per_epoch={steps_per_epoch}, so the rates drift "
        f"away from the epochs. Set steps_per_epoch={n_steps}.{cure}"
    )


UNKNOWN = (
    " If the length of the dataset is unknown, Keras counts one step too many: set the "
    "length with tf.data.experimental.assert_cardinality instead, or use "
    "WarmupExponentialDecay."
)


@pytest.mark.parametrize("steps, cure", [(2, ""), (3, UNKNOWN), (5, "")])
def test_a_wrong_steps_per_epoch(steps, cure):
    rates, messages = warned(train, scheduled(steps), LearningRateLogger())
    assert messages == [drift(4, steps, cure)]
    assert rates == float32_rates(RULE, [4 * epoch // steps for epoch in range(5)])


def test_a_drift_is_told_in_each_fit():
    model, logger = scheduled(2), LearningRateLogger()
    for _ in range(2):
        _, messages = warned(train, model, logger, epochs=1)
        assert messages == [drift(4, 2)]


class Updates(tf.keras.Model):
    """Updates its weights several times per batch."""

    def __init__(self, n_updates):
        super().__init__()
        self.dense = tf.keras.layers.Dense(2)
        self.n_updates = n_updates

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        for _ in range(self.n_updates):
            with tf.GradientTape() as tape:
                loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
            weights = self.trainable_variables
            gradients = tape.gradient(loss, weights)
            self.optimizer.apply_gradients(list(zip(gradients, weights, strict=True)))
        return {"loss": loss}


@needs_tensorflow
def test_several_updates_per_batch():
    # SkyRL#872: the advice to count batches could be followed for ever.
    for steps, expected in [(4, [drift(12, 4)]), (12, [])]:
        model = Updates(3)
        model(X)
        model.compile(optimizers.SGD(planned(steps)), run_eagerly=True)
        rates, messages = warned(train, model, LearningRateLogger())
        assert messages == expected
    assert rates == RATES


@needs_accumulation
@pytest.mark.parametrize("accumulated", [2, 8], ids=["two", "more-than-an-epoch"])
def test_accumulation_counts_batches(accumulated):
    # diffusers#2632: a schedule built for updates instead of batches.
    options = {"gradient_accumulation_steps": accumulated}
    assert train(scheduled(4, **options), LearningRateLogger()) == RATES
    _, messages = warned(train, scheduled(2, **options), LearningRateLogger())
    assert messages == [drift(4, 2)]
    model = build_model(optimizers.SGD(0.1, **options))
    assert train(model, decay()) == RATES


def unknown_length():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return dataset.filter(lambda x, y: True).batch(16)


def fit_dataset(model, callback, dataset):
    options = {"epochs": 5, "verbose": 0, "shuffle": False}
    history = model.fit(dataset, callbacks=[callback], **options)
    return history.history["learning_rate"]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_a_dataset_of_unknown_length():
    """On TensorFlow, Keras 3 counts an extra step per epoch, Keras 2 one per `fit`."""
    logger = LearningRateLogger()
    rates, messages = warned(fit_dataset, scheduled(), logger, unknown_length())
    if BACKEND == "tensorflow":
        assert messages == [drift(5, 4, UNKNOWN)]
    else:
        assert messages == [] and rates == RATES


@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_the_length_can_be_set():
    dataset = unknown_length().apply(tf.data.experimental.assert_cardinality(4))
    assert fit_dataset(scheduled(), LearningRateLogger(), dataset) == RATES
    assert fit_dataset(build_model(), decay(), unknown_length()) == RATES


# No false alarm: a warning that is not expected fails a test


def test_each_fit_carries_on():
    model, logger = scheduled(), LearningRateLogger()
    assert [*train(model, logger, epochs=2), *train(model, logger, epochs=3)] == RATES
    model = scheduled()
    for epoch in range(5):
        rates = train(model, logger, initial_epoch=epoch, epochs=epoch + 1)
        assert rates == RATES[epoch : epoch + 1]


@needs_steps_per_execution
@pytest.mark.parametrize("steps_per_execution", [2, 4])
def test_steps_per_execution(steps_per_execution):
    model = scheduled()
    options = {"steps_per_execution": steps_per_execution}
    model.compile(model.optimizer, "mse", **options)
    assert train(model, LearningRateLogger()) == RATES


def test_an_epoch_cut_short():
    class Stop(LearningRateLogger):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    assert train(scheduled(), Stop()) == RATES[:1]


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 starts the epoch again")
def test_keras_2_resumes_inside_an_epoch(tmp_path):
    def run(steps, *others):
        backup = callbacks.BackupAndRestore(str(tmp_path / str(steps)), save_freq=2)
        model = scheduled(steps)
        return train(model, LearningRateLogger(), backup, *others), model

    with pytest.raises(KeyboardInterrupt):
        run(4, Interrupt(at=11))
    rates, model = run(4)
    assert rates == RATES[2:] and int(model.optimizer.iterations.numpy()) == 20
    # A wrong `steps_per_epoch` is told nevertheless, once an epoch was whole.
    _, messages = warned(run, 2)
    assert messages == [drift(4, 2)]


@pytest.mark.skipif(IS_KERAS_3, reason="this is Keras 3")
def test_a_backup_of_keras_2_does_not_hide_a_fresh_optimizer(tmp_path):
    backup = callbacks.BackupAndRestore(str(tmp_path), save_freq=2)
    _, (message,) = warned(
        train, scheduled(), LearningRateLogger(), backup, initial_epoch=2
    )
    assert message.endswith(state_cure(8))


@needs_tensorflow
@pytest.mark.parametrize("has_schedule", [False, True], ids=["callback", "schedule"])
def test_steps_that_loss_scaling_skips(has_schedule):
    # Lightning#18828: a schedule that does not count them lags; the callback does not.
    sgd = optimizers.SGD(planned() if has_schedule else 0.5)
    scaling = {"initial_scale": 2.0**127}
    if not IS_KERAS_3:
        scaling["dynamic"] = True
    model = build_model(tf.keras.mixed_precision.LossScaleOptimizer(sgd, **scaling))
    callback = LearningRateLogger() if has_schedule else decay()
    options = {"initial_epoch": 1, "epochs": 5, "batch_size": 16, "verbose": 0}
    rates = model.fit(X, Y + 1e6, callbacks=[callback], **options).history[
        "learning_rate"
    ]
    if not has_schedule:
        assert rates == RATES[1:]
    elif IS_KERAS_3:
        assert int(sgd.iterations.numpy()) < 16 and rates[-1] > RATES[3]


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 sets the schedule at once")
def test_a_schedule_assigned_after_compile():
    # keras#19492: Keras 2 has no current rate before the first step.
    model = build_model()
    model.optimizer.learning_rate = planned()
    assert train(model, LearningRateLogger()) == RATES
