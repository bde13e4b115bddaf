import json
import pickle
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import tensorflow as tf
from conftest import build_model, float32_rates
from oracle import random_rules
from test_callbacks import IS_KERAS_3
from test_rule import ILLEGAL, LEGAL

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

STEPS_PER_EPOCH = 4  # the fixture's 16 rows in batches of 4
RULE = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 6, "n_warmup_epochs": 2, "warmup_start_lr": 0.01}
# The compatibility contract: every later version reads this.
CONFIG = {**RULE, "steps_per_epoch": 4, "staircase": False, "name": "planned"}
BOTH = pytest.mark.parametrize("staircase", [True, False], ids=["staircase", "continuous"])


def build_scheduled(staircase=True, optimizer=tf.keras.optimizers.Adam):
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=STEPS_PER_EPOCH, staircase=staircase)
    return build_model(optimizer(schedule))


def assert_equal_weights(model, expected):
    for weight, other in zip(model.get_weights(), expected.get_weights()):
        np.testing.assert_array_equal(weight, other)


# The faces agree


def assert_all_faces_agree(rule, fit):
    arguments = (rule.base_lr, rule.target_lr, rule.n_epochs, rule.n_warmup_epochs, rule.warmup_start_lr)
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=STEPS_PER_EPOCH)
    options = {"epochs": rule.n_epochs, "batch_size": 4}
    by_callback = fit(build_model(), [WarmupExponentialDecay(*arguments)], **options)["learning_rate"]
    scheduled = build_model(tf.keras.optimizers.SGD(schedule))
    by_schedule = fit(scheduled, [LearningRateLogger()], **options)["learning_rate"]
    first_steps = tf.range(rule.n_epochs, dtype=tf.int64) * STEPS_PER_EPOCH
    for steps in (first_steps, first_steps + STEPS_PER_EPOCH - 1):
        compiled = tf.function(schedule, jit_compile=True)(steps).numpy()
        assert by_callback == compiled.tolist()
    assert by_callback == by_schedule == float32_rates(rule, range(rule.n_epochs))


def test_faces_agree_on_the_seed_table(seed_row, seed_rates, fit):
    assert_all_faces_agree(DecayRule(*seed_row), fit)


@pytest.mark.parametrize("seed", range(5))
def test_faces_agree_on_random_rules(seed, fit):
    rng = np.random.default_rng(seed)
    base_lr, target_lr, start_lr = (float(rate) for rate in 10 ** rng.uniform(-8, -1, 3))
    n_warmup_epochs = int(rng.integers(1, 5))
    n_epochs = n_warmup_epochs + int(rng.integers(2, 8))
    assert_all_faces_agree(DecayRule(base_lr, target_lr, n_epochs, n_warmup_epochs, start_lr), fit)


def test_an_epoch_is_a_number_of_steps():
    # tensorflow#52529, keras#9938: epochs and steps. Keras's schedule, its settings converted, agrees.
    ours = WarmupExponentialSchedule(0.1, 1e-4, 31, steps_per_epoch=100, staircase=False)
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
        np.testing.assert_array_equal(continuous(first_steps), staircase(first_steps))
        np.testing.assert_array_equal(continuous(first_steps + 3), rule.learning_rate(epochs + 3 / 7))
        np.testing.assert_array_equal(staircase(first_steps + 6), rule.learning_rate(epochs))


STEPS = [
    pytest.param(17, id="int"),
    pytest.param(17.0, id="float"),
    pytest.param(np.float32(17), id="numpy"),
    pytest.param(tf.constant(17, tf.int32), id="int32"),
    pytest.param(tf.constant(17, tf.int64), id="int64"),
    pytest.param(tf.constant(17, tf.float32), id="float32"),
    pytest.param(tf.constant(17, tf.float64), id="float64"),
    pytest.param(tf.Variable(17, dtype=tf.int64), id="variable"),
    pytest.param([[17, 17], [17, 17]], id="list"),
]


