import contextlib
import copy
import csv
import json
import operator
import pickle
import sys

import numpy as np
import pytest
import tensorflow as tf
from conftest import (
    BACKEND,
    IS_KERAS_3,
    KERAS_VERSION,
    assert_equal_arrays,
    build_model,
    evaluate,
    float32_rates,
    needs_legacy_optimizers,
    needs_multi_optimizer,
    needs_tensorflow,
    scalars,
)

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    LearningRateTensorBoard,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

ALL_NON_DEFAULT = (0.1, 0.001, 8, 2, 0.05, 3, 1)
# The compatibility contract: every later version reads this.
CONFIG = {
    "base_lr": 0.1,
    "target_lr": 0.001,
    "n_epochs": 8,
    "n_warmup_epochs": 2,
    "warmup_start_lr": 0.05,
    "n_hold_epochs": 3,
    "verbose": 1,
}


def test_history_holds_the_seed_table(seed_row, seed_rates, model, fit):
    rates = fit(model, [WarmupExponentialDecay(*seed_row)], epochs=5)["learning_rate"]
    assert [round(rate, 6) for rate in rates] == seed_rates
    assert rates == float32_rates(DecayRule(*seed_row), range(5))


def test_history_holds_ramp_hold_and_decay(model, fit):
    decay = WarmupExponentialDecay(0.4, 0.1, 8, 2, warmup_start_lr=0.2, n_hold_epochs=3)
    rates = fit(model, [decay], epochs=8)["learning_rate"]
    assert rates == float32_rates(decay.rule, range(8))
    assert [round(rate, 6) for rate in rates] == [0.2, 0.3, 0.4, 0.4, 0.4, 0.4, 0.2, 0.1]


def test_history_holds_plain_floats(model, fit):
    # keras#2823, #4156, #20069, tensorflow#39782: neither a Variable nor a constant.
    rates = fit(model, [WarmupExponentialDecay(0.1, 0.01, 3)], epochs=3)["learning_rate"]
    assert [type(rate) for rate in rates] == [float] * 3
    assert len(set(rates)) == 3


def test_weights_are_trained_at_the_rate(model, fit, data):
    """Keras's own optimizer, its rate set by hand, is the oracle."""
    fit(model, [WarmupExponentialDecay(0.1, 0.001, 4, 1)], epochs=4, batch_size=4)
    expected = build_model()
    for rate in [0.1, 0.1, 0.01, 0.001]:
        expected.optimizer.learning_rate = rate
        fit(expected, [], epochs=1, batch_size=4)
    assert_equal_arrays(model.get_weights(), expected.get_weights())


def test_progress_bar_shows_the_rate(model, data, capsys):
    model.fit(*data, epochs=3, callbacks=[WarmupExponentialDecay(0.5, 0.125, 3)], verbose=2)
    shown = capsys.readouterr().out
    assert "learning_rate: 0.5000" in shown and "learning_rate: 0.1250" in shown


def test_csv_logger_after_the_callback_has_the_rate(model, fit, tmp_path):
    decay, path = WarmupExponentialDecay(0.1, 0.001, 3), tmp_path / "log.csv"
    history = fit(model, [decay, tf.keras.callbacks.CSVLogger(str(path))], epochs=3)
    with path.open() as file:
        assert [float(row["learning_rate"]) for row in csv.DictReader(file)] == history["learning_rate"]


@pytest.mark.parametrize("order", [1, -1], ids=["decay-first", "tensorboard-first"])
def test_tensorboard_has_the_rate(order, model, fit, tmp_path):
    # keras#11973, #16087, tensorflow#46248: in TensorBoard, whatever the order of callbacks.
    if order == -1 and not IS_KERAS_3:
        pytest.skip("Keras 2 hands TensorBoard the log before the callbacks behind it have filled it")
    callbacks = [WarmupExponentialDecay(0.1, 0.001, 5), tf.keras.callbacks.TensorBoard(str(tmp_path))]
    history = fit(model, callbacks[::order], epochs=5)
    assert scalars(tmp_path / "train", "epoch_learning_rate") == list(
        enumerate(history["learning_rate"])
    )


