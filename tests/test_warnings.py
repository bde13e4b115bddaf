"""Warnings are given if the log does not tell what happens, and only then."""

import re
import warnings

import numpy as np
import pytest
import tensorflow as tf
from models import build_model, evaluate, scalars
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

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

# A warning of the package that a test does not expect makes the test fail.
pytestmark = [
    pytest.mark.filterwarnings("error::UserWarning"),
    pytest.mark.filterwarnings("ignore:Your input ran out of data"),
]
callbacks = tf.keras.callbacks
RULE = DecayRule(0.1, 1e-4, 5)
RATES = float32_rates(RULE, range(5))
X, Y = np.ones((64, 3), "float32"), np.zeros((64, 2), "float32")
FIT = {"epochs": 5, "batch_size": 16, "verbose": 0, "shuffle": False}  # 4 steps


def decay():
    return WarmupExponentialDecay(0.1, 1e-4, 5)


def schedule(steps_per_epoch=4, **options):
    return WarmupExponentialSchedule(
        0.1, 1e-4, 5, steps_per_epoch=steps_per_epoch, **options
    )


def scheduled(steps_per_epoch=4, **options):
    """A model whose optimizer has the schedule."""
    return build_model(tf.keras.optimizers.SGD(schedule(steps_per_epoch), **options))


def train(model, *callbacks, **options):
    """Returns the rates in the history of five epochs of four steps."""
    history = model.fit(X, Y, callbacks=list(callbacks), **{**FIT, **options})
    return history.history["learning_rate"]


