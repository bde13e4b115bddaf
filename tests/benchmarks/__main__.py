"""What the package costs, measured side by side: `python -m tests.benchmarks` from the checkout.

Contestants of a comparison run in one process, by turns; a figure is the ratio of their medians.
Absolute times depend on the machine. Needs the extra `test`; about 6 minutes on two cores.
"""

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits

from expdecay_keras import DecayRule, WarmupExponentialDecay, WarmupExponentialSchedule
from tests.conftest import true_rates

NUMBERS = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": 100, "n_warmup_epochs": 5}
STEPS_PER_EPOCH = 100
figures = []


def report(name, value, at_most=None):
    """Prints a figure, beside the bound it has to keep, and remembers it."""
    figures.append({"figure": name, "measured": value, "at most": at_most})
    bound = "" if at_most is None else f"{at_most:>9.4g}"
    print(f"{name:<78} {value:>10.4g} {bound}", flush=True)


def by_turns(contestants, n_rounds, n_calls=1):
    """Returns the median time of a call of each contestant, in seconds."""
    times = {name: [] for name in contestants}
    for function in contestants.values():
        function()
    for i in range(n_rounds):
        for name in list(contestants)[:: -1 if i % 2 else 1]:
            function = contestants[name]
            start = time.perf_counter()
            for _ in range(n_calls):
                function()
            times[name].append((time.perf_counter() - start) / n_calls)
    return {name: statistics.median(values) for name, values in times.items()}


def compiled_model(learning_rate=0.1, momentum=0.9, seed=0):
    tf.keras.utils.set_random_seed(seed)
    layers = [tf.keras.layers.Dense(64, activation="relu"), tf.keras.layers.Dense(10)]
    model = tf.keras.Sequential([tf.keras.Input((64,)), tf.keras.layers.Rescaling(1 / 16), *layers])
    loss = tf.keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(tf.keras.optimizers.SGD(learning_rate, momentum=momentum), loss, metrics=["accuracy"])
    return model


def seed_function(base_lr, target_lr, n_epochs, n_warmup_epochs):
    """The function of the text the rule comes from, made to return a float."""
    decay_rate = tf.math.log(target_lr / base_lr) / (n_epochs - n_warmup_epochs - 1)
    return lambda epoch, lr: base_lr if epoch <= n_warmup_epochs else lr * float(tf.math.exp(decay_rate))


def plain_function(base_lr, target_lr, n_epochs, n_warmup_epochs):
    factor = (target_lr / base_lr) ** (1 / (n_epochs - n_warmup_epochs - 1))
    return lambda epoch, lr: base_lr if epoch <= n_warmup_epochs else lr * factor


def hooks_of(callback, n_epochs):
    """Returns a function that calls both hooks of the next epoch; ours warns once that none trains."""
    callback.set_model(compiled_model())
    callback.set_params({})
    callback.on_train_begin()
    epochs = count()

    def one_epoch():
        epoch = next(epochs) % n_epochs
        callback.on_epoch_begin(epoch)
        callback.on_epoch_end(epoch, {})

    return one_epoch


def floor():
    """Returns a function that does what no callback can leave out: it sets the rate and reads it."""
    optimizer, rates = compiled_model().optimizer, count(0.1, 1e-6)

    def one_epoch():
        optimizer.learning_rate = next(rates)
        return float(optimizer.learning_rate.numpy())

    return one_epoch


def benchmark_hooks():
    scheduler = tf.keras.callbacks.LearningRateScheduler
    million = {**NUMBERS, "n_epochs": 10**6}
    medians = by_turns(
        {
            "ours": hooks_of(WarmupExponentialDecay(**NUMBERS), 100),
            "LearningRateScheduler": hooks_of(scheduler(plain_function(**NUMBERS)), 100),
            "the seed's function": hooks_of(scheduler(seed_function(**NUMBERS)), 100),
            "the floor": floor(),
            "ours, 10 epochs": hooks_of(WarmupExponentialDecay(**{**NUMBERS, "n_epochs": 10}), 10),
            "ours, a million epochs": hooks_of(WarmupExponentialDecay(**million), 10**6),
        },
        n_rounds=21,
        n_calls=200,
    )
    for name, seconds in medians.items():
        report(f"hooks of one epoch: {name}, microseconds", seconds * 1e6)
    ours = medians["ours"]
    report("hooks: ours / LearningRateScheduler", ours / medians["LearningRateScheduler"], 0.75)
    report("hooks: ours / the seed's function", ours / medians["the seed's function"])
    report("hooks: ours / the floor", ours / medians["the floor"], 1.10)
    growth = medians["ours, a million epochs"] / medians["ours, 10 epochs"]
    report("hooks: ours, a million epochs / 10 epochs", growth, 1.1)


