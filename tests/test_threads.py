"""Several threads at once: evaluation, and two trainings."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import tensorflow as tf
from conftest import build_model, float32_rates

from expdecay_keras import (
    DecayRule,
    LearningRateLogger,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
)

RULE = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 5000, "n_warmup_epochs": 7}


def in_threads(functions):
    with ThreadPoolExecutor(len(functions)) as pool:
        return [future.result() for future in [pool.submit(function) for function in functions]]


def test_one_rule_and_one_schedule_in_many_threads():
    rule = DecayRule(**RULE)
    schedule = WarmupExponentialSchedule(**RULE, steps_per_epoch=3)
    compiled = tf.function(schedule)
    epochs = np.random.default_rng(0).integers(0, 5000, (8, 50))
    functions = [
        lambda row=row, rate=rate, n=n: [float(rate(tf.constant(epoch * n))) for epoch in row]
        for row in epochs
        for rate, n in ((rule.learning_rate, 1), (schedule, 3), (compiled, 3))
    ]
    expected = [float32_rates(rule, row) for row in epochs for _ in range(3)]
    assert in_threads(functions) == expected


def test_two_models_trained_at_once(fit):
    schedule = WarmupExponentialSchedule(0.05, 1e-3, 20, steps_per_epoch=1)
    decays = [WarmupExponentialDecay(0.1, 1e-4, 20, 3), WarmupExponentialDecay(1e-5, 1e-2, 20, 0)]
    models = [build_model(), build_model(), build_model(tf.keras.optimizers.SGD(schedule))]
    callbacks = [*decays, LearningRateLogger()]
    histories = in_threads(
        [
            lambda model=model, callback=callback: fit(model, [callback], epochs=20)
            for model, callback in zip(models, callbacks)
        ]
    )
    for history, rule in zip(histories, [decays[0].rule, decays[1].rule, schedule.rule]):
        assert history["learning_rate"] == float32_rates(rule, range(20))