@pytest.mark.parametrize("step", STEPS)
@BOTH
def test_step_of_any_kind(step, staircase):
    # keras-io#1502, tensorflow#60649: an int64 step times a float.
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=4, staircase=staircase)
    rate = schedule(step)
    expected = DecayRule(**RULE).learning_rate(4 if staircase else 4.25).numpy()
    assert rate.dtype == tf.float32
    np.testing.assert_array_equal(rate, np.full(np.shape(step), expected))


@pytest.mark.parametrize("jit_compile", [False, True], ids=["graph", "xla"])
@BOTH
def test_steps_far_out(jit_compile, staircase):
    """Steps past 2**31, and an epoch that a float32 step would miss."""
    n_epochs, steps_per_epoch = 1000, 2**31 + 11
    schedule = WarmupExponentialSchedule(
        0.1, 1e-4, n_epochs, steps_per_epoch=steps_per_epoch, staircase=staircase
    )
    epochs = np.array([0, 1, 499, 500, 998, 999, 1000, 5000])
    steps = tf.constant(np.concatenate([epochs * steps_per_epoch, epochs[1:] * steps_per_epoch - 1]))
    rates = tf.function(schedule, jit_compile=jit_compile)(steps).numpy()
    fractions = steps.numpy() // steps_per_epoch if staircase else steps.numpy() / steps_per_epoch
    np.testing.assert_array_equal(rates, schedule.rule.learning_rate(fractions))
    assert rates[0] == np.float32(0.1) and rates[7] == np.float32(1e-4)
    assert schedule(1e30).numpy() == schedule(np.uint64(2**63)).numpy() == np.float32(1e-4)


# Training with it


@BOTH
def test_logger_logs_the_rate_the_epoch_was_trained_with(staircase, data, fit):
    # keras#2823, #4156, #20069, tensorflow#39782: the oracle is an optimizer set by hand.
    model = build_scheduled(staircase, tf.keras.optimizers.SGD)
    logged = fit(model, [LearningRateLogger()], epochs=6, batch_size=4)["learning_rate"]
    rule, by_hand = DecayRule(**RULE), build_model(tf.keras.optimizers.SGD())
    assert logged == float32_rates(rule, range(6))
    assert [type(rate) for rate in logged] == [float] * 6
    for step in range(24):
        epoch = step // 4 if staircase else step / 4
        by_hand.optimizer.learning_rate = float(rule.learning_rate(epoch))
        batch = slice(step % 4 * 4, step % 4 * 4 + 4)
        by_hand.fit(data[0][batch], data[1][batch], shuffle=False, verbose=0)
    assert_equal_weights(model, by_hand)


def test_logger_with_a_schedule_of_keras_own(fit):
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 4, 0.5, staircase=True)
    model = build_model(tf.keras.optimizers.SGD(schedule))
    assert fit(model, [LearningRateLogger()], epochs=4, batch_size=4)["learning_rate"] == [
        0.5,
        0.25,
        0.125,
        0.0625,
    ]


def test_logger_beside_a_callback_that_sets_the_rate(model, fit):
    callbacks = [
        tf.keras.callbacks.LearningRateScheduler(lambda epoch, lr: 2.0**-epoch),
        LearningRateLogger(),
    ]
    assert fit(model, callbacks, epochs=3)["learning_rate"] == [1.0, 0.5, 0.25]


@pytest.mark.skipif(
    IS_KERAS_3 or not hasattr(tf.keras.optimizers, "legacy"), reason="Keras 2's legacy optimizers"
)
def test_logger_with_a_legacy_optimizer(fit):
    schedule = tf.keras.optimizers.schedules.ExponentialDecay(0.5, 4, 0.5, staircase=True)
    model = build_model(tf.keras.optimizers.legacy.SGD(schedule))
    rates = fit(model, [LearningRateLogger()], epochs=3, batch_size=4)["learning_rate"]
    assert rates == [0.5, 0.25, 0.125]
    model = build_model(tf.keras.optimizers.legacy.SGD(0.5, decay=0.25))
    rates = fit(model, [LearningRateLogger()], epochs=3, batch_size=4)["learning_rate"]
    assert rates == [0.5, 0.25, float(np.float32(0.5) / np.float32(3))]  # 0.5 / (1 + 0.25 * step)


