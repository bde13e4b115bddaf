"""The files of a `train` run: its data, and a directory that an interrupted run goes on from."""

from __future__ import annotations

import csv
import errno
import fcntl
import hashlib
import json
import lzma
import os
import re
import shutil
import struct
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

# What NumPy and Keras let through on a file that is damaged or something else.
DAMAGED = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    lzma.LZMAError,
    struct.error,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)
ARRAYS = ("x_train", "y_train", "x_test", "y_test")


class RunError(Exception):
    """A run cannot start or go on for a reason the user can mend, said in one line."""


class RunStopped(RunError):
    """A run that was under way cannot go on; the same command takes it up again later."""


def load_data(path: Path | None) -> dict[str, Any]:
    """Returns the four arrays of an .npz file; without one, scikit-learn's handwritten digits.

    The digits are 1797 images of 8 by 8 pixels. The last 360, by other writers than the first,
    are the test part.

    Raises:
        RunError: The file holds something else.
    """
    if path is None:
        from sklearn.datasets import load_digits

        x, y = load_digits(return_X_y=True)
        return dict(zip(ARRAYS, (x[:-360], y[:-360], x[-360:], y[-360:])))
    try:
        with np.load(path, allow_pickle=False) as file:
            data = {name: np.asarray(file[name]) for name in ARRAYS}
    except DAMAGED as error:
        raise RunError(f"{path} is no .npz file of {', '.join(ARRAYS)}: {one_line(error)}") from error
    for name, array in data.items():
        if array.dtype.kind not in "biuf" or array.ndim == 0 or array.size == 0:
            raise RunError(f"{path}: {name} must be a non-empty array of numbers")
    for part in ("train", "test"):
        n_x, n_y = len(data[f"x_{part}"]), len(data[f"y_{part}"])
        if n_x != n_y:
            raise RunError(f"{path}: x_{part} has {n_x} rows and y_{part} has {n_y}")
    for name in "xy":
        train, test = data[f"{name}_train"].shape[1:], data[f"{name}_test"].shape[1:]
        if train != test:
            raise RunError(f"{path}: a row of {name}_train has shape {train} and of {name}_test {test}")
    return data