def test_verbose_prints_a_line_an_epoch(model, fit, capsys):
    fit(model, [WarmupExponentialDecay(0.5, 0.125, 3, verbose=1)], epochs=3)
    assert capsys.readouterr().out.split("\n\n") == [
        "\nEpoch 1: WarmupExponentialDecay setting learning rate to 0.5.",
        "Epoch 2: WarmupExponentialDecay setting learning rate to 0.25.",
        "Epoch 3: WarmupExponentialDecay setting learning rate to 0.125.\n",
    ]


def test_nothing_is_printed_by_default(model, fit, capsys):
    decay = WarmupExponentialDecay(0.5, 0.125, 3)
    fit(model, [decay], epochs=3)
    assert capsys.readouterr().out == "" and decay.get_config()["verbose"] == 0


def test_resume_with_a_fresh_optimizer(fit):
    # keras#22010: how to resume an exponential decay at epoch 27.
    decay = WarmupExponentialDecay(0.1, 1e-5, n_epochs=30, n_warmup_epochs=3)
    rates = fit(build_model(), [decay], epochs=30, initial_epoch=27)["learning_rate"]
    assert rates == float32_rates(decay.rule, [27, 28, 29])


def test_setting_an_epoch_twice_changes_nothing(model):
    # pytorch#102261, #162591: closed form, nothing is stepped.
    decay = WarmupExponentialDecay(0.1, 1e-5, n_epochs=30)
    decay.set_model(model)
    for epoch in [7, 7, 3, 7]:
        decay.on_epoch_begin(epoch)
        logs = {}
        decay.on_epoch_end(epoch, logs)
    assert logs == {"learning_rate": float32_rates(decay.rule, [7])[0]}


def test_second_fit_starts_again(model, fit):
    decay = WarmupExponentialDecay(0.1, 1e-5, n_epochs=3)
    assert fit(model, [decay], epochs=3) != fit(model, [decay], epochs=3)
    assert fit(model, [decay], epochs=3)["learning_rate"] == float32_rates(decay.rule, range(3))


def test_backup_and_restore_on_a_built_model(fit, tmp_path):
    # keras#19179, #20712: BackupAndRestore needs a model that is built.
    class Interrupt(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise KeyboardInterrupt

    def callbacks():
        decay = WarmupExponentialDecay(0.1, 1e-4, n_epochs=6)
        return [decay, tf.keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))]

    with pytest.raises(KeyboardInterrupt):
        fit(build_model(), [*callbacks(), Interrupt()], epochs=6)
    # The first releases of Keras 3 restore the weights and leave the epoch to the caller.
    resumed = fit(build_model(), callbacks(), epochs=6, initial_epoch=3)
    unbroken = fit(build_model(), callbacks()[:1], epochs=6)
    assert resumed == {name: values[3:] for name, values in unbroken.items()}


@needs_tensorflow
def test_custom_loop(model, data):
    decay = WarmupExponentialDecay(0.1, 0.001, 3)
    callbacks = tf.keras.callbacks.CallbackList([decay], add_history=True, model=model)
    callbacks.on_train_begin()
    for epoch in range(3):
        callbacks.on_epoch_begin(epoch)
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(data[0]) - data[1]) ** 2)
        weights = model.trainable_variables
        model.optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))
        callbacks.on_epoch_end(epoch, {"loss": float(loss)})
    assert model.history.history["learning_rate"] == float32_rates(decay.rule, range(3))


@pytest.mark.parametrize("callback", [WarmupExponentialDecay, LearningRateLogger])
def test_no_batch_hooks(callback):
    base = tf.keras.callbacks.Callback
    hooks = [name for name in dir(base) if name.startswith("on_") and "batch" in name]
    assert hooks
    for name in hooks:
        assert getattr(callback, name) is getattr(base, name)


