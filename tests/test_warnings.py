"""Warnings are given when the log alone would mislead, and only then.

What the logger says of schedules is tested in test_logger.
"""

import numpy as np
import pytest
import tensorflow as tf
from models import (
    RATES,
    RULE,
    X,
    Y,
    build_model,
    decay,
    scheduled,
    step_count,
    train,
    warned,
)
from oracle import float32_rates
from releases import (
    IS_KERAS_3,
    needs_keras_3,
    needs_multi_optimizer,
    needs_tensorflow,
)

from expdecay_keras import (
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
)

callbacks, optimizers = tf.keras.callbacks, tf.keras.optimizers
BY_BOTH = pytest.mark.parametrize(
    "make, own", [(build_model, decay), (scheduled, LearningRateLogger)]
)
BOTH_ORDERS = pytest.mark.parametrize("order", [1, -1], ids=["first", "last"])

# An optimizer that trains nothing


class OwnOptimizer(tf.keras.Model):
    """Trains with an optimizer of its own, as generative adversarial networks do."""

    def __init__(self):
        super().__init__()
        self.dense = tf.keras.layers.Dense(2)
        self.own = optimizers.SGD(0.5)

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


def idle(name, optimizer="optimizer"):
    return (
        f"{name}: the model's {optimizer} has taken no steps so far, so its learning "
        "rate has had no effect. If another optimizer trains the model, compile the "
        "model with that one, or build that one with a WarmupExponentialSchedule."
    )


@needs_tensorflow
@pytest.mark.parametrize("make", [decay, LearningRateLogger])
def test_an_optimizer_that_trains_nothing(make):
    history, messages = warned(train, own_optimizer("sgd"), make())
    assert history == (RATES if make is decay else [float(np.float32(0.01))] * 5)
    assert messages == [idle(type(make()).__name__)]


@needs_tensorflow
def test_tensorboard_gets_no_rate_of_an_optimizer_that_trains_nothing(tmp_path):
    model, writer = own_optimizer("sgd"), LearningRateTensorBoard(tmp_path)
    _, messages = warned(model.fit, X, Y, epochs=2, verbose=0, callbacks=[writer])
    assert messages == [idle("LearningRateTensorBoard")]
    assert not list(tmp_path.iterdir())


@needs_multi_optimizer
def test_each_optimizer_that_trains_nothing_is_named():
    used, *idle_ones = (optimizers.SGD(0.5, name=name) for name in "abc")
    chosen = optimizers.OptimizerMap(
        idle_ones[0], {".*": used, "nothing": idle_ones[1]}
    )
    model = build_model(optimizers.MultiOptimizer(chosen))
    _, messages = warned(model.fit, X, Y, epochs=2, verbose=0, callbacks=[decay()])
    assert sorted(message for message in messages if "no steps" in message) == [
        idle("WarmupExponentialDecay", f"optimizer logged as `learning_rate_{name}`")
        for name in "bc"
    ]


@needs_keras_3
@pytest.mark.filterwarnings("ignore:The model does not have any trainable weights")
def test_a_model_without_trainable_weights_is_not_told_of_its_optimizer():
    model = build_model()
    model.trainable = False
    model.compile("sgd", "mse")
    assert train(model, decay()) == RATES


class Without:
    """An optimizer without a rate."""


@pytest.mark.parametrize("name", ["decay", "logger", "tensorboard"])
@pytest.mark.parametrize(
    "optimizer, received",
    [
        pytest.param(None, "None", id="none"),
        pytest.param(Without(), "<.*Without object at .*>", id="without-a-rate"),
    ],
)
def test_an_optimizer_that_cannot_be_served(name, optimizer, received, tmp_path):
    made = {
        "decay": decay(),
        "logger": LearningRateLogger(),
        "tensorboard": LearningRateTensorBoard(tmp_path),
    }
    model = build_model()
    model.optimizer = optimizer
    made[name].set_model(model)
    message = (
        "^The model has no optimizer with a `learning_rate` that could be set or "
        "logged. Compile the model with the optimizer that trains it, or build that "
        "optimizer with a WarmupExponentialSchedule. Received: "
        f"model.optimizer={received}$"
    )
    with pytest.raises(TypeError, match=message):
        made[name].on_train_begin()


def test_a_model_that_was_never_compiled():
    own = decay()
    own.set_model(tf.keras.Sequential([tf.keras.layers.Dense(2)]))
    with pytest.raises(TypeError, match="no optimizer with a `learning_rate`"):
        own.on_train_begin()


# Other numbers of epochs than the rule's


def stops(epochs):
    return (
        f"WarmupExponentialDecay: fit(epochs={epochs}) stops before target_lr=0.0001 "
        "is reached, because n_epochs=5. Make the two equal, or continue later with "
        f"fit(initial_epoch={epochs}, epochs=5)."
    )


