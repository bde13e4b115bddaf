"""The directory of a `train` run, from which the same command resumes."""

import contextlib
import csv
import hashlib
import itertools
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import filelock

from expdecay_keras.rule import DecayRule


class RunError(Exception):
    """A run cannot start or resume for a reason that the user can mend, said in one line."""


@contextlib.contextmanager
def refused(why: str, kind: type[Exception] = Exception) -> Iterator[None]:
    """Raises RunError, `why` and what the error says in one line, where a foreign call raises."""
    try:
        yield
    except kind as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        if lines[:1] == ["Graph execution error:"]:  # TensorFlow: the stack stands before the reason
            lines = [line for line in lines if "[[" not in line][-1:]
        said = re.sub(r"\x1b\[\d*m", "", " ".join(lines).rpartition("}} ")[2]) or type(error).__name__
        raise RunError(f"{why}: {said[:300]}") from error


class RunDirectory:
    """The directory of one run, from which the same command resumes after a kill at any moment.

    `run.json`, written first, says which run it is. When an epoch ends, it gets a row in
    `history.csv`; then TensorFlow's CheckpointManager writes weights, optimizer and the seeds of
    dropout into `checkpoint`, renames the file that points to them and deletes their predecessors.
    So a kill leaves one whole checkpoint, and the history of its epochs with at most one row more,
    which is cut off again. `model.keras`, moved into place last, marks the run as finished.
    """

    def __init__(self, path: Path, rule: DecayRule, args: Any) -> None:
        self.identity: dict[str, Any] = {"rule": rule._config()}
        for name, file in (("model", args.model), ("data", args.data)):
            self.identity[name] = hashlib.sha256(file.read_bytes()).hexdigest() if file else None
        self.identity |= {"batch_size": args.batch_size, "seed": args.seed}
        self.path, self.n_epochs, self.overwrite = path, rule.n_epochs, args.overwrite
        self.run, self.checkpoint = path / "run.json", path / "checkpoint"
        names = ("history.csv", "learning_rate.png", "tensorboard", "model.keras", "callback.json")
        self.results = [path / name for name in names]
        self.history, self.picture, tensorboard, self.model, self.callback = self.results
        self.scalars = (tensorboard / "train", tensorboard / "validation")
        self.n_epochs_done: int | None = None  # None before the run starts or resumes

    def check(self) -> bool:
        """Returns whether the run is finished; RunError unless it can start, resume or be shown."""
        ours = [file for file in (self.run, *self.results, self.checkpoint) if file.exists()]
        if not ours:
            return False
        try:
            held = json.loads(self.run.read_text())
            differing = [key for key in self.identity if held[key] != self.identity[key]]
        except (OSError, ValueError, TypeError, KeyError):
            raise RunError(f"{ours[0]} is of no run. Choose another --run-dir") from None
        if self.overwrite:
            return False
        if differing:
            what = f"{self.path} holds another run (different: {', '.join(differing)})"
            raise RunError(f"{what}. Choose another --run-dir, or --overwrite it")
        if self.model.exists():
            self.read_history(self.n_epochs)
            return True
        if (self.path / "state").exists():
            raise RunError(f"{self.path} was left unfinished by version 0.1.0: use that, or --overwrite")
        return False

    def lock(self) -> Any:
        """Makes the directory and returns a context in which no other run can be at work in it."""
        self.path.mkdir(parents=True, exist_ok=True)
        with refused(f"Another run is at work in {self.path}", filelock.Timeout):
            return filelock.FileLock(self.path / ".lock").acquire(timeout=0)

    def resume(self, state: Any) -> None:
        """Restores the state from the newest checkpoint, if any, and puts all files back to it."""
        import tensorflow as tf

        if self.overwrite:  # but for run.json, which comes last: a kill must not mix two runs
            for path in (self.model, self.checkpoint, self.path / "state", self.history):
                _remove(path)
        lines = self.history.read_bytes().splitlines(keepends=True) if self.history.exists() else []
        checkpoint, n_epochs = tf.train.Checkpoint(**state), 0
        with refused(f"{self.checkpoint} is damaged, --overwrite starts anew"):
            self.manager = tf.train.CheckpointManager(checkpoint, str(self.checkpoint), max_to_keep=1)
            if newest := self.manager.latest_checkpoint:
                reader = tf.train.load_checkpoint(newest)
                for name in reader.get_variable_to_shape_map():  # all, before the first is restored
                    reader.get_tensor(name)
                checkpoint.restore(newest).expect_partial().assert_existing_objects_matched()
                n_epochs = int(newest.rpartition("-")[2])
            elif len(lines) > 2 or (self.checkpoint / "checkpoint").exists():
                raise ValueError("the newest is lost")
        self.read_history(n_epochs)
        for path in self.scalars:
            _remove(path)
        if n_epochs:
            os.truncate(self.history, len(b"".join(lines[: n_epochs + 1])))
        else:
            _remove(self.history)
            partial = self.path / ".run.json"
            partial.write_text(json.dumps(self.identity, indent=2))
            os.replace(partial, self.run)
        self.n_epochs_done = n_epochs

    def read_history(self, n_epochs: int) -> list[dict[str, float]]:
        """Returns the rows of the first epochs; raises RunError if the history does not hold them."""
        if n_epochs == 0:
            return []
        with refused(f"{self.history} is damaged, --overwrite starts anew"), self.history.open() as file:
            table = itertools.islice(csv.DictReader(file), n_epochs)
            rows = [{name: float(value) for name, value in row.items()} for row in table]
            if [row["epoch"] for row in rows] != list(range(n_epochs)):
                raise ValueError("epochs are missing")
        return rows

    def save(self, n_epochs: int) -> None:
        """Keeps the state after so many epochs, whose rows the history has already."""
        self.manager.save(checkpoint_number=n_epochs)
        self.n_epochs_done = n_epochs

    def finish(self, model: Path) -> None:
        """Moves the trained model into place, which marks the run as finished."""
        os.replace(model, self.model)
        _remove(self.checkpoint)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