@needs_tensorflow
def test_nothing_is_traced_again(data):
    traces = []

    class Model(tf.keras.Sequential):
        def train_step(self, *args):
            traces.append(1)
            return super().train_step(*args)

    model = Model([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    model.fit(*data, epochs=1, verbose=0)
    before = len(traces)
    model.fit(*data, epochs=9, verbose=0, callbacks=[WarmupExponentialDecay(0.1, 0.001, 9)])
    assert len(traces) == before


# Mixed precision, wrapped and several optimizers


def test_mixed_precision(fit):
    # tensorflow#32905, tensorflow/addons#2332: rate callbacks under mixed precision.
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build_model(tf.keras.optimizers.SGD())
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    assert hasattr(model.optimizer, "inner_optimizer")
    decay = WarmupExponentialDecay(0.1, 1e-7, 4)
    assert fit(model, [decay], epochs=4)["learning_rate"] == float32_rates(decay.rule, range(4))
    assert model.optimizer.inner_optimizer.learning_rate.numpy() == np.float32(1e-7)


@needs_multi_optimizer
@pytest.mark.parametrize("chosen_by", ["map", "function"])
def test_several_optimizers(chosen_by, data):
    # keras PR 22959: every optimizer is set and logged under its name.
    optimizers = tf.keras.optimizers
    slow, quick = optimizers.SGD(0.5, name="slow"), optimizers.Adam(0.5, name="quick")
    if chosen_by == "map":
        choose = optimizers.OptimizerMap(slow, {".*a/.*": quick})
    else:  # the optimizer learns only from the weights which optimizers it has

        def choose(variable):
            return quick if "a/" in variable.path else slow

    layers = [tf.keras.layers.Dense(4, name="a"), tf.keras.layers.Dense(2, name="b")]
    model = tf.keras.Sequential([tf.keras.Input((3,)), *layers])
    model.compile(optimizers.MultiOptimizer(choose), "mse")
    decay, trained_with = WarmupExponentialDecay(0.1, 0.001, 3), []
    spy = tf.keras.callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs=None: trained_with.append(
            [float(optimizer.learning_rate.numpy()) for optimizer in (slow, quick)]
        )
    )
    history = model.fit(*data, epochs=3, callbacks=[decay, spy], verbose=0).history
    expected = float32_rates(decay.rule, range(3))
    assert history["learning_rate_slow"] == history["learning_rate_quick"] == expected
    assert trained_with == [[rate, rate] for rate in expected]
    assert "learning_rate" not in history


@needs_legacy_optimizers
def test_legacy_optimizer(fit):
    model = build_model(tf.keras.optimizers.legacy.SGD(0.5, momentum=0.9))
    decay = WarmupExponentialDecay(0.1, 0.001, 3)
    assert fit(model, [decay], epochs=3)["learning_rate"] == float32_rates(decay.rule, range(3))


# Refusals and warnings


@pytest.mark.parametrize("namespace", ["", pytest.param("legacy.", marks=needs_legacy_optimizers)])
def test_optimizer_built_with_a_schedule(namespace, fit):
    # tensorflow#36612, #51399, keras#14331: not an obscure death but a TypeError that names the way out.
    optimizer = operator.attrgetter(f"{namespace}SGD")(tf.keras.optimizers)
    model = build_model(optimizer(tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)))
    with pytest.raises(TypeError, match="SGD: it was built with a schedule.*WarmupExponentialSchedule"):
        fit(model, [WarmupExponentialDecay(0.1, 0.001, 3)], epochs=3)


@needs_legacy_optimizers
def test_legacy_optimizer_with_a_decay_of_its_own(fit):
    model = build_model(tf.keras.optimizers.legacy.SGD(0.5, decay=0.1))
    with pytest.raises(TypeError, match="SGD: it was built with a schedule, a function or `decay`"):
        fit(model, [WarmupExponentialDecay(0.1, 0.001, 3)], epochs=3)


