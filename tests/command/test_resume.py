"""Killed or interrupted at any moment, the same command resumes the run to the bit."""

import json
import random
import shutil
import signal

import pytest
import tensorflow as tf
from conftest import COMMAND, IS_KERAS_3, OPTIONS, Process, assert_same_run, history, save_model

# Put before the command, it has the process killed at a call of a function, before or after its work.
DIE = """
import os, signal
import tensorflow as tf
import expdecay_keras.command.run as run
def dying(function, calls=[]):
    def call(*args, **options):
        calls.append(args)
        if len(calls) == {call} and not {afterwards}:
            os.kill(os.getpid(), signal.SIGKILL)
        result = function(*args, **options)
        if len(calls) == {call}:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call
{name} = dying({name})
"""


@pytest.fixture
def kill_at(start_train):
    """Runs the command, killed at a call of a function."""

    def kill_at(name, call, afterwards, run_dir, *options):
        patch = DIE.format(name=name, call=call, afterwards=afterwards)
        assert start_train(run_dir, *options, patch=patch).wait().status == -signal.SIGKILL

    return kill_at


@pytest.mark.parametrize(
    "n_kills", [pytest.param(12, id="some"), pytest.param(60, id="many", marks=pytest.mark.long)]
)
def test_killed_at_random_moments(n_kills, unbroken, tmp_path, start_train, train):
    """Two chains of kills in start-up, epochs and writes; then a last run, which is compared."""
    seed = random.randrange(2**32)
    print("seed", seed)
    rng = random.Random(seed)
    for chain in range(2):
        run_dir = tmp_path / str(chain)
        for number in range(n_kills // 2):
            process = start_train(run_dir, *OPTIONS)
            if number % 3:
                process.read_until("Epoch")
            process.kill(after=rng.uniform(0, 1.5))
            done = process.wait()
            assert done.status in (0, -signal.SIGKILL), done.stderr
        train(run_dir, *OPTIONS)
        assert_same_run(run_dir, unbroken[0])


@pytest.fixture(scope="session")
def stopped(tmp_path_factory):
    """The directory of a run of 6 epochs that was killed in the third, after its row was written."""
    run_dir = tmp_path_factory.mktemp("stopped") / "run"
    patch = DIE.format(name="tf.train.CheckpointManager.save", call=3, afterwards=False)
    options = ("train", "--run-dir", run_dir, *OPTIONS)
    folder = tmp_path_factory.mktemp("process")
    done = Process(folder, patch + COMMAND, *options, program="expdecay-keras").wait()
    assert done.status == -signal.SIGKILL and len(history(run_dir)) == 3
    return run_dir


@pytest.fixture
def run_dir(stopped, tmp_path):
    """A copy of the stopped run, to resume or damage."""
    return shutil.copytree(stopped, tmp_path / "run")


@pytest.mark.parametrize(
    "name, afterwards",
    [
        ("tf.train.CheckpointManager.save", True),
        ("run._remove", True),
        ("os.truncate", False),
        ("run.RunDirectory.finish", False),
    ],
)
def test_killed_at_a_step_of_the_run_that_resumes(name, afterwards, unbroken, run_dir, kill_at, train):
    kill_at(name, 1, afterwards, run_dir, *OPTIONS)
    train(run_dir, *OPTIONS)
    assert_same_run(run_dir, unbroken[0])


def test_killed_while_it_finishes(unbroken, run_dir, kill_at, train):
    kill_at("os.replace", 2, True, run_dir, *OPTIONS)  # the picture, then the model
    assert (run_dir / "model.keras").exists()
    assert "finished. --overwrite trains it anew" in train(run_dir, *OPTIONS)
    assert_same_run(run_dir, unbroken[0])


MIXED = pytest.param({"policy": "mixed_float16"}, id="loss-scale")
DROPOUT = pytest.param(
    {"dropout": 0.5},
    id="dropout",
    marks=pytest.mark.skipif(not IS_KERAS_3, reason="Keras 2 keeps dropout's random state out of reach"),
)


@pytest.mark.parametrize("kind", [MIXED, DROPOUT])
def test_a_users_model(kind, data_file, tmp_path, kill_at, start_train):
    policy = tf.keras.mixed_precision.global_policy()
    tf.keras.mixed_precision.set_global_policy(kind.get("policy", policy))
    try:
        adam = tf.keras.optimizers.Adam()
        model = save_model(tmp_path / "model.keras", adam, dropout=kind.get("dropout", 0.0))
    finally:
        tf.keras.mixed_precision.set_global_policy(policy)
    options = ["--model", model, "--data", data_file, "--n-epochs", "6", "--batch-size", "2"]
    kill_at("tf.train.CheckpointManager.save", 4, True, tmp_path / "broken", *options)
    for run_dir in (
        tmp_path / "unbroken",
        tmp_path / "broken",
    ):  # Keras 2 logs what it thinks of float16
        assert start_train(run_dir, *options).wait().status == 0
    assert_same_run(tmp_path / "broken", tmp_path / "unbroken")


@pytest.mark.parametrize(
    "signum, status", [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_interrupted(signum, status, unbroken, tmp_path, start_train, train):
    process = start_train(tmp_path, *OPTIONS)
    process.read_until("Epoch 3")
    process.kill(signum)
    done = process.wait()
    assert done.status == status, done.stderr
    assert done.stderr.startswith("\nInterrupted: ") and done.stderr.count("\n") == 2
    assert done.stderr.endswith(" of 6 epochs are done. The same command resumes there.\n")
    train(tmp_path, *OPTIONS)
    assert_same_run(tmp_path, unbroken[0])


@pytest.mark.parametrize("n_epochs", [0, 1])
def test_an_interrupt_waits_for_the_batch(n_epochs, tmp_path, start_train):
    """What is raised while TensorFlow makes an iterator, say, it swallows, or it crashes of it."""
    patch = f"""
import os, signal
import expdecay_keras.command.run as run
from tensorflow.python.data.ops.iterator_ops import OwnedIterator
make, save, saved = OwnedIterator.__init__, run.RunDirectory.save, []
def save_and_note(*args):
    save(*args)
    saved.append(args)
run.RunDirectory.save = save_and_note
def make_and_interrupt(*args, **options):
    if len(saved) == {n_epochs}:
        saved.append("interrupted")
        try:
            os.kill(os.getpid(), signal.SIGTERM)
        except KeyboardInterrupt:
            os.abort()
    make(*args, **options)
OwnedIterator.__init__ = make_and_interrupt
"""
    done = start_train(tmp_path, *OPTIONS, patch=patch).wait()
    assert done.status == 143
    progress = f": {n_epochs} of 6 epochs are done. The same command resumes there."
    assert (
        done.stderr
        == f"\nInterrupted{progress if n_epochs else ' before training began; nothing is lost.'}\n"
    )


def test_a_second_interrupt_does_not_wait(tmp_path, start_train):
    patch = """
import os, signal
import expdecay_keras.command.run as run
def interrupt_twice(*args):
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGINT)
    os.abort()
run.RunDirectory.save = interrupt_twice
"""
    done = start_train(tmp_path, *OPTIONS, patch=patch).wait()
    said = "\nInterrupted: 0 of 6 epochs are done. The same command resumes there.\n"
    assert (done.status, done.stderr) == (130, said)


def test_interrupted_overwrite_says_how_to_resume(tmp_path, start_train):
    process = start_train(tmp_path, *OPTIONS, "--overwrite")
    process.read_until("Epoch 2")
    process.kill(signal.SIGINT)
    done = process.wait()
    assert done.status == 130
    assert done.stderr.endswith(" The same command without --overwrite resumes there.\n")


def test_interrupted_before_training(tmp_path, start_train):
    patch = "import os, signal\nimport expdecay_keras.command.run as run\n"
    patch += "run.RunDirectory.check = lambda *args: os.kill(os.getpid(), signal.SIGINT)\n"
    done = start_train(tmp_path / "run", *OPTIONS, patch=patch).wait()
    assert (done.status, done.stderr) == (130, "\nInterrupted before training began; nothing is lost.\n")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("size, done", [(20_000, 2), (50_000, 6)], ids=["checkpoint", "model"])
def test_a_full_disk_leaves_the_last_epoch_to_resume_from(size, done, unbroken, run_dir, train):
    """Files that may not grow stand for it: what cannot be written is a checkpoint, or the model."""
    patch = f"import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))"
    said = train(run_dir, *OPTIONS, patch=patch, status=2)
    assert said.startswith("expdecay-keras train: error: ") and "File too large" in said
    assert said.endswith(f": {done} of 6 epochs are done. The same command resumes there.\n")
    assert said.count("\n") == 1
    train(run_dir, *OPTIONS)
    assert_same_run(run_dir, unbroken[0])


# Other runs

# Put before the command, it has the process wait for a file at the first call of a function.
WAIT = """
import os
import expdecay_keras.command.run as run
os.mkfifo("{at}")
save = run.RunDirectory.save
def wait_and_save(*args):
    if args[1] == 1:
        open("{at}").close()
    save(*args)
run.RunDirectory.save = wait_and_save
"""


def test_a_second_run_in_the_same_directory_is_refused(unbroken, tmp_path, start_train, train):
    first = start_train(tmp_path, *OPTIONS, patch=WAIT.format(at=str(tmp_path.parent / "go")))
    first.read_until("Epoch")
    for options in (OPTIONS, ["--overwrite"]):
        assert f"Another run is at work in {tmp_path}" in train(tmp_path, *options, status=2)
    with open(tmp_path.parent / "go", "w"):
        pass
    assert first.wait().status == 0
    assert_same_run(tmp_path, unbroken[0])


def test_a_run_that_ended_meanwhile_is_shown(tmp_path, start_train, train):
    """It starts, and ends, while this one is loading its model."""
    patch = f"""
import os
import expdecay_keras.command.train as command
os.mkfifo("{tmp_path / "go"}")
classifier = command._classifier
def wait_and_build(data):
    print("waiting", flush=True)
    open("{tmp_path / "go"}").close()
    return classifier(data)
command._classifier = wait_and_build
"""
    options = ["--n-epochs", "4"]
    late = start_train(tmp_path / "run", *options, patch=patch)
    late.read_until("waiting")
    train(tmp_path / "run", *options)
    before = files(tmp_path / "run")
    with open(tmp_path / "go", "w"):
        pass
    assert late.wait().status == 0
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("call", [2, 5])
def test_a_killed_overwrite_does_not_mix_two_runs(call, unbroken, run_dir, kill_at, start_train, train):
    """The run of another seed has been stopped; it loses its files one by one."""
    identity = json.loads((run_dir / "run.json").read_text())
    (run_dir / "run.json").write_text(json.dumps({**identity, "seed": 1}))
    kill_at("run._remove", call, False, run_dir, *OPTIONS, "--overwrite")
    done = start_train(run_dir, *OPTIONS).wait()
    if done.status:
        assert done.status == 2 and "holds another run (different: seed)" in done.stderr
        train(run_dir, *OPTIONS, "--overwrite")
    assert_same_run(run_dir, unbroken[0])


# Damaged runs


def files(directory):
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def cut_history(run_dir):
    lines = (run_dir / "history.csv").read_text().splitlines(keepends=True)
    (run_dir / "history.csv").write_text("".join(lines[:2]))


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def checkpoint(name, damage):
    return lambda run_dir: damage(run_dir / "checkpoint" / name)


DATA = "ckpt-2.data-00000-of-00001"
DAMAGES = {
    "pointer-lost": checkpoint("checkpoint", lambda path: path.unlink()),
    "pointer-empty": checkpoint("checkpoint", lambda path: path.write_text("")),
    "pointer-garbage": checkpoint("checkpoint", lambda path: path.write_bytes(b"\xff garbage")),
    "pointer-text": checkpoint("checkpoint", lambda path: path.write_text("garbage")),
    "pointer-cut": checkpoint("checkpoint", lambda path: path.write_bytes(path.read_bytes()[:25])),
    "index-garbage": checkpoint("ckpt-2.index", lambda path: path.write_bytes(b"garbage")),
    "data-lost": checkpoint(DATA, lambda path: path.unlink()),
    "data-cut": checkpoint(DATA, lambda path: path.write_bytes(path.read_bytes()[:-100])),
    "data-flipped": checkpoint(DATA, flip),
    "checkpoint-lost": lambda run_dir: shutil.rmtree(run_dir / "checkpoint"),
    "history-cut": cut_history,
    "history-lost": lambda run_dir: (run_dir / "history.csv").unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_run_is_refused_and_left_as_it_is(damage, run_dir, train):
    DAMAGES[damage](run_dir)
    before = files(run_dir)
    said = train(run_dir, *OPTIONS, status=2)
    assert "--overwrite starts anew" in said and said.count("\n") == 1
    assert files(run_dir) == before


def test_the_checkpoint_of_another_keras_is_refused(run_dir, train):
    """Its variables stand under another name."""
    names = {"keras_2" if IS_KERAS_3 else "keras_3": [tf.Variable(1.0)]}
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(**names), str(run_dir / "checkpoint"), 1)
    manager.save(checkpoint_number=2)
    before = files(run_dir)
    said = train(run_dir, *OPTIONS, status=2)
    assert "is damaged, --overwrite starts anew" in said and said.count("\n") == 1
    assert files(run_dir) == before


def test_what_does_not_say_where_the_run_is_may_be_damaged(unbroken, run_dir, train):
    for events in (run_dir / "tensorboard" / "train").iterdir():
        flip(events)
    (run_dir / "checkpoint" / "ckpt-9.index").write_bytes(b"garbage")
    train(run_dir, *OPTIONS)
    assert_same_run(run_dir, unbroken[0])
