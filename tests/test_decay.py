import contextlib
import copy
import csv
import itertools
import json
import operator
import os
import pickle
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from models import build_model, evaluate, scalars
from oracle import float32_rates
from releases import (
    BACKEND,
    IS_KERAS_3,
    KERAS_VERSION,
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


def test_csv_logger_after_the_callback_has_the_rate(model, fit, tmp_path):
    decay, path = WarmupExponentialDecay(0.1, 0.001, 3), tmp_path / "log.csv"
    history = fit(model, [decay, tf.keras.callbacks.CSVLogger(str(path))], epochs=3)
    with path.open() as file:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert rates == history["learning_rate"]


@pytest.mark.parametrize("order", [1, -1], ids=["decay-first", "tensorboard-first"])
def test_tensorboard_has_the_rate(order, model, fit, tmp_path):
    # keras#11973, tensorflow#46248: the rate was missing in TensorBoard.
    if order == -1 and not IS_KERAS_3:
        pytest.skip("Keras 2 hands TensorBoard the log before later callbacks fill it")
    callbacks = [
        WarmupExponentialDecay(0.1, 0.001, 5),
        tf.keras.callbacks.TensorBoard(str(tmp_path)),
    ]
    history = fit(model, callbacks[::order], epochs=5)
    assert scalars(tmp_path / "train", "epoch_learning_rate") == list(
        enumerate(history["learning_rate"])
    )


def test_verbose_prints_a_line_per_epoch(model, fit, capsys):
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
    # keras#22010 asks how to resume an exponential decay at epoch 27.
    decay = WarmupExponentialDecay(0.1, 1e-5, n_epochs=30, n_warmup_epochs=3)
    rates = fit(build_model(), [decay], epochs=30, initial_epoch=27)["learning_rate"]
    assert rates == float32_rates(decay.rule, [27, 28, 29])


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
    model.fit(
        *data, epochs=9, verbose=0, callbacks=[WarmupExponentialDecay(0.1, 0.001, 9)]
    )
    assert len(traces) == before


# Mixed precision, wrapped and several optimizers


def test_mixed_precision(fit):
    # tensorflow#32905: a rate callback broke under mixed precision.
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build_model(tf.keras.optimizers.SGD())
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    assert hasattr(model.optimizer, "inner_optimizer")
    decay = WarmupExponentialDecay(0.1, 1e-7, 4)
    assert fit(model, [decay], epochs=4)["learning_rate"] == float32_rates(
        decay.rule, range(4)
    )
    assert model.optimizer.inner_optimizer.learning_rate.numpy() == np.float32(1e-7)


@needs_multi_optimizer
@pytest.mark.parametrize("chosen_by", ["map", "function"])
def test_several_optimizers(chosen_by, data):
    # keras PR 22959: with several optimizers only one was set.
    optimizers = tf.keras.optimizers
    slow, quick = optimizers.SGD(0.5, name="slow"), optimizers.Adam(0.5, name="quick")
    if chosen_by == "map":
        choose = optimizers.OptimizerMap(slow, {".*a/.*": quick})
    else:  # the MultiOptimizer knows its optimizers once it has seen the weights

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


# Refusals and warnings


@pytest.mark.parametrize(
    "namespace", ["", pytest.param("legacy.", marks=needs_legacy_optimizers)]
)
def test_optimizer_built_with_a_schedule(namespace, fit):
    # tensorflow#36612, keras#14331: training died of an obscure error.
    optimizer = operator.attrgetter(f"{namespace}SGD")(tf.keras.optimizers)
    model = build_model(
        optimizer(tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5))
    )
    with pytest.raises(
        TypeError, match="SGD: it was built with a schedule.*WarmupExponentialSchedule"
    ):
        fit(model, [WarmupExponentialDecay(0.1, 0.001, 3)], epochs=3)


