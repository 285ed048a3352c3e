"""`simscale recipe`: every recipe loads and, small, learns; one of them is run, stopped, shortened and gone on with."""

import json
import re

import h5py
import numpy as np
import pytest

from simscaleai_jax.core.checkpoint import read_manifest
from simscaleai_jax.core.config import read_yaml
from simscaleai_jax.tools import cli
from simscaleai_jax.tools.arguments import is_recipe, presets
from simscaleai_jax.tools.commands import recipe, train
from simscaleai_jax.training.logs import read_rows
from tests.params import others_wide

RECIPES = {name: path for name, path in presets().items() if is_recipe(read_yaml(path))}
SHORT = ["--datagen.n-episodes", "4", "--datagen.env.max-episode-steps", "24", "--datagen.valid-fraction", "0.5"]
SMALL = {
    "act": ["--train.model.embed-dim", "16", "--train.model.num-layers", "1", "--train.model.action-horizon", "2"],
    "bc": ["--train.model.hidden-dim", "32", "--train.model.n-layers", "1"],
    "diffusion": ["--train.model.hidden-dim", "32", "--train.model.n-layers", "1"],
    "flow": ["--train.model.hidden-dim", "32", "--train.model.n-layers", "1"],
    "vla": [
        "--train.model.embed-dim",
        "16",
        "--train.model.num-heads",
        "2",
        "--train.model.num-layers",
        "1",
        "--train.device",
        "cpu",
    ],
}
QUICK = ["--train.batch-size", "64", "--train.lr", "1e-2", "--train.log-every", "20", "--train.eval.episodes", "0"]


@pytest.fixture(scope="module")
def demos(tmp_path_factory):
    """A hundred short episodes of what pick and place observes; the actions follow from the states."""
    path, rng = tmp_path_factory.mktemp("demos") / "pick.h5", np.random.default_rng(0)
    sizes = {"ee_to_object": 3, "ee_to_object_near": 3, "object_to_target": 3, "object_to_target_near": 3}
    sizes |= {"gripper_state": 1, "joint_vel": 7, "touch": 2}
    weights = rng.normal(size=(22, 4)) / 5.0
    with h5py.File(path, "w") as file:
        for number in range(100):
            demo = file.create_group(f"data/demo_{number}")
            states = np.repeat(rng.normal(size=(1, 22)), 10, axis=0).astype(np.float32)
            demo["actions"] = np.tanh(states @ weights).astype(np.float32)
            demo["rewards"] = np.zeros(10, np.float32)
            parts = np.split(states, np.cumsum(list(sizes.values()))[:-1], axis=1)
            for key, part in zip(sizes, parts, strict=True):
                demo[f"obs/{key}"] = part
    return path


STATE = [name for name in RECIPES if name.endswith("pick_place")]


@pytest.mark.parametrize("name", others_wide(STATE, "bc_pick_place"))
def test_every_recipe_learns(name, demos, tmp_path):
    """Sixty updates of a small copy of its model; its own settings but for the sizes."""
    _, given = recipe.stage_arguments([*SMALL[name.split("_")[0]], *QUICK, "--train.max-steps", "60"])
    words = ["--config", str(RECIPES[name]), "--dataset", str(demos), "--checkpoint-dir", str(tmp_path / "run")]
    options = train.parse_options([*words, *given["train"]])
    assert options.warmup_steps == 6, "of a shorter run"
    train.train(options)
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < 0.9 * losses[0]


@pytest.fixture(scope="module")
def told(tmp_path_factory):
    """Forty short episodes with pictures and instructions; the actions follow from both."""
    path, rng = tmp_path_factory.mktemp("told") / "told.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(40):
            demo = file.create_group(f"data/demo_{number}")
            shade, side = rng.uniform(0, 1), ("left", "right")[number % 2]
            action = np.full((10, 4), (shade if side == "left" else -shade), np.float32)
            demo["actions"], demo["rewards"] = action, np.zeros(10, np.float32)
            for key in ("image", "image_side_cam"):
                demo[f"obs/{key}"] = np.full((10, 16, 16, 3), int(255 * shade), np.uint8)
            demo["obs/ee_pos"] = rng.normal(size=(10, 3)).astype(np.float32)
            demo["obs/gripper_state"] = np.zeros((10, 1), np.float32)
            demo["obs/joint_pos"] = rng.normal(size=(10, 7)).astype(np.float32)
            demo["obs/cubes_pos"], demo["obs/object_pos"] = (np.repeat(action[:, :1], n, axis=1) for n in (9, 3))
            demo["obs/goal"] = np.tile(np.eye(2, dtype=np.float32)[number % 2], (10, 1))
            demo.attrs["language"] = f"put it {side}"
    return path