@pytest.mark.skipif(
    not hasattr(tf.keras.optimizers, "MultiOptimizer"), reason="this Keras has no MultiOptimizer"
)
def test_logger_with_several_optimizers(data):
    # keras PR 22959: every rate is logged under its optimizer's name.
    optimizers = tf.keras.optimizers
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=STEPS_PER_EPOCH)
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


def test_logger_has_no_batch_hooks(tmp_path):
    base = tf.keras.callbacks.Callback
    for name in [name for name in dir(base) if name.startswith("on_") and "batch" in name]:
        for logger in (LearningRateLogger(), LearningRateLogger(str(tmp_path))):
            assert getattr(logger, name).__func__ is getattr(base, name)


def scalars(log_dir, tag="learning_rate"):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(log_dir), size_guidance={"tensors": 0}).Reload().Tensors(tag)
    # TensorBoard reads files of the same second in any order.
    return sorted((event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events)


def test_logger_writes_every_epoch_for_tensorboard(fit, tmp_path):
    config = json.loads(json.dumps(LearningRateLogger(tmp_path).get_config()))
    logger = LearningRateLogger.from_config(config)
    history = fit(build_scheduled(), [logger], epochs=6, batch_size=4)
    assert scalars(tmp_path) == list(enumerate(history["learning_rate"]))


@BOTH
@pytest.mark.parametrize("update_freq", [1, 5])
def test_logger_writes_every_kth_update_for_tensorboard(update_freq, staircase, fit, tmp_path):
    model = build_scheduled(staircase)
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=STEPS_PER_EPOCH, staircase=staircase)
    # A fit that goes on, with another logger, goes on with the updates' count.
    for first, last in [(0, 2), (2, 6)]:
        logger = LearningRateLogger(str(tmp_path), update_freq)
        history = fit(model, [logger], epochs=last, initial_epoch=first, batch_size=4)
        assert history["learning_rate"] == float32_rates(schedule.rule, range(first, last))
    updates = range(0, 24, update_freq)
    assert scalars(tmp_path) == [(update, float(schedule(update))) for update in updates]


def test_logger_goes_on_between_two_multiples(fit, tmp_path):
    model = build_scheduled()
    model.optimizer.iterations.assign(1301)
    fit(model, [LearningRateLogger(tmp_path, update_freq=5)], epochs=3, batch_size=4)
    assert [update for update, _ in scalars(tmp_path)] == [1305, 1310]


def test_logger_with_several_updates_at_once(fit, tmp_path):
    model = build_scheduled(staircase=False)
    model.compile(model.optimizer, "mse", steps_per_execution=2)
    fit(model, [LearningRateLogger(tmp_path, update_freq=3)], epochs=3, batch_size=4)
    assert [update for update, _ in scalars(tmp_path)] == [0, 4, 6, 10]


def test_logger_round_trip(fit, tmp_path):
    config = {"log_dir": str(tmp_path), "update_freq": 2}
    for expected in ({"log_dir": None, "update_freq": "epoch"}, config):
        logger = LearningRateLogger(**expected)
        serialized = json.loads(json.dumps(tf.keras.utils.serialize_keras_object(logger)))
        restored = tf.keras.utils.deserialize_keras_object(serialized)
        assert type(restored) is LearningRateLogger
        assert restored.get_config() == expected and list(expected) == ["log_dir", "update_freq"]
    fit(build_scheduled(), [restored], epochs=2, batch_size=4)
    copied = pickle.loads(pickle.dumps(restored))
    assert copied.get_config() == config and copied.model is None
    assert LearningRateLogger(tmp_path).get_config()["log_dir"] == str(tmp_path)


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        ({"log_dir": 1}, TypeError, "Argument `log_dir` must be a path or None. Received: log_dir=1"),
        (
            {"log_dir": "logs", "update_freq": "batch"},
            ValueError,
            "Argument `update_freq` must be 'epoch' or an integer. Received: update_freq='batch'",
        ),
        (
            {"log_dir": "logs", "update_freq": 1.0},
            TypeError,
            "Argument `update_freq` must be an integer. Received: update_freq=1.0",
        ),
        (
            {"log_dir": "logs", "update_freq": 0},
            ValueError,
            f"Argument `update_freq` must be from 1 to {2**53}. Received: update_freq=0",
        ),
        (
            {"update_freq": 5},
            ValueError,
            "Argument `update_freq` needs `log_dir`. Received: update_freq=5, log_dir=None",
        ),
    ],
)
def test_logger_illegal_argument(arguments, error, message):
    with pytest.raises(error) as raised:
        LearningRateLogger(**arguments)
    assert str(raised.value) == message