def warned(function, *args, **options):
    """Returns what a function returns, and the texts of this package's warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        result = function(*args, **options)
    ours = [w for w in caught if "expdecay_keras" in w.filename]
    return result, [str(w.message) for w in ours]


class Interrupt(callbacks.Callback):
    """Interrupts training after a number of batches."""

    def __init__(self, n_batches):
        super().__init__()
        self.n_batches = n_batches

    def on_train_batch_end(self, batch, logs=None):
        self.n_batches -= 1
        if self.n_batches == 0:
            raise KeyboardInterrupt


# An optimizer that trains nothing


class OwnOptimizer(tf.keras.Model):
    """Trains with an optimizer of its own, as generative adversarial networks do."""

    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(2)
        self.own = tf.keras.optimizers.SGD(0.5)

    def call(self, x):
        return self.dense(x)

    def train_step(self, data):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((self(data[0]) - data[1]) ** 2)
        weights = self.trainable_variables
        gradients = tape.gradient(loss, weights)
        self.own.apply_gradients(zip(gradients, weights, strict=True))
        return {"loss": loss}


def own_optimizer(*compiled):
    model = OwnOptimizer()
    model(X)
    model.own.build(model.trainable_variables)
    model.compile(*compiled)
    return model


@needs_tensorflow
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_an_optimizer_that_trains_nothing(make):
    history, messages = warned(train, own_optimizer("sgd"), make())
    assert history == (RATES if make is decay else [float(np.float32(0.01))] * 5)
    assert messages == [
        "The optimizer whose rate is `learning_rate` has taken no steps, so its rate "
        "has no effect. Compile the model with the optimizer that trains it, or build "
        "that optimizer with a WarmupExponentialSchedule."
    ]


@needs_tensorflow
def test_tensorboard_gets_no_rate_of_an_optimizer_that_trains_nothing(tmp_path):
    model, writer = own_optimizer("sgd"), LearningRateTensorBoard(tmp_path)
    _, messages = warned(model.fit, X, Y, callbacks=[writer], **FIT)
    assert len(messages) == 1 and "has taken no steps" in messages[0]
    assert not list(tmp_path.iterdir())


@needs_tensorflow
@pytest.mark.parametrize("name", ["decay", "logger", "tensorboard"])
def test_a_model_without_an_optimizer(name, tmp_path):
    """Compiled with `optimizer=None`, because its own optimizer trains it."""
    made = {
        "decay": decay(),
        "logger": LearningRateLogger(),
        "tensorboard": LearningRateTensorBoard(tmp_path),
    }
    model = own_optimizer("sgd")
    model.optimizer = None
    made[name].set_model(model)
    with pytest.raises(TypeError, match="^The model has no optimizer .*=None$"):
        made[name].on_train_begin()
        made[name].on_epoch_begin(0)


# Where the schedule is when training starts


def position(model, epoch):
    """Returns the warnings of a fit that starts at an epoch."""
    _, messages = warned(train, model, LearningRateLogger(), initial_epoch=epoch)
    return [message for message in messages if "counted" not in message]


COUNT = "variables[0]" if IS_KERAS_3 else "iterations"
RECIPE = re.compile(r"optimizer\.\S+\.assign\(\d+\)")


def assert_recipe_helps(model, message, epoch):
    """Follows the advice of a warning: the rates are right, with no other warning."""
    optimizer = model.optimizer
    exec(RECIPE.search(message)[0], {"optimizer": optimizer})
    rates = train(model, LearningRateLogger(), initial_epoch=epoch)
    assert rates == RATES[epoch:]


@pytest.mark.parametrize(
    "options",
    [{}, pytest.param({"gradient_accumulation_steps": 2}, marks=needs_accumulation)],
    ids=["plain", "accumulation"],
)
def test_a_schedule_behind_the_first_epoch(options):
    # tensorflow#49208: `initial_epoch` does not move the schedule of a fresh optimizer.
    (message,) = position(scheduled(**options), 2)
    assert message == (
        "The schedule is behind epoch index 2, at which `fit` starts: the optimizer "
        "has taken 0 steps, and the schedule has 20 (n_epochs=5, steps_per_epoch=4). "
        "To move the schedule to the start of epoch index 2, call "
        f"optimizer.{COUNT}.assign(8) on that optimizer."
    )
    assert_recipe_helps(scheduled(**options), message, 2)


def test_a_schedule_inside_an_epoch():
    # keras#16252: a schedule that was stopped in the middle of an epoch starts there.
    model = scheduled()
    with pytest.raises(KeyboardInterrupt):
        train(model, Interrupt(11))
    count = model.optimizer.variables[0]
    count = int(
        np.asarray(tf.keras.backend.get_value(count) if not IS_KERAS_3 else count)
    )
    (message,) = position(model, 2)
    assert message == (
        f"The schedule is in the middle of an epoch: the optimizer has taken {count} "
        "steps, and the schedule has 20 (n_epochs=5, steps_per_epoch=4). To move the "
        "schedule to the start of epoch index 2, call "
        f"optimizer.{COUNT}.assign(8) on that optimizer."
    )
    assert_recipe_helps(model, message, 2)


def test_a_schedule_past_its_end():
    # keras#4446: a second `fit` with a spent schedule trains all of it at the target.
    model = scheduled()
    train(model, LearningRateLogger())
    (message,) = position(model, 0)
    assert message == (
        "The schedule is past its last step and stays at target_lr=0.0001: the "
        "optimizer has taken 20 steps, and the schedule has 20 (n_epochs=5, "
        "steps_per_epoch=4). To move the schedule to the start of epoch index 0, call "
        f"optimizer.{COUNT}.assign(0) on that optimizer."
    )
    assert_recipe_helps(model, message, 0)
    (message,) = position(model, 2)
    assert "past its last step" in message
    assert_recipe_helps(model, message, 2)


def test_each_fit_carries_on():
    model, logger = scheduled(), LearningRateLogger()
    rates = [*train(model, logger, epochs=2), *train(model, logger, epochs=3)]
    assert rates == RATES
    model = scheduled()
    for epoch in range(5):
        rates = train(model, logger, initial_epoch=epoch, epochs=epoch + 1)
        assert rates == RATES[epoch : epoch + 1]


def test_another_schedule_is_not_judged():
    class Own(tf.keras.optimizers.schedules.LearningRateSchedule):
        steps_per_epoch = 3
        rule = RULE

        def __call__(self, step):
            return 0.1

        def get_config(self):
            return {}

    model = build_model(tf.keras.optimizers.SGD(Own()))
    assert len(train(model, LearningRateLogger(), initial_epoch=2)) == 3


# A schedule that drifts


def unknown_length():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    return dataset.filter(lambda x, y: True).batch(16)


def fit_dataset(model, callback, dataset):
    options = {"epochs": 5, "verbose": 0, "shuffle": False}
    history = model.fit(dataset, callbacks=[callback], **options)
    return history.history["learning_rate"]


DRIFT = "counted {} steps in an epoch, but its schedule has steps_per_epoch={}: "


def test_a_wrong_steps_per_epoch():
    rates, messages = warned(train, scheduled(2), LearningRateLogger())
    assert len(messages) == 1 and DRIFT.format(4, 2) in messages[0]
    assert rates == float32_rates(RULE, [0, 2, 4, 4, 4])


@needs_accumulation
@pytest.mark.parametrize("accumulated", [2, 8], ids=["two", "more-than-an-epoch"])
def test_accumulation_counts_batches(accumulated):
    # diffusers#2632: a schedule built for updates instead of batches.
    options = {"gradient_accumulation_steps": accumulated}
    assert train(scheduled(4, **options), LearningRateLogger()) == RATES
    _, messages = warned(train, scheduled(2, **options), LearningRateLogger())
    assert len(messages) == 1 and DRIFT.format(4, 2) in messages[0]
    model = build_model(tf.keras.optimizers.SGD(0.1, **options))
    assert train(model, decay()) == RATES


def test_a_dataset_of_unknown_length():
    """On TensorFlow, Keras 3 counts an extra step per epoch, Keras 2 one per `fit`."""
    model = scheduled()
    logger = LearningRateLogger()
    rates, messages = warned(fit_dataset, model, logger, unknown_length())
    if BACKEND == "tensorflow":
        assert len(messages) == 1 and DRIFT.format(5, 4) in messages[0]
    else:
        assert messages == [] and rates == RATES


def test_the_length_can_be_set():
    dataset = unknown_length().apply(tf.data.experimental.assert_cardinality(4))
    assert fit_dataset(scheduled(), LearningRateLogger(), dataset) == RATES
    assert fit_dataset(build_model(), decay(), unknown_length()) == RATES


@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
def test_tensorboard_on_a_dataset_of_unknown_length(staircase, tmp_path):
    """Keras begins a batch that never comes; its step is not written."""
    planned = schedule(staircase=staircase)
    model = build_model(tf.keras.optimizers.SGD(planned))
    writer = LearningRateTensorBoard(tmp_path / "planned")
    options = {"epochs": 5, "verbose": 0, "shuffle": False}
    model.fit(unknown_length(), callbacks=[writer], **options)
    written = scalars(tmp_path / "planned")
    assert len(written) == 20
    assert written == [(step, evaluate(planned, step).item()) for step, _ in written]
    writer = LearningRateTensorBoard(tmp_path / "callback")
    build_model().fit(unknown_length(), callbacks=[decay(), writer], **options)
    rates = [rate for _, rate in scalars(tmp_path / "callback")]
    assert rates == list(np.repeat(RATES, 4))


# Other numbers of epochs than the rule's


def test_a_fit_that_stops_before_the_target():
    rates, messages = warned(train, build_model(), decay(), epochs=3)
    assert rates == RATES[:3]
    assert messages == [
        "fit(epochs=3) stops before target_lr=0.0001 is reached: the rule has "
        "n_epochs=5. Each `fit` counts its epochs from 0; to continue in another "
        "`fit`, pass initial_epoch=3."
    ]


def test_a_fit_that_goes_past_the_target():
    callback = decay()
    for _ in range(2):  # once in each `fit`
        rates, messages = warned(train, build_model(), callback, epochs=7)
        assert rates == [*RATES, RATES[4], RATES[4]]
        assert messages == [
            "`fit` goes past the rule's n_epochs=5 and holds target_lr=0.0001 from "
            "epoch index 4 on."
        ]


def test_one_fit_per_epoch():
    # keras#888: without `initial_epoch` each `fit` starts at epoch 0.
    model, callback = build_model(), decay()

    def run():
        for epoch in range(5):
            options = {"initial_epoch": epoch, "epochs": epoch + 1}
            yield from train(model, callback, **options)

    rates, messages = warned(lambda: list(run()))
    assert rates == RATES
    assert len(messages) == 1 and "pass initial_epoch=1." in messages[0]


# Something else that changes the rate


BOTH_ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])


@BOTH_ORDERS
def test_beside_a_learning_rate_scheduler_the_last_one_trains(order):
    scheduler = callbacks.LearningRateScheduler(lambda epoch, lr: 0.5)
    trained_with, model = [], build_model()

    def spy(batch, logs=None):
        rate = model.optimizer.learning_rate
        trained_with.append(float(rate.numpy()))

    listed = [*[decay(), scheduler][::order]]
    listed.append(callbacks.LambdaCallback(on_train_batch_begin=spy))
    rates, messages = warned(train, model, *listed, batch_size=64)
    assert trained_with == (RATES if order == -1 else [0.5] * 5)
    assert len(messages) == 1 and "Another callback changed" in messages[0]
    if IS_KERAS_3:  # under Keras 2 the scheduler logs another key
        assert rates == trained_with


def test_of_two_rules_the_last_one_trains_and_both_warn():
    other = WarmupExponentialDecay(0.5, 0.25, 5)
    rates, messages = warned(train, build_model(), decay(), other)
    assert rates == float32_rates(other.rule, range(5))
    assert len(messages) == 2
    assert all("Another callback changed `learning_rate`" in m for m in messages)


# No false alarm, and every rate is logged


@BOTH_ORDERS
def test_early_stopping(order):
    stop = callbacks.EarlyStopping("loss", patience=2, min_delta=1e9)
    assert train(build_model(), *[decay(), stop][::order]) == RATES[:3]


def test_the_same_callback_twice():
    callback = decay()
    assert train(build_model(), callback, callback) == RATES
    logger = LearningRateLogger()
    assert train(scheduled(), logger, logger) == RATES


class SetBack(callbacks.Callback):
    """Sets the optimizer's count of steps back, as a warm restart does."""

    def on_epoch_begin(self, epoch, logs=None):
        self.model.optimizer.iterations.assign(0)