@pytest.mark.parametrize(
    "epochs, what_happens",
    [
        (4, r"fit\(epochs=4\) stops before target_lr=0.001 is reached: the rule has n_epochs=6"),
        (7, r"fit\(epochs=7\) holds target_lr=0.001 from epoch index 5 on: the rule has n_epochs=6"),
    ],
    ids=["too-few", "too-many"],
)
def test_another_number_of_epochs_warns(epochs, what_happens, model, fit):
    decay = WarmupExponentialDecay(0.1, 0.001, 6)
    with pytest.warns(UserWarning, match=what_happens):
        rates = fit(model, [decay], epochs=epochs)["learning_rate"]
    assert rates == float32_rates(decay.rule, range(epochs))


@pytest.mark.parametrize("order", [1, -1], ids=["reduce-first", "decay-first"])
def test_a_change_by_another_callback_warns_once_and_is_overwritten(order, model, fit):
    # keras PR 8829: beside ReduceLROnPlateau the log tells the truth and a warning the conflict.
    reduce = tf.keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    decay = WarmupExponentialDecay(0.5, 0.5, 5)
    with pytest.warns(UserWarning) as warned:
        rates = fit(model, [reduce, decay][::order], epochs=5)["learning_rate"]
    assert rates == [0.5] * 5
    message = (
        "Something else changed `learning_rate` from 0.5 to 0.25. "
        "WarmupExponentialDecay overwrites it at the beginning of every epoch."
    )
    assert [str(w.message) for w in warned if w.category is UserWarning] == [message]


def test_a_change_in_the_last_epoch_warns(model, fit):
    reduce = tf.keras.callbacks.ReduceLROnPlateau("loss", factor=0.5, patience=1, min_delta=1e9)
    with pytest.warns(UserWarning, match="Something else changed `learning_rate` from 0.5 to 0.25"):
        rates = fit(model, [WarmupExponentialDecay(0.5, 0.5, 2), reduce], epochs=2)["learning_rate"]
    assert rates == [0.5, 0.5]
    assert model.optimizer.learning_rate.numpy() == 0.25


def test_hooks_without_train_begin_warn_too(model):
    decay = WarmupExponentialDecay(0.5, 0.25, 2)
    decay.set_model(model)
    decay.on_epoch_begin(0)
    model.optimizer.learning_rate = 0.125
    with pytest.warns(UserWarning, match="Something else changed `learning_rate` from 0.5 to 0.125"):
        decay.on_epoch_begin(1)


def test_the_rules_number_of_epochs_is_no_reason_to_warn(model):
    decay = WarmupExponentialDecay(0.5, 0.25, 1000)
    decay.set_model(model)
    decay.set_params({"epochs": int("1000")})
    decay.on_train_begin()


def test_an_optimizer_whose_rate_was_no_number(fit):
    model = build_model(tf.keras.optimizers.SGD(float("nan")))
    rates = fit(model, [WarmupExponentialDecay(0.5, 0.25, 2)], epochs=2)["learning_rate"]
    assert rates == [0.5, 0.25]


def test_a_rate_set_between_two_fits_is_no_conflict(model, fit):
    decay = WarmupExponentialDecay(0.5, 0.25, 2)
    fit(model, [decay], epochs=2)
    model.optimizer.learning_rate = 0.125
    assert fit(model, [decay], epochs=2)["learning_rate"] == [0.5, 0.25]


