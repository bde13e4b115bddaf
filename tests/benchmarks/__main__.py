"""What the package costs, measured side by side: `python -m tests.benchmarks`.

The contestants of a comparison take turns in one process; a figure is the ratio of
their medians. Absolute times depend on the machine. Needs the extra `test`; takes about
three minutes on two cores. On another backend only what works there is measured.
"""

import itertools
import os
import statistics
import subprocess
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf

from expdecay_keras import DecayRule, WarmupExponentialDecay, WarmupExponentialSchedule
from tests.benchmarks.demonstration import compiled_model, load_digits
from tests.oracle import true_rates

BACKEND = tf.keras.backend.backend()
NUMBERS = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 100, "n_warmup_epochs": 5}
STEPS_PER_EPOCH = 100
schedules = tf.keras.optimizers.schedules


def report(name, value, at_most=None):
    """Prints a figure, next to the bound that it must not exceed."""
    bound = "" if at_most is None else f"{at_most:>9.4g}"
    print(f"{name:<72} {value:>10.4g} {bound}", flush=True)


def by_turns(contestants, n_rounds=21, n_calls=1):
    """Returns the median time per call of each contestant, in seconds."""
    times = {name: [] for name in contestants}
    for function in contestants.values():
        function()
    for i in range(n_rounds):
        names = list(contestants)
        if i % 2:
            names.reverse()
        for name in names:
            start = time.perf_counter()
            for _ in range(n_calls):
                contestants[name]()
            times[name].append((time.perf_counter() - start) / n_calls)
    return {name: statistics.median(values) for name, values in times.items()}


def recurrence(base_lr, target_lr, n_epochs, n_warmup_epochs):
    """Returns a function for `LearningRateScheduler` as users write it."""
    factor = (target_lr / base_lr) ** (1 / (n_epochs - n_warmup_epochs - 1))
    return lambda epoch, lr: base_lr if epoch <= n_warmup_epochs else lr * factor


def hooks_of(callback):
    """Returns a function that calls the hooks of the next epoch, as `fit` does."""
    model = compiled_model(seed=0)
    model.train_on_batch(np.ones((1, 64)), np.ones(1))
    callback.set_model(model)
    callback.set_params({})
    callback.on_train_begin()
    epochs = itertools.cycle(range(100))

    def one_epoch():
        epoch = next(epochs)
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {})

    return one_epoch


def benchmark_hooks():
    scheduler = tf.keras.callbacks.LearningRateScheduler(recurrence(**NUMBERS))
    contestants = {
        "ours": hooks_of(WarmupExponentialDecay(**NUMBERS)),
        "LearningRateScheduler": hooks_of(scheduler),
    }
    medians = by_turns(contestants, n_calls=200)
    for name, seconds in medians.items():
        report(f"hooks of one epoch: {name}, microseconds", seconds * 1e6)
    ratio = medians["ours"] / medians["LearningRateScheduler"]
    report("hooks: ours / LearningRateScheduler", ratio, 1.0)


def ours(numbers, staircase, steps_per_epoch=STEPS_PER_EPOCH):
    return WarmupExponentialSchedule(
        **numbers, steps_per_epoch=steps_per_epoch, staircase=staircase
    )


def cosine_decay(n_epochs, n_warmup_epochs, steps_per_epoch=STEPS_PER_EPOCH):
    """Returns Keras's `CosineDecay` with a warm-up."""
    n_warmup_steps = n_warmup_epochs * steps_per_epoch
    return schedules.CosineDecay(
        0.0,
        n_epochs * steps_per_epoch - n_warmup_steps,
        warmup_target=0.1,
        warmup_steps=n_warmup_steps,
    )


def benchmark_compiled_steps(jit_compile):
    """Times a schedule in a compiled loop, as in a training step."""
    contestants = {
        "a constant": lambda step: tf.constant(0.1),
        "ExponentialDecay": schedules.ExponentialDecay(0.1, 100, 0.9, staircase=True),
        "CosineDecay": cosine_decay(100, 5),
        "ours, staircase": ours(NUMBERS, staircase=True),
        "ours, continuous": ours(NUMBERS, staircase=False),
        "ours, continuous, not looked up": ours(
            {**NUMBERS, "n_epochs": 10**6}, staircase=False
        ),
    }

    tf.get_logger().setLevel("ERROR")  # it warns about functions made in a loop

    def loop_over(schedule):
        @tf.function(jit_compile=jit_compile)
        def loop(n_steps):
            total = tf.constant(0.0)
            for step in tf.range(n_steps):
                total += schedule(step)
            return total

        return lambda: loop(n_steps).numpy()

    n_steps = tf.constant(200_000 if jit_compile else 2_000, tf.int64)
    medians = by_turns({name: loop_over(c) for name, c in contestants.items()})
    how = "XLA" if jit_compile else "compiled"
    for name, seconds in medians.items():
        report(f"{how} step: {name}, nanoseconds", seconds / int(n_steps) * 1e9)
    ratio = medians["ours, staircase"] / medians["ExponentialDecay"]
    report(f"{how} step: ours, staircase / ExponentialDecay", ratio, 1.15)
    ratio = medians["ours, continuous"] / medians["CosineDecay"]
    report(f"{how} step: ours, continuous / CosineDecay", ratio, 0.85)