def test_logger_without_tensorboard(monkeypatch, model, fit, tmp_path):
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    with pytest.raises(ImportError, match=r"pip install 'expdecay-keras\[tensorboard\]'"):
        fit(model, [LearningRateLogger(tmp_path)], epochs=1)
    fit(model, [LearningRateLogger()], epochs=1)


@pytest.mark.parametrize("order", [1, -1], ids=["logger-first", "tensorboard-first"])
def test_tensorboard_has_the_rate(order, fit, tmp_path):
    # keras#11973, #16087, tensorflow#46248: in TensorBoard, whatever the order of callbacks.
    callbacks = [LearningRateLogger(), tf.keras.callbacks.TensorBoard(str(tmp_path))]
    fit(build_scheduled(), callbacks[::order], epochs=6, batch_size=4)
    # Keras's TensorBoard asks a schedule when the epoch has ended: the next epoch's first rate.
    rates = float32_rates(DecayRule(**RULE), range(1, 7))
    assert scalars(tmp_path / "train", "epoch_learning_rate") == list(enumerate(rates))


def test_gradient_tape_loop(data):
    model, expected = build_scheduled(), build_scheduled()
    optimizer = model.optimizer
    optimizer.build(model.trainable_variables)

    @tf.function
    def train_step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean((model(x) - y) ** 2)
        weights = model.trainable_variables
        optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights))

    for _ in range(3):
        for start in range(0, 16, 4):
            train_step(data[0][start : start + 4], data[1][start : start + 4])
    expected.fit(*data, batch_size=4, epochs=3, shuffle=False, verbose=0)
    assert int(optimizer.iterations.numpy()) == 12
    for weight, other in zip(model.get_weights(), expected.get_weights()):
        np.testing.assert_allclose(weight, other, rtol=1e-5)


def test_jit_compiled_model(fit):
    model = build_scheduled()
    model.compile(model.optimizer, "mse", jit_compile=True)
    rates = fit(model, [LearningRateLogger()], epochs=6, batch_size=4)["learning_rate"]
    assert rates == float32_rates(DecayRule(**RULE), range(6))


def test_mixed_precision(fit):
    # tensorflow#32905, tensorflow/addons#2332: rates under mixed precision.
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        model = build_scheduled()
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    optimizer = model.optimizer.inner_optimizer
    rule, counted = DecayRule(**RULE), []
    count = tf.keras.callbacks.LambdaCallback(
        on_epoch_begin=lambda epoch, logs: counted.append(int(optimizer.iterations.numpy()))
    )
    rates = fit(model, [count, LearningRateLogger()], epochs=6, batch_size=4)["learning_rate"]
    # Loss scaling skips an update now and then, and a skipped update is no step.
    assert rates == float32_rates(rule, [steps // STEPS_PER_EPOCH for steps in counted])
    assert counted[0] == 0 and counted[-1] > 10


@pytest.mark.skipif(not IS_KERAS_3, reason="gradient_accumulation_steps came with Keras 3")
def test_gradient_accumulation_counts_batches(fit):
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=STEPS_PER_EPOCH)
    try:
        optimizer = tf.keras.optimizers.SGD(schedule, gradient_accumulation_steps=2)
    except (TypeError, ValueError):
        pytest.skip("this Keras has no gradient_accumulation_steps")
    rates = fit(build_model(optimizer), [LearningRateLogger()], epochs=6, batch_size=4)["learning_rate"]
    assert rates == float32_rates(schedule.rule, range(6))


def test_more_epochs_than_are_looked_up():
    rule = DecayRule(0.1, 1e-4, 2**20 + 1, 2**19)
    schedule = WarmupExponentialSchedule(0.1, 1e-4, 2**20 + 1, 2**19, steps_per_epoch=3)
    epochs = np.linspace(-1, 2**20 + 2, 1001).astype(np.int64)
    np.testing.assert_array_equal(schedule(epochs * 3 + 2), rule.learning_rate(epochs))


@BOTH
@pytest.mark.parametrize("jit_compile", [None, False, True], ids=["eager", "graph", "xla"])
def test_before_step_0_the_rate_is_that_of_step_0(jit_compile, staircase):
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=3, staircase=staircase)
    function = schedule if jit_compile is None else tf.function(schedule, jit_compile=jit_compile)
    rates = function(tf.constant([-(2**40), -4, -1, 0], tf.int64)).numpy()
    assert set(rates) == {np.float32(0.01)}


