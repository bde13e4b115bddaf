"""The command line: `expdecay-keras`, or `python -m expdecay_keras`."""

import argparse
import dataclasses
import importlib.util
import os
import re
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any, NoReturn

from expdecay_keras import __version__
from expdecay_keras.rule import DecayRule, check_count


class _Parser(argparse.ArgumentParser):
    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        # Python before 3.14 takes -1e-3 for an option, although it takes -0.001 for a number.
        self._negative_number_matcher = re.compile(r"-(\d|\.\d|inf|nan)", re.IGNORECASE)

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


def main(argv: list[str] | None = None) -> int:
    """Runs a command; returns 0, 130 after SIGINT, 143 after SIGTERM; SystemExit(2) if refused."""
    args = _parser().parse_args(argv)
    names = [field.name for field in dataclasses.fields(DecayRule)]
    args.rule = {name: getattr(args, name) for name in names if getattr(args, name) is not None}

    def interrupt(signum: int, frame: Any) -> None:
        at_once, args.signum = not args.training or args.signum, signum
        if at_once:  # else when the batch ends: raised inside TensorFlow it is swallowed, or crashes
            raise KeyboardInterrupt

    handlers = {signum: signal.signal(signum, interrupt) for signum in (signal.SIGINT, signal.SIGTERM)}
    try:
        args.run(args)
    except KeyboardInterrupt:
        pass
    finally:
        for signum, handler in handlers.items():
            signal.signal(signum, handler)
    return 128 + args.signum if args.signum else 0


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="expdecay-keras", description=__doc__)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    text = "Shows the decay and the rate of every epoch; of more than 50, evenly spaced ones."
    preview = commands.add_parser("preview", help="show the rates of a rule", description=text)
    text = "Trains a network by the rule, by default on handwritten digits. Interrupted, it resumes."
    train = commands.add_parser("train", help="train a network by the rule", description=text)
    for option, kind, default, text in (
        ("--base-lr", float, 0.3, "rate of warm-up and first real epoch"),
        ("--target-lr", float, 1e-3, "rate of the last epoch"),
        ("--n-epochs", int, 20, "epochs, warm-up included"),
        ("--n-warmup-epochs", int, 2, "warm-up epochs"),
        ("--warmup-start-lr", float, None, "ramp up from this rate; without it, warm-up holds base-lr"),
        ("--n-hold-epochs", int, 0, "epochs at base-lr after warm-up"),
    ):
        preview.add_argument(option, type=kind, help=text)
        text += "" if default is None else f" ({default})"
        train.add_argument(option, type=kind, default=default, help=text)
    add = preview.add_argument
    add("--callback", type=Path, metavar="FILE.json", help="a saved callback, instead of numbers")
    add("--format", choices=["table", "csv", "json"], default="table", help="csv, json: every epoch")
    add("--plot", type=Path, metavar="FILE", help="also draw the rates: a .png, .svg or .pdf file")
    add = train.add_argument
    add("--model", type=Path, metavar="FILE.keras", help="a compiled Keras model of yours")
    add("--data", type=Path, metavar="FILE.npz", help="x_train, y_train, x_test, y_test of yours")
    add("--batch-size", type=int, default=32, help="rows a batch (%(default)s)")
    add("--seed", type=int, default=0, help="for the weights and the order of rows (%(default)s)")
    add("--run-dir", type=Path, default="runs/digits", metavar="DIR", help="results (%(default)s)")
    add("--overwrite", action="store_true", help="start anew over whatever run the directory holds")
    add("--compare-constant", action="store_true", help="also train at base-lr, in DIR/constant")
    for command, run in ((preview, _preview), (train, _train)):
        command.set_defaults(run=run, error=command.error, signum=0, training=False)
    return parser


def _preview(args: argparse.Namespace) -> None:
    from expdecay_keras.command.preview import read_rule, show

    given, plot = args.rule.keys(), args.plot
    if args.callback and given:
        args.error("argument --callback: not allowed with the numbers of a rule")
    if not args.callback and not given >= {"base_lr", "target_lr", "n_epochs"}:
        args.error("the following arguments are required: --base-lr, --target-lr, --n-epochs")
    if plot and plot.suffix.lower() not in (".png", ".svg", ".pdf"):
        args.error(f"argument --plot: must end in .png, .svg or .pdf: {plot}")
    if plot and (plot.is_dir() or not os.access(plot.parent, os.W_OK)):
        args.error(f"argument --plot: cannot be written: {plot}")
    try:
        rule = read_rule(args.callback) if args.callback else DecayRule(**args.rule)
        _import("tensorflow")
        show(rule, args.format, plot)
    except (ImportError, OSError, ValueError) as error:
        args.error(str(error))


def _train(args: argparse.Namespace) -> None:
    try:
        rule = DecayRule(**args.rule)
        check_count("batch_size", args.batch_size, 1)
        check_count("seed", args.seed, 0, 2**32 - 1)
    except ValueError as error:
        args.error(str(error))
    if args.model and args.model.suffix != ".keras":
        args.error(f"argument --model: not a .keras file: {args.model}")
    needed = ["filelock", "matplotlib", "tensorboard"] + ["sklearn"] * (args.data is None)
    if missing := [package for package in needed if importlib.util.find_spec(package) is None]:
        args.error(f"{', '.join(missing)} missing: pip install 'expdecay-keras[demo]'")
    from expdecay_keras.command.run import RunDirectory, RunError

    runs: list[RunDirectory] = []
    try:
        runs.append(RunDirectory(args.run_dir, rule, args))
        if args.compare_constant:
            constant = dataclasses.replace(rule, target_lr=rule.base_lr, warmup_start_lr=None)
            runs.append(RunDirectory(args.run_dir / "constant", constant, args))
        for run, finished in [(run, run.check()) for run in runs]:
            if finished:
                print(f"{run.path} holds this run, finished. --overwrite trains it anew.")
            else:
                _import("expdecay_keras.command.train").train(run, args)
        _show(runs)
    except (RunError, OSError, KeyboardInterrupt) as stop:
        done = [str(run.n_epochs_done) for run in runs if run.n_epochs_done is not None]
        how = f"The same command{' without --overwrite' * args.overwrite} resumes there."
        progress = f": {' and '.join(done)} of {args.n_epochs} epochs are done. {how}" if done else ""
        if not isinstance(stop, KeyboardInterrupt):
            args.error(f"{stop}{progress}")
        print(f"\nInterrupted{progress or ' before training began; nothing is lost.'}", file=sys.stderr)
        raise


def _show(runs: list[Any]) -> None:
    """Prints the first run's history, how the other, if any, compares, and the paths of both."""
    rows, *others = [run.read_history(run.n_epochs) for run in runs]
    cells = [list(rows[0]), *([f"{value:.6g}" for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) + 2 for column in zip(*cells)]
    table = ("".join(f"{cell:>{width}}" for cell, width in zip(row, widths)) for row in cells)
    print("", *table, sep="\n")
    name = next((name for name in rows[0] if name.startswith("val_acc")), "val_loss")
    for other in others:
        print(f"\nlast {name}: {rows[-1][name]:.4f} by the rule, {other[-1][name]:.4f} at constant rate")
    print("", *(path for run in runs for path in run.results), sep="\n")


def _import(module: str) -> Any:
    """Imports a module, and with it TensorFlow; shows what that writes meanwhile only if it fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with os.fdopen(os.dup(2), "wb") as stderr, tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            return importlib.import_module(module)
        except Exception:
            written.seek(0)
            stderr.write(written.read())
            raise
        finally:
            os.dup2(stderr.fileno(), 2)
