"""Whole runs: what they save, which of it is kept, and that they go on from it exactly."""

import jax
import numpy as np
import pytest

from simscaleai_jax.core import checkpoint, preemption
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.runs.folder import read_run
from simscaleai_jax.models import create_model
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.models.record import flat_parameters
from simscaleai_jax.policy import load_policy
from simscaleai_jax.training.data import DummyTrajectoryDataset, make_loader
from simscaleai_jax.training.logs import read_rows

from .conftest import SMALL_MODEL, make_trainer, same


class TestCheckpoints:
    def test_a_resumed_run_equals_one_that_never_stopped(self, finished, tmp_path):
        """C31."""
        whole, _ = finished
        first = make_trainer(tmp_path, ema_decay=0.9, keep_checkpoints=9)
        first.train()
        for path in sorted(tmp_path.glob("step_*"))[1:]:  # as if it had been killed after the first checkpoint
            path.rename(path.with_name(f"gone_{path.name}"))
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 24, "lo')
        second = make_trainer(tmp_path, ema_decay=0.9)
        second.train()
        assert second.step == 24
        for name in ("params", "opt_state", "ema_params", "step", "key"):
            assert same(getattr(second.state, name), getattr(whole.state, name)), name
        assert second.train_loader.get_state() == whole.train_loader.get_state()
        assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [4, 8, 12, 16, 20, 24]

    @pytest.mark.wide
    def test_host_batches_resume_exactly(self, tmp_path):
        batches = [
            {"observations": {"state": rows}, "actions": np.tanh(rows[:, :4])}
            for rows in np.random.default_rng(0).normal(size=(7, 8, 20)).astype(np.float32)
        ]
        whole = make_trainer(tmp_path / "whole", loader=batches)
        whole.train()
        first = make_trainer(tmp_path / "parts", loader=batches)
        first.train()
        second = make_trainer(
            tmp_path / "again", loader=batches, resume_from=str(tmp_path / "parts" / "step_000000016")
        )
        second.train()
        assert same(second.state, whole.state)

    def test_policies_are_rebuilt_without_flags(self, finished):
        trainer, _ = finished
        obs, key = {"state": np.linspace(-1, 1, 20, dtype=np.float32)}, jax.random.key(0)
        action = load_policy(trainer.series.folder)(obs, key)
        np.testing.assert_allclose(action, trainer.policy(obs, key), atol=1e-6)
        np.testing.assert_allclose(action, np.clip(trainer.model.predict(obs), -1, 1), atol=1e-6)
        weights = flat_parameters(trainer.model)
        assert same(list(weights.values()), leaves_by_name(trainer.state.ema_params, weights))

    def test_statistics_travel(self, tmp_path):
        statistics = Statistics.identity(20, 4).replace(state_mean=np.full(20, 3.0, np.float32))
        trainer = make_trainer(tmp_path, max_steps=8, trainer={"statistics": statistics, "env": {"name": "reach"}})
        trainer.train()
        obs = {"state": np.full(20, 3.0, np.float32)}
        plain = trainer.model.predict({"state": np.zeros(20, np.float32)})
        np.testing.assert_allclose(load_policy(tmp_path)(obs, jax.random.key(0)), np.clip(plain, -1, 1), atol=1e-6)
        manifest = checkpoint.read_manifest(tmp_path)
        assert manifest.env == {"name": "reach"}
        assert manifest.observation_spec == {"state": {"shape": [20], "dtype": "float32"}}
        with pytest.raises(ValueError, match="other normalisation statistics"):
            make_trainer(tmp_path, trainer={"statistics": Statistics.identity(20, 4)}).train()

    def test_the_newest_and_the_best_are_kept(self, tmp_path):
        scores = iter([0.9, 0.2, 0.3, 0.1, 0.4, 0.3])
        trainer = make_trainer(tmp_path, max_steps=24, save_every=4, eval_every=4, keep_checkpoints=2,
                               trainer={"eval_fn": lambda policy: next(scores)})  # fmt: skip
        numbers = trainer.train()
        assert numbers["eval/success_rate"] == 0.3
        assert sorted(path.name for path in tmp_path.glob("step_*")) == [f"step_{n:09d}" for n in (4, 20, 24)]
        assert checkpoint.resolve(tmp_path).name == "step_000000004"

    def test_the_best_is_chosen_by_a_hundred_episodes(self, tmp_path):
        """One lucky evaluation of a few episodes is not the best; the latest hundred episodes together are judged."""
        scores = iter([1.0, 0.5, 0.9, 0.9, 0.9, 0.9])
        answer = lambda policy: {"success_rate": next(scores), "episodes": 50}  # noqa: E731
        trainer = make_trainer(tmp_path, max_steps=24, save_every=4, eval_every=4, trainer={"eval_fn": answer})
        numbers = trainer.train()
        assert "eval/episodes" not in numbers
        assert checkpoint.resolve(tmp_path).name == "step_000000024"
        assert checkpoint.read_manifest(tmp_path).extra["judged"] == [[0.9, 50], [0.9, 50]]

    def test_the_rest_of_a_validation_split_counts(self, tmp_path):
        data = DummyTrajectoryDataset(13, seed=1)
        small, whole = (make_loader(data, size, shuffle=False, drop_last=False) for size in (8, 64))
        results = [
            make_trainer(tmp_path / "a", trainer={"eval_loader": loader}).evaluate() for loader in (small, whole)
        ]
        assert results[0] == pytest.approx(results[1], rel=1e-5)
        rows = [data[i] for i in range(13)]
        states, actions = np.stack([r["observations"]["state"] for r in rows]), np.stack([r["actions"] for r in rows])
        predicted = np.asarray(make_trainer(tmp_path / "b").policy.plan({"state": states}, jax.random.key(0)))[:, 0]
        assert results[0]["eval/action_mae"] == pytest.approx(np.abs(predicted - actions).mean(), rel=0.02)

    def test_how_chunks_are_executed_is_recorded(self, tmp_path):
        model = create_model("bc", **SMALL_MODEL, action_horizon=2)
        batch = {"observations": {"state": np.ones((8, 20), np.float32)}, "actions": np.ones((8, 2, 4), np.float32)}
        limits = {"low": [-3.0] * 4, "high": [3.0] * 4}
        trainer = make_trainer(tmp_path, model=model, loader=[batch], max_steps=1, warmup_steps=0, execute_steps=1,
                               trainer={"action_limits": limits})  # fmt: skip
        assert trainer.policy.execute_steps == 1
        trainer.train()
        manifest = checkpoint.read_manifest(tmp_path)
        assert (manifest.action_spec["low"], load_policy(tmp_path).execute_steps) == ([-3.0] * 4, 1)
        with pytest.raises(ValueError, match="wanted 1 to 2"):
            make_trainer(tmp_path / "b", model=model, loader=[batch], execute_steps=3)

    def test_the_lowest_loss_is_best(self, tmp_path):
        evaluation = make_loader(DummyTrajectoryDataset(16, seed=1), 8)
        trainer = make_trainer(tmp_path, lr=0.5, trainer={"eval_loader": evaluation})
        trainer.train()
        rows = [row for row in read_rows(tmp_path / "metrics.jsonl") if "eval/loss" in row]
        assert [row["step"] for row in rows] == [8, 16, 24]
        best = min(rows, key=lambda row: row["eval/loss"])
        assert checkpoint.resolve(tmp_path).name == f"step_{best['step']:09d}"
        assert trainer.best_value == best["eval/loss"]

    @pytest.mark.wide
    def test_a_run_from_elsewhere_goes_on_from_its_own_checkpoints(self, finished, tmp_path):
        whole, _ = finished
        make_trainer(tmp_path / "a", ema_decay=0.9, max_steps=24, keep_checkpoints=9).train()
        origin = str(tmp_path / "a" / "step_000000008")
        make_trainer(tmp_path / "b", ema_decay=0.9, resume_from=origin).train()
        (tmp_path / "b" / "step_000000024").rename(tmp_path / "gone")  # as if it had been stopped at 16
        again = make_trainer(tmp_path / "b", ema_decay=0.9, resume_from=origin)
        loaded = []
        again.load_checkpoint = lambda path, load=again.load_checkpoint: loaded.append(path) or load(path)
        again.train()
        assert [path.rpartition("/")[2] for path in loaded] == ["step_000000016"]
        assert same(again.state, whole.state)

    def test_other_settings_are_refused_and_a_few_are_taken(self, tmp_path):
        make_trainer(tmp_path, max_steps=8).train()
        before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
        with pytest.raises(
            ValueError, match=r"weight_decay is 1e-05 there and 0\.1 here.*What may change: lr, max_steps"
        ):
            make_trainer(tmp_path, weight_decay=0.1).train()
        assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
        trainer = make_trainer(tmp_path, max_steps=16, lr=1e-3)
        trainer.train()
        rates = [row["learning_rate"] for row in read_rows(tmp_path / "metrics.jsonl")]
        assert rates[0] > 5e-3 > 1e-3 >= rates[2]
        changes = {change["name"]: (change["old"], change["new"]) for change in read_run(tmp_path)["changes"]}
        assert changes == {"max_steps": (8, 16), "lr": (1e-2, 1e-3)}

    def test_a_run_starts_from_weights_elsewhere(self, finished, tmp_path):
        trainer, _ = finished
        tuned = make_trainer(tmp_path, init_from=str(trainer.series.folder), max_steps=4, lr=1e-12, ema_decay=0.5)
        tuned.train()
        assert tuned.step == 4
        for weights in (tuned.state.params, tuned.state.ema_params):
            pairs = zip(jax.tree.leaves(weights), jax.tree.leaves(trainer.state.ema_params), strict=True)
            assert all(np.allclose(a, b, atol=1e-6) for a, b in pairs)
        with pytest.raises(ValueError, match="exclude each other"):
            make_trainer(tmp_path, init_from="a", resume_from="b")

    @pytest.mark.wide
    def test_a_run_in_an_object_store_and_one_that_cannot_be_reached(self, tmp_path):
        folder = "memory://bucket/bc"
        make_trainer(folder, max_steps=8).train()
        again = make_trainer(folder, max_steps=16)
        again.train()
        assert [row["step"] for row in read_rows(f"{folder}/metrics.jsonl")] == [4, 8, 12, 16]
        assert checkpoint.read_manifest(folder).step == 16
        whole = make_trainer(tmp_path, max_steps=8)
        whole.train()
        assert same(checkpoint.load(f"{folder}/step_000000008")[0]["params"], whole.state.params)
        with pytest.raises(ValueError, match="nowhere"):
            make_trainer("nowhere://bucket/bc").train()

    def test_weights_alone_start_a_run(self, finished, tmp_path):
        trainer, _ = finished
        tree = {"params": trainer.state.params}
        checkpoint.save(tmp_path / "weights", tree, Manifest("model", "bc", SMALL_MODEL))
        tuned = make_trainer(tmp_path / "run")
        tuned.load_checkpoint(str(tmp_path / "weights"))
        assert tuned.step == 0
        assert same(tuned.state.params, trainer.state.params)

    def test_sigterm_saves_and_a_restart_goes_on(self, finished, tmp_path, capsys):
        import os
        import signal

        whole, _ = finished

        def interrupt(policy):
            os.kill(os.getpid(), signal.SIGTERM)
            return 0.0

        options = {"ema_decay": 0.9, "eval_every": 12, "save_every": 24}
        stopped = make_trainer(tmp_path, trainer={"eval_fn": interrupt}, **options)
        with pytest.raises(preemption.Preempted) as caught:
            stopped.train()
        assert caught.value.code == 143
        assert "Start the same command again" in capsys.readouterr().err
        assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
        again = make_trainer(tmp_path, ema_decay=0.9)
        again.train()
        assert same(again.state, whole.state)


def leaves_by_name(tree, names):
    """Leaves of a nested dict in the order of flat names."""
    found = []
    for name in names:
        inner = tree
        for part in name.split("/"):
            inner = inner[int(part) if part.isdigit() and int(part) in inner else part]
        found.append(inner)
    return found