@needs_legacy_optimizers
def test_legacy_optimizer_with_a_decay_of_its_own(fit):
    model = build_model(tf.keras.optimizers.legacy.SGD(0.5, decay=0.1))
    with pytest.raises(
        TypeError, match="SGD: it was built with a schedule, a function or `decay`"
    ):
        fit(model, [WarmupExponentialDecay(0.1, 0.001, 3)], epochs=3)


@pytest.mark.parametrize("order", [1, -1], ids=["reduce-first", "decay-first"])
def test_a_change_by_another_callback_warns_once_and_is_overwritten(order, model, fit):
    # keras PR 8829: LearningRateScheduler silently undoes ReduceLROnPlateau.
    reduce = tf.keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=1e9
    )
    decay = WarmupExponentialDecay(0.5, 0.5, 5)
    with pytest.warns(UserWarning) as warned:
        rates = fit(model, [reduce, decay][::order], epochs=5)["learning_rate"]
    assert rates == [0.5] * 5
    message = (
        "Another callback changed `learning_rate` from 0.5 to 0.25. "
        "WarmupExponentialDecay sets it at the start of each epoch."
    )
    assert [str(w.message) for w in warned if w.category is UserWarning] == [message]


def test_a_change_in_the_last_epoch_warns(model, fit):
    reduce = tf.keras.callbacks.ReduceLROnPlateau(
        "loss", factor=0.5, patience=1, min_delta=1e9
    )
    with pytest.warns(
        UserWarning, match="Another callback changed `learning_rate` from 0.5 to 0.25"
    ):
        rates = fit(model, [WarmupExponentialDecay(0.5, 0.5, 2), reduce], epochs=2)[
            "learning_rate"
        ]
    assert rates == [0.5, 0.5]
    assert model.optimizer.learning_rate.numpy() == 0.25


def test_hooks_without_train_begin_warn_too(model):
    decay = WarmupExponentialDecay(0.5, 0.25, 2)
    decay.set_model(model)
    decay.on_epoch_begin(0)
    model.optimizer.learning_rate = 0.125
    with pytest.warns(
        UserWarning, match="Another callback changed `learning_rate` from 0.5 to 0.125"
    ):
        decay.on_epoch_begin(1)


def test_a_rate_set_between_two_fits_is_not_a_conflict(model, fit):
    decay = WarmupExponentialDecay(0.5, 0.25, 2)
    fit(model, [decay], epochs=2)
    model.optimizer.learning_rate = 0.125
    assert fit(model, [decay], epochs=2)["learning_rate"] == [0.5, 0.25]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_floatx(dtype, floatx):
    """The rate in the history is that of the rule, in the optimizer's dtype."""
    x64 = contextlib.nullcontext()
    if BACKEND == "jax" and dtype == "float64":
        import jax

        x64 = jax.enable_x64(True)
    rule = DecayRule(0.1, 1e-3, 4, 1)
    if dtype == "bfloat16" and (not IS_KERAS_3 or KERAS_VERSION < (3, 1)):
        pytest.skip("this Keras does not accept bfloat16 as floatx")
    with x64:
        floatx(dtype)
        for rate, callback in [
            (0.5, WarmupExponentialDecay(0.1, 1e-3, 4, 1)),
            (
                WarmupExponentialSchedule(0.1, 1e-3, 4, 1, steps_per_epoch=4),
                LearningRateLogger(),
            ),
        ]:
            model = build_model(tf.keras.optimizers.SGD(rate))
            data = np.ones((16, 3), dtype="float32"), np.ones((16, 2), dtype="float32")
            options = {"epochs": 4, "batch_size": 4, "verbose": 0}
            history = model.fit(*data, callbacks=[callback], **options).history
            rates = history["learning_rate"]
            assert rates == [
                float(rate) for rate in rule.learning_rate(range(4), dtype).numpy()
            ]


# Configs and copies