def goes_past(epochs, cure="make the two equal"):
    return (
        f"WarmupExponentialDecay: fit(epochs={epochs}) goes past n_epochs=5: all "
        "further epochs train at target_lr=0.0001. If that is not intended, "
        f"{cure}."
    )


def decay_on(n_warmup_epochs):
    """The cure that is followed in test_extending: a run that has begun."""
    return (
        f"decay from this rate to a new target, with n_warmup_epochs={n_warmup_epochs}"
    )


@pytest.mark.parametrize(
    "options, messages",
    [
        ({"epochs": 5}, []),
        ({"epochs": 4}, [stops(4)]),
        ({"epochs": 3, "initial_epoch": 1}, []),
        ({"epochs": 6}, [goes_past(6)]),
        ({"epochs": 7, "initial_epoch": 4}, [goes_past(7, decay_on(5))]),
        ({"epochs": 7, "initial_epoch": 6}, [goes_past(7, decay_on(6))]),
    ],
)
def test_other_numbers_of_epochs(options, messages):
    own = decay()
    for _ in range(2):  # once in each `fit`
        rates, found = warned(train, build_model(), own, **options)
        epochs = range(options.get("initial_epoch", 0), options["epochs"])
        assert rates == float32_rates(RULE, epochs)
        assert found == messages


@pytest.mark.parametrize("epochs", [1, 3, 4, 6])
def test_a_rate_that_is_only_held_may_stop_at_any_time(epochs):
    held = WarmupExponentialDecay(0.1, 0.1, 5, 2, warmup_start_lr=0.05)
    rates = train(build_model(), held, epochs=epochs)
    assert rates == float32_rates(held.rule, range(epochs))


def test_one_fit_per_epoch():
    # keras#888: without `initial_epoch` each `fit` starts at epoch 0.
    model, own = build_model(), decay()

    def run():
        for epoch in range(5):
            options = {"initial_epoch": epoch, "epochs": epoch + 1}
            yield from train(model, own, **options)

    rates, messages = warned(lambda: list(run()))
    assert rates == RATES
    assert messages == [stops(1)]


# Something else that changes the rate


def changed(before, after):
    return (
        "WarmupExponentialDecay: another callback changed `learning_rate` from "
        f"{before:.6g} to {after:.6g}, but this one sets it again at the start of each "
        "epoch. Remove one of the two; to combine the rule with ReduceLROnPlateau, use "
        "make_lr_scheduler."
    )


@pytest.mark.parametrize("n_epochs", [2, 5], ids=["in-the-last-epoch", "earlier"])
@pytest.mark.parametrize("order", [1, -1], ids=["reduce-first", "decay-first"])
def test_reduce_on_plateau_is_overwritten(order, n_epochs):
    # keras PR 8829: LearningRateScheduler silently undoes ReduceLROnPlateau.
    reduce = callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    own, model = WarmupExponentialDecay(1 / 3, 1 / 3, n_epochs), build_model()
    listed = [reduce, own][::order]
    rates, messages = warned(train, model, *listed, epochs=n_epochs)
    assert rates == [float(np.float32(1 / 3))] * n_epochs
    assert messages == [changed(1 / 3, 1 / 6)]
    assert float(np.asarray(model.optimizer.learning_rate)) == np.float32(1 / 6)


@BOTH_ORDERS
def test_beside_a_learning_rate_scheduler_the_last_one_trains(order):
    scheduler = callbacks.LearningRateScheduler(lambda epoch, lr: 0.5)
    trained_with, model = [], build_model()

    def spy(batch, logs=None):
        trained_with.append(float(model.optimizer.learning_rate.numpy()))

    listed = [decay(), scheduler][::order]
    listed.append(callbacks.LambdaCallback(on_train_batch_begin=spy))
    rates, messages = warned(train, model, *listed, batch_size=64)
    assert trained_with == (RATES if order == -1 else [0.5] * 5)
    assert len(messages) == 1 and "another callback changed" in messages[0]
    if IS_KERAS_3:  # under Keras 2 the scheduler logs another key
        assert rates == trained_with


def test_two_rules_both_warn_and_the_last_one_trains():
    other = WarmupExponentialDecay(0.5, 0.25, 5)
    rates, messages = warned(train, build_model(), decay(), other)
    assert rates == float32_rates(other.rule, range(5))
    assert len(messages) == 2
    assert all("another callback changed `learning_rate`" in m for m in messages)


def test_a_change_is_told_in_each_fit():
    model, own = build_model(), decay()
    scheduler = callbacks.LearningRateScheduler(lambda epoch, lr: 0.5)
    for _ in range(2):
        _, messages = warned(train, model, own, scheduler)
        assert messages == [changed(0.1, 0.5)]