FLOAT16 = np.finfo(np.float16)
LIMITS = (
    "must be normal in float16, the dtype of the optimizer's learning rate (6.1035156e-05 to 65504). "
    "Received: "
)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floatx(dtype, floatx):
    """The rate in the history is that of the rule, in the dtype of the optimizer's."""
    x64 = contextlib.nullcontext()
    if BACKEND == "jax" and dtype == "float64":
        import jax

        x64 = jax.enable_x64(True)
    rule = DecayRule(0.1, 1e-3, 4, 1)
    if dtype == "bfloat16" and (not IS_KERAS_3 or KERAS_VERSION < (3, 1)):
        pytest.skip("this Keras knows no bfloat16 for floatx")
    with x64:
        floatx(dtype)
        for rate, callback in [
            (0.5, WarmupExponentialDecay(0.1, 1e-3, 4, 1)),
            (WarmupExponentialSchedule(0.1, 1e-3, 4, 1, steps_per_epoch=4), LearningRateLogger()),
        ]:
            model = build_model(tf.keras.optimizers.SGD(rate))
            data = np.ones((16, 3), dtype="float32"), np.ones((16, 2), dtype="float32")
            options = {"epochs": 4, "batch_size": 4, "verbose": 0}
            rates = model.fit(*data, callbacks=[callback], **options).history["learning_rate"]
            assert rates == [float(rate) for rate in rule.learning_rate(range(4), dtype).numpy()]


@pytest.mark.parametrize(
    "rates, message",
    [
        ((0.1, 1e-6), f"Argument `target_lr` {LIMITS}target_lr=1e-06"),
        ((1e5, 1e-4), f"Argument `base_lr` {LIMITS}base_lr=100000.0"),
        ((65510.0, 1e-4), f"Argument `base_lr` {LIMITS}base_lr=65510.0"),
        ((0.1, 6.1e-5), f"Argument `target_lr` {LIMITS}target_lr=6.1e-05"),
        ((FLOAT16.max, FLOAT16.tiny), None),
    ],
)
def test_a_rate_that_float16_cannot_hold_is_refused(rates, message, floatx):
    floatx("float16")
    decay = WarmupExponentialDecay(*rates, 3)
    decay.set_model(build_model(tf.keras.optimizers.SGD()))
    if message is None:
        decay.on_train_begin()
    else:
        with pytest.raises(ValueError) as raised:
            decay.on_train_begin()
        assert str(raised.value) == message


# Configs, copies and fresh processes


def test_config_holds_the_constructors_arguments():
    # keras#10625, #10644: the settings are kept. tensorflow/addons PR 1623: none is forgotten.
    config = WarmupExponentialDecay(*ALL_NON_DEFAULT).get_config()
    assert config == CONFIG and list(config) == list(CONFIG)
    assert json.loads(json.dumps(config)) == config
    assert WarmupExponentialDecay.from_config(config).get_config() == config


def test_repr_can_be_pasted():
    decay = WarmupExponentialDecay(*ALL_NON_DEFAULT)
    pasted = eval(repr(decay))
    assert type(pasted) is WarmupExponentialDecay and pasted.get_config() == CONFIG
    assert repr(pasted) == repr(decay)


def test_config_is_plain_whatever_came_in():
    numpy = WarmupExponentialDecay(
        np.float32(0.5), np.float64(0.1), np.int32(9), np.uint8(2), 0, 1, True
    )
    kinds = [float, float, int, int, float, int, int]
    assert [type(value) for value in numpy.get_config().values()] == kinds


def test_without_a_hold_the_config_is_that_of_version_0_1_0():
    config = WarmupExponentialDecay(*ALL_NON_DEFAULT[:5], verbose=1).get_config()
    assert config == {name: value for name, value in CONFIG.items() if name != "n_hold_epochs"}
    assert WarmupExponentialDecay.from_config(config).rule.n_hold_epochs == 0


def test_keras_serialization():
    # keras#9462, #12802, #14862, tf-keras#430: callbacks that have a config and lose no state.
    serialized = tf.keras.utils.serialize_keras_object(WarmupExponentialDecay(*ALL_NON_DEFAULT))
    restored = tf.keras.utils.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(restored) is WarmupExponentialDecay
    assert restored.get_config() == CONFIG


def test_registered_name():
    name = "expdecay_keras>WarmupExponentialDecay"
    assert tf.keras.utils.get_registered_name(WarmupExponentialDecay) == name
    assert tf.keras.utils.get_registered_object(name) is WarmupExponentialDecay