def digest(path: Path | None) -> str | None:
    """Returns the SHA-256 of a file, None for none."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path else None


def one_line(error: BaseException) -> str:
    """Returns what an error says as one line of at most 300 characters."""
    if isinstance(error, OSError) and error.errno and error.filename:
        return f"{os.strerror(error.errno)}: {error.filename}"
    number = re.search(r"errno[ =]+(\d+)", str(error), re.IGNORECASE)  # as HDF5 and shutil wrap it
    if number:
        return os.strerror(int(number[1]))
    text = re.sub(r"\x1b\[[0-9;]*m|\{\{.*?\}\} ?", "", str(error))  # bold print, names of operations
    lines = [line.strip() for line in text.splitlines() if line.strip() and "[[" not in line]
    if lines[:1] == ["Graph execution error:"]:  # a stack of operations stands before the reason
        lines = lines[-1:]
    return (" ".join(lines) or type(error).__name__)[:300]


class RunDirectory:
    """The directory of one run.

    `run.json` says which run it is. After every epoch a snapshot, Keras's backup and the history up
    to there, is put into place in `state` by one rename: a run killed at any moment goes on from a
    point at which all files agree. `model.keras` is written last; where it is, the run is finished.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.identity = path / "run.json"
        self.history = path / "history.csv"
        self.picture = path / "learning_rate.png"
        self.tensorboard = path / "tensorboard"
        self.callback = path / "callback.json"
        self.model = path / "model.keras"
        self.state = path / "state"
        self.dropped = path / "state.dropped"
        self.backup = self.state / "backup"
        self.started = False
        self._lock: int | None = None

    @property
    def results(self) -> tuple[Path, ...]:
        return self.history, self.picture, self.tensorboard, self.model, self.callback

    @property
    def finished(self) -> bool:
        return self.model.exists()

    def check(self, identity: dict[str, Any], overwrite: bool) -> None:
        """Raises RunError unless the run of this identity can start or go on here."""
        existing = next(path for path in (self.path, *self.path.absolute().parents) if path.exists())
        if not (existing.is_dir() and os.access(existing, os.W_OK)):
            raise RunError(f"Cannot write to {existing}")
        if existing == self.path and self._lock is None:
            self._keep_others_out()
        if not self.identity.exists():
            for file in (*self.results, self.state, self.dropped):
                if file.exists():
                    raise self._not_ours(file)
            return
        try:
            held = dict(json.loads(self.identity.read_text()))
        except (ValueError, TypeError):
            raise self._not_ours(self.identity) from None
        if held.keys() != identity.keys():
            raise self._not_ours(self.identity)
        if overwrite:
            return
        differing = [key for key in identity if held[key] != identity[key]]
        if differing:
            raise RunError(
                f"{self.path} holds another run (different: {', '.join(differing)}). "
                "Choose another --run-dir, or --overwrite it"
            )
        if self.finished:
            whole = len(self.read_history()) == identity["rule"]["n_epochs"]
        else:
            whole = self._state_is_whole()
        if not whole:
            raise RunError(f"{self.path} is damaged: epochs are missing. --overwrite starts anew")

    def _keep_others_out(self) -> None:
        """Locks the directory until `close`, or the end of the process however it comes."""
        self._lock = os.open(self.path, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"Another run is at work in {self.path}") from None

    def close(self) -> None:
        """Lets other runs in."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @staticmethod
    def _not_ours(file: Path) -> RunError:
        return RunError(f"{file} is there and no run of this program wrote it. Choose another --run-dir")

    def _state_is_whole(self) -> bool:
        """Whether the newest snapshot, if any, has all its files and every epoch so far."""
        snapshots = self._snapshots()
        if not snapshots:  # killed in the first epoch, or right after its row was written
            return not self.history.exists() or len(self.history.read_text().splitlines()) <= 2
        try:
            int((snapshots[-1] / "iterations").read_text())
        except (OSError, ValueError):
            return False
        n_rows = len(self._read(snapshots[-1] / "history.csv"))
        return n_rows == self.n_epochs_done and (snapshots[-1] / "backup").is_dir()

    def start(self, identity: dict[str, Any], overwrite: bool) -> None:
        """Makes the directory and puts backup and history back to the newest snapshot."""
        self.path.mkdir(parents=True, exist_ok=True)
        if self._lock is None:  # it was not there when it was checked
            self._keep_others_out()
            if self.identity.exists():
                raise RunError(f"Another run was at work in {self.path} meanwhile")
        shutil.rmtree(self.dropped, ignore_errors=True)
        if overwrite:
            self.model.unlink(missing_ok=True)
            self.history.unlink(missing_ok=True)
            if self.state.exists():  # in one step: half of it must not pass for the state of a run
                os.rename(self.state, self.dropped)
                shutil.rmtree(self.dropped)
        for part in ("train", "validation"):
            shutil.rmtree(self.tensorboard / part, ignore_errors=True)
        for file in (self.history, self.picture, self.callback):
            file.unlink(missing_ok=True)
        if overwrite or not self.identity.exists():
            partial = self.path / f".run-{os.getpid()}.json"
            partial.write_text(json.dumps(identity, indent=2))
            os.replace(partial, self.identity)
        self.started = True
        shutil.rmtree(self.backup, ignore_errors=True)
        snapshots = self._snapshots()
        if snapshots:
            shutil.copytree(snapshots[-1] / "backup", self.backup)
            shutil.copy(snapshots[-1] / "history.csv", self.history)

    def check_room(self, n_bytes: int) -> None:
        """Raises OSError if the disk has no room for a backup of so many bytes and its copy."""
        if shutil.disk_usage(self.path).free < 2 * (n_bytes + 2**16):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def snapshot(self, n_epochs: int, n_iterations: int) -> None:
        """Keeps backup and history as they are after so many epochs and optimizer iterations."""
        partial, old = self.state / "partial", self._snapshots()
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(self.backup, partial / "backup")
        shutil.copy(self.history, partial)
        (partial / "iterations").write_text(str(n_iterations))
        for file in [partial, *partial.rglob("*")]:
            _sync(file)
        os.rename(partial, self.state / f"snapshot-{n_epochs}")
        _sync(self.state)
        for directory in old:
            shutil.rmtree(directory)

    def _snapshots(self) -> list[Path]:
        snapshots = [path for path in self.state.glob("snapshot-*") if path.name[9:].isdigit()]
        return sorted(snapshots, key=_n_epochs)

    @property
    def n_epochs_done(self) -> int:
        """The number of epochs a run has behind it when it goes on."""
        if self.finished:
            return len(self.read_history())
        snapshots = self._snapshots()
        return _n_epochs(snapshots[-1]) if snapshots else 0

    @property
    def n_iterations_done(self) -> int | None:
        """The optimizer's iterations at the newest snapshot, None without one."""
        snapshots = self._snapshots()
        return int((snapshots[-1] / "iterations").read_text()) if snapshots else None

    def finish(self, model: Any) -> None:
        """Writes the trained model, which marks the run as finished."""
        partial = self.state / "model.keras"
        model.save(partial)
        _sync(partial)
        os.replace(partial, self.model)
        self.tidy()

    def tidy(self) -> None:
        """Removes what only an unfinished run needs."""
        shutil.rmtree(self.state, ignore_errors=True)

    def read_history(self) -> list[dict[str, float]]:
        """Returns the rows of history.csv, [] if an unfinished run has none yet.

        Raises:
            RunError: It is damaged, or a finished run has lost it.
        """
        return self._read(self.history) if self.finished or self.history.exists() else []

    @staticmethod
    def _read(history: Path) -> list[dict[str, float]]:
        try:
            with history.open(newline="") as file:
                rows = [{key: float(row[key]) for key in row} for row in csv.DictReader(file)]
            if [row["epoch"] for row in rows] != list(range(len(rows))):
                raise ValueError("epochs are missing")
        except (ValueError, TypeError, KeyError, OSError, csv.Error) as error:
            raise RunError(
                f"{history} is damaged: {one_line(error)}. --overwrite starts anew"
            ) from error
        return rows


def _n_epochs(snapshot: Path) -> int:
    return int(snapshot.name[len("snapshot-") :])


def _sync(path: Path) -> None:
    """Has the operating system put a file or directory on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
