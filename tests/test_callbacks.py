import copy
import csv
import json
import pickle
import subprocess
import sys
import textwrap
import warnings

import numpy as np
import pytest
import tensorflow as tf
from conftest import build_model, float32_rates
from test_rule import ILLEGAL, LEGAL

from expdecay_keras import DecayRule, WarmupExponentialDecay

ALL_NON_DEFAULT = (0.1, 0.001, 6, 2, 0.05, 1)
# The compatibility contract: every later version reads this.
CONFIG = {
    "base_lr": 0.1,
    "target_lr": 0.001,
    "n_epochs": 6,
    "n_warmup_epochs": 2,
    "warmup_start_lr": 0.05,
    "verbose": 1,
}
IS_KERAS_3 = not hasattr(tf.keras.backend, "experimental")


@pytest.fixture(autouse=True)
def _no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        yield


def test_history_holds_the_seed_table(seed_row, seed_rates, model, fit):
    rates = fit(model, [WarmupExponentialDecay(*seed_row)], epochs=5)["learning_rate"]
    assert [round(rate, 6) for rate in rates] == seed_rates
    assert rates == float32_rates(DecayRule(*seed_row), range(5))


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
    for weight, other in zip(model.get_weights(), expected.get_weights()):
        np.testing.assert_array_equal(weight, other)


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
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callbacks = [WarmupExponentialDecay(0.1, 0.001, 5), tf.keras.callbacks.TensorBoard(str(tmp_path))]
    history = fit(model, callbacks[::order], epochs=5)
    events = EventAccumulator(str(tmp_path / "train")).Reload()
    scalars = events.Tensors("epoch_learning_rate")
    assert [event.step for event in scalars] == list(range(5))
    rates = [float(tf.make_ndarray(event.tensor_proto)) for event in scalars]
    assert rates == history["learning_rate"]


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


def test_no_batch_hooks():
    base = tf.keras.callbacks.Callback
    hooks = [name for name in dir(base) if name.startswith("on_") and "batch" in name]
    assert hooks
    for name in hooks:
        assert getattr(WarmupExponentialDecay, name) is getattr(base, name)


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


@pytest.mark.skipif(
    not hasattr(tf.keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)
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


@pytest.mark.skipif(
    IS_KERAS_3 or not hasattr(tf.keras.optimizers, "legacy"), reason="Keras 2's legacy optimizers"
)
def test_legacy_optimizer(fit):
    model = build_model(tf.keras.optimizers.legacy.SGD(0.5, momentum=0.9))
    decay = WarmupExponentialDecay(0.1, 0.001, 3)
    assert fit(model, [decay], epochs=3)["learning_rate"] == float32_rates(decay.rule, range(3))


# Refusals and warnings


@pytest.mark.parametrize("namespace", ["optimizers", "legacy"])
def test_optimizer_built_with_a_schedule(namespace, fit):
    # tensorflow#36612, #51399, keras#14331: not an obscure death but a TypeError that names the way out.
    optimizers = tf.keras.optimizers
    if namespace == "legacy":
        if IS_KERAS_3:
            pytest.skip("Keras 3 has no working legacy optimizers")
        optimizers = optimizers.legacy
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)
    model = build_model(optimizers.SGD(schedule))
    with pytest.raises(TypeError, match="SGD: it was built with a schedule.*WarmupExponentialSchedule"):
        fit(model, [WarmupExponentialDecay(0.1, 0.001, 3)], epochs=3)


@pytest.mark.skipif(
    IS_KERAS_3 or not hasattr(tf.keras.optimizers, "legacy"), reason="Keras 2's legacy optimizers"
)
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


def test_float16_learning_rate_is_refused():
    tf.keras.backend.set_floatx("float16")
    try:
        model = build_model(tf.keras.optimizers.SGD())
        decay = WarmupExponentialDecay(0.1, 1e-6, 3)
        decay.set_model(model)
        with pytest.raises(ValueError, match="Argument `target_lr` must be normal in float16.*1e-06$"):
            decay.on_train_begin()
        decay = WarmupExponentialDecay(1e5, 1e-4, 3)
        decay.set_model(model)
        with pytest.raises(ValueError, match="Argument `base_lr` must be normal in float16.*100000.0$"):
            decay.on_train_begin()
        limits = np.finfo(np.float16)
        fine = WarmupExponentialDecay(limits.max, limits.tiny, 3)
        fine.set_model(model)
        fine.on_train_begin()
    finally:
        tf.keras.backend.set_floatx("float32")