@pytest.mark.parametrize(
    "duplicate",
    [lambda decay: pickle.loads(pickle.dumps(decay)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_a_copy_leaves_the_model_behind(duplicate, model, fit):
    decay = WarmupExponentialDecay(0.1, 0.001, 6, 2, 0.05, 1)
    fit(model, [decay], epochs=6)
    copied = duplicate(decay)
    assert decay.model is model and copied.model is None
    assert copied.get_config() == decay.get_config()
    assert fit(build_model(), [copied], epochs=6)["learning_rate"] == float32_rates(
        copied.rule, range(6)
    )


# The logger


def scheduled(staircase=True, optimizer=tf.keras.optimizers.Adam):
    """A model with the schedule, its rule, and that many steps of 4 rows in an epoch of 16."""
    schedule = WarmupExponentialSchedule(0.1, 1e-4, 6, 2, 0.01, steps_per_epoch=4, staircase=staircase)
    return build_model(optimizer(schedule)), schedule


def test_logger_with_a_schedule_of_keras_own(fit):
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 4, 0.5, staircase=True)
    model = build_model(tf.keras.optimizers.SGD(schedule))
    history = fit(model, [LearningRateLogger()], epochs=4, batch_size=4)
    assert history["learning_rate"] == [0.5, 0.25, 0.125, 0.0625]


def test_logger_beside_a_callback_that_sets_the_rate(model, fit):
    callbacks = [
        tf.keras.callbacks.LearningRateScheduler(lambda epoch, lr: 2.0**-epoch),
        LearningRateLogger(),
    ]
    assert fit(model, callbacks, epochs=3)["learning_rate"] == [1.0, 0.5, 0.25]


@needs_legacy_optimizers
def test_logger_with_a_legacy_optimizer(fit):
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 4, 0.5, staircase=True)
    model = build_model(tf.keras.optimizers.legacy.SGD(schedule))
    rates = fit(model, [LearningRateLogger()], epochs=3, batch_size=4)["learning_rate"]
    assert rates == [0.5, 0.25, 0.125]
    model = build_model(tf.keras.optimizers.legacy.SGD(0.5, decay=0.25))
    rates = fit(model, [LearningRateLogger()], epochs=3, batch_size=4)["learning_rate"]
    assert rates == [0.5, 0.25, float(np.float32(0.5) / np.float32(3))]  # 0.5 / (1 + 0.25 * step)


@needs_multi_optimizer
def test_logger_with_several_optimizers(data):
    # keras PR 22959: every rate is logged under its optimizer's name.
    optimizers = tf.keras.optimizers
    schedule = WarmupExponentialSchedule(0.1, 1e-4, 6, 2, steps_per_epoch=4)
    planned = optimizers.SGD(schedule, name="planned")
    by_layer = optimizers.OptimizerMap(optimizers.Adam(0.5, name="fixed"), {".*a/.*": planned})
    layers = [tf.keras.layers.Dense(4, name="a"), tf.keras.layers.Dense(2, name="b")]
    model = tf.keras.Sequential([tf.keras.Input((3,)), *layers])
    model.compile(optimizers.MultiOptimizer(by_layer), "mse")
    history = model.fit(
        *data, batch_size=4, epochs=6, verbose=0, callbacks=[LearningRateLogger()]
    ).history
    assert history["learning_rate_fixed"] == [0.5] * 6
    assert history["learning_rate_planned"] == float32_rates(schedule.rule, range(6))


@pytest.mark.parametrize("order", [1, -1], ids=["logger-first", "tensorboard-first"])
def test_logger_beside_tensorboard(order, fit, tmp_path):
    # keras#11973, #16087, tensorflow#46248: in TensorBoard, whatever the order of callbacks.
    model, schedule = scheduled()
    callbacks = [LearningRateLogger(), tf.keras.callbacks.TensorBoard(str(tmp_path))]
    fit(model, callbacks[::order], epochs=6, batch_size=4)
    # Keras's TensorBoard asks a schedule when the epoch has ended: the next epoch's first rate.
    rates = float32_rates(schedule.rule, range(1, 7))
    assert scalars(tmp_path / "train", "epoch_learning_rate") == list(enumerate(rates))


def test_logger_config():
    serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(LearningRateLogger())))
    restored = tf.keras.utils.deserialize_keras_object(serialized)
    assert type(restored) is LearningRateLogger and restored.get_config() == {}


