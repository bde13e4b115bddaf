"""The command line: `expdecay-keras`, or `python -m expdecay_keras`."""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from expdecay_keras import __version__
from expdecay_keras.rule import DecayRule, check_count


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 2 refused, 130 or 143 interrupted."""
    parser = _Parser(prog="expdecay-keras", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_train(commands)
    args = parser.parse_args(argv)
    return int(args.run(args))


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a network by the rule",
        description="Trains a network at base-lr through warm-up, then exponentially down to "
        "target-lr. Without options: a small network on scikit-learn's handwritten digits. "
        "Interrupted, the same command goes on where it was.",
    )
    add = parser.add_argument
    add("--base-lr", type=float, default=0.1, help="rate of warm-up and first real epoch (%(default)s)")
    add("--target-lr", type=float, default=1e-4, help="rate of the last epoch (%(default)s)")
    add("--n-epochs", type=int, default=20, help="epochs, warm-up included (%(default)s)")
    add("--n-warmup-epochs", type=int, default=2, help="warm-up epochs (%(default)s)")
    add("--warmup-start-lr", type=float, help="ramp up from this rate (default: hold base-lr)")
    add("--model", type=_file, metavar="FILE.keras", help="a compiled Keras model of yours")
    add("--data", type=_file, metavar="FILE.npz", help="x_train, y_train, x_test, y_test of yours")
    add("--batch-size", type=int, default=32, help="rows a batch (%(default)s)")
    add("--seed", type=int, default=0, help="for the weights and the order of rows (%(default)s)")
    add("--run-dir", type=Path, default="runs/digits", metavar="DIR", help="results (%(default)s)")
    add("--overwrite", action="store_true", help="start anew over whatever run the directory holds")
    add(
        "--compare-constant",
        action="store_true",
        help="also train the same network at constant base-lr, in DIR/constant",
    )
    parser.set_defaults(run=_train, parser=parser)


def _file(text: str) -> Path:
    if not os.path.isfile(text):
        raise argparse.ArgumentTypeError(f"no such file: {text}")
    return Path(text)


def _train(args: argparse.Namespace) -> int:
    try:
        rules = [
            DecayRule(
                args.base_lr, args.target_lr, args.n_epochs, args.n_warmup_epochs, args.warmup_start_lr
            )
        ]
        check_count("batch_size", args.batch_size, 1)
        check_count("seed", args.seed, 0, 2**32 - 1)
    except ValueError as error:
        args.parser.error(str(error))
    if args.compare_constant:
        rules.append(DecayRule(args.base_lr, args.base_lr, args.n_epochs, args.n_warmup_epochs))
    if args.model and args.model.suffix != ".keras":
        args.parser.error(f"argument --model: not a .keras file: {args.model}")
    needed = ["matplotlib", "tensorboard"] + ["sklearn"] * (args.data is None)
    missing = [package for package in needed if importlib.util.find_spec(package) is None]
    if missing:
        args.parser.error(f"{', '.join(missing)} missing: pip install 'expdecay-keras[demo]'")

    signals: list[int] = []

    def interrupt(signum: int, frame: Any) -> NoReturn:
        signals.append(signum)
        raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    directories: list[Any] = []
    try:
        _run(args, rules, directories, signals)
        _print_summary(directories)
    except BaseException as error:
        if signals:  # whatever TensorFlow may have turned the KeyboardInterrupt into
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            print(f"\nInterrupted{_progress(args, directories)}", file=sys.stderr)
            return 128 + signals[0]
        from expdecay_keras.run import RunError

        if isinstance(error, (RunError, OSError)):
            args.parser.error(str(error))
        raise
    return 0


def _progress(args: argparse.Namespace, directories: Sequence[Any]) -> str:
    """Says how an interrupted run can go on."""
    if not any(directory.started for directory in directories):
        return " before training began."
    done = " and ".join(f"{directory.n_epochs_done} of {args.n_epochs}" for directory in directories)
    how = "The same command without --overwrite" if args.overwrite else "The same command"
    return f": {done} epochs are done. {how} goes on from there."


def _run(
    args: argparse.Namespace, rules: list[DecayRule], directories: list[Any], signals: list[int]
) -> None:
    """Trains by each rule in a directory of its own, unless that holds the finished run."""
    from expdecay_keras.run import RunDirectory, digest, load_data

    data = load_data(args.data)
    common = {
        "model": digest(args.model),
        "data": digest(args.data),
        "batch_size": args.batch_size,
        "seed": args.seed,
    }
    identities = [{"rule": dataclasses.asdict(rule), **common} for rule in rules]
    paths = [args.run_dir, args.run_dir / "constant"]
    directories += [RunDirectory(path) for path in paths[: len(rules)]]
    for directory, identity in zip(directories, identities):
        directory.check(identity, args.overwrite)
    for directory, identity in zip(directories, identities):
        if directory.finished and not args.overwrite:
            directory.tidy()
            print(f"{directory.path} holds this run, finished. --overwrite trains it anew.")
        else:
            os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
            from expdecay_keras.training import load_model, train

            model = load_model(args.model, data, args.seed)
            train(directory, identity, data, model, args.overwrite, signals)


def _print_summary(directories: Sequence[Any]) -> None:
    """Prints the first run's history and paths, and how the other, if any, compares."""
    histories = [directory.read_history() for directory in directories]
    rows = histories[0]
    shown = [name for name in rows[0] if name.startswith("learning_rate")]
    shown += ["loss", _validation_column(rows[0])]
    print("\nepoch  " + "  ".join(f"{name:>13}" for name in shown))
    for row in rows:
        print(f"{row['epoch']:5.0f}  " + "  ".join(f"{row[name]:13.6g}" for name in shown))
    if len(directories) > 1:
        decayed, constant = (history[-1][_validation_column(history[-1])] for history in histories)
        print(f"\n{shown[-1]} of the last epoch: {decayed:.4f} by the rule, {constant:.4f} at constant")
    print()
    for directory in directories:
        for path in directory.results:
            print(path)


def _validation_column(row: dict[str, float]) -> str:
    accuracies = [name for name in row if name.startswith("val_") and "acc" in name]
    return accuracies[0] if accuracies else "val_loss"