def benchmark_eager_calls():
    """Times eager calls of schedules of a million steps, as PyTorch makes them."""
    numbers = {**NUMBERS, "n_epochs": 1000}
    iterations = tf.keras.optimizers.SGD().iterations
    contestants = {
        "CosineDecay": cosine_decay(1000, 5, 1000),
        "ours, staircase": ours(numbers, True, 1000),
        "ours, continuous": ours(numbers, False, 1000),
        "ours, continuous with ramp": ours(
            {**numbers, "warmup_start_lr": 0.01}, False, 1000
        ),
    }
    calls = {name: lambda c=c: c(iterations) for name, c in contestants.items()}
    medians = by_turns(calls, n_calls=50)
    for name, seconds in medians.items():
        report(f"eager call, a million steps: {name}, microseconds", seconds * 1e6)
    for name in list(contestants)[1:]:
        ratio = medians[name] / medians["CosineDecay"]
        report(f"eager call, a million steps: {name} / CosineDecay", ratio, 1.0)


def benchmark_large_table():
    """Times the one-off cost of a schedule for ImageNet (1.5 million steps)."""
    start = time.perf_counter()
    schedule = ours({**NUMBERS, "n_epochs": 300}, False, 5005)
    report("1.5 million steps: making the schedule, ms", _ms(start))
    model = compiled_model(seed=0, optimizer=tf.keras.optimizers.SGD(schedule))
    constant = compiled_model(seed=0, optimizer=tf.keras.optimizers.SGD(0.1))
    x, y = np.ones((32, 64), "float32"), np.ones(32)
    for name, trained in [("constant", constant), ("schedule", model)]:
        start = time.perf_counter()
        trained.train_on_batch(x, y)
        report(f"1.5 million steps: first training step, {name}, ms", _ms(start))


def _ms(start):
    return (time.perf_counter() - start) * 1e3


def benchmark_fit(n_epochs=3, n_rounds=30):
    """Times whole fits, in pairs with fits without a callback."""
    x, y = load_digits(return_X_y=True)
    numbers = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": n_epochs}
    schedule = WarmupExponentialSchedule(**numbers, steps_per_epoch=-(-len(x) // 32))
    model = compiled_model(seed=0)
    scheduled = compiled_model(seed=0, optimizer=tf.keras.optimizers.SGD(schedule, 0.9))
    contestants = {
        "no callback": (model, []),
        "no callback, again": (model, []),
        "our callback": (model, [WarmupExponentialDecay(**numbers)]),
        "our schedule": (scheduled, []),
    }
    options = {"epochs": n_epochs, "batch_size": 32, "verbose": 0}

    def fit(name):
        fitted, callbacks = contestants[name]
        start = time.perf_counter()
        fitted.fit(x, y, callbacks=callbacks, **options)
        return time.perf_counter() - start

    for name in contestants:
        fit(name)
    ratios = {name: [] for name in contestants}
    for i in range(n_rounds):
        names = np.random.default_rng(i).permutation(list(contestants))
        times = {name: fit(name) for name in names}
        for name in contestants:
            ratios[name].append(times[name] / times["no callback"])
    for name in list(contestants)[1:]:
        report(f"fit: {name} / no callback", statistics.median(ratios[name]))


def benchmark_import():
    script = (
        "import time, tensorflow as tf\n"
        "tf.keras.callbacks.Callback, tf.keras.optimizers.schedules\n"
        "start = time.perf_counter()\n"
        "import expdecay_keras\n"
        "print(time.perf_counter() - start)\n"
    )
    command = [sys.executable, "-c", script]
    times = []
    for _ in range(5):
        done = subprocess.run(command, capture_output=True, check=True, text=True)
        times.append(float(done.stdout))
    seconds = statistics.median(times)
    report("import expdecay_keras after tf.keras, milliseconds", seconds * 1e3, 20)


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
        losses = []
        for seed in range(5):
            decay = WarmupExponentialDecay(0.3, 1e-3, n_epochs=4, n_warmup_epochs=2)
            sgd = tf.keras.optimizers.SGD(momentum=momentum)
            model = compiled_model(seed=seed, optimizer=sgd)
            order = np.random.default_rng(seed).permutation(len(x))
            history = model.fit(x[order], y[order], callbacks=[decay], **options)
            losses.append(history.history["loss"])
        rises = sum(loss[3] > loss[2] for loss in losses)
        name = f"300-fold fall in one epoch, momentum {momentum}"
        report(f"{name}: seeds, out of 5, whose loss rises", rises)
        for epoch in (2, 3):
            median = statistics.median(loss[epoch] for loss in losses)
            report(f"{name}: median loss of epoch {epoch}", median)


def main():
    print(f"{'figure':<72} {'measured':>10} {'at most':>9}")
    start = time.perf_counter()
    benchmark_hooks()
    if BACKEND == "tensorflow":
        benchmark_compiled_steps(jit_compile=False)
        benchmark_compiled_steps(jit_compile=True)
    benchmark_eager_calls()
    benchmark_large_table()
    benchmark_fit()
    benchmark_import()
    if BACKEND == "tensorflow":
        benchmark_exactness()
        benchmark_steep_decay()
    print(f"\n{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