def test_config_contains_the_constructors_arguments():
    # tensorflow/addons PR 1623: a callback's config lacked an argument.
    config = WarmupExponentialDecay(*ALL_NON_DEFAULT).get_config()
    assert list(config.items()) == list(CONFIG.items())
    assert WarmupExponentialDecay.from_config(config).get_config() == config
    numpy = WarmupExponentialDecay(
        np.float32(0.5), np.float64(0.1), np.int32(9), np.uint8(2), 0, 1, True
    )
    types = [float, float, int, int, float, int, int]
    assert [type(value) for value in numpy.get_config().values()] == types


def test_defaults_are_in_the_config():
    config = WarmupExponentialDecay(0.1, 0.01, 5).get_config()
    assert list(config) == list(CONFIG)
    assert list(config.values()) == [0.1, 0.01, 5, 0, None, 0, 0]


def test_rule_is_read_only():
    # open_clip#413: a run kept its old plan after what looked like a valid change.
    decay = WarmupExponentialDecay(0.1, 0.01, 5)
    with pytest.raises(AttributeError):
        decay.rule = DecayRule(0.5, 0.01, 5)
    assert decay.rule == DecayRule(0.1, 0.01, 5)


def test_repr_can_be_pasted():
    for callback in (
        WarmupExponentialDecay(*ALL_NON_DEFAULT),
        LearningRateLogger(),
        LearningRateTensorBoard("logs", 2),
    ):
        pasted = eval(repr(callback))
        assert type(pasted) is type(callback)
        assert pasted.get_config() == callback.get_config()


CALLBACK_JSON = """{"module": "expdecay_keras.callbacks",
    "class_name": "WarmupExponentialDecay",
    "config": {"base_lr": 0.1, "target_lr": 0.001, "n_epochs": 8,
               "n_warmup_epochs": 2, "warmup_start_lr": 0.05, "n_hold_epochs": 3,
               "verbose": 1},
    "registered_name": "expdecay_keras>WarmupExponentialDecay"}"""


def test_the_form_in_which_a_callback_is_saved():
    """What every later version must be able to read."""
    # tf-keras#430: Keras's callbacks cannot be saved.
    literal = json.loads(CALLBACK_JSON)
    if tf.__version__.startswith("2.12."):  # it writes and reads the older form
        name = literal["registered_name"]
        literal = {"class_name": name, "config": literal["config"]}
    decay = WarmupExponentialDecay(*ALL_NON_DEFAULT)
    serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(decay)))
    assert {key: serialized[key] for key in literal} == literal
    restored = tf.keras.utils.deserialize_keras_object(literal)
    assert type(restored) is WarmupExponentialDecay
    assert restored.get_config() == CONFIG


class Noted(WarmupExponentialDecay):
    """A user's subclass with an attribute of its own."""

    note = None


@pytest.mark.parametrize(
    "duplicate",
    [lambda callback: pickle.loads(pickle.dumps(callback)), copy.deepcopy, copy.copy],
    ids=["pickle", "deepcopy", "copy"],
)
def test_a_copy_leaves_the_model_behind(duplicate, model, fit):
    decay = Noted(0.1, 0.001, 6, 2, 0.05, 1)
    decay.note = ["mine"]
    fit(model, [decay], epochs=6)
    copied = duplicate(decay)
    assert decay.model is model and copied.model is None
    assert type(copied) is Noted and copied.note == ["mine"]
    assert copied.get_config() == decay.get_config()
    rates = fit(build_model(), [copied], epochs=6)["learning_rate"]
    assert rates == float32_rates(copied.rule, range(6))


# The logger


def scheduled(staircase=True, optimizer=tf.keras.optimizers.Adam):
    """A model and its schedule, for 16 rows in batches of 4."""
    schedule = WarmupExponentialSchedule(
        0.1, 1e-4, 6, 2, 0.01, steps_per_epoch=4, staircase=staircase
    )
    return build_model(optimizer(schedule)), schedule


def test_logger_beside_a_callback_that_sets_the_rate(model, fit):
    callbacks = [
        tf.keras.callbacks.LearningRateScheduler(lambda epoch, lr: 2.0**-epoch),
        LearningRateLogger(),
    ]
    assert fit(model, callbacks, epochs=3)["learning_rate"] == [1.0, 0.5, 0.25]