def test_hooks_without_train_begin_warn_too():
    model, own = build_model(), WarmupExponentialDecay(0.5, 0.25, 2)
    own.set_model(model)
    own.on_epoch_begin(0)
    model.optimizer.learning_rate = 0.125
    _, messages = warned(own.on_epoch_begin, 1)
    assert messages == [changed(0.5, 0.125)]


# When a warning is given


def test_warnings_are_given_in_the_order_found():
    model, own = build_model(), WarmupExponentialDecay(0.5, 0.25, 2)
    own.set_model(model)
    own.on_epoch_begin(0)
    own.on_epoch_end(0)
    model.optimizer.learning_rate = 0.125
    _, messages = warned(own.on_train_end)
    assert messages == [idle("WarmupExponentialDecay"), changed(0.5, 0.125)]


def test_a_warning_of_an_interrupted_fit_is_not_given_in_the_next():
    class InterruptEpochEnd(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    logger = LearningRateLogger()
    with pytest.raises(KeyboardInterrupt):
        train(scheduled(2), logger, InterruptEpochEnd())
    assert train(scheduled(), logger) == RATES


@pytest.mark.parametrize("epochs, told", [(1, [0]), (3, [0, 1, 1])])
def test_a_warning_does_not_tear_the_progress_bar(epochs, told):
    """What an epoch's end shows is told when the next one begins, or after training."""
    counts = []
    with pytest.warns(UserWarning, match="took 4 steps") as caught:
        count = callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: counts.append(
                sum("took 4 steps" in str(w.message) for w in caught)
            )
        )
        train(scheduled(2), LearningRateLogger(), count, epochs=epochs)
    assert counts == told


# No false alarm, and every rate is logged


@BOTH_ORDERS
def test_early_stopping(order):
    stop = callbacks.EarlyStopping("loss", patience=2, min_delta=1e9)
    assert train(build_model(), *[decay(), stop][::order]) == RATES[:3]


@BY_BOTH
def test_the_same_callback_twice(make, own):
    callback = own()
    assert train(make(), callback, callback) == RATES


class SetBack(callbacks.Callback):
    """Sets the optimizer's count of steps back, as a warm restart does."""

    def on_epoch_begin(self, epoch, logs=None):
        step_count(self.model.optimizer).assign(0)


@BY_BOTH
@BOTH_ORDERS
def test_the_count_of_steps_set_back(order, make, own):
    # keras#13568: warm restarts.
    rates = train(make(), *[own(), SetBack()][::order])
    later = RATES[1] if order == 1 else RATES[0]  # as the logger finds it
    assert rates == (RATES if own is decay else [RATES[0], *[later] * 4])


@BY_BOTH
@BOTH_ORDERS
def test_a_rollback_to_an_older_model(order, make, own):
    class Rollback(callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                self.kept = self.model.get_weights()
            elif epoch == 2:
                self.model.set_weights(self.kept)
                step_count(self.model.optimizer).assign(4)

    rates = train(make(), *[own(), Rollback()][::order])
    assert rates == (RATES if own is decay else float32_rates(RULE, [0, 1, 2, 1, 2]))


@BY_BOTH
def test_interrupted_during_validation_and_resumed(make, own, tmp_path):
    """The most common way to resume: `BackupAndRestore` in a notebook."""

    class InterruptValidation(callbacks.Callback):
        def on_test_begin(self, logs=None):
            if self.model.optimizer.iterations >= 8:
                raise KeyboardInterrupt

    def run(*others):
        model = make()
        if hasattr(model.optimizer, "built"):
            model.optimizer.build(model.trainable_variables)
        backup = callbacks.BackupAndRestore(str(tmp_path / "backup"))
        options = {"validation_data": (X, Y), "initial_epoch": 0 if others else 1}
        return train(model, own(), backup, *others, **options)

    with pytest.raises(KeyboardInterrupt):
        run(InterruptValidation())
    # The first releases of Keras 3 restore the weights, but not the epoch.
    assert run() == RATES[1:]


@BY_BOTH
def test_validation_sample_weights_and_a_resumed_fit(make, own):
    model, callback = make(), own()
    options = {"validation_data": (X, Y), "sample_weight": np.ones(64)}
    assert train(model, callback, initial_epoch=0, **options) == RATES
    step_count(model.optimizer).assign(12)
    assert train(model, callback, initial_epoch=3) == RATES[3:]


def test_averaged_weights():
    model = build_model(optimizers.SGD(use_ema=True))
    others = []
    if hasattr(callbacks, "SwapEMAWeights"):
        others.append(callbacks.SwapEMAWeights(swap_on_epoch=True))
    assert train(model, decay(), *others) == RATES
