"""The command line: `expdecay-keras`, or `python -m expdecay_keras`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.util
import json
import os
import shutil
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from expdecay_keras import __version__
from expdecay_keras.rule import DecayRule, check_count


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {' '.join(message.splitlines())}\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command and returns its exit status: 0 done, 2 refused, 130 or 143 interrupted."""
    parser = _Parser(prog="expdecay-keras", description=__doc__, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)
    _add_preview(commands)
    _add_train(commands)
    args = parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        return int(args.run(args))
    except KeyboardInterrupt:
        return 130


def _add_rule(parser: argparse.ArgumentParser, **defaults: Any) -> None:
    for name, kind, text in (
        ("base_lr", float, "rate of warm-up and first real epoch"),
        ("target_lr", float, "rate of the last epoch"),
        ("n_epochs", int, "epochs, warm-up included"),
        ("n_warmup_epochs", int, "warm-up epochs"),
        ("warmup_start_lr", float, "ramp up from this rate (default: hold base-lr)"),
    ):
        default = defaults.get(name)
        text += f" ({default})" if name in defaults else ""
        parser.add_argument(_options([name]), type=kind, default=default, help=text)


def _options(names: Iterable[str]) -> str:
    return ", ".join(f"--{name.replace('_', '-')}" for name in names)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments of the rule that have a value."""
    values = {field.name: getattr(args, field.name) for field in dataclasses.fields(DecayRule)}
    return {name: value for name, value in values.items() if value is not None}


def _add_preview(commands: Any) -> None:
    parser = commands.add_parser(
        "preview",
        allow_abbrev=False,
        help="show the rates of a rule",
        description="Shows the decay and the rate of every epoch; of more than 50, evenly spaced ones.",
    )
    _add_rule(parser)
    add = parser.add_argument
    add("--callback", type=_file, metavar="FILE.json", help="a saved callback, instead of numbers")
    add(
        "--format",
        choices=["table", "csv", "json"],
        default="table",
        help="csv, json: every epoch, the numbers of the history to the last digit (%(default)s)",
    )
    add("--plot", type=_picture, metavar="FILE", help="also draw the rates: a .png, .svg or .pdf file")
    parser.set_defaults(run=_preview, parser=parser)


def _picture(text: str) -> Path:
    if Path(text).suffix.lower() not in (".png", ".svg", ".pdf"):
        raise argparse.ArgumentTypeError(f"must end in .png, .svg or .pdf: {text}")
    return Path(text)


def _preview(args: argparse.Namespace) -> int:
    given = _given(args)
    missing = [name for name in ("base_lr", "target_lr", "n_epochs") if name not in given]
    if args.callback and given:
        args.parser.error(f"argument --callback: not allowed with {_options(given)}")
    if missing and not args.callback:
        args.parser.error(f"the following arguments are required: {_options(missing)} (or --callback)")
    try:
        if args.plot:
            _check_writable(args.plot)
        rule = _read_rule(args.callback) if args.callback else DecayRule(**given)
        if args.plot:
            from expdecay_keras.plotting import save_plot

            save_plot(rule, args.plot)
    except OSError as error:
        args.parser.error(f"{error.strerror}: {error.filename or args.plot}")
    except ValueError as error:
        args.parser.error(str(error))
    try:
        _print_rates(rule, args.format)
        print(end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # else the reader, `head` say, has seen enough
            args.parser.error(f"{error.strerror}: standard output")
    return 0


def _check_writable(path: Path) -> None:
    """Raises OSError unless the file can be written, ValueError if matplotlib is missing."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("matplotlib missing: pip install 'expdecay-keras[plot]'")
    existed = path.exists()
    path.open("ab").close()
    if not existed:
        path.unlink()


def _read_rule(path: Path) -> DecayRule:
    """Returns the rule of a saved WarmupExponentialDecay, whichever Keras saved it."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        name = saved.get("class_name") if isinstance(saved, dict) else None
        if name not in ("WarmupExponentialDecay", "expdecay_keras>WarmupExponentialDecay"):
            raise ValueError(f"class_name is {name!r}")
        config = saved.get("config")
        if not isinstance(config, dict):
            raise ValueError(f"config is {config!r}")
        return DecayRule(**{key: value for key, value in config.items() if key != "verbose"})
    except (ValueError, TypeError, RecursionError) as error:
        raise ValueError(f"{path} holds no WarmupExponentialDecay: {error}") from error


def _print_rates(rule: DecayRule, form: str) -> None:
    if form == "table":
        from expdecay_keras.plotting import text_chart

        is_utf8 = "utf8" in str(getattr(sys.stdout, "encoding", "")).lower().replace("-", "")
        print(text_chart(rule, shutil.get_terminal_size().columns, ascii_only=not is_utf8))
        return
    print("epoch,learning_rate" if form == "csv" else "[")
    for start in range(0, rule.n_epochs, 100_000):
        epochs = range(start, min(start + 100_000, rule.n_epochs))
        rates = rule.learning_rate(epochs, dtype="float32").numpy().tolist()
        for epoch, rate in zip(epochs, rates):
            if form == "csv":
                print(f"{epoch},{rate}")
            else:
                comma = "," if epoch + 1 < rule.n_epochs else "\n]"
                print(json.dumps({"epoch": epoch, "learning_rate": rate}) + comma)


def _add_train(commands: Any) -> None:
    parser = commands.add_parser(
        "train",
        allow_abbrev=False,
        help="train a network by the rule",
        description="Trains a network at base-lr through warm-up, then exponentially down to "
        "target-lr. Without options: a small network on scikit-learn's handwritten digits. "
        "Interrupted, the same command goes on where it was.",
    )
    _add_rule(parser, base_lr=0.1, target_lr=1e-4, n_epochs=20, n_warmup_epochs=2)
    add = parser.add_argument
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
        rules = [DecayRule(**_given(args))]
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
        from expdecay_keras.run import RunError, RunStopped, one_line

        if isinstance(error, RunStopped):
            with contextlib.suppress(OSError):
                sys.stdout.flush()
            message = f"{args.parser.prog}: error: {error}{_progress(args, directories)}"
            print(message, file=sys.stderr, flush=True)
            os._exit(2)  # after a write that failed HDF5 may crash when Python ends as usual
        if isinstance(error, (RunError, OSError)):
            args.parser.error(str(error) if isinstance(error, RunError) else one_line(error))
        raise
    finally:
        for directory in directories:
            directory.close()
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