@pytest.mark.parametrize("n_epochs", [2, 100, 2**20, 2**20 + 1])
def test_a_staircase_is_looked_up_in_the_graph(n_epochs):
    schedule = WarmupExponentialSchedule(0.1, 1e-4, n_epochs, steps_per_epoch=3)
    graph = tf.function(schedule).get_concrete_function(tf.TensorSpec([], tf.int64)).graph
    kinds = {operation.type for operation in graph.get_operations()}
    assert ("Exp" in kinds) == (n_epochs > 2**20) and ("GatherV2" in kinds) == (n_epochs <= 2**20)


def test_floatx_of_the_moment(seed_row, seed_rates):
    schedule = WarmupExponentialSchedule(*seed_row, steps_per_epoch=10)
    assert schedule(49).dtype == tf.float32
    tf.keras.backend.set_floatx("float64")
    try:
        rates = tf.function(schedule)(tf.range(0, 50, 10))
        assert rates.dtype == tf.float64
        assert rates.numpy().round(6).tolist() == seed_rates
        assert rates[-1] == seed_row[1]
    finally:
        tf.keras.backend.set_floatx("float32")
    assert schedule(49).dtype == tf.float32


# Saving, each load in a fresh process that goes on to the bit

RESUME = """
import json, sys
import numpy as np
import tensorflow as tf
import expdecay_keras

x, y = (np.load("data.npz")[name] for name in "xy")
{load}
history = model.fit(
    x, y, initial_epoch={done}, epochs=6, batch_size=4, shuffle=False, verbose=0,
    callbacks=[expdecay_keras.LearningRateLogger(), *callbacks],
).history
json.dump(history["learning_rate"], open("rates.json", "w"))
np.savez("weights.npz", *model.get_weights())
"""
REBUILD = """
tf.keras.utils.set_random_seed(0)
model = tf.keras.Sequential([tf.keras.Input((3,)), tf.keras.layers.Dense(2)])
schedule = tf.keras.optimizers.schedules.deserialize(json.load(open("schedule.json")))
model.compile(tf.keras.optimizers.Adam(schedule), "mse")
"""


def assert_goes_on(load, staircase, data, fit, path, done=4):
    """Trains on in a fresh process and compares with a run that was never interrupted."""
    unbroken = build_scheduled(staircase)
    history = fit(unbroken, [LearningRateLogger()], epochs=6, batch_size=4)
    np.savez(path / "data.npz", x=data[0], y=data[1])
    serialized = tf.keras.optimizers.schedules.serialize(
        build_scheduled(staircase).optimizer._learning_rate
    )
    (path / "schedule.json").write_text(json.dumps(serialized))
    script = RESUME.format(load=textwrap.dedent(load), done=done)
    subprocess.run([sys.executable, "-c", script], cwd=path, check=True)
    assert json.loads((path / "rates.json").read_text()) == history["learning_rate"][done:]
    weights = np.load(path / "weights.npz")
    for name, expected in zip(weights.files, unbroken.get_weights()):
        np.testing.assert_array_equal(weights[name], expected)


