"""Whole runs: logs, evaluation, checkpoints, exact resume, bad input."""

import csv
import json
import sys
import types

import jax
import numpy as np
import pytest

from simscaleai_jax.core import checkpoint, preemption
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.runs.folder import read_run
from simscaleai_jax.core.runs.trackers import LogConfig
from simscaleai_jax.models import create_model
from simscaleai_jax.models.normalization import Statistics
from simscaleai_jax.models.record import flat_parameters
from simscaleai_jax.policy import load_policy
from simscaleai_jax.training.data import DummyTrajectoryDataset, make_loader
from simscaleai_jax.training.logs import read_rows

from .conftest import SMALL_MODEL, make_trainer, same


class TestLogs:
    def test_files(self, finished):
        trainer, numbers = finished
        folder = trainer.series.folder
        rows = read_rows(folder / "metrics.jsonl")
        assert [row["step"] for row in rows] == [4, 8, 12, 16, 20, 24]
        assert numbers["loss"] == rows[-1]["loss"]
        assert {"loss", "action_mse", "action_mae", "learning_rate", "grad_norm", "steps_per_second"} <= set(rows[0])
        with (folder / "metrics.csv").open() as file:
            table = list(csv.DictReader(file))
        assert [float(row["loss"]) for row in table] == [row["loss"] for row in rows]
        assert (folder / "learning_curve.png").read_bytes()[:4] == b"\x89PNG"

    def test_the_loss_falls(self, tmp_path):
        """Ten samples are learned by heart."""
        trainer = make_trainer(tmp_path, model=create_model("bc", hidden_dim=32, n_layers=1, dropout=0.0),
                               num_samples=10, batch_size=10, max_steps=600, log_every=100, save_every=600)  # fmt: skip
        trainer.train()
        rows = read_rows(tmp_path / "metrics.jsonl")
        assert rows[-1]["loss"] < 0.01 * rows[0]["loss"]

    def test_rows_are_means_of_their_updates(self, tmp_path):
        every, window = (make_trainer(tmp_path / str(n), log_every=n, max_steps=8) for n in (1, 4))
        every.train(), window.train()
        losses = [row["loss"] for row in read_rows(tmp_path / "1" / "metrics.jsonl")]
        means = [row["loss"] for row in read_rows(tmp_path / "4" / "metrics.jsonl")]
        np.testing.assert_allclose(means, [np.mean(losses[:4]), np.mean(losses[4:])], rtol=1e-5)

    def test_extras_get_the_rows(self, tmp_path, monkeypatch):
        written = []
        board = types.ModuleType("tensorboardX")
        board.SummaryWriter = lambda folder, purge_step, filename_suffix: types.SimpleNamespace(
            add_scalar=lambda name, value, step: written.append((name, step)),
            add_text=lambda name, text, step: written.append((name, step, text)),
            close=lambda: written.append("closed"),
        )
        wandb = types.ModuleType("wandb")
        run = types.SimpleNamespace(log=lambda row, step: written.append(("wandb", step)), finish=lambda: None)
        wandb.init = lambda project, name, config, id, resume: written.append((project, name)) or run
        monkeypatch.setitem(sys.modules, "tensorboardX", board)
        monkeypatch.setitem(sys.modules, "wandb", wandb)
        make_trainer(tmp_path, max_steps=4, use_wandb=True, log=LogConfig(("tensorboard",)), wandb_run_name="a").train()
        assert {("simscaleai", "a"), ("loss", 4), ("wandb", 4), "closed"} <= set(written)

    def test_extras_get_films_and_tables(self, tmp_path, monkeypatch):
        told = []
        sink = types.SimpleNamespace(
            write=lambda step, row: None,
            video=lambda step, name, path: told.append((step, name, path)),
            table=lambda step, name, columns, rows: told.append((step, name, list(columns), [list(r) for r in rows])),
            close=lambda: None,
        )
        monkeypatch.setattr("simscaleai_jax.training.logs.open_trackers", lambda config, about: [sink])
        videos = [tmp_path / "episode_000.mp4"]
        answer = {"success_rate": 0.5, "videos": videos}
        trainer = make_trainer(
            tmp_path, max_steps=4, eval_every=2, save_every=4, trainer={"eval_fn": lambda policy: dict(answer)}
        )
        numbers = trainer.train()
        assert numbers["eval/success_rate"] == 0.5
        assert "eval/videos" not in numbers
        columns = ["step", "eval/success_rate"]
        assert told == [
            (2, "eval/episode_000", videos[0]),
            (2, "eval/all", columns, [[2, 0.5]]),
            (4, "eval/episode_000", videos[0]),
            (4, "eval/all", columns, [[2, 0.5], [4, 0.5]]),
        ]

    @pytest.mark.parametrize("tracker", ["wandb", "tensorboard", "trackio"])
    def test_missing_extras_are_named(self, tmp_path, monkeypatch, tracker):
        monkeypatch.setitem(sys.modules, {"tensorboard": "tensorboardX"}.get(tracker, tracker), None)
        with pytest.raises(ImportError, match=rf"pip install 'simscaleai-jax\[{tracker}\]'"):
            make_trainer(tmp_path, log=LogConfig((tracker,))).train()
        assert not list(tmp_path.iterdir()), "it is refused before anything is made"

    def test_a_row_is_due_by_time_as_well(self, tmp_path):
        make_trainer(
            tmp_path, log_every=1000, max_steps=6, max_steps_per_dispatch=2, log=LogConfig(seconds=1e-9)
        ).train()
        assert [row["step"] for row in read_rows(tmp_path / "metrics.jsonl")] == [2, 4, 6]


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