def benchmark_evaluation(jit_compile):
    schedules = tf.keras.optimizers.schedules
    n_warmup, n_steps = 5 * STEPS_PER_EPOCH, 100 * STEPS_PER_EPOCH
    ramp = {**NUMBERS, "warmup_start_lr": 1e-3}
    million = {**NUMBERS, "n_epochs": 10**6}

    def ours(numbers, staircase):
        return WarmupExponentialSchedule(**numbers, steps_per_epoch=STEPS_PER_EPOCH, staircase=staircase)

    contestants = {
        "a constant": lambda step: tf.constant(0.1),
        "ExponentialDecay(staircase=True)": schedules.ExponentialDecay(0.1, 100, 0.9, staircase=True),
        "CosineDecay with warm-up": schedules.CosineDecay(
            0.0, n_steps - n_warmup, warmup_target=0.1, warmup_steps=n_warmup
        ),
        "ours, staircase": ours(NUMBERS, True),
        "ours, continuous": ours(NUMBERS, False),
        "ours, continuous with ramp": ours(ramp, False),
        "ours, staircase, a million epochs": ours(million, True),
        "ours, continuous, a million epochs, not looked up": ours(million, False),
    }

    def loop_over(schedule):
        @tf.function(jit_compile=jit_compile)
        def loop(n_steps):
            total = tf.constant(0.0)
            for step in tf.range(n_steps):
                total += schedule(step)
            return total

        return loop

    n_steps = tf.constant(200_000 if jit_compile else 2_000, tf.int64)
    loops = {name: loop_over(schedule) for name, schedule in contestants.items()}
    medians = by_turns(
        {name: (lambda loop=loop: loop(n_steps).numpy()) for name, loop in loops.items()}, n_rounds=21
    )
    how = "XLA loop" if jit_compile else "compiled loop"
    for name, seconds in medians.items():
        report(f"{how}: {name}, nanoseconds a step", seconds / int(n_steps) * 1e9)
    staircase, continuous = medians["ours, staircase"], medians["ours, continuous"]
    exponential = medians["ExponentialDecay(staircase=True)"]
    cosine = medians["CosineDecay with warm-up"]
    report(f"{how}: ours, staircase / ExponentialDecay(staircase=True)", staircase / exponential, 1.0)
    at_most = 1.0 if jit_compile else 0.75
    report(f"{how}: ours, continuous / CosineDecay with warm-up", continuous / cosine, at_most)
    report(f"{how}: the same, with ramp", medians["ours, continuous with ramp"] / cosine)
    report(f"{how}: ours, staircase / a constant", staircase / medians["a constant"])