@BOTH
def test_keras_file_goes_on(staircase, data, fit, tmp_path):
    # keras-hub#973, keras#20806, AIONER#5: saves, and loads after `import expdecay_keras` alone.
    # tensorflow#49208, keras#12891, tensorflow#48947: a resumed schedule is where it was.
    stopped = build_scheduled(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.keras")
    load = 'model, callbacks = tf.keras.models.load_model("model.keras"), []'
    assert_goes_on(load, staircase, data, fit, tmp_path)


@BOTH
def test_model_checkpoint_goes_on(staircase, data, fit, tmp_path):
    checkpoint = tf.keras.callbacks.ModelCheckpoint(str(tmp_path / "model-{epoch}.keras"))
    fit(build_scheduled(staircase), [checkpoint], epochs=4, batch_size=4)
    load = 'model, callbacks = tf.keras.models.load_model("model-4.keras"), []'
    assert_goes_on(load, staircase, data, fit, tmp_path)


@BOTH
def test_backup_and_restore_goes_on(staircase, data, fit, tmp_path):
    class Interrupt(tf.keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 4:
                raise KeyboardInterrupt

    backup = tf.keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))
    with pytest.raises(KeyboardInterrupt):
        fit(build_scheduled(staircase), [backup, Interrupt()], epochs=6, batch_size=4)
    # The first releases of Keras 3 restore only an optimizer that is built.
    load = (
        REBUILD
        + """
if hasattr(model.optimizer, "built"):
    model.optimizer.build(model.trainable_variables)
callbacks = [tf.keras.callbacks.BackupAndRestore("backup")]
"""
    )
    assert_goes_on(load, staircase, data, fit, tmp_path)


@BOTH
def test_h5_loads(staircase, tmp_path, fit):
    model = build_scheduled(staircase)
    model.compile(model.optimizer, tf.keras.losses.MeanSquaredError())
    fit(model, [], epochs=4, batch_size=4)
    model.save(tmp_path / "model.h5")
    names = {"WarmupExponentialSchedule": WarmupExponentialSchedule}
    loaded = tf.keras.models.load_model(tmp_path / "model.h5", custom_objects=names)
    assert (
        loaded.optimizer.get_config()["learning_rate"] == model.optimizer.get_config()["learning_rate"]
    )
    assert int(loaded.optimizer.iterations.numpy()) == 16
    assert_equal_weights(loaded, model)