@needs_legacy_optimizers
def test_logger_with_a_legacy_optimizer(fit):
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(
        0.5, 4, 0.5, staircase=True
    )
    model = build_model(tf.keras.optimizers.legacy.SGD(schedule))
    rates = fit(model, [LearningRateLogger()], epochs=3, batch_size=4)["learning_rate"]
    assert rates == [0.5, 0.25, 0.125]
    model = build_model(tf.keras.optimizers.legacy.SGD(0.5, decay=0.25))
    rates = fit(model, [LearningRateLogger()], epochs=3, batch_size=4)["learning_rate"]
    assert rates == [
        0.5,
        0.25,
        float(np.float32(0.5) / np.float32(3)),
    ]  # 0.5 / (1 + 0.25 * step)


def test_logger_beside_tensorboard(fit, tmp_path):
    model, schedule = scheduled()
    callbacks = [LearningRateLogger(), tf.keras.callbacks.TensorBoard(str(tmp_path))]
    fit(model, callbacks, epochs=6, batch_size=4)
    # Keras's TensorBoard asks the schedule after the epoch: it gets the next rate.
    rates = float32_rates(schedule.rule, range(1, 7))
    assert scalars(tmp_path / "train", "epoch_learning_rate") == list(enumerate(rates))


def test_logger_config():
    logger = LearningRateLogger()
    serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(logger)))
    restored = tf.keras.utils.deserialize_keras_object(serialized)
    assert type(restored) is LearningRateLogger and restored.get_config() == {}


# TensorBoard, step by step


@pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])
@pytest.mark.parametrize("update_freq", [1, 5])
def test_tensorboard_has_the_rate_of_every_kth_step(
    update_freq, staircase, fit, tmp_path
):
    # tf-keras#403, keras#14291 ask for the rate of every batch.
    model, schedule = scheduled(staircase)
    # A `fit` that resumes with another callback continues the count of steps.
    for first, last in [(0, 2), (2, 6)]:
        writer = LearningRateTensorBoard(str(tmp_path), update_freq)
        fit(model, [writer], epochs=last, initial_epoch=first, batch_size=4)
    steps = range(0, 24, update_freq)
    assert scalars(tmp_path) == [
        (step, evaluate(schedule, step).item()) for step in steps
    ]


def test_tensorboard_from_between_two_multiples(fit, tmp_path):
    model, _ = scheduled()
    model.optimizer.iterations.assign(1301)
    fit(
        model,
        [LearningRateTensorBoard(tmp_path, update_freq=5)],
        epochs=3,
        batch_size=4,
    )
    assert [step for step, _ in scalars(tmp_path)] == [1305, 1310]


@needs_steps_per_execution
def test_tensorboard_with_several_steps_at_once(fit, tmp_path):
    model, _ = scheduled(staircase=False)
    model.compile(model.optimizer, "mse", steps_per_execution=2)
    fit(
        model,
        [LearningRateTensorBoard(tmp_path, update_freq=3)],
        epochs=3,
        batch_size=4,
    )
    assert [step for step, _ in scalars(tmp_path)] == [0, 4, 6, 10]


@needs_multi_optimizer
def test_tensorboard_of_several_optimizers(data, tmp_path):
    optimizers = tf.keras.optimizers
    chosen = optimizers.OptimizerMap(
        optimizers.SGD(0.5, name="a"), {".*bias": optimizers.SGD(0.25, name="b")}
    )
    model = build_model(optimizers.MultiOptimizer(chosen))
    model.fit(
        *data,
        epochs=1,
        batch_size=8,
        verbose=0,
        callbacks=[LearningRateTensorBoard(tmp_path)],
    )
    assert scalars(tmp_path, "learning_rate_a") == [(0, 0.5), (1, 0.5)]
    assert scalars(tmp_path, "learning_rate_b") == [(0, 0.25), (1, 0.25)]


