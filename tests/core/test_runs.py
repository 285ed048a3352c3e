"""A run's folder: one run at a time, its settings, and that no moment of killing it loses anything."""

import contextlib
import json
import os
import random
import signal
import time

import numpy as np
import pytest

from simscaleai_jax.core import checkpoint, preemption
from simscaleai_jax.core.runs import lock
from simscaleai_jax.core.runs.folder import read_run
from simscaleai_jax.core.runs.lock import FolderInUseError, FolderLock

from . import stand_in

SECONDS = 60


def begin(context, folder, steps, resume_from=None, gate=None):
    """(process, the end of a pipe that it tells things through)."""
    told, mouth = context.Pipe(duplex=False)
    given = (str(folder), steps, resume_from, gate, mouth)
    process = context.Process(target=stand_in.run_and_tell, args=given, daemon=True)
    process.start()
    mouth.close()
    return process, told


def contents(folder):
    tree, manifest = checkpoint.load(folder / sorted(path.name for path in folder.glob("step_*"))[-1])
    return manifest.step, {name: array.tobytes() for name, array in tree.items()}


def test_the_same_call_goes_on_and_settings_are_kept(tmp_path):
    assert stand_in.run(tmp_path, 3) == 0
    assert stand_in.run(tmp_path, 5) == 3
    record = json.loads((tmp_path / "run.json").read_text())
    record["settings"]["width"] = 9
    (tmp_path / "run.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match=r"holds a run of other settings, at step 5: width is 9 there and 5000 here"):
        stand_in.run(tmp_path, 7)
    record["settings"]["width"] = 5000
    (tmp_path / "run.json").write_text(json.dumps(record))
    assert stand_in.run(tmp_path, 7, lr=0.5) == 5, "what may change is taken"
    (change,) = read_run(tmp_path)["changes"]
    assert (change["step"], change["name"], change["old"], change["new"]) == (5, "lr", 1.0, 0.5)
    assert not list(tmp_path.glob(".*")), "no lock and nothing temporary is left"


def test_a_run_from_elsewhere_goes_on_from_its_own_checkpoints(tmp_path):
    """And not from where it came from, as often as it is started."""
    stand_in.run(tmp_path / "a", 2)
    origin = str(tmp_path / "a" / "step_000000002")
    assert stand_in.run(tmp_path / "b", 4, resume_from=origin) == 2
    assert stand_in.run(tmp_path / "b", 6, resume_from=origin) == 4
    assert stand_in.run(tmp_path / "b", 7) == 6, "an origin may be left out"
    assert read_run(tmp_path / "b")["settings"]["resume_from"] == origin
    with pytest.raises(ValueError, match="resume_from is"):
        stand_in.run(tmp_path / "b", 9, resume_from=str(tmp_path / "c"))
    stand_in.run(tmp_path / "whole", 7)
    assert contents(tmp_path / "b") == contents(tmp_path / "whole")


def test_a_damaged_record_is_said_to_be(tmp_path):
    stand_in.run(tmp_path, 1)
    for text in ("{", "[]", '{"kind": "model"}'):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(ValueError, match=r"run\.json is damaged"):
            stand_in.run(tmp_path, 2)
    (tmp_path / "run.json").write_text('{"kind": "ppo", "settings": {}}')
    with pytest.raises(ValueError, match="a run of kind 'ppo', wanted 'model'"):
        stand_in.run(tmp_path, 2)


def test_a_run_in_an_object_store():
    folder = "memory://bucket/stand-in"
    assert stand_in.run(folder, 3) == 0
    assert stand_in.run(folder, 5) == 3
    assert read_run(folder)["kind"] == "model"
    with FolderLock(checkpoint.paths.locate(folder)), pytest.raises(FolderInUseError, match="is going on"):
        stand_in.run(folder, 7)
    assert stand_in.run(folder, 7) == 5


class TestLock:
    def test_one_holder_at_a_time(self, tmp_path):
        first, second = FolderLock(tmp_path), FolderLock(tmp_path)
        with first, pytest.raises(FolderInUseError, match=f"process {os.getpid()} on"):
            second.acquire()
        with second:
            assert second.is_held
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("is_alive", [True, False])
    def test_a_holder_on_another_machine_is_alive_while_it_counts(self, tmp_path, monkeypatch, is_alive):
        monkeypatch.setattr(lock, "LEASE_SECONDS", 0.5)
        record = {"host": "far", "machine": "other", "processes": "", "pid": 7, "token": "a", "since": 0, "beat": 0}
        path = tmp_path / lock.LOCK
        path.write_text(json.dumps(record))
        mine = FolderLock(tmp_path)
        if is_alive:
            monkeypatch.setattr(lock.time, "sleep", lambda _: path.write_text(json.dumps(record | {"beat": 1})))
            with pytest.raises(FolderInUseError, match="process 7 on far"):
                mine.acquire()
            assert json.loads(path.read_text())["token"] == "a", "it keeps the folder"
        else:
            with mine:
                assert json.loads(path.read_text())["machine"] != "other"

    def test_the_count_goes_up(self, tmp_path, monkeypatch):
        monkeypatch.setattr(lock, "BEAT_SECONDS", 0.01)
        with FolderLock(tmp_path):
            until = time.monotonic() + SECONDS
            while lock.read_record(tmp_path / lock.LOCK).get("beat", 0) < 3:
                assert time.monotonic() < until
                time.sleep(0.01)

    @pytest.mark.parametrize("known", [True, False])
    def test_where_the_system_knows_no_locks_the_process_is_looked_for(self, tmp_path, monkeypatch, known):
        def no_locks(*_):
            raise OSError("not supported")

        monkeypatch.setattr(lock.fcntl, "flock", no_locks)
        pid = os.getppid() if known else 2**22 + 1
        record = {"host": "here", **lock.machine(), "pid": pid, "token": "a"}
        (tmp_path / lock.LOCK).write_text(json.dumps(record))
        if known:
            with pytest.raises(FolderInUseError, match=f"process {pid} on here"):
                FolderLock(tmp_path).acquire()
        else:
            with FolderLock(tmp_path):
                pass


@pytest.mark.parametrize("attempts", [4, pytest.param(100, marks=pytest.mark.wide)])
def test_two_runs_at_once_in_one_folder(context, tmp_path, attempts):
    """One is refused, the other ends as if it had been alone."""
    stand_in.run(tmp_path / "alone", 3)
    expected = contents(tmp_path / "alone")
    for attempt in range(attempts):
        folder, gate = tmp_path / str(attempt), context.Barrier(2)
        pairs = [begin(context, folder, 3, gate=gate) for _ in range(2)]
        answers = [told.recv() for _, told in pairs if told.poll(SECONDS)]
        for process, _ in pairs:
            process.join(SECONDS)
            assert process.exitcode == 0
        refused = [answer for answer in answers if isinstance(answer, str)]
        began = [answer for answer in answers if not isinstance(answer, str)]
        if not refused:  # they came one after the other: the second found the run finished
            assert sorted(began) == [0, 3]
        else:
            assert len(answers) == 2
            assert began == [0]
            assert "belongs to a run that is going on" in refused[0]
        assert contents(folder) == expected


def kill_at_random(context, folder, steps, moments, resume_from=None):
    """Starts the run over and over, killing it at random moments; returns how often that struck it alive."""
    for struck in range(200):
        # A kill between the manifest and the rename leaves a whole checkpoint under its temporary name.
        whole = [path.name for path in folder.glob("*step_*") if checkpoint.is_complete(path)]
        newest = max((int(name.strip(".").split(".")[0][5:]) for name in whole), default=2 if resume_from else 0)
        process, told = begin(context, folder, steps, resume_from)
        assert told.poll(SECONDS), "it does not start"
        began = told.recv()
        assert not isinstance(began, str), began
        assert began == newest, "what was whole is the beginning, and nothing older"
        time.sleep(moments.uniform(0.0, 0.03))
        number = signal.SIGTERM if struck % 2 else signal.SIGKILL
        with contextlib.suppress(ProcessLookupError):  # it may be over by itself
            os.kill(process.pid, number)
        process.join(SECONDS)
        assert process.exitcode in (0, 143, -signal.SIGKILL, -signal.SIGTERM)
        if process.exitcode == 0:
            return struck
    raise AssertionError("it never ends")


@pytest.mark.parametrize(("steps", "kills"), [(14, 2), pytest.param(60, 20, marks=pytest.mark.wide)])
def test_killed_at_random_moments_it_ends_with_the_same_bits(context, tmp_path, steps, kills):
    """Alone and from elsewhere."""
    moments, struck = random.Random(0), 0
    stand_in.run(tmp_path / "a", 2)
    stand_in.run(tmp_path / "whole", steps)
    for name, origin in (("own", None), ("from elsewhere", str(tmp_path / "a" / "step_000000002"))):
        struck += kill_at_random(context, tmp_path / name, steps, moments, origin)
        assert contents(tmp_path / name) == contents(tmp_path / "whole")
        assert not list((tmp_path / name).glob(".*"))
    assert struck >= kills


class TestSignals:
    def interrupt(self, number):
        def tell(_):
            os.kill(os.getpid(), number)

        return tell

    @pytest.mark.parametrize(("number", "status", "name"), [(signal.SIGTERM, 143, "SIGTERM"), (2, 130, "Ctrl-C")])
    def test_both_save_and_leave(self, tmp_path, capsys, number, status, name):
        before = signal.getsignal(number)
        with pytest.raises(preemption.Preempted) as caught:
            stand_in.run(tmp_path, 100, every=50, told=self.interrupt(number))
        assert caught.value.code == status
        assert f"{name}: saved step 1 and stopped. Start the same command again" in capsys.readouterr().err
        assert signal.getsignal(number) is before
        assert stand_in.run(tmp_path, 3) == 1

    def test_a_second_one_leaves_at_once(self):
        with preemption.PreemptionWatch() as watch:
            os.kill(os.getpid(), signal.SIGINT)
            assert watch.is_requested()
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(signal.SIGINT)


def test_the_stand_in_depends_on_every_step():
    first, second = stand_in.start(), stand_in.start()
    for step in (1, 2):
        first = stand_in.step_once(first, step)
    assert not np.array_equal(first["w0"], stand_in.step_once(second, 2)["w0"])
