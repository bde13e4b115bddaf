"""The callback sets the rate of each epoch, logs what it has set, and refuses."""

import contextlib
import csv
import json
import operator

import numpy as np
import pytest
import tensorflow as tf
from models import RATES, Interrupt, build_model, decay, planned, scalars, train
from oracle import float32_rates
from releases import (
    BACKEND,
    IS_KERAS_3,
    KERAS_VERSION,
    needs_legacy_optimizers,
    needs_multi_optimizer,
    needs_tensorflow,
)

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

callbacks = tf.keras.callbacks


# What it logs


def test_csv_logger_after_the_callback_has_the_rate(tmp_path):
    path = tmp_path / "log.csv"
    rates = train(build_model(), decay(), callbacks.CSVLogger(str(path)))
    with path.open() as file:
        logged = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert logged == rates == RATES
    assert {type(rate) for rate in rates} == {float}


@pytest.mark.parametrize("order", [1, -1], ids=["decay-first", "tensorboard-first"])
def test_tensorboard_has_the_rate(order, tmp_path):
    # keras#11973, tensorflow#46248: the rate was missing in TensorBoard.
    if order == -1 and not IS_KERAS_3:
        pytest.skip("Keras 2 hands TensorBoard the log before later callbacks fill it")
    listed = [decay(), callbacks.TensorBoard(str(tmp_path))]
    train(build_model(), *listed[::order])
    assert scalars(tmp_path / "train", "epoch_learning_rate") == list(enumerate(RATES))


@pytest.mark.parametrize("verbose", [1, True, np.True_])
def test_verbose_prints_a_line_per_epoch(verbose, capsys):
    halved = WarmupExponentialDecay(0.5, 0.125, 3, verbose=verbose)
    train(build_model(), halved, epochs=3)
    assert capsys.readouterr().out.split("\n\n") == [
        "\nEpoch 1: WarmupExponentialDecay setting learning rate to 0.5.",
        "Epoch 2: WarmupExponentialDecay setting learning rate to 0.25.",
        "Epoch 3: WarmupExponentialDecay setting learning rate to 0.125.\n",
    ]


def test_nothing_is_printed_by_default(capsys):
    train(build_model(), decay())
    assert capsys.readouterr().out == ""


def by_hand(model, callback, logs):
    """Calls the hooks around `train_on_batch`; returns the last epoch's log."""
    callback.set_model(model)
    callback.on_train_begin()
    for epoch in range(5):
        callback.on_epoch_begin(epoch)
        for _ in range(4):
            model.train_on_batch(np.ones((16, 3)), np.ones((16, 2)))
        callback.on_epoch_end(epoch, logs)
    callback.on_train_end()
    return logs


@pytest.mark.parametrize("logs", [{}, None], ids=["logs", "no-logs"])
def test_hooks_by_hand(logs):
    model = build_model()
    expected = None if logs is None else {"learning_rate": RATES[4]}
    assert by_hand(model, decay(), logs) == expected
    assert float(np.asarray(model.optimizer.learning_rate)) == RATES[4]
    scheduled = build_model(
        tf.keras.optimizers.SGD(
            WarmupExponentialSchedule(0.1, 1e-4, 5, steps_per_epoch=4)
        )
    )
    assert by_hand(scheduled, LearningRateLogger(), logs) == expected


# What it sets


def test_resume_with_a_fresh_optimizer():
    # keras#22010 asks how to resume an exponential decay at epoch 27.
    own = WarmupExponentialDecay(0.1, 1e-5, n_epochs=30, n_warmup_epochs=3)
    rates = train(build_model(), own, epochs=30, initial_epoch=27)
    assert rates == float32_rates(own.rule, [27, 28, 29])