def test_tensorboard_config(fit, tmp_path):
    config = {"log_dir": str(tmp_path), "update_freq": 2}
    writer = LearningRateTensorBoard(tmp_path, 2)
    serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(writer)))
    restored = tf.keras.utils.deserialize_keras_object(serialized)
    assert type(restored) is LearningRateTensorBoard
    assert restored.get_config() == config and list(restored.get_config()) == list(
        config
    )
    assert LearningRateTensorBoard(tmp_path).get_config()["update_freq"] == 1
    fit(build_model(), [restored], epochs=2, batch_size=4)
    copied = pickle.loads(pickle.dumps(restored))
    assert copied.get_config() == config and copied.model is None


def test_without_tensorboard(monkeypatch, model, fit, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    message = "^LearningRateTensorBoard needs TensorBoard: pip install tensorboard$"
    with pytest.raises(ImportError, match=message):
        fit(model, [LearningRateTensorBoard(tmp_path)], epochs=1)
    fit(model, [LearningRateLogger()], epochs=1)


class Interrupt(tf.keras.callbacks.Callback):
    """Interrupts training at a batch, counted from the start of `fit`."""

    def __init__(self, at):
        super().__init__()
        self.at, self.count = at, 0

    def on_train_batch_end(self, batch, logs=None):
        self.count += 1
        if self.count == self.at:
            raise KeyboardInterrupt


@pytest.mark.skipif(sys.platform != "linux", reason="open files are listed in /proc")
def test_tensorboard_closes_its_file_when_interrupted(fit, tmp_path):
    model, schedule = scheduled()
    writer = LearningRateTensorBoard(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        fit(model, [writer, Interrupt(at=6)], epochs=6, batch_size=4)
    open_files = [os.path.realpath(link) for link in Path("/proc/self/fd").iterdir()]
    assert not [name for name in open_files if name.startswith(str(tmp_path))]
    # What it had not written yet is its own, and is not lost if training resumes.
    copied = copy.copy(writer)
    copied.log_dir = str(tmp_path / "copied")
    fit(build_model(), [copied], epochs=1)
    assert scalars(tmp_path / "copied") == [(0, float(np.float32(0.01)))]
    fit(model, [writer], epochs=3, initial_epoch=2, batch_size=4)
    rates = [evaluate(schedule, step).item() for step in range(10)]
    assert scalars(tmp_path) == list(enumerate(rates))


def test_tensorboard_of_many_short_epochs(model, data, tmp_path, monkeypatch):
    """Files of the same second would be read in any order."""
    clock = SimpleNamespace(monotonic=itertools.count(step=0.1).__next__)
    monkeypatch.setattr("expdecay_keras.callbacks.time", clock)
    writer = LearningRateTensorBoard(tmp_path)
    options = {"epochs": 15, "batch_size": 16, "verbose": 0, "callbacks": [writer]}
    model.fit(*data, **options)
    assert len(list(tmp_path.iterdir())) == 3  # at 0 and 1 seconds, and at the end
    assert [step for step, _ in scalars(tmp_path)] == list(range(15))


def test_tensorboard_after_a_rollback(fit, tmp_path):
    model, _ = scheduled()
    writer = LearningRateTensorBoard(tmp_path, update_freq=4)

    class Rollback(tf.keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                self.model.optimizer.iterations.assign(0)

    fit(model, [writer, Rollback()], epochs=3, batch_size=4)
    assert [step for step, _ in scalars(tmp_path)] == [0, 0, 4]


def test_tensorboard_writes_long_epochs_in_parts(model, tmp_path):
    x, y = np.ones((2500, 3), "float32"), np.ones((2500, 2), "float32")
    writer = LearningRateTensorBoard(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        model.fit(x, y, batch_size=1, verbose=0, callbacks=[writer, Interrupt(1001)])
    assert [step for step, _ in scalars(tmp_path)] == list(range(1000))