@pytest.mark.parametrize(
    "name, value, error, constraint", ILLEGAL, ids=[f"{row[0]}={row[1]!r:.20}" for row in ILLEGAL]
)
def test_illegal_argument(name, value, error, constraint):
    with pytest.raises(error, match=rf"^Argument `{name}` {constraint}\. Received: {name}="):
        WarmupExponentialDecay.from_config({**LEGAL, name: value})


@pytest.mark.parametrize("verbose, error", [(2, ValueError), (-1, ValueError), ("1", TypeError)])
def test_illegal_verbose(verbose, error):
    with pytest.raises(error, match="^Argument `verbose` must be .* Received: verbose="):
        WarmupExponentialDecay(0.1, 0.01, 5, verbose=verbose)


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
    numpy = WarmupExponentialDecay(np.float32(0.5), np.float64(0.1), np.int32(9), np.uint8(2), 0, True)
    assert [type(value) for value in numpy.get_config().values()] == [float, float, int, int, float, int]


def test_keras_serialization():
    # keras#9462, #12802, #14862, tf-keras#430: callbacks that have a config and lose no state.
    serialized = tf.keras.utils.serialize_keras_object(WarmupExponentialDecay(*ALL_NON_DEFAULT))
    restored = tf.keras.utils.deserialize_keras_object(json.loads(json.dumps(serialized)))
    assert type(restored) is WarmupExponentialDecay
    assert restored.get_config() == CONFIG


def test_literal_json_is_read():
    literal = """{"module": "expdecay_keras.callbacks", "class_name": "WarmupExponentialDecay",
        "config": {"base_lr": 0.1, "target_lr": 0.001, "n_epochs": 6, "n_warmup_epochs": 2,
        "warmup_start_lr": 0.05, "verbose": 1},
        "registered_name": "expdecay_keras>WarmupExponentialDecay"}"""
    if tf.__version__.startswith("2.12."):  # it reads and writes the form of Keras 2
        literal = literal.replace('"WarmupExp', '"expdecay_keras>WarmupExp')
    restored = tf.keras.utils.deserialize_keras_object(json.loads(literal))
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
    decay = WarmupExponentialDecay(0.1, 0.001, 6, 2, 0.05)
    fit(model, [decay], epochs=6)
    copied = duplicate(decay)
    assert decay.model is model and copied.model is None
    assert copied.get_config() == decay.get_config()
    assert fit(build_model(), [copied], epochs=6)["learning_rate"] == float32_rates(
        copied.rule, range(6)
    )


def test_a_new_process_goes_on_to_the_bit(data, tmp_path, fit):
    """Callback from JSON, model from .keras: rates and weights equal to the run never stopped."""
    arguments = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 7, "n_warmup_epochs": 2}
    unbroken = build_model(tf.keras.optimizers.SGD(momentum=0.9))
    history = fit(unbroken, [WarmupExponentialDecay(**arguments)], epochs=7, batch_size=4)

    stopped, decay = (
        build_model(tf.keras.optimizers.SGD(momentum=0.9)),
        WarmupExponentialDecay(**arguments),
    )
    with pytest.warns(UserWarning, match="stops before"):
        fit(stopped, [decay], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.keras")
    serialized = tf.keras.utils.serialize_keras_object(decay)
    (tmp_path / "callback.json").write_text(json.dumps(serialized))
    np.savez(tmp_path / "data.npz", x=data[0], y=data[1])
    script = """
        import json, sys, numpy as np, tensorflow as tf, expdecay_keras
        model = tf.keras.models.load_model("model.keras")
        decay = tf.keras.utils.deserialize_keras_object(json.load(open("callback.json")))
        data = np.load("data.npz")
        history = model.fit(data["x"], data["y"], initial_epoch=4, epochs=7, batch_size=4,
                            shuffle=False, verbose=0, callbacks=[decay]).history
        json.dump(history["learning_rate"], open("rates.json", "w"))
        np.savez("weights.npz", *model.get_weights())
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)
    assert json.loads((tmp_path / "rates.json").read_text()) == history["learning_rate"][4:]
    weights = np.load(tmp_path / "weights.npz")
    for name, expected in zip(weights.files, unbroken.get_weights()):
        np.testing.assert_array_equal(weights[name], expected)
