"""Runs of `expdecay-keras train`: options, ways to stop one, and what is compared."""

import csv
import signal
import sys
from dataclasses import fields
from pathlib import Path

import tensorflow as tf
from models import assert_equal_arrays, scalars
from releases import IS_KERAS_3

from expdecay_keras import DecayRule

INSTALLED = str(Path(sys.executable).with_name("expdecay-keras"))
# Put before the command, it sends the process a signal at a call of a function. In the
# background, say with `pytest &`, processes would ignore SIGINT.
STOP = """
import json, os, pathlib, signal
import tensorflow as tf
from matplotlib.figure import Figure
signal.signal(signal.SIGINT, signal.default_int_handler)
function, calls = {name}, []
def stopping(*args, **options):
    calls.append(args)
    if len(calls) == {call} and not {afterwards}:
        os.kill(os.getpid(), {signum})
    result = function(*args, **options)
    if len(calls) == {call} and {afterwards}:
        os.kill(os.getpid(), {signum})
    return result
{name} = stopping
"""


def stop_before(name, call=1, signum=signal.SIGKILL):
    return STOP.format(name=name, call=call, afterwards=False, signum=int(signum))


def stop_after(name, call=1, signum=signal.SIGKILL):
    return STOP.format(name=name, call=call, afterwards=True, signum=int(signum))


def options_of(*arguments):
    """The command's options for the arguments of a rule, in their order."""
    names = [f"--{field.name.replace('_', '-')}" for field in fields(DecayRule)]
    pairs = zip(names, map(str, arguments), strict=False)
    return [text for pair in pairs for text in pair]


RULE = (0.2, 0.001, 6, 2, 0.05)
OPTIONS = options_of(*RULE)


def read_history(run_dir):
    with (run_dir / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def state(run_dir):
    """The weights of a run's model, and the variables of its optimizer."""
    model = tf.keras.models.load_model(run_dir / "model.keras")
    variables = model.optimizer.variables if IS_KERAS_3 else model.optimizer.variables()
    return [*model.get_weights(), *(tf.keras.backend.get_value(v) for v in variables)]


def curves(run_dir):
    """The steps and values of each curve that TensorBoard shows of a run."""
    return {
        (part, name): scalars(run_dir / "tensorboard" / part, f"epoch_{name}")
        for part in ("train", "validation")
        for name in ("loss", "accuracy", "learning_rate")[: 3 if part == "train" else 2]
    }


def assert_same_run(run_dir, other):
    history = (run_dir / "history.csv").read_bytes()
    assert history == (other / "history.csv").read_bytes()
    assert_equal_arrays(state(run_dir), state(other))
    assert curves(run_dir) == curves(other)
