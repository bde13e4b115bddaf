"""What `expdecay-keras preview` does: the rates of a rule as a chart, as data and as a picture."""

import json
import os
import shutil
import sys
from pathlib import Path

from expdecay_keras.rule import DecayRule


def read_rule(path: Path) -> DecayRule:
    """Returns the rule of a saved WarmupExponentialDecay, whichever Keras saved it."""
    try:
        saved = json.loads(path.read_text(encoding="utf-8"))
        if saved["class_name"].removeprefix("expdecay_keras>") != "WarmupExponentialDecay":
            raise ValueError(f"class_name is {saved['class_name']!r}")
        return DecayRule(**{key: value for key, value in saved["config"].items() if key != "verbose"})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path} holds no WarmupExponentialDecay: {error}") from error


def show(rule: DecayRule, form: str, plot: Path | None) -> None:
    """Draws the rule into the file, if there is one, and prints it as a table, csv or json."""
    from expdecay_keras.plotting import save_plot, text_chart

    if plot:
        save_plot(rule, plot)
    try:
        if form == "table":
            is_utf8 = "utf8" in str(getattr(sys.stdout, "encoding", "")).lower().replace("-", "")
            print(text_chart(rule, shutil.get_terminal_size().columns, ascii_only=not is_utf8))
        else:
            _print_rates(rule, form)
        print(end="", flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # else the reader, `head` say, has seen enough
            raise OSError(error.errno, error.strerror, "standard output") from error


def _print_rates(rule: DecayRule, form: str) -> None:
    print("epoch,learning_rate" if form == "csv" else "[")
    for start in range(0, rule.n_epochs, 100_000):
        epochs = range(start, min(start + 100_000, rule.n_epochs))
        for epoch, rate in zip(epochs, rule.learning_rate(epochs, dtype="float32").numpy().tolist()):
            after = "," if epoch + 1 < rule.n_epochs else "\n]"
            row = json.dumps({"epoch": epoch, "learning_rate": rate}) + after
            print(f"{epoch},{rate}" if form == "csv" else row)
