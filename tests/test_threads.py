"""Several threads at once: evaluation and training."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from models import build_model
from oracle import float32_rates
from releases import needs_tensorflow

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)


@needs_tensorflow
def test_a_rule_and_a_schedule_are_evaluated_in_many_threads():
    arguments = (0.1, 1e-4, 5000, 7)
    rule = DecayRule(*arguments)
    schedule = WarmupExponentialSchedule(*arguments, steps_per_epoch=3)
    compiled = tf.function(schedule)

    def evaluate(epochs):
        return [
            (
                float(rule.learning_rate(tf.constant(epoch))),
                float(schedule(tf.constant(3 * epoch))),
                float(compiled(tf.constant(3 * epoch))),
            )
            for epoch in epochs
        ]

    parts = np.random.default_rng(0).integers(0, 5000, (8, 50))
    with ThreadPoolExecutor(len(parts)) as pool:
        results = list(pool.map(evaluate, parts))
    for epochs, rates in zip(parts, results, strict=True):
        assert rates == [(rate, rate, rate) for rate in float32_rates(rule, epochs)]


def test_models_are_trained_in_several_threads(fit):
    falling = WarmupExponentialDecay(0.1, 1e-4, 20, 3)
    rising = WarmupExponentialDecay(1e-5, 1e-2, 20)
    schedule = WarmupExponentialSchedule(0.05, 1e-3, 20, steps_per_epoch=1)
    scheduled = build_model(tf.keras.optimizers.SGD(schedule))
    models = [build_model(), build_model(), scheduled]
    callbacks = [falling, rising, LearningRateLogger()]

    def train(model, callback):
        return fit(model, [callback], epochs=20)["learning_rate"]

    with ThreadPoolExecutor(len(models)) as pool:
        results = list(pool.map(train, models, callbacks))
    rules = [falling.rule, rising.rule, schedule.rule]
    assert results == [float32_rates(rule, range(20)) for rule in rules]