@pytest.mark.wide
@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("vla")])
def test_every_recipe_that_is_told_what_to_do_learns(name, told, tmp_path):
    """Sixty updates of a small copy of its model, which is given no place of an object."""
    _, given = recipe.stage_arguments([*SMALL["vla"], *QUICK, "--train.max-steps", "60"])
    words = ["--config", str(RECIPES[name]), "--dataset", str(told), "--checkpoint-dir", str(tmp_path / "run")]
    options = train.parse_options([*words, *given["train"]])
    train.train(options)
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < 0.9 * losses[0]
    manifest = read_manifest(tmp_path / "run")
    assert set(manifest.observation_spec) == set(options.data.obs_keys)
    assert not {"goal", "cubes_pos", "object_pos"} & set(options.data.obs_keys)
    known = {"goal": 2, "object_pos": 3}
    assert manifest.model_kwargs["auxiliary_size"] == sum(known[key] for key in options.data.auxiliary_keys)
    assert manifest.model_kwargs["mask_padding"]


@pytest.mark.wide
@pytest.mark.parametrize("name", [name for name in RECIPES if name.endswith("pixels")])
def test_every_recipe_that_only_sees_learns(name, tmp_path):
    """Sixty updates on pictures whose shade is the action; where things are is told in training alone."""
    path, rng = tmp_path / "seen.h5", np.random.default_rng(0)
    with h5py.File(path, "w") as file:
        for number in range(40):
            demo, shade = file.create_group(f"data/demo_{number}"), rng.uniform(0, 1)
            demo["actions"], demo["rewards"] = np.full((10, 4), shade, np.float32), np.zeros(10, np.float32)
            for key in ("image", "image_side_cam"):
                demo[f"obs/{key}"] = np.full((10, 16, 16, 3), int(255 * shade), np.uint8)
            for key, size in {"ee_pos": 3, "joint_pos": 7, "gripper_state": 1}.items():
                demo[f"obs/{key}"] = rng.normal(size=(10, size)).astype(np.float32)
            for key in ("object_pos", "target_pos"):
                demo[f"obs/{key}"] = np.full((10, 3), shade, np.float32)
    _, given = recipe.stage_arguments([*SMALL[name.split("_")[0]], *QUICK, "--train.max-steps", "60"])
    words = ["--config", str(RECIPES[name]), "--dataset", str(path), "--checkpoint-dir", str(tmp_path / "run")]
    options = train.parse_options([*words, *given["train"]])
    train.train(options)
    losses = [row["loss"] for row in read_rows(tmp_path / "run" / "metrics.jsonl")]
    assert losses[-1] < 0.9 * losses[0]
    assert set(read_manifest(tmp_path / "run").observation_spec) == set(options.data.obs_keys)
    assert not {"object_pos", "target_pos"} & set(options.data.obs_keys)


def test_a_recipe_refuses_instructions_that_its_model_cannot_read(told, tmp_path):
    words = ["--config", str(RECIPES["vla_reach_language"]), "--dataset", str(told), "--checkpoint-dir", str(tmp_path)]
    with pytest.raises(ValueError, match="'put it right' has 12 characters; the model reads 11"):
        train.train(train.parse_options([*words, "--model.max-text-len", "11"]))
    assert not list(tmp_path.iterdir())


def test_recipes_are_whole():
    assert {"act_pick_place", "bc_pick_place", "bc_reach", "diffusion_pick_place", "flow_pick_place"} <= set(RECIPES)
    for path in RECIPES.values():
        stages, record = recipe.make_stages(path, {}, None)
        assert [stage.name for stage in stages if stage.name != "dagger"] == ["datagen", "train", "eval"]
        assert record.parent.name == path.stem
        lines = [line for line in path.read_text().splitlines() if line.startswith("#")]
        assert any(f"simscale recipe {path.stem}" in line for line in lines)
        text = " ".join(line.removeprefix("#").strip() for line in lines)
        assert re.search(r"[23]00 (fresh )?episodes|Not measured", text), "what it reached"