class TestEvaluation:
    def test_evaluation_is_a_mean_over_one_epoch_without_dropout(self, finished):
        trainer, _ = finished
        data = DummyTrajectoryDataset(32, seed=5)
        trainer.eval_loader = make_loader(data, 8)
        results = trainer.evaluate()
        trainer.eval_loader = None
        error = trainer.model.predict({"state": data.states}) - data.actions
        assert results["eval/loss"] == pytest.approx(float(np.mean(np.square(error))), rel=1e-4)

    def test_eval_fn_gets_a_policy_for_one_and_for_many(self, finished):
        trainer, _ = finished
        seen = {}

        def evaluate(policy):
            for shape in ((20,), (3, 20)):
                seen[shape] = policy({"state": np.zeros(shape, np.float32)}, jax.random.key(0)).shape
            return {"success_rate": 0.5, "mean_reward": 1.0}

        trainer.eval_fn = evaluate
        assert trainer.evaluate() == {"eval/success_rate": 0.5, "eval/mean_reward": 1.0}
        trainer.eval_fn = None
        assert seen == {(20,): (4,), (3, 20): (3, 4)}


class TestBadInput:
    def test_sizes_that_do_not_fit(self, tmp_path):
        loader = make_loader(DummyTrajectoryDataset(16, obs_dim=28), 8)
        with pytest.raises(ValueError, match=r"'bc'.*28 numbers.*state_dim=20.*'state': \(28,\)"):
            make_trainer(tmp_path, loader=loader)
        loader = make_loader(DummyTrajectoryDataset(16, action_dim=7), 8)
        with pytest.raises(ValueError, match=r"does not fit the model 'bc'.*\(8, 7\).*\(8, 4\).*actions \(7,\)"):
            make_trainer(tmp_path, loader=loader)

    def test_keys_that_do_not_fit(self, tmp_path):
        model = create_model("bc", use_image=True, image_size=16, **SMALL_MODEL)
        with pytest.raises(ValueError, match=r"needs observations\['image'\], but the keys are \['state'\]"):
            make_trainer(tmp_path, model=model)

    def test_another_model(self, finished):
        trainer, _ = finished
        other = create_model("bc", hidden_dim=32, n_layers=1)
        with pytest.raises(ValueError, match=r"holds the model bc\(hidden_dim=16.*trains bc\(hidden_dim=32"):
            make_trainer(trainer.series.folder, ema_decay=0.9, model=other).train()

    def test_a_checkpoint_of_ppo(self, tmp_path):
        checkpoint.save(tmp_path / "ppo", {"x": np.zeros(1)}, Manifest("ppo", "actor_critic"))
        with pytest.raises(ValueError, match=r"holds a 'ppo' agent"):
            make_trainer(tmp_path / "run", resume_from=str(tmp_path / "ppo")).train()

    def test_a_folder_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(ValueError, match=r"checkpoint_dir .* cannot be written"):
            make_trainer(tmp_path / "file" / "run").train()

    def test_a_cut_checkpoint_is_refused_and_the_one_before_used(self, tmp_path):
        make_trainer(tmp_path, max_steps=24).train()
        newest = tmp_path / "step_000000024"
        victim = max((file for file in newest.rglob("*") if file.is_file()), key=lambda file: file.stat().st_size)
        victim.write_bytes(victim.read_bytes()[:-10])
        with pytest.raises(ValueError, match="is cut short"):
            make_trainer(tmp_path / "other", resume_from=str(newest)).train()
        trainer = make_trainer(tmp_path, max_steps=32)
        trainer.open_series()
        assert trainer.series.latest().name == "step_000000016"

    def test_missing_checkpoint(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="does not exist"):
            make_trainer(tmp_path, resume_from=str(tmp_path / "nothing")).train()

    def test_starting_over_needs_a_folder_of_its_own(self, finished):
        trainer, _ = finished
        with pytest.raises(ValueError, match=r"holds a run .* is not to be continued; choose another checkpoint_dir"):
            make_trainer(trainer.series.folder, ema_decay=0.9, resume=False).train()

    def test_a_batch_that_does_not_divide(self, tmp_path):
        with pytest.raises(ValueError, match=r"batch size of 12 does not split evenly over 8 .*nearest: 8 or 16"):
            make_trainer(tmp_path, batch_size=12, num_devices=8)

    def test_a_loss_that_is_not_finite(self, tmp_path):
        rows = np.full((8, 20), np.nan, np.float32)
        loader = [{"observations": {"state": rows}, "actions": np.zeros((8, 4), np.float32)}]
        with pytest.raises(ValueError, match="loss became nan within updates 1 to 4"):
            make_trainer(tmp_path, loader=loader).train()
        assert not list(tmp_path.glob("step_*"))

    def test_not_started_as_distributed(self, tmp_path):
        with pytest.raises(ValueError, match=r"distributed\.initialize\(\) first of all"):
            make_trainer(tmp_path, distributed=True)

    def test_an_unknown_best_metric(self, tmp_path):
        with pytest.raises(ValueError, match="best_metric 'sucess' is not among eval/success_rate"):
            make_trainer(tmp_path, best_metric="sucess", trainer={"eval_fn": lambda policy: 1.0}).train()


