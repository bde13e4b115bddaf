"""Fresh processes for the tests: every wait is bounded, and none outlives its test.

They are forked from a server that has imported TensorFlow but has not run anything, so
that each starts in milliseconds instead of seconds. The server does not import this
package.
"""

import multiprocessing
import socket
from pathlib import Path
from typing import NamedTuple

import tensorflow as tf

SECONDS = 120  # the longest that a test waits for a process
START = """
import os, sys, warnings
warnings.filterwarnings("error", module="expdecay_keras")
os.dup2(os.open(out, os.O_WRONLY), 1)
os.dup2(os.open(err, os.O_WRONLY), 2)
os.environ.update(environment)
os.chdir(cwd)
sys.argv[:] = argv
"""
COMMAND = """
from expdecay_keras.command import main
sys.exit(main(sys.argv[1:]))
"""


class Done(NamedTuple):
    status: int
    stdout: str
    stderr: str


class Process:
    """A fresh process that runs a script, with its output in two files of a folder."""

    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload(
        [
            "tensorflow",
            tf.keras.Model.__module__,
            "matplotlib.pyplot",
            "sklearn.datasets",
            "tensorboard.summary",
        ]
    )

    def __init__(self, folder: Path, script: str, *argv, cwd=".", **environment: str):
        self.out, self.err = folder / "stdout", folder / "stderr"
        self.out.touch()
        self.err.touch()
        names = {
            "out": str(self.out),
            "err": str(self.err),
            "cwd": str(cwd),
            "argv": ["", *map(str, argv)],
            "environment": environment,
            "__name__": "__main__",
        }
        # A daemon: should the tests end first, it ends with them.
        self.process = self.server.Process(
            target=exec, args=(START + script, names), daemon=True
        )
        self.process.start()

    def wait(self, seconds: float = SECONDS) -> Done:
        """Waits for the process to end; kills it and fails if that takes too long."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.kill()
            raise AssertionError(
                f"still running after {seconds} s: {self.err.read_text()}"
            )
        return Done(self.process.exitcode, self.out.read_text(), self.err.read_text())

    def kill(self) -> None:
        if self.process.is_alive():
            self.process.kill()
        self.process.join(SECONDS)


def free_addresses(n: int) -> list[str]:
    """Addresses of this machine at which nothing listens."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(n)]
    addresses = [f"127.0.0.1:{free.getsockname()[1]}" for free in sockets]
    for free in sockets:
        free.close()
    return addresses