def test_logger_config_of_version_0_1_0():
    config = {"log_dir": None, "update_freq": "epoch"}
    assert LearningRateLogger.from_config(config).get_config() == {}
    with pytest.raises(TypeError, match="unexpected keyword argument 'log_dir'"):
        LearningRateLogger.from_config({"log_dir": "logs", "update_freq": 5})


# TensorBoard, update by update


@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
@pytest.mark.parametrize("update_freq", [1, 5])
def test_tensorboard_has_the_rate_of_every_kth_update(update_freq, staircase, fit, tmp_path):
    # tf-keras#403, keras#14291: the rate, batch by batch.
    model, schedule = scheduled(staircase)
    # A fit that resumes, with another callback, resumes the updates' count.
    for first, last in [(0, 2), (2, 6)]:
        writer = LearningRateTensorBoard(str(tmp_path), update_freq)
        fit(model, [writer], epochs=last, initial_epoch=first, batch_size=4)
    updates = range(0, 24, update_freq)
    assert scalars(tmp_path) == [(update, evaluate(schedule, update).item()) for update in updates]


def test_tensorboard_from_between_two_multiples(fit, tmp_path):
    model, _ = scheduled()
    model.optimizer.iterations.assign(1301)
    fit(model, [LearningRateTensorBoard(tmp_path, update_freq=5)], epochs=3, batch_size=4)
    assert [update for update, _ in scalars(tmp_path)] == [1305, 1310]


@pytest.mark.skipif(BACKEND == "torch", reason="PyTorch has no steps_per_execution")
def test_tensorboard_with_several_updates_at_once(fit, tmp_path):
    model, _ = scheduled(staircase=False)
    model.compile(model.optimizer, "mse", steps_per_execution=2)
    fit(model, [LearningRateTensorBoard(tmp_path, update_freq=3)], epochs=3, batch_size=4)
    assert [update for update, _ in scalars(tmp_path)] == [0, 4, 6, 10]


@needs_multi_optimizer
def test_tensorboard_of_several_optimizers(data, tmp_path):
    optimizers = tf.keras.optimizers
    chosen = optimizers.OptimizerMap(
        optimizers.SGD(0.5, name="a"), {".*bias": optimizers.SGD(0.25, name="b")}
    )
    model = build_model(optimizers.MultiOptimizer(chosen))
    model.fit(*data, epochs=1, batch_size=8, verbose=0, callbacks=[LearningRateTensorBoard(tmp_path)])
    assert scalars(tmp_path, "learning_rate_a") == [(0, 0.5), (1, 0.5)]
    assert scalars(tmp_path, "learning_rate_b") == [(0, 0.25), (1, 0.25)]


def test_tensorboard_config(fit, tmp_path):
    config = {"log_dir": str(tmp_path), "update_freq": 2}
    writer = LearningRateTensorBoard(tmp_path, 2)
    serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(writer)))
    restored = tf.keras.utils.deserialize_keras_object(serialized)
    assert type(restored) is LearningRateTensorBoard
    assert restored.get_config() == config and list(restored.get_config()) == list(config)
    assert LearningRateTensorBoard(tmp_path).get_config()["update_freq"] == 1
    fit(build_model(), [restored], epochs=2, batch_size=4)
    copied = pickle.loads(pickle.dumps(restored))
    assert copied.get_config() == config and copied.model is None


def test_without_tensorboard(monkeypatch, model, fit, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'expdecay-keras\[tensorboard\]'"):
        fit(model, [LearningRateTensorBoard(tmp_path)], epochs=1)
    fit(model, [LearningRateLogger()], epochs=1)
