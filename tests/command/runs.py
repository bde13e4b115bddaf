"""Runs of `expdecay-keras train`: options, ways to stop one, and what is compared."""

import csv
import signal
from dataclasses import fields

import tensorflow as tf
from models import assert_equal_arrays, scalars
from releases import IS_KERAS_3

from expdecay_keras import DecayRule

INTERRUPTED = (
    "\nInterrupted. To resume after the last complete epoch, run `train` again without "
    "--overwrite.\n"
)
# A script to put before the command: it executes a line before a call of a function.
# It also restores the handler of SIGINT, which a process that was started in the
# background, say by `pytest &`, would ignore.
PATCH = """
import csv, json, resource, signal
import tensorflow as tf
signal.signal(signal.SIGINT, signal.default_int_handler)
function, calls = {name}, []
def patched(*args, **options):
    calls.append(args)
    if len(calls) == {call}:
        {line}
    return function(*args, **options)
{name} = patched
"""
# Another script of this kind: nobody reads what the command prints.
CLOSED_PIPE = "reader, writer = os.pipe()\nos.dup2(writer, 1)\nos.close(reader)\n"


def stop_before(name, call=1, signum=signal.SIGKILL):
    line = f"os.kill(os.getpid(), {signum:d})"
    return PATCH.format(name=name, line=line, call=call)


def full_disk_at(name, n_bytes, call=1):
    """Simulates a full disk by limiting the size of files."""
    line = f"resource.setrlimit(resource.RLIMIT_FSIZE, [{n_bytes}] * 2)"
    return PATCH.format(name=name, line=line, call=call)


def interrupt(*args, **options):
    raise KeyboardInterrupt


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


def curves(run_dir):
    """The steps and values of each curve that TensorBoard shows of a run."""
    names = {"train": ["learning_rate", "accuracy", "loss"]}
    names["validation"] = names["train"][1:]
    return {
        (part, name): scalars(run_dir / "tensorboard" / part, f"epoch_{name}")
        for part in names
        for name in names[part]
    }


def state(run_dir):
    """The weights of a run's model, and the variables of its optimizer."""
    model = tf.keras.models.load_model(run_dir / "model.keras")
    variables = model.optimizer.variables if IS_KERAS_3 else model.optimizer.variables()
    return [*model.get_weights(), *map(tf.keras.backend.get_value, variables)]


def assert_same_run(run_dir, other):
    history = (run_dir / "history.csv").read_bytes()
    assert history == (other / "history.csv").read_bytes()
    assert_equal_arrays(state(run_dir), state(other))
    assert curves(run_dir) == curves(other)
