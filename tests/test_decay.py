"""The callback sets the rate of each epoch, and logs what it has set."""

import contextlib
import csv
import json

import models
import numpy as np
import pytest
import tensorflow as tf
from models import FIT, RATES, RULE, X, Y, build_model, decay, scalars, scheduled, train
from oracle import float32_rates
from releases import BACKEND, IS_KERAS_3, KERAS_VERSION, needs_tensorflow

from expdecay_keras import LearningRateLogger, WarmupExponentialDecay

callbacks = tf.keras.callbacks

# What it logs


def test_history_csv_and_tensorboard_have_the_rate(tmp_path):
    # keras#11973, tensorflow#46248: the rate was missing in TensorBoard.
    path = tmp_path / "log.csv"
    readers = callbacks.CSVLogger(str(path)), callbacks.TensorBoard(str(tmp_path))
    rates = train(build_model(), decay(), *readers)
    with path.open() as file:
        logged = [float(row["learning_rate"]) for row in csv.DictReader(file)]
    assert logged == rates == RATES
    assert {type(rate) for rate in rates} == {float}
    assert scalars(tmp_path / "train", "epoch_learning_rate") == list(enumerate(RATES))


def test_verbose_prints_a_line_per_epoch_and_the_default_nothing(capsys):
    train(build_model(), decay())
    assert capsys.readouterr().out == ""
    halved = WarmupExponentialDecay(0.5, 0.125, 3, verbose=1)
    train(build_model(), halved, epochs=3)
    assert capsys.readouterr().out.split("\n\n") == [
        "\nEpoch 1: WarmupExponentialDecay setting learning rate to 0.5.",
        "Epoch 2: WarmupExponentialDecay setting learning rate to 0.25.",
        "Epoch 3: WarmupExponentialDecay setting learning rate to 0.125.\n",
    ]


def test_hooks_called_by_hand_also_of_a_model_compiled_again():
    # keras#14874: layers are unfrozen in the middle of a run.
    model, own = build_model(), decay()
    own.set_model(model)
    for epoch in range(5):
        if epoch == 2:
            model.compile(tf.keras.optimizers.SGD(0.5), "mse")
        own.on_epoch_begin(epoch)
        model.train_on_batch(X, Y)
        logs = {}
        own.on_epoch_end(epoch, logs)
        assert logs == {"learning_rate": RATES[epoch]}
    own.on_epoch_end(4)  # without a log
    own.on_train_end()
    assert float(np.asarray(model.optimizer.learning_rate)) == RATES[4]


# What it sets


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


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_other_dtypes_than_float32(dtype, floatx):
    if dtype == "bfloat16" and (not IS_KERAS_3 or KERAS_VERSION < (3, 1)):
        pytest.skip("this Keras does not accept bfloat16 as floatx")
    x64 = contextlib.nullcontext()
    if BACKEND == "jax" and dtype == "float64":
        import jax

        x64 = jax.enable_x64(True)
    with x64:
        floatx(dtype)
        expected = [float(rate) for rate in RULE.learning_rate(range(5)).numpy()]
        assert train(build_model(), decay()) == expected != RATES
        assert train(scheduled(), LearningRateLogger()) == expected


@pytest.mark.parametrize(
    "build, make", [(build_model, decay), (scheduled, LearningRateLogger)]
)
def test_mixed_precision_and_steps_that_loss_scaling_skips(build, make, mixed_float16):
    # tensorflow#32905: a rate callback broke under mixed precision. Lightning#18828: a
    # schedule lags behind if steps are skipped; the callback does not. None is told.
    model, counts = build(), []

    def count(epoch, logs=None):
        counts.append(int(model.optimizer.inner_optimizer.iterations.numpy()))

    listed = [callbacks.LambdaCallback(on_epoch_begin=count), make()]
    options = {**FIT, "initial_epoch": 1, "callbacks": listed}
    history = model.fit(X, Y + 128, **options).history
    by_steps = float32_rates(RULE, [count // 4 for count in counts])
    assert history["learning_rate"] == (RATES[1:] if make is decay else by_steps)
    if IS_KERAS_3:  # Keras 2 counts skipped steps
        assert counts[1] == 0 < counts[3]
    if make is LearningRateLogger:
        refused = "of the optimizer SGD: its schedule, WarmupExponentialSchedule, sets"
        with pytest.raises(TypeError, match=refused):
            train(model, decay())


@pytest.mark.skipif(IS_KERAS_3, reason="Keras 3 has no graph mode")
def test_graph_mode(python):
    script = """
import json
import tensorflow as tf
tf.compat.v1.disable_eager_execution()
from models import build_model, decay, train
from expdecay_keras import LearningRateLogger
model = build_model(tf.keras.optimizers.legacy.SGD(0.5))
print(json.dumps([train(model, decay()), train(model, LearningRateLogger())]))
"""
    histories = json.loads(python(script).stdout.splitlines()[-1])
    assert histories == [RATES, [RATES[4]] * 5]


def test_nothing_is_left_of_an_earlier_fit():
    """Interrupted, the rate set in between, another model, compiled again."""
    model, own = build_model(), decay()
    with pytest.raises(KeyboardInterrupt):
        train(model, own, models.Interrupt(at=6))
    model.optimizer.learning_rate = 0.5
    assert train(model, own, initial_epoch=1) == RATES[1:]
    other = build_model(tf.keras.optimizers.Adam(0.5))
    assert train(other, own) == RATES
    other.compile(tf.keras.optimizers.SGD(0.5), "mse")
    assert train(other, own) == RATES