def benchmark_fit(n_epochs=3, n_rounds=60):
    x, y = load_digits(return_X_y=True)
    numbers = {"base_lr": 0.1, "target_lr": 1e-4, "n_epochs": n_epochs, "n_warmup_epochs": 0}
    schedule = WarmupExponentialSchedule(**numbers, steps_per_epoch=-(-len(x) // 32))
    scheduler = tf.keras.callbacks.LearningRateScheduler(plain_function(**numbers))
    model, scheduled = compiled_model(), compiled_model(schedule)
    contestants = {
        "no callback": (model, []),
        "no callback, again": (model, []),
        "ours": (model, [WarmupExponentialDecay(**numbers)]),
        "LearningRateScheduler": (model, [scheduler]),
        "our schedule": (scheduled, []),
    }

    def fit(name):
        model, callbacks = contestants[name]
        start = time.perf_counter()
        model.fit(x, y, epochs=n_epochs, batch_size=32, callbacks=callbacks, verbose=0)
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
        at_most = 1.01 if name == "ours" else None
        report(f"fit, in pairs: {name} / no callback", statistics.median(ratios[name]), at_most)


def in_a_process(script):
    """Returns the numbers that a fresh Python prints, with TensorFlow imported and tf.keras touched."""
    preamble = (
        "import time, tensorflow as tf\n"
        "tf.keras.callbacks.Callback, tf.keras.optimizers.schedules.LearningRateSchedule\n"
        "clock = time.perf_counter\n"
    )
    done = subprocess.run([sys.executable, "-c", preamble + script], capture_output=True, check=True)
    return [float(number) for number in done.stdout.split()]


# Linux: the peak of the memory held, in MiB, counted anew from here on.
PEAK_MEMORY = """
open('/proc/self/clear_refs', 'w').write('5')
def memory():
    status = open('/proc/self/status').read()
    return int(status[status.index('VmHWM:') + 6 :].split()[0]) / 1024
"""


def benchmark_a_million_epochs():
    rule, epochs = DecayRule(0.1, 1e-4, 10**6), np.arange(10**6, dtype=np.float64)
    medians = by_turns(
        {
            "ours": lambda: rule.learning_rate(epochs).numpy(),
            "NumPy": lambda: (0.1 * np.exp(rule.decay_rate * epochs)).astype(np.float32),
        },
        n_rounds=21,
    )
    for name, seconds in medians.items():
        report(f"a million epochs at once: {name}, milliseconds", seconds * 1e3)
    report("a million epochs at once: ours / NumPy's float64 exp", medians["ours"] / medians["NumPy"])
    (memory,) = in_a_process(
        "import numpy as np, expdecay_keras\n"
        "epochs = np.arange(10**6, dtype=np.float64)\n"
        "rule = expdecay_keras.DecayRule(0.1, 1e-4, 10**6)\n"
        "rule.learning_rate([0.0, 1.0])\n"
        + PEAK_MEMORY
        + "before = memory(); rule.learning_rate(epochs).numpy(); print(memory() - before)\n"
    )
    report("a million epochs at once: ours, peak memory, MiB", memory)
    seconds, memory = in_a_process(
        "import expdecay_keras\n"
        "model = tf.keras.Sequential([tf.keras.Input((1,)), tf.keras.layers.Dense(1)])\n"
        "model.compile('sgd', 'mse')\n" + PEAK_MEMORY + "before, start = memory(), clock()\n"
        "decay = expdecay_keras.WarmupExponentialDecay(0.1, 1e-4, 10**6)\n"
        "decay.set_model(model); decay.on_train_begin(); decay.on_epoch_begin(0)\n"
        "print(clock() - start, memory() - before)\n"
    )
    report("train begin and first epoch begin, a million epochs, seconds", seconds, 0.2)
    report("train begin and first epoch begin, a million epochs, MiB", memory, 64)


def benchmark_start_up():
    import_ours = "start = clock(); import expdecay_keras; print(clock() - start)"
    imports = [in_a_process(import_ours)[0] for _ in range(5)]
    report("import expdecay_keras over TensorFlow's, milliseconds", statistics.median(imports) * 1e3, 20)
    command = [Path(sys.executable).with_name("expdecay-keras"), "--help"]
    helps = by_turns({"": lambda: subprocess.run(command, capture_output=True, check=True)}, n_rounds=9)
    report("expdecay-keras --help, seconds", helps[""], 0.3)


def benchmark_exactness(n_rules=10_000, n_epochs_each=100):
    """Compares rates of random rules, from 1e-8 to 1, with the nearest float32 of the true ones."""
    rng = np.random.default_rng(0)
    names = ["ours", "the seed's recurrence in float32", "ExponentialDecay"]
    errors, missed_ends = {name: [] for name in names}, {name: [] for name in names}
    for _ in range(n_rules):
        base_lr, target_lr = (float(rate) for rate in 10 ** rng.uniform(-8, 0, 2))
        n_warmup = int(rng.integers(0, 20))
        rule = DecayRule(base_lr, target_lr, n_warmup + int(rng.integers(2, 500)), n_warmup)
        last = rule.n_epochs - 1
        epochs = np.append(rng.integers(0, rule.n_epochs, n_epochs_each - 1), last)
        true = true_rates(rule, epochs)
        factor = np.float32(np.exp(np.float32(rule.decay_rate)))
        recurrence = np.full(last - n_warmup + 1, factor, np.float32)
        recurrence[0] = base_lr
        recurrence = np.multiply.accumulate(recurrence)
        decayed = np.maximum(epochs - n_warmup, 0)
        keras = tf.keras.optimizers.schedules.ExponentialDecay(
            base_lr, last - n_warmup, target_lr / base_lr
        )
        rates = [rule.learning_rate(epochs).numpy(), recurrence[decayed], keras(decayed).numpy()]
        for name, values in zip(names, rates):
            ulp = np.spacing(true.astype(np.float32))
            missed = values != true.astype(np.float32)
            errors[name].append([(np.abs(values - true) / ulp).max(), missed.sum()])
            missed_ends[name].append(values[-1] != np.float32(target_lr))
    n_rates = n_rules * n_epochs_each
    for name in names:
        largest, missed = np.max(errors[name], axis=0)[0], np.sum(errors[name], axis=0)[1]
        report(f"{name}: largest error in ulp of float32", float(largest))
        at_most = 0 if name == "ours" else None
        report(f"{name}: rates not the nearest float32, of {n_rates}", int(missed), at_most)
        report(f"{name}: share of end points missed", float(np.mean(missed_ends[name])), at_most)


def train_on_digits(seed, callback, n_epochs, momentum=0.9):
    """Trains as `expdecay-keras train` does; returns the history."""
    x, y = load_digits(return_X_y=True)
    order = np.random.default_rng(seed).permutation(len(x) - 360)
    options = {"epochs": n_epochs, "batch_size": 32, "shuffle": False, "verbose": 0}
    test = x[-360:], y[-360:]
    model = compiled_model(momentum=momentum, seed=seed)
    return model.fit(x[order], y[order], validation_data=test, callbacks=[callback], **options).history


def benchmark_demonstration():
    """Compares the defaults of `train` with a constant rate and a cosine of the same ends.

    The defaults were chosen on a fifth of the training rows, set aside, with seeds 0 to 3.
    """
    rule = DecayRule(0.3, 1e-3, n_epochs=20, n_warmup_epochs=2)
    cosine = tf.keras.optimizers.schedules.CosineDecay(0.3, 20 - 1 - 2, alpha=1e-3 / 0.3)
    scheduler = tf.keras.callbacks.LearningRateScheduler
    contestants = {
        "rule": lambda: WarmupExponentialDecay(**dataclasses.asdict(rule)),
        "constant rate": lambda: scheduler(lambda epoch, lr: 0.3),
        "CosineDecay": lambda: scheduler(lambda epoch, lr: float(cosine(max(epoch - 2, 0)))),
    }
    for name, make in contestants.items():
        histories = [train_on_digits(seed, make(), 20) for seed in range(10, 20)]
        for metric in ("val_accuracy", "val_loss"):
            values = [history[metric][-1] for history in histories]
            for of, statistic in (("median", statistics.median), ("least", min), ("largest", max)):
                report(f"digits, {name}: {metric}, {of} of 10 seeds", statistic(values))


def benchmark_steep_decay():
    """Trains as `train --n-epochs 4`, where the rate falls to a 300th, with momentum and without."""
    for momentum in (0.9, 0.0):
        decays = (WarmupExponentialDecay(0.3, 1e-3, n_epochs=4, n_warmup_epochs=2) for _ in range(5))
        losses = [train_on_digits(seed, decay, 4, momentum)["loss"] for seed, decay in enumerate(decays)]
        for epoch in (2, 3):
            name = (
                f"to a 300th in epoch 3, momentum {momentum}: loss of epoch {epoch}, median of 5 seeds"
            )
            report(name, statistics.median(loss[epoch] for loss in losses))
        rises = sum(loss[3] > loss[2] for loss in losses)
        report(f"to a 300th in epoch 3, momentum {momentum}: seeds whose loss rises", rises)


def main():
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="also write the figures as JSON")
    args = parser.parse_args()
    print(f"{'figure':<78} {'measured':>10} {'at most':>9}")
    start = time.perf_counter()
    benchmark_hooks()
    benchmark_evaluation(jit_compile=False)
    benchmark_evaluation(jit_compile=True)
    benchmark_fit()
    benchmark_a_million_epochs()
    benchmark_start_up()
    benchmark_exactness()
    benchmark_demonstration()
    benchmark_steep_decay()
    print(f"\n{time.perf_counter() - start:.0f} seconds")
    if args.json:
        with open(args.json, "w") as file:
            json.dump(figures, file, indent=2)


if __name__ == "__main__":
    main()
