"""Whole runs: logs, evaluation, bad input."""

import csv
import json
import sys
import types

import jax
import numpy as np
import pytest

from simscaleai_jax.core import checkpoint
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.runs.trackers import LogConfig
from simscaleai_jax.models import create_model
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


@pytest.mark.wide
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
