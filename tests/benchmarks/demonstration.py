"""What the defaults of `train` achieve: `python -m tests.benchmarks.demonstration`.

Three contestants train the network of `train` on scikit-learn's digits: the rule, a
constant rate, and `CosineDecay` with the same ramp and the same ends as the rule.

A repeat is a stratified five-fold cross-validation over all 1,797 digits with a seed of
its own. In each fold the contestants start from the same weights and train on the same
rows in the same order, so their differences are paired. The folds of a repeat share
data, so their results are averaged first. A standard error is that of the mean over the
repeats, with one difference per repeat. It covers the choice of folds, weights and
order, but not the choice of these digits.

The defaults were chosen for the rule on the first 1,437 digits, with seeds 0 to 11. The
seeds here are different, but the digits are the same. Needs the extra `test`; the
default number of repeats takes about 7 minutes on two cores.
"""

import argparse
import dataclasses
import os
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from sklearn.datasets import load_digits
from sklearn.model_selection import StratifiedKFold

from expdecay_keras import WarmupExponentialDecay
from expdecay_keras.command.train import DEFAULT_RULE as RULE
from expdecay_keras.command.train import build_model

FIRST_SEED = 100
METRICS = ("accuracy", "loss")


def rule_callback():
    """Returns the callback of the package."""
    return WarmupExponentialDecay(**dataclasses.asdict(RULE))


def constant_callback():
    """Returns a callback that keeps the base rate in every epoch."""
    return tf.keras.callbacks.LearningRateScheduler(lambda epoch, rate: RULE.base_lr)


def cosine_callback():
    """Returns a callback with the ramp and the ends of the rule, but a cosine."""
    cosine = tf.keras.optimizers.schedules.CosineDecay(
        RULE.warmup_start_lr,
        decay_steps=RULE.n_epochs - 1 - RULE.n_warmup_epochs,
        alpha=RULE.target_lr / RULE.base_lr,
        warmup_target=RULE.base_lr,
        warmup_steps=RULE.n_warmup_epochs,
    )
    return tf.keras.callbacks.LearningRateScheduler(
        lambda epoch, rate: float(cosine(epoch))
    )


CONTESTANTS = {
    "rule": rule_callback,
    "constant": constant_callback,
    "cosine": cosine_callback,
}


def compiled_model(seed, optimizer=None, **options):
    """Returns the network of `train` with the initial weights of a seed."""
    tf.keras.utils.set_random_seed(seed)
    model = build_model()
    model.compile(
        optimizer or model.optimizer, model.loss, metrics=["accuracy"], **options
    )
    model.optimizer.build(model.trainable_variables)
    return model


def values_of(model):
    """Returns the variables of a model and of its optimizer, each with its value."""
    variables = [*model.variables, *model.optimizer.variables]
    return [(variable, variable.numpy()) for variable in variables]


def train(model, callback, x, y):
    """Trains a model as `train` does."""
    model.fit(
        x,
        y,
        batch_size=32,
        epochs=RULE.n_epochs,
        shuffle=False,
        verbose=0,
        callbacks=[callback],
    )


def cross_validate(x, y, seed):
    """Returns the metrics of each contestant, averaged over the folds of a seed."""
    # A whole epoch in one call: the same results in half the time.
    model = compiled_model(seed, steps_per_execution=45)
    initial_values = values_of(model)
    rng = np.random.default_rng(seed)
    folds = StratifiedKFold(5, shuffle=True, random_state=seed)
    results = {name: [] for name in CONTESTANTS}
    for train_rows, test_rows in folds.split(x, y):
        train_rows = rng.permutation(train_rows)
        for name, make_callback in CONTESTANTS.items():
            for variable, value in initial_values:
                variable.assign(value)
            train(model, make_callback(), x[train_rows], y[train_rows])
            result = model.evaluate(
                x[test_rows], y[test_rows], verbose=0, return_dict=True
            )
            results[name].append([result[metric] for metric in METRICS])
    return {name: np.mean(values, axis=0) for name, values in results.items()}


def run_repeats(n_repeats):
    """Returns each contestant's metrics, an array with a row for each repeat."""
    x, y = load_digits(return_X_y=True)
    results = {name: [] for name in CONTESTANTS}
    for seed in range(FIRST_SEED, FIRST_SEED + n_repeats):
        start = time.perf_counter()
        result = cross_validate(x, y, seed)
        for name in CONTESTANTS:
            results[name].append(result[name])
        accuracies = ", ".join(f"{name} {result[name][0]:.4f}" for name in CONTESTANTS)
        seconds = time.perf_counter() - start
        print(f"seed {seed}: accuracy of {accuracies} ({seconds:.0f} s)", flush=True)
    return {name: np.array(values) for name, values in results.items()}


def print_row(name, cells):
    """Prints a row of the table."""
    print(f"{name:<16}", *(f"{cell:<17}" for cell in cells[:-1]), cells[-1])


def print_table(results):
    """Prints the means, and the rule's differences with their standard errors."""
    n_repeats = len(results["rule"])
    print(f"\nafter the last epoch, mean of {n_repeats} repeats ± standard error")
    print_row("", [f"test {metric}" for metric in METRICS])
    for name, values in results.items():
        print_row(name, [f"{mean:.4f}" for mean in values.mean(axis=0)])
    for name in ("constant", "cosine"):
        differences = results["rule"] - results[name]
        means = differences.mean(axis=0)
        errors = differences.std(axis=0, ddof=1) / np.sqrt(n_repeats)
        pairs = zip(means, errors, strict=True)
        cells = [f"{mean:+.4f} ± {error:.4f}" for mean, error in pairs]
        print_row(f"rule - {name}", cells)


def main():
    """Runs the repeats and prints the results."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.demonstration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--repeats", type=int, default=15, help="2 or more; default %(default)s"
    )
    args = parser.parse_args()
    if args.repeats < 2:
        parser.error("a standard error needs --repeats of 2 or more")
    start = time.perf_counter()
    tf.config.experimental.enable_op_determinism()
    print_table(run_repeats(args.repeats))
    print(f"\n{time.perf_counter() - start:.0f} seconds")


if __name__ == "__main__":
    main()