@needs_tensorflow
def test_nothing_is_traced_again():
    traces = []

    class Model(tf.keras.Sequential):
        def train_step(self, *args):
            traces.append(1)
            return super().train_step(*args)

    model = Model([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    train(model, LearningRateLogger())
    before = len(traces)
    assert train(model, decay()) == RATES
    assert len(traces) == before


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
        schedule = WarmupExponentialSchedule(0.1, 1e-3, 4, 1, steps_per_epoch=4)
        for rate, callback in [
            (0.5, WarmupExponentialDecay(0.1, 1e-3, 4, 1)),
            (schedule, LearningRateLogger()),
        ]:
            model = build_model(tf.keras.optimizers.SGD(rate))
            rates = train(model, callback, epochs=4)
            expected = rule.learning_rate(range(4), dtype).numpy()
            assert rates == [float(rate) for rate in expected]


def test_mixed_precision(mixed_float16):
    # tensorflow#32905: a rate callback broke under mixed precision.
    model = mixed_float16(build_model, tf.keras.optimizers.SGD())
    own = WarmupExponentialDecay(0.1, 1e-7, 5)
    assert train(model, own) == float32_rates(own.rule, range(5))
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
    trained_with = []
    spy = callbacks.LambdaCallback(
        on_train_batch_begin=lambda batch, logs=None: trained_with.append(
            [float(optimizer.learning_rate.numpy()) for optimizer in (slow, quick)]
        )
    )
    history = model.fit(*data, epochs=5, callbacks=[decay(), spy], verbose=0).history
    assert history["learning_rate_slow"] == history["learning_rate_quick"] == RATES
    assert trained_with == [[rate, rate] for rate in RATES]
    assert "learning_rate" not in history


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
    histories = json.loads(python(script).stdout.splitlines()[-1])
    assert histories == [RATES, [RATES[4]] * 5]


# One callback in several fits


def test_two_models_in_turn_and_one_compiled_again():
    """Nothing of the first model is left when the second one is trained."""
    own = decay()
    assert train(build_model(), own) == RATES
    other = build_model(tf.keras.optimizers.Adam(0.5))
    assert train(other, own) == RATES
    other.compile(tf.keras.optimizers.SGD(0.5), "mse")
    assert train(other, own) == RATES


def test_a_rate_set_between_two_fits_is_not_a_conflict():
    model, own = build_model(), decay()
    train(model, own)
    model.optimizer.learning_rate = 0.125
    assert train(model, own) == RATES


def test_a_model_compiled_again_while_hooks_are_called_by_hand():
    # keras#14874: layers are unfrozen in the middle of a run.
    model, own = build_model(), decay()
    own.set_model(model)
    for epoch in range(5):
        if epoch == 2:
            model.compile(tf.keras.optimizers.SGD(0.5), "mse")
        own.on_epoch_begin(epoch)
        model.train_on_batch(np.ones((4, 3)), np.ones((4, 2)))
        own.on_epoch_end(epoch, {})
    own.on_train_end()
    assert float(np.asarray(model.optimizer.learning_rate)) == RATES[4]


def test_an_interrupted_fit_and_another():
    model, own = build_model(), decay()
    with pytest.raises(KeyboardInterrupt):
        train(model, own, Interrupt(at=6))
    model.optimizer.learning_rate = 0.5
    assert train(model, own, initial_epoch=1) == RATES[1:]


# What it refuses


def schedule():
    return tf.keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)


NOT_A_NUMBER = "it is a function, has `decay` or cannot be assigned"
needs_functions = pytest.mark.skipif(
    not IS_KERAS_3, reason="Keras 2 calls the function only once"
)


@pytest.mark.parametrize(
    "name, make_rate, options, reason",
    [
        pytest.param(
            "SGD",
            schedule,
            {},
            "its schedule, ExponentialDecay, sets it",
            id="schedule",
        ),
        pytest.param(
            "SGD",
            planned,
            {},
            "its schedule, WarmupExponentialSchedule, sets it",
            id="our-own",
        ),
        pytest.param(
            "SGD",
            lambda: lambda *step: 0.1,
            {},
            NOT_A_NUMBER,
            id="function",
            marks=needs_functions,
        ),
        pytest.param(
            "legacy.SGD",
            schedule,
            {},
            "its schedule, ExponentialDecay, sets it",
            id="legacy-schedule",
            marks=needs_legacy_optimizers,
        ),
        pytest.param(
            "legacy.SGD",
            lambda: 0.5,
            {"decay": 0.1},
            NOT_A_NUMBER,
            id="legacy-decay",
            marks=needs_legacy_optimizers,
        ),
    ],
)
def test_a_rate_that_cannot_be_set(name, make_rate, options, reason):
    # tensorflow#36612, keras#14331: training died of an obscure error.
    make = operator.attrgetter(name)(tf.keras.optimizers)
    model = build_model(make(make_rate(), **options))
    with pytest.raises(TypeError) as raised:
        train(model, decay())
    assert str(raised.value) == (
        "WarmupExponentialDecay cannot set the learning rate of the optimizer SGD: "
        f"{reason}. Build the optimizer with a number, or remove this callback: a "
        "WarmupExponentialSchedule sets the rate by itself."
    )


@needs_multi_optimizer
@pytest.mark.parametrize("position", [0, 1])
def test_several_optimizers_one_of_which_has_a_schedule(position):
    optimizers = tf.keras.optimizers
    pair = [optimizers.SGD(0.5), optimizers.Adam(schedule())]
    default, other = pair[position], pair[1 - position]
    chosen = optimizers.OptimizerMap(default, {".*bias": other})
    with pytest.raises(
        TypeError,
        match="of the optimizer Adam: its schedule, ExponentialDecay, sets it",
    ):
        train(build_model(optimizers.MultiOptimizer(chosen)), decay())
