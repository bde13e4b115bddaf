"""Preview a learning rate with warm-up and exponential decay, or train with it."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import Any

import tensorflow as tf

from expdecay_keras import __version__
from expdecay_keras.command.preview import preview
from expdecay_keras.command.train import DEFAULT_RULE, option_of, train
from expdecay_keras.rule import DecayRule

RATE: dict[str, Any] = {"type": float, "metavar": "RATE"}
COUNT: dict[str, Any] = {"type": int, "metavar": "N"}
RULE_OPTIONS = {
    "base_lr": (RATE, "learning rate during the hold and at the start of the decay"),
    "target_lr": (RATE, "learning rate of the last epoch"),
    "n_epochs": (COUNT, "number of epochs, including warm-up and hold"),
    "n_warmup_epochs": (COUNT, "number of warm-up epochs"),
    "warmup_start_lr": (RATE, "learning rate at which warm-up starts as a linear ramp"),
    "n_hold_epochs": (COUNT, "number of epochs at the base rate after warm-up"),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns 0, 130 after Ctrl-C, or 2 after printing an error."""
    options = vars(_parser().parse_args(argv))
    command = options.pop("command")
    arguments = {name: options.pop(name) for name in RULE_OPTIONS}
    try:
        if command == "train":
            if arguments["warmup_start_lr"] is None and arguments["n_warmup_epochs"]:
                arguments["warmup_start_lr"] = arguments["base_lr"] / 20
            train(DecayRule(**arguments), **options)
        else:
            preview(DecayRule(**arguments), **options)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        message = "\nInterrupted."
        if command == "train":
            message += (
                " To resume after the last complete epoch, run `train` again without "
                "--overwrite."
            )
        print(message, file=sys.stderr)
        return 130
    except (ImportError, OSError, ValueError, tf.errors.OpError) as error:
        if isinstance(error, BrokenPipeError):
            # Python must not write to the closed pipe again when it exits.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            if command == "preview":  # the reader, say `head`, has seen enough
                return 0
        message = " ".join(str(error).split())
        print(f"expdecay-keras {command}: error: {message}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="expdecay-keras", description=__doc__)
    version = f"%(prog)s {__version__}"
    parser.add_argument("--version", action="version", version=version)
    commands = parser.add_subparsers(dest="command", required=True)
    _add_preview(commands)
    _add_train(commands)
    return parser


def _add_preview(commands: Any) -> None:
    parser = commands.add_parser(
        "preview",
        help="print the learning rate of each epoch",
        description="Print the learning rate of each epoch; if there are more than 50 "
        "epochs, of about 50 of them.",
        epilog="example: expdecay-keras preview --base-lr 0.1 --target-lr 0.001 "
        "--n-epochs 20",
    )
    defaults = {"n_warmup_epochs": 0, "warmup_start_lr": None, "n_hold_epochs": 0}
    _add_rule(parser, defaults, "the base rate, so that there is no ramp")
    parser.add_argument(
        "--format",
        choices=["table", "csv", "json"],
        default="table",
        help="output format; csv and json contain every epoch (default: %(default)s)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="also save a plot as a .png, .svg or .pdf file",
    )


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a small network on handwritten digits",
        description="Train a small network on handwritten digits. "
        "You can stop it at any moment: the same command resumes after the last "
        "complete epoch.",
        epilog="example: expdecay-keras train --base-lr 0.1 --run-dir runs/slower",
    )
    defaults = {**dataclasses.asdict(DEFAULT_RULE), "warmup_start_lr": None}
    _add_rule(parser, defaults, "a twentieth of the base rate")
    parser.add_argument(
        "--run-dir",
        type=Path,
        default="runs/digits",
        metavar="DIR",
        help="directory for the results (default: %(default)s)",
    )
    parser.add_argument(
        "--overwrite",
        action="store_true",
        help="discard the run in DIR and start from scratch",
    )


def _add_rule(parser: Any, defaults: dict[str, Any], start_lr: str) -> None:
    """Adds the options of a rule; those without a default are required."""
    for name, (settings, text) in RULE_OPTIONS.items():
        shown = start_lr if name == "warmup_start_lr" else "%(default)s"
        parser.add_argument(
            option_of(name),
            default=defaults.get(name),
            required=name not in defaults,
            help=f"{text} (default: {shown})" if name in defaults else text,
            **settings,
        )