@pytest.mark.wide
def test_a_recipe_runs_its_parts_and_goes_on_where_it_was_stopped(tmp_path, capsys, monkeypatch):
    folder = tmp_path / "out"
    words = ["recipe", "bc_reach", "--folder", str(folder), *SHORT, "--train.max-steps", "6", "--train.batch-size", "8"]
    words += ["--train.eval.episodes", "0", "--eval.n-episodes", "2", "--eval.physics", "host"]
    assert cli.main(words) == 0
    record = json.loads((folder / "run" / "recipe.json").read_text())
    assert all(record[name]["is_done"] and record[name]["seconds"] > 0 for name in ("datagen", "train", "eval"))
    assert json.loads((folder / "run" / "eval.json").read_text())["host"]["mean_length"] > 0
    capsys.readouterr()
    for stage in (recipe.datagen, recipe.train, recipe.eval):
        monkeypatch.setattr(stage, "main", lambda argv: pytest.fail(f"ran {argv}"))
    assert cli.main(words) == 0
    assert "nothing to do" in capsys.readouterr().out
    ran = []
    monkeypatch.setattr(recipe.train, "main", lambda argv: ran.append("train"))
    monkeypatch.setattr(recipe.eval, "main", lambda argv: ran.append("eval"))
    assert cli.main([*words, "--train.max-steps", "8"]) == 0
    assert ran == ["train", "eval"], "what comes after a part that has changed is done anew"
    monkeypatch.setattr(recipe.eval, "main", stop)
    assert cli.main([*words, "--eval.n-episodes", "3"]) == 130
    record = json.loads((folder / "run" / "recipe.json").read_text())
    assert record["datagen"]["is_done"]
    assert not record["eval"]["is_done"]


@pytest.mark.wide
def test_a_recipe_may_have_an_expert_correct_the_policy(tmp_path, capsys):
    """Its part for `simscale dagger` is run between training and evaluation, which then judges the last round."""
    taught = {"rounds": 1, "n_episodes": 2, "max_steps": 4, "eval_episodes": 2}
    said = read_yaml(RECIPES["bc_reach"]) | {"dagger": taught}
    path, folder = tmp_path / "mine.yaml", tmp_path / "out"
    path.write_text(json.dumps(said))
    words = ["recipe", str(path), "--folder", str(folder), *SHORT, "--train.max-steps", "4", "--train.batch-size", "8"]
    words += ["--train.eval.episodes", "0", "--eval.n-episodes", "2", "--eval.physics", "host"]
    assert cli.main(words) == 0
    record = json.loads((folder / "run" / "recipe.json").read_text())
    assert list(record) == ["datagen", "train", "dagger", "eval"]
    assert record["eval"]["settings"]["arguments"][0] == str(folder / "run" / "dagger" / "round_1")
    assert (folder / "run" / "eval.json").is_file()
    capsys.readouterr()
    assert cli.main(["recipe", "bc_reach", "--dagger.rounds", "2"]) == 1
    assert "has no part 'dagger' for --rounds 2" in " ".join(capsys.readouterr().err.split())


def stop(argv):
    raise KeyboardInterrupt


def test_arguments_go_to_their_commands():
    words = ["flow_pick_place", "--train.data.cameras", "a", "b", "--train.lr=-1", "--folder", "x", "--eval.seed", "-3"]
    rest, given = recipe.stage_arguments(words)
    assert rest == ["flow_pick_place", "--folder", "x"]
    assert given["train"] == ["--data.cameras", "a", "b", "--lr=-1"]
    assert (given["datagen"], given["dagger"], given["eval"]) == ([], [], ["--seed", "-3"])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["flow_pick_plac"], "Did you mean 'flow_pick_place'"),
        (["ppo_reach"], "Available: act_pick_place, bc_pick_place"),
        (["bc_reach", "--train.dataset", "other.h5"], "wanted one file"),
        (["nothing.yaml"], "'nothing.yaml' does not exist"),
    ],
)
def test_bad_recipes_are_named(words, message, capsys):
    assert cli.main(["recipe", *words]) == 1
    assert message in " ".join(capsys.readouterr().err.split())