def test_the_same_command_after_the_end_does_nothing(finished):
    trainer, _ = finished
    again = make_trainer(trainer.series.folder, ema_decay=0.9)
    again.train()
    assert again.step == 24
    assert same(again.state, trainer.state)


@pytest.mark.slow
def test_images_and_instructions(tmp_path):
    model = create_model("vla", image_size=16, patch_size=8, embed_dim=16, num_heads=2, num_layers=1,
                         lang_num_layers=1, max_text_len=32, state_dim=20)  # fmt: skip
    data = DummyTrajectoryDataset(16, image_size=(16, 16), include_image=True, include_language=True)
    loader = make_loader(data, 8)
    trainer = make_trainer(tmp_path, loader=loader, model=model, max_steps=4, trainer={"language": "pick up the cube"})
    assert np.isfinite(trainer.train()["loss"])
    record = json.loads(json.dumps(checkpoint.read_manifest(tmp_path).observation_spec))
    assert record["image"] == {"shape": [16, 16, 3], "dtype": "uint8"}
    obs = {"state": np.zeros(20, np.float32), "image": np.zeros((16, 16, 3), np.uint8)}
    action = load_policy(tmp_path)(obs, jax.random.key(0))
    np.testing.assert_allclose(action, trainer.policy(obs, jax.random.key(0)), atol=1e-5)
