"""What the README advises for runs that go on longer than planned."""

import numpy as np
import pytest
import tensorflow as tf
from models import assert_equal_arrays, build_model, train
from oracle import float32_rates
from releases import BACKEND

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

# open_clip#413, nnUNet#901: a run is extended, and the rate jumps.


def test_extended_during_the_hold(fit):
    """Ten epochs more, all held: what has been trained stays, and no rate jumps."""
    planned = WarmupExponentialDecay(0.1, 1e-4, 20, 2, 0.01, n_hold_epochs=8)
    extended = WarmupExponentialDecay(0.1, 1e-4, 30, 2, 0.01, n_hold_epochs=18)
    model = build_model()
    with pytest.warns(UserWarning, match="stops before"):
        rates = fit(model, [planned], epochs=10)["learning_rate"]
    rates += fit(model, [extended], epochs=30, initial_epoch=10)["learning_rate"]
    assert rates == float32_rates(extended.rule, range(30))
    assert rates[:10] == float32_rates(planned.rule, range(10))
    assert rates[20:] == float32_rates(planned.rule, range(10, 20))


def test_extended_after_the_end(fit):
    """From the old target, at the epoch that training resumes at, to a new one."""
    planned = WarmupExponentialDecay(0.1, 1e-4, 20, 2)
    extended = WarmupExponentialDecay(1e-4, 1e-6, 30, n_warmup_epochs=20)
    model = build_model()
    rates = fit(model, [planned], epochs=20)["learning_rate"]
    rates += fit(model, [extended], epochs=30, initial_epoch=20)["learning_rate"]
    assert len(rates) == 30
    assert rates[19] == rates[20] == float(np.float32(1e-4))
    assert rates[29] == float(np.float32(1e-6))
    assert rates == sorted(rates, reverse=True)


def test_a_schedule_replaced_by_another(fit):
    """Compiled with the same optimizer, it trains as the callback of the new plan."""
    planned = WarmupExponentialSchedule(0.1, 1e-2, 3, steps_per_epoch=4)
    extended = WarmupExponentialSchedule(1e-2, 1e-3, 6, 3, steps_per_epoch=4)
    model = build_model(tf.keras.optimizers.SGD(planned))
    fit(model, [LearningRateLogger()], epochs=3, batch_size=4)
    other = build_model()
    other.set_weights(model.get_weights())
    model.optimizer.learning_rate = extended
    model.compile(model.optimizer, "mse")
    options = {"epochs": 6, "initial_epoch": 3, "batch_size": 4}
    rates = fit(model, [LearningRateLogger()], **options)["learning_rate"]
    assert rates == float32_rates(extended.rule, range(3, 6))
    fit(other, [WarmupExponentialDecay(1e-2, 1e-3, 6, 3)], **options)
    assert_equal_arrays(model.get_weights(), other.get_weights())


@pytest.mark.parametrize(
    "optimizer",
    [lambda rate: tf.keras.optimizers.SGD(rate, 0.9), tf.keras.optimizers.Adam],
    ids=["momentum", "adam"],
)
def test_decide_later_when_to_decay(optimizer):
    """A rule that only holds the rate, then a cooldown; no warning on the way."""
    # WeatherGenerator#1199, transformers#35453: a run of which the end is not planned.
    e, d = 3, 4
    hold = {"base_lr": 0.1, "target_lr": 0.1, "n_epochs": 1000, "n_warmup_epochs": 2}
    cool = {
        "base_lr": 0.1,
        "target_lr": 1e-3,
        "n_epochs": e + d,
        "n_hold_epochs": e - 1,
    }
    by_callback = build_model(optimizer(0.5))
    rates = train(by_callback, WarmupExponentialDecay(**hold), epochs=e)
    options = {"initial_epoch": e, "epochs": e + d}
    rates += train(by_callback, WarmupExponentialDecay(**cool), **options)
    expected = 0.1 * 0.01 ** (np.arange(1, d + 1) / d)
    np.testing.assert_allclose(rates, [0.1] * e + expected.tolist(), rtol=1e-6)
    assert rates[-1] == np.float32(1e-3)
    schedule = WarmupExponentialSchedule(**hold, steps_per_epoch=4)
    by_schedule = build_model(optimizer(schedule))
    logged = train(by_schedule, LearningRateLogger(), epochs=e)
    by_schedule.optimizer.learning_rate = WarmupExponentialSchedule(
        **cool, steps_per_epoch=4
    )
    by_schedule.compile(by_schedule.optimizer, "mse")
    logged += train(by_schedule, LearningRateLogger(), **options)
    assert logged == rates
    weights, others = by_schedule.get_weights(), by_callback.get_weights()
    if BACKEND != "jax":
        assert_equal_arrays(weights, others)
    for weight, other in zip(weights, others, strict=True):
        # XLA compiles the two steps differently, by a last bit here and there.
        np.testing.assert_allclose(weight, other, rtol=1e-5)


def test_more_epochs_alone_make_the_rate_jump():
    rates = [DecayRule(0.1, 1e-5, n_epochs).rates(5) for n_epochs in (10, 20)]
    assert [f"{rate:.2g}" for rate in rates] == ["0.0006", "0.0089"]


def test_steps_per_epoch_are_the_batches_trained_on():
    # Of 40 rows a quarter is kept for validation; the last batch is not full.
    x, y = np.ones((40, 3), "float32"), np.ones((40, 2), "float32")
    schedule = WarmupExponentialSchedule(0.1, 1e-3, 4, steps_per_epoch=8)
    model = build_model(tf.keras.optimizers.SGD(schedule))
    options = {"epochs": 4, "batch_size": 4, "validation_split": 0.25, "verbose": 0}
    history = model.fit(x, y, callbacks=[LearningRateLogger()], **options).history
    assert history["learning_rate"] == float32_rates(schedule.rule, range(4))