@BOTH
@pytest.mark.skipif(
    IS_KERAS_3,
    reason="Keras 3 cannot train on from any .h5 file whose optimizer was used (Unknown variable)",
)
def test_h5_goes_on(staircase, data, fit, tmp_path):
    stopped = build_scheduled(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    stopped.save(tmp_path / "model.h5")
    load = """
        names = {"WarmupExponentialSchedule": expdecay_keras.WarmupExponentialSchedule}
        model, callbacks = tf.keras.models.load_model("model.h5", custom_objects=names), []
    """
    assert_goes_on(load, staircase, data, fit, tmp_path)


@BOTH
@pytest.mark.skipif(
    not isinstance(tf.keras.optimizers.SGD(), tf.__internal__.tracking.Trackable),
    reason="the optimizers of this Keras are not trackable by TensorFlow",
)
def test_tensorflow_checkpoint_goes_on(staircase, data, fit, tmp_path):
    stopped = build_scheduled(staircase)
    fit(stopped, [], epochs=4, batch_size=4)
    tf.train.Checkpoint(model=stopped, optimizer=stopped.optimizer).write(str(tmp_path / "checkpoint"))
    load = (
        REBUILD
        + """
model.optimizer.build(model.trainable_variables)
checkpoint = tf.train.Checkpoint(model=model, optimizer=model.optimizer)
checkpoint.read("checkpoint").assert_existing_objects_matched()
callbacks = []
"""
    )
    assert_goes_on(load, staircase, data, fit, tmp_path)


@BOTH
def test_clone_and_optimizer_config(staircase, fit):
    model = build_scheduled(staircase)
    clone = tf.keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    clone.compile(type(model.optimizer).from_config(model.optimizer.get_config()), "mse")
    histories = [fit(m, [LearningRateLogger()], epochs=6, batch_size=4) for m in (model, clone)]
    assert histories[0] == histories[1]
    assert_equal_weights(clone, model)


def test_a_fresh_optimizer_is_told_where_the_run_is(fit):
    # tensorflow#49208, keras#12891, tensorflow#48947: `initial_epoch` does not move a schedule.
    model, rule = build_scheduled(), DecayRule(**RULE)
    model.optimizer.iterations.assign(4 * STEPS_PER_EPOCH)
    rates = fit(model, [LearningRateLogger()], epochs=6, initial_epoch=4, batch_size=4)["learning_rate"]
    assert rates == float32_rates(rule, [4, 5])


def test_saved_model_of_the_rule_needs_no_package(tmp_path):
    class Module(tf.Module):
        def __init__(self, rule):
            super().__init__()
            self.rule = rule

        @tf.function(input_signature=[tf.TensorSpec([None], tf.float64)])
        def learning_rate(self, epochs):
            return self.rule.learning_rate(epochs)

    rule = DecayRule(**RULE)
    tf.saved_model.save(Module(rule), str(tmp_path / "saved"))
    script = """
        import sys
        sys.modules["expdecay_keras"] = None  # importing it is an error
        import numpy as np, tensorflow as tf
        module = tf.saved_model.load("saved")
        np.save("rates.npy", module.learning_rate(np.linspace(-1, 8, 100)))
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], cwd=tmp_path, check=True)
    rates = np.load(tmp_path / "rates.npy")
    np.testing.assert_array_equal(rates, rule.learning_rate(np.linspace(-1, 8, 100)))


# Configs


def test_config_holds_the_constructors_arguments():
    # tensorflow/addons PR 1623: no argument is forgotten.
    config = WarmupExponentialSchedule(**CONFIG).get_config()
    assert config == CONFIG and list(config) == list(CONFIG)
    numpy = WarmupExponentialSchedule(np.float32(0.5), 1, np.int32(9), steps_per_epoch=np.int64(5))
    kinds = [type(value) for value in numpy.get_config().values()]
    assert kinds == [float, float, int, int, type(None), int, bool, str]


def test_repr_can_be_pasted():
    schedule = WarmupExponentialSchedule(**CONFIG)
    pasted = eval(repr(schedule))
    assert type(pasted) is WarmupExponentialSchedule and pasted.get_config() == CONFIG
    assert repr(pasted) == repr(schedule)


def test_keras_serialization():
    schedules = tf.keras.optimizers.schedules
    serialized = json.loads(json.dumps(schedules.serialize(WarmupExponentialSchedule(**CONFIG))))
    restored = schedules.deserialize(serialized)
    assert type(restored) is WarmupExponentialSchedule
    assert restored.get_config() == CONFIG


def test_literal_json_is_read():
    literal = """{"module": "expdecay_keras.schedule", "class_name": "WarmupExponentialSchedule",
        "config": {"base_lr": 0.1, "target_lr": 0.0001, "n_epochs": 6, "n_warmup_epochs": 2,
        "warmup_start_lr": 0.01, "steps_per_epoch": 4, "staircase": false, "name": "planned"},
        "registered_name": "expdecay_keras>WarmupExponentialSchedule"}"""
    if tf.__version__.startswith("2.12."):  # it reads and writes the form of Keras 2
        literal = literal.replace('"WarmupExp', '"expdecay_keras>WarmupExp')
    restored = tf.keras.optimizers.schedules.deserialize(json.loads(literal))
    assert restored.get_config() == CONFIG


SCHEDULE_ILLEGAL = [
    *ILLEGAL,
    ("steps_per_epoch", 0, ValueError, "must be from 1 to 9007199254740992"),
    ("steps_per_epoch", 4.0, TypeError, "must be an integer"),
    ("steps_per_epoch", True, TypeError, "must be an integer"),
    ("staircase", 1, TypeError, "must be a bool"),
    ("staircase", None, TypeError, "must be a bool"),
    ("name", None, TypeError, "must be a str"),
]


@pytest.mark.parametrize(
    "name, value, error, constraint",
    SCHEDULE_ILLEGAL,
    ids=[f"{row[0]}={row[1]!r:.20}" for row in SCHEDULE_ILLEGAL],
)
def test_illegal_argument(name, value, error, constraint):
    with pytest.raises(error, match=rf"^Argument `{name}` {constraint}\. Received: {name}="):
        WarmupExponentialSchedule.from_config({**LEGAL, "steps_per_epoch": 4, name: value})
