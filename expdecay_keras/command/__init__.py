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
from expdecay_keras.command.train import DEFAULT_RULE, RunError, train
from expdecay_keras.rule import DecayRule

RULE_OPTIONS = [
    ("base_lr", float, "rate during warm-up and hold and at the start of the decay"),
    ("target_lr", float, "rate of the last epoch"),
    ("n_epochs", int, "number of epochs, including warm-up and hold"),
    ("n_warmup_epochs", int, "number of warm-up epochs"),
    ("warmup_start_lr", float, "rate at which a linear ramp starts"),
    ("n_hold_epochs", int, "number of epochs at the base rate after warm-up"),
]


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns 0, 130 after Ctrl-C, or 2 after printing an error."""
    arguments = vars(_parser().parse_args(argv))
    command = arguments.pop("command")
    try:
        names = [name for name, _, _ in RULE_OPTIONS if name in arguments]
        given = {name: arguments.pop(name) for name in names}
        rule = DecayRule(**(_complete(given) if command == "train" else given))
        if command == "train":
            train(rule, **arguments)
        else:
            preview(rule, **arguments)
        sys.stdout.flush()
        return 0
    except KeyboardInterrupt:
        message = "\nInterrupted."
        if command == "train":
            message += (
                " The same command without --overwrite resumes after the last complete "
                "epoch."
            )
        print(message, file=sys.stderr)
        return 130
    except (ImportError, OSError, RunError, ValueError, tf.errors.OpError) as error:
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
        help="print the rates of a rule",
        description="Print the rates of a rule, one line per epoch, up to about 50 "
        "lines.",
    )
    _add_rule(parser)
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
        help="also save a plot of the rates as a .png, .svg or .pdf file",
    )


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        help="train a small network on handwritten digits",
        description="Train a small network on handwritten digits. "
        "You can stop it at any moment: the same command resumes after the last "
        "complete epoch.",
    )
    _add_rule(parser, DEFAULT_RULE)
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


def _add_rule(
    parser: argparse.ArgumentParser, default: DecayRule | None = None
) -> None:
    """Adds the arguments of a rule; without a default rule, three are required."""
    for name, type_, text in RULE_OPTIONS:
        if default is not None:
            text += f" (default: {getattr(default, name)})"
        is_needed = name in ("base_lr", "target_lr", "n_epochs")
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=type_,
            default=argparse.SUPPRESS,
            required=is_needed and default is None,
            help=text,
        )


def _complete(given: dict[str, Any]) -> dict[str, Any]:
    """Adds the defaults of `train`, but no ramp if there is no warm-up."""
    defaults = dataclasses.asdict(DEFAULT_RULE)
    if given.get("n_warmup_epochs") == 0:
        defaults["warmup_start_lr"] = None
    return {**defaults, **given}
