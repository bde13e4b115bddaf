"""What the package costs and how exact it is: `python -m tests.benchmarks`.

The contestants of a comparison take turns in one process; a figure is the ratio of
their medians. Needs the extra `test`; takes about a minute on two cores. On another
backend only what works there is measured.
"""

import os
import statistics
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from expdecay_keras import (
    DecayRule,
    WarmupExponentialDecay,
    WarmupExponentialSchedule,
    make_lr_scheduler,
)
from tests.benchmarks.demonstration import compiled_model, load_digits
from tests.oracle import true_rates

RATES = {"base_lr": 0.1, "target_lr": 1e-4}
schedules = tf.keras.optimizers.schedules


def report(name, value, at_most=None):
    """Prints a figure, next to the bound that it must not exceed."""
    bound = "" if at_most is None else f"{at_most:>9.4g}"
    print(f"{name:<72} {value:>10.4g} {bound}", flush=True)


def by_turns(contestants, n_rounds):
    """Returns the median time per call of each contestant, in seconds."""
    times = {name: [] for name in contestants}
    for function in contestants.values():
        function()
    for i in range(n_rounds):
        for name in np.random.default_rng(i).permutation(list(contestants)):
            start = time.perf_counter()
            contestants[name]()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def benchmark_hooks(n_epochs=200):
    """Times what a callback does when epochs begin and end."""

    def hooks(callback):
        model = compiled_model(seed=0)
        model.train_on_batch(np.ones((1, 64)), np.ones(1))
        callback.set_model(model)
        callback.set_params({})
        callback.on_train_begin()

        def run():
            for epoch in range(n_epochs):
                callback.on_epoch_begin(epoch)
                callback.on_epoch_end(epoch, {})

        return run

    function = make_lr_scheduler(**RATES, n_epochs=n_epochs)
    scheduler = tf.keras.callbacks.LearningRateScheduler(function)
    ours = WarmupExponentialDecay(**RATES, n_epochs=n_epochs)
    medians = by_turns(
        {"ours": hooks(ours), "LearningRateScheduler": hooks(scheduler)}, n_rounds=21
    )
    ratio = medians["ours"] / medians["LearningRateScheduler"]
    report("hooks: our callback / LearningRateScheduler", ratio, 1.0)


def benchmark_steps(jit_compile):
    """Times a schedule in a compiled loop, as in a training step."""
    ours = {**RATES, "n_epochs": 100, "n_warmup_epochs": 5, "steps_per_epoch": 100}
    cosine = schedules.CosineDecay(0.0, 9500, warmup_target=0.1, warmup_steps=500)
    contestants = {
        "ExponentialDecay": schedules.ExponentialDecay(0.1, 100, 0.9, staircase=True),
        "CosineDecay": cosine,
        "ours, staircase": WarmupExponentialSchedule(**ours),
        "ours, continuous": WarmupExponentialSchedule(**ours, staircase=False),
    }

    def loop_over(schedule):
        @tf.function(jit_compile=jit_compile)
        def loop(n_steps):
            total = tf.constant(0.0)
            for step in tf.range(n_steps):
                total += schedule(step)
            return total

        return lambda: loop(n_steps).numpy()

    tf.get_logger().setLevel("ERROR")  # it warns about functions made in a loop
    n_steps = tf.constant(200_000 if jit_compile else 2_000, tf.int64)
    loops = {name: loop_over(schedule) for name, schedule in contestants.items()}
    medians = by_turns(loops, n_rounds=21)
    how = "XLA" if jit_compile else "compiled"
    ratio = medians["ours, staircase"] / medians["ExponentialDecay"]
    report(f"{how} step: ours, staircase / ExponentialDecay", ratio, 1.15)
    ratio = medians["ours, continuous"] / medians["CosineDecay"]
    report(f"{how} step: ours, continuous / CosineDecay", ratio, 0.85)


def benchmark_exactness(n_rules=10_000, n_epochs_each=100):
    """Compares rates of random rules with the true ones, rounded to float32."""
    rng = np.random.default_rng(0)
    missed = {"ours": 0, "recurrence in float32": 0, "ExponentialDecay": 0}
    for _ in range(n_rules):
        base_lr, target_lr = (10 ** rng.uniform(-8, 0, 2)).tolist()
        n_warmup = int(rng.integers(0, 20))
        n_epochs = n_warmup + int(rng.integers(2, 500))
        rule = DecayRule(base_lr, target_lr, n_epochs, n_warmup)
        epochs = rng.integers(0, n_epochs, n_epochs_each)
        true = true_rates(rule, epochs).astype(np.float32)
        factor = np.float32(np.exp(np.float32(rule.decay_rate)))
        factors = np.full(n_epochs - n_warmup, factor, np.float32)
        factors[0] = base_lr
        decayed = np.maximum(epochs - n_warmup, 0)
        n_decay_epochs = n_epochs - 1 - n_warmup
        keras = schedules.ExponentialDecay(base_lr, n_decay_epochs, target_lr / base_lr)
        rates = {
            "ours": rule.learning_rate(epochs).numpy(),
            "recurrence in float32": np.multiply.accumulate(factors)[decayed],
            "ExponentialDecay": np.asarray(keras(decayed)),
        }
        for name in missed:
            missed[name] += int((rates[name] != true).sum())
    for name, count in missed.items():
        share = count / (n_rules * n_epochs_each)
        report(f"share of rates that are not the nearest float32: {name}", share)


def benchmark_steep_decay():
    """Trains with a rate that falls to 1/300 of its value in the last epoch."""
    x, y = load_digits(return_X_y=True)
    options = {"epochs": 4, "batch_size": 32, "shuffle": False, "verbose": 0}
    for momentum in (0.9, 0.0):
        rises = 0
        for seed in range(5):
            decay = WarmupExponentialDecay(0.3, 1e-3, n_epochs=4, n_warmup_epochs=2)
            sgd = tf.keras.optimizers.SGD(momentum=momentum)
            model = compiled_model(seed=seed, optimizer=sgd)
            order = np.random.default_rng(seed).permutation(len(x))
            history = model.fit(x[order], y[order], callbacks=[decay], **options)
            loss = history.history["loss"]
            rises += loss[3] > loss[2]
        name = f"300-fold fall in one epoch, momentum {momentum}"
        report(f"{name}: seeds, out of 5, whose loss rises", rises)


def main():
    print(f"{'figure':<72} {'measured':>10} {'at most':>9}")
    benchmark_hooks()
    if tf.keras.backend.backend() == "tensorflow":
        benchmark_steps(jit_compile=False)
        benchmark_steps(jit_compile=True)
        benchmark_exactness()
        benchmark_steep_decay()


if __name__ == "__main__":
    main()