@pytest.mark.parametrize("order", [1, -1])
def test_the_count_of_steps_set_back(order):
    # keras#13568: warm restarts.
    assert train(build_model(), *[decay(), SetBack()][::order]) == RATES
    rates = train(scheduled(), *[LearningRateLogger(), SetBack()][::order])
    assert len(rates) == 5


def test_a_model_compiled_again_between_two_fits():
    model, callback = build_model(), decay()
    assert train(model, callback) == RATES
    model.compile(tf.keras.optimizers.Adam(0.5), "mse")
    assert train(model, callback) == RATES


def test_a_rollback_to_an_older_model():
    class Rollback(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.kept = self.model.get_weights()
            elif epoch == 2:
                self.model.set_weights(self.kept)
                self.model.optimizer.iterations.assign(4)

    assert train(build_model(), decay(), Rollback()) == RATES
    assert len(train(scheduled(), LearningRateLogger(), Rollback())) == 5


@pytest.mark.parametrize("planned", [False, True], ids=["callback", "schedule"])
def test_interrupted_during_validation_and_resumed(planned, tmp_path):
    """The most common way to resume: `BackupAndRestore` in a notebook."""

    class InterruptValidation(callbacks.Callback):
        def on_test_begin(self, logs=None):
            if self.model.optimizer.iterations >= 8:
                raise KeyboardInterrupt

    def run(*others):
        model = scheduled() if planned else build_model()
        if hasattr(model.optimizer, "built"):
            model.optimizer.build(model.trainable_variables)
        own = LearningRateLogger() if planned else decay()
        backup = callbacks.BackupAndRestore(str(tmp_path / "backup"))
        options = {"validation_data": (X, Y), "initial_epoch": 0 if others else 1}
        return train(model, own, backup, *others, **options)

    with pytest.raises(KeyboardInterrupt):
        run(InterruptValidation())
    # The first releases of Keras 3 restore the weights, but not the epoch.
    assert run() == RATES[1:]


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 starts the epoch again")
def test_keras_2_resumes_inside_an_epoch(tmp_path):
    def run(*others):
        backup = callbacks.BackupAndRestore(str(tmp_path / "backup"), save_freq=2)
        model = scheduled()
        return train(model, LearningRateLogger(), backup, *others), model

    with pytest.raises(KeyboardInterrupt):
        run(Interrupt(11))
    rates, model = run()
    assert rates == RATES[2:] and int(model.optimizer.iterations.numpy()) == 20


@pytest.mark.parametrize("planned", [False, True], ids=["callback", "schedule"])
def test_validation_sample_weights_and_a_second_fit(planned):
    model = scheduled() if planned else build_model()
    callback = LearningRateLogger() if planned else decay()
    options = {"validation_data": (X, Y), "sample_weight": np.ones(64)}
    assert train(model, callback, **options) == RATES
    if not planned:
        assert train(model, callback, initial_epoch=3) == RATES[3:]


@needs_steps_per_execution
@pytest.mark.parametrize("steps_per_execution", [2, 4])
def test_steps_per_execution(steps_per_execution):
    options = {"steps_per_execution": steps_per_execution}
    model = scheduled()
    model.compile(model.optimizer, "mse", **options)
    assert train(model, LearningRateLogger()) == RATES


def test_averaged_weights():
    model = build_model(tf.keras.optimizers.SGD(use_ema=True))
    others = []
    if hasattr(callbacks, "SwapEMAWeights"):
        others.append(callbacks.SwapEMAWeights(swap_on_epoch=True))
    assert train(model, decay(), *others) == RATES


def test_an_epoch_cut_short():
    class Stop(LearningRateLogger):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = True

    assert train(scheduled(), Stop()) == RATES[:1]


@needs_tensorflow
@pytest.mark.parametrize("planned", [False, True], ids=["callback", "schedule"])
def test_steps_that_loss_scaling_skips(planned):
    # Lightning#18828: a schedule that does not count them lags; the callback does not.
    sgd = tf.keras.optimizers.SGD(schedule() if planned else 0.5)
    scaling = {"initial_scale": 2.0**127}
    if not IS_KERAS_3:
        scaling["dynamic"] = True
    optimizer = tf.keras.mixed_precision.LossScaleOptimizer(sgd, **scaling)
    callback = LearningRateLogger() if planned else decay()
    model = build_model(optimizer)
    options = {**FIT, "initial_epoch": 1, "callbacks": [callback]}
    rates = model.fit(X, Y + 1e6, **options).history["learning_rate"]
    if not planned:
        assert rates == RATES[1:]
    elif IS_KERAS_3:
        assert int(sgd.iterations.numpy()) < 16 and rates[-1] > RATES[3]


@needs_multi_optimizer
def test_several_optimizers():
    optimizers = tf.keras.optimizers
    planned = optimizers.SGD(schedule(), name="planned")
    by_layer = {".*bias": planned}
    chosen = optimizers.OptimizerMap(optimizers.SGD(0.5, name="fixed"), by_layer)
    model = build_model(optimizers.MultiOptimizer(chosen))
    history = model.fit(X, Y, callbacks=[LearningRateLogger()], **FIT).history
    assert history["learning_rate_planned"] == RATES
    assert history["learning_rate_fixed"] == [0.5] * 5


@needs_multi_optimizer
def test_two_optimizers_of_one_name():
    optimizers = tf.keras.optimizers
    chosen = optimizers.OptimizerMap(
        optimizers.SGD(0.5, name="sgd"), {".*bias": optimizers.SGD(0.5, name="sgd")}
    )
    model = build_model(optimizers.MultiOptimizer(chosen))
    history = model.fit(X, Y, callbacks=[decay()], **FIT).history
    names = sorted(name for name in history if name.startswith("learning_rate"))
    assert names == ["learning_rate_sgd", "learning_rate_sgd_1"]
    assert all(history[name] == RATES for name in names)


def by_hand(model, callback):
    """Calls the hooks around `train_on_batch`; returns the last epoch's log."""
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(5):
        callback.on_epoch_begin(epoch)
        for _ in range(4):
            model.train_on_batch(X[:16], Y[:16])
        logs = {}
        callback.on_epoch_end(epoch, logs)
    callback.on_train_end()
    return logs


def test_hooks_by_hand_and_a_model_compiled_again():
    # keras#14874: layers are unfrozen in the middle of a run.
    model, callback = build_model(), decay()
    callback.set_model(model)
    for epoch in range(5):
        if epoch == 2:
            model.compile(tf.keras.optimizers.SGD(0.5), "mse")
        callback.on_epoch_begin(epoch)
        model.train_on_batch(X, Y)
        callback.on_epoch_end(epoch, {})
    callback.on_train_end()
    assert float(np.asarray(model.optimizer.learning_rate)) == RATES[4]


def test_hooks_by_hand():
    assert by_hand(build_model(), decay()) == {"learning_rate": RATES[4]}
    logs = by_hand(scheduled(), LearningRateLogger())
    assert logs == {"learning_rate": RATES[4]}


# Optimizers of Keras 2


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 sets the schedule at once")
def test_a_schedule_assigned_after_compile():
    # keras#19492: Keras 2 has no current rate before the first step.
    model = build_model()
    model.optimizer.learning_rate = schedule()
    assert train(model, LearningRateLogger()) == RATES


@needs_legacy_optimizers
def test_an_optimizer_that_wraps_another():
    """Like those of TensorFlow Addons, which delegate `learning_rate`."""

    class Wrapper(tf.keras.optimizers.legacy.Optimizer):
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

    legacy = tf.keras.optimizers.legacy
    assert train(build_model(Wrapper(legacy.SGD(0.5))), decay()) == RATES
    rates = train(build_model(Wrapper(legacy.SGD(0.5))), LearningRateLogger())
    assert rates == [0.5] * 5


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 has no graph mode")
def test_graph_mode(python):
    script = """
import json
import numpy as np
import tensorflow as tf
tf.compat.v1.disable_eager_execution()
import expdecay_keras as ek
decay = ek.WarmupExponentialDecay(0.1, 1e-4, 5)
model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
model.compile(tf.keras.optimizers.legacy.SGD(0.5), "mse")
x, y = np.ones((16, 3)), np.ones((16, 2))
options = {"epochs": 5, "verbose": 0}
histories = [
    model.fit(x, y, callbacks=[callback], **options).history["learning_rate"]
    for callback in (decay, ek.LearningRateLogger())
]
print(json.dumps(histories))
"""
    import json

    histories = json.loads(python(script).stdout.splitlines()[-1])
    assert histories == [RATES, [RATES[4]] * 5]
