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
# A script to put before the command: it executes a line at a given call of a function.
# It also restores the handler of SIGINT, which a process that was started in the
# background, say by `pytest &`, would ignore.
PATCH = """
import json, os, pathlib, resource, signal
import tensorflow as tf
from matplotlib.figure import Figure
signal.signal(signal.SIGINT, signal.default_int_handler)
function, calls = {name}, []
def patched(*args, **options):
    calls.append(args)
    if len(calls) == {call} and not {afterwards}:
        {line}
    result = function(*args, **options)
    if len(calls) == {call} and {afterwards}:
        {line}
    return result
{name} = patched
"""
# Another script of this kind: nobody reads what the command prints.
CLOSED_PIPE = "reader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(reader)\n"


def patch(name, line, call=1, afterwards=False):
    return PATCH.format(name=name, line=line, call=call, afterwards=afterwards)


def stop_before(name, call=1, signum=signal.SIGKILL):
    return patch(name, f"os.kill(os.getpid(), {signum:d})", call)


def stop_after(name, call=1, signum=signal.SIGKILL):
    return patch(name, f"os.kill(os.getpid(), {signum:d})", call, afterwards=True)


def full_disk_at(name, n_bytes):
    """Simulates a full disk by limiting the size of files."""
    return patch(name, f"resource.setrlimit(resource.RLIMIT_FSIZE, [{n_bytes}] * 2)")


def options_of(*arguments):
    """The command's options for the arguments of a rule, in their order."""
    names = [f"--{field.name.replace('_', '-')}" for field in fields(DecayRule)]
    pairs = zip(names, map(str, arguments), strict=False)
    return [text for pair in pairs for text in pair]


RULE = (0.2, 0.001, 4, 1, 0.05)
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
