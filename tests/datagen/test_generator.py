import re
from types import SimpleNamespace

import h5py
import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.core.checkpoint import Manifest, resolve
from simscaleai_jax.core.checkpoint_series import CheckpointSeries
from simscaleai_jax.core.demonstrations import DemonstrationFile
from simscaleai_jax.core.errors import ExpectedError
from simscaleai_jax.core.observations import is_image_key
from simscaleai_jax.core.receding_horizon import Policy
from simscaleai_jax.datagen import draw_instruction, generate_dataset, instructions, merge_files, register_instructions
from simscaleai_jax.datagen import language as language_module
from simscaleai_jax.datagen.formats.robomimic_export import export_robomimic
from simscaleai_jax.datagen.identity import check_env_name, checkpoint_digest
from simscaleai_jax.datagen.noise import NoiseConfig, add_noise
from simscaleai_jax.datagen.rollout import empty_slots, make_chunk_fn
from simscaleai_jax.sim.factory import make_functional_env
from simscaleai_jax.sim.registry import find_task
from simscaleai_jax.training.data import TrajectoryDataset

from .demo_files import content
from .toy import EXPERT, STEP, ToyEnv, toy_expert


def generate(path, env=None, **options):
    defaults = {"n_episodes": 30, "seed": 3, "policy_type": "policy", "policy": toy_expert, "policy_name": "toy"}
    return generate_dataset("toy", output_path=str(path), env=env or ToyEnv(), **{**defaults, **options})


@pytest.fixture(scope="module")
def unlucky(tmp_path_factory):
    """A run in which a fifth of the attempts fail and a tenth break: (path, summary)."""
    path = tmp_path_factory.mktemp("unlucky") / "a.h5"
    return path, generate(path, ToyEnv(failing=0.2, nan_share=0.1), only_success=True, num_envs=8)


def test_only_successes_are_kept_and_attempts_are_counted(unlucky):
    path, summary = unlucky
    dataset = TrajectoryDataset(path)
    assert summary["total_episodes"] == 30
    assert summary["success_rate"] == 1.0
    assert summary["attempts"] > 30
    assert summary["attempt_success_rate"] == pytest.approx(30 / summary["attempts"])
    with h5py.File(path) as file:
        assert all(demo.attrs["success"] for demo in file["data"].values())
        assert sum(int(demo.attrs["attempts"]) for demo in file["data"].values()) == summary["attempts"]
    assert len(dataset) == summary["total_steps"]


def test_shards_and_environments_do_not_change_the_data(unlucky, tmp_path):
    """C27, in an environment without rounding."""
    env = ToyEnv(failing=0.2, nan_share=0.1)
    paths = generate(tmp_path / "b.h5", env, only_success=True, num_envs=5, shards=3)["paths"]
    merge_files(paths, tmp_path / "merged.h5")
    assert content(tmp_path / "merged.h5") == content(unlucky[0])


def test_devices_do_not_change_the_data(unlucky, tmp_path):
    assert len(jax.devices()) == 8
    generate(tmp_path / "b.h5", ToyEnv(failing=0.2, nan_share=0.1), only_success=True, num_envs=16)
    assert content(tmp_path / "b.h5") == content(unlucky[0])


def test_slots_are_split_over_the_devices():
    from simscaleai_jax.datagen.generator import json_values
    from simscaleai_jax.datagen.run import Run

    env = ToyEnv()
    settings = {"policy_type": "random", "seed": 0, "only_success": False, "with_next_obs": False, "env_kwargs": {}}
    run = Run(env, "toy", settings | {"env_kwargs": json_values(env.config)}, None, None, 16, None)
    slots = run._slots()
    assert {shard.data.shape[0] for shard in slots.env.reward.addressable_shards} == {2}


def test_episodes_are_what_the_environment_does(unlucky):
    """Replays the stored actions: same observations, rewards and states."""
    path, _ = unlucky
    with h5py.File(path) as file:
        demo = file["data/demo_7"]
        obs, actions, rewards, states = demo["obs/ee_pos"][:], demo["actions"][:], demo["rewards"][:], demo["states"][:]
        goal = demo["obs/target_pos"][0]
        assert demo["dones"][:].tolist() == [0] * (len(actions) - 1) + [1]
    np.testing.assert_allclose(obs[1:], obs[:-1] + STEP * actions[:-1, :3], atol=1e-6)
    np.testing.assert_array_equal(states[:, :3], obs)
    after = np.vstack([obs[1:], obs[-1] + STEP * actions[-1, :3]])
    np.testing.assert_allclose(rewards, -np.linalg.norm(after - goal, axis=1), atol=1e-6)


def test_failures_are_kept_and_counted_by_default(tmp_path):
    summary = generate(tmp_path / "a.h5", ToyEnv(failing=0.5, nan_share=0.3))
    assert 0.3 < summary["success_rate"] < 0.7
    dataset = TrajectoryDataset(tmp_path / "a.h5")
    assert max(dataset.demos.lengths) == 20
    stats = dataset.stats()
    assert np.isfinite(stats["observations"]["ee_pos"]["mean"]).all()
    with h5py.File(tmp_path / "a.h5") as file:  # a dead motor runs into the time limit, a success ends for good
        for demo in file["data"].values():
            assert demo.attrs["terminated"] == demo.attrs["success"] == (demo.attrs["num_samples"] < 20)


def test_summary_is_right_and_a_rerun_returns_it(tmp_path, monkeypatch):
    first = generate(tmp_path / "a.h5", n_episodes=12)
    with h5py.File(tmp_path / "a.h5") as file:
        returns = [demo["rewards"][:].sum(dtype=np.float64) for demo in file["data"].values()]
        lengths = [len(demo["actions"]) for demo in file["data"].values()]
    assert first["mean_reward"] == pytest.approx(np.mean(returns), rel=1e-6)
    assert first["mean_episode_length"] == pytest.approx(np.mean(lengths))
    assert first["total_steps"] == sum(lengths)
    assert first["file_size_mb"] == pytest.approx((tmp_path / "a.h5").stat().st_size / 2**20)
    monkeypatch.setattr("simscaleai_jax.datagen.run.Run", None)  # nothing is made again
    assert generate(tmp_path / "a.h5", n_episodes=12) == first
    with pytest.raises(ValueError, match=r"other settings: seed 3 \(now 4\)\. Choose another output path"):
        generate(tmp_path / "a.h5", n_episodes=12, seed=4)
    export_robomimic(tmp_path / "a.h5", tmp_path / "exported.h5")
    with pytest.raises(ValueError, match=r"other settings: .*Choose another output path"):
        generate(tmp_path / "exported.h5", n_episodes=12)
    (tmp_path / "b.h5").write_text("something else")
    with pytest.raises(ValueError, match="exists and is not a data set of this run"):
        generate(tmp_path / "b.h5")


def scene(size: float) -> mujoco.MjModel:
    return mujoco.MjModel.from_xml_string(f"<mujoco><worldbody><geom size='{size}'/></worldbody></mujoco>")


def in_world(size: float, impl: str = "jax") -> ToyEnv:
    env = ToyEnv()
    env.physics = SimpleNamespace(host_model=scene(size), impl=impl)  # type: ignore[attr-defined]
    return env


def test_names_that_stand_for_something_else_by_now_are_noticed(tmp_path):
    """Of a scene file that was edited, another implementation, a checkpoint that was trained further."""
    path = tmp_path / "a.h5"
    first = generate(path, in_world(0.1), n_episodes=3, policy_digest="one")
    assert generate(path, in_world(0.1), n_episodes=3, policy_digest="one") == first
    for change, env, digest in (
        ("scene_digest '", in_world(0.2), "one"),
        (r"impl 'jax' \(now 'warp'\)", in_world(0.1, "warp"), "one"),
        (r"policy_digest 'one' \(now 'two'\)", in_world(0.1), "two"),
    ):
        with pytest.raises(ValueError, match=f"other settings: {change}"):
            generate(path, env, n_episodes=3, policy_digest=digest)


def test_checkpoint_digest_is_of_the_checkpoint_that_a_run_means_now(tmp_path):
    digests = []
    with CheckpointSeries(tmp_path / "run") as series:
        for step in (1, 2):
            series.save(step, {"a": np.full(1, step)}, Manifest("model", "bc", step=step), metric=float(step))
            series.wait()
            digests.append(checkpoint_digest(tmp_path / "run"))
    assert digests[0] != digests[1] == checkpoint_digest(resolve(tmp_path / "run"))


def test_parts_that_a_killed_run_left_beside_its_finished_file_go(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.rmtree", lambda *args, **options: None)  # killed between the last two steps
    first = generate(tmp_path / "a.h5", n_episodes=3)
    assert (tmp_path / "a.h5.parts").exists()
    monkeypatch.undo()
    assert generate(tmp_path / "a.h5", n_episodes=3) == first
    assert sorted(tmp_path.iterdir()) == [tmp_path / "a.h5", tmp_path / "a.h5.index"]


def test_a_policy_without_a_name_is_refused(tmp_path):
    """A rerun would take another policy's file for its own."""
    generate(tmp_path / "a.h5", n_episodes=3)
    with pytest.raises(ValueError, match=r"policy= needs a policy_name"):
        generate(tmp_path / "a.h5", n_episodes=3, policy=lambda obs, key: jnp.zeros(4), policy_name="")
    with pytest.raises(ValueError, match=r"policy_name 'toy' \(now 'idle'\)"):
        generate(tmp_path / "a.h5", n_episodes=3, policy=lambda obs, key: jnp.zeros(4), policy_name="idle")


def test_a_foreign_environment_needs_a_name_of_its_own(tmp_path):
    with pytest.raises(ValueError, match=r"ToyEnv that does not play the task 'reach'.*as env_name"):
        generate_dataset(output_path=str(tmp_path / "a.h5"), env=ToyEnv())
    reach = make_functional_env("reach", max_episode_steps=5)
    check_env_name(reach, "reach")
    with pytest.raises(ValueError, match="does not play the task 'pick_place'"):
        check_env_name(reach, "pick_place")
    check_env_name(ToyEnv(), "toy")


def test_noise_disturbs_what_is_executed_and_not_the_label(tmp_path):
    """C28."""
    generate(tmp_path / "a.h5", n_episodes=8, noise=NoiseConfig(std=0.5), with_next_obs=True)
    with h5py.File(tmp_path / "a.h5") as file:
        for demo in file["data"].values():
            obs, executed = demo["obs/ee_pos"][:], demo["actions_executed"][:]
            label = np.clip((demo["obs/target_pos"][:] - obs) / STEP, -1, 1)
            np.testing.assert_allclose(demo["actions"][:, :3], label, atol=1e-5)
            np.testing.assert_array_equal(executed[:, 3], demo["actions"][:, 3])
            assert np.abs(executed[:, :3] - label).mean() > 0.05
            np.testing.assert_allclose(demo["next_obs/ee_pos"][:], obs + STEP * executed[:, :3], atol=1e-6)
            np.testing.assert_array_equal(demo["next_obs/ee_pos"][:-1], obs[1:])


def test_noise_probability():
    keys = jax.random.split(jax.random.key(0), 2000)
    action = np.zeros(4, np.float32)
    noisy = jax.vmap(lambda key: add_noise(key, action, NoiseConfig(0.2, probability=0.3)))(keys)
    disturbed = np.asarray(noisy[:, :3] != 0).all(axis=1)
    assert 0.25 < disturbed.mean() < 0.35
    assert np.asarray(noisy)[disturbed, 0].std() == pytest.approx(0.2, rel=0.1)
    assert not np.asarray(noisy[:, 3]).any()


def test_random_policy_covers_the_action_space(tmp_path):
    summary = generate(tmp_path / "a.h5", policy_type="random", policy=None, policy_name="", n_episodes=20)
    actions = TrajectoryDataset(tmp_path / "a.h5").column("actions")
    assert actions.min() < -0.95
    assert actions.max() > 0.95
    assert abs(actions.mean()) < 0.1
    assert summary["success_rate"] < 0.5


def test_a_policy_that_plans_chunks_executes_them(tmp_path):
    """C25."""

    def plan(params, obs, key):
        first = obs["ee_pos"].sum(-1, keepdims=True)[..., None, :]
        return 0.01 * first + jnp.arange(0.1, 0.35, 0.1)[:, None] * jnp.ones(4)

    policy = Policy(plan, (), 4, 3)
    generate(tmp_path / "a.h5", ToyEnv(max_steps=8), n_episodes=5, policy=policy, num_envs=2)
    with h5py.File(tmp_path / "a.h5") as file:
        for demo in file["data"].values():
            looked = demo["obs/ee_pos"][:].sum(1)[np.arange(8) // 3 * 3]  # at the steps where a plan was due
            np.testing.assert_allclose(demo["actions"][:, 0], 0.01 * looked + 0.1 * (1 + np.arange(8) % 3), atol=1e-6)


def test_images_are_stored_as_rendered(tmp_path):
    generate(tmp_path / "a.h5", ToyEnv(image=True), n_episodes=4)
    with h5py.File(tmp_path / "a.h5") as file:
        demo = file["data/demo_1"]
        assert demo["obs/image"].dtype == np.uint8
        grid = np.arange(8 * 8 * 3).reshape(8, 8, 3)
        expected = (grid + np.trunc(demo["obs/ee_pos"][2] * np.float32(100)).astype(np.int32)).astype(np.uint8)
        np.testing.assert_array_equal(demo["obs/image"][2], expected)


def test_language_is_seeded_varied_and_fits_the_tokenizer():
    symbols = set(" abcdefghijklmnopqrstuvwxyz0123456789.,!?'-")
    for name in ("lift", "pick_place", "push", "reach", "stack"):
        texts = instructions(name)
        assert len(set(texts)) >= 3
        assert all(set(text) <= symbols and len(text) <= 64 for text in texts)
        drawn = [draw_instruction(name, 0, episode) for episode in range(200)]
        assert set(drawn) == set(texts)
        assert drawn == [draw_instruction(name, 0, episode) for episode in range(200)]
        assert drawn != [draw_instruction(name, 1, episode) for episode in range(200)]
    assert draw_instruction("stack_cubes", 0, 0) == "do the stack cubes task"
    with pytest.raises(ValueError, match="Did you mean 'reach'"):
        instructions("reac")
    with pytest.raises(ValueError, match="list of instructions"):
        register_instructions("mine", [])


def test_instructions_are_true_of_the_scenes():
    """Colours and shapes that they name are those of the target and the object, and no target lies on anything."""
    shapes = {mujoco.mjtGeom.mjGEOM_SPHERE: "ball", mujoco.mjtGeom.mjGEOM_BOX: "cube"}
    on_table = {"ball": "target", "cube": "object"}
    for name, words in (("reach", {"ball": "target"}), *((name, on_table) for name in ("lift", "pick_place", "push"))):
        model = mujoco.MjModel.from_xml_path(find_task(name).xml_path)
        for shape, geom in words.items():
            assert shapes[mujoco.mjtGeom(model.geom(geom).type[0])] == shape
        hues = {shape: ("red", "green", "blue")[model.geom(geom).rgba[:3].argmax()] for shape, geom in words.items()}
        texts = " / ".join(instructions(name))
        for colour, shape in re.findall(r"\b(red|green|blue|yellow|black|white) (\w+)", texts):
            assert hues[shape] == colour
        assert re.search(r"\bgreen\b", texts)
        assert not re.search(r"\bon (it|the)\b", texts)


def test_registered_instructions_reach_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(language_module, "_CHOSEN", {})
    register_instructions("toy", ["go left", "go right"])
    generate(tmp_path / "a.h5", n_episodes=12)
    dataset = TrajectoryDataset(tmp_path / "a.h5", include_language=True)
    assert {dataset[i]["language"] for i in range(len(dataset))} == {"go left", "go right"}


def test_progress_counts_every_episode(tmp_path):
    seen = []
    generate(tmp_path / "a.h5", n_episodes=9, progress_fn=lambda done, wanted: seen.append((done, wanted)))
    assert seen == [(done, 9) for done in range(1, 10)]


def test_hopeless_policy_is_reported(tmp_path):
    errors = []  # kept as an interactive session keeps the last one: the second run is not in the first one's way
    for _ in range(2):
        with pytest.raises(
            ExpectedError, match=r"Episode \d+ failed 50 times in a row, and only successes are"
        ) as error:
            generate(tmp_path / "a.h5", ToyEnv(max_steps=2, failing=1.0), n_episodes=2, only_success=True)
        errors.append(error)


def test_physics_that_always_breaks_is_not_blamed_on_the_policy(tmp_path):
    with pytest.raises(ExpectedError, match=r"Episode \d+ was played 50 times, and its state was not finite again"):
        generate(tmp_path / "a.h5", ToyEnv(max_steps=2, nan_share=1.0), n_episodes=2)


def test_an_episode_that_lost_contacts_is_played_again(tmp_path):
    generate(tmp_path / "a.h5", ToyEnv(overflow_share=0.5), n_episodes=40)
    with h5py.File(tmp_path / "a.h5") as file:
        assert 60 < file["data"].attrs["attempts"] < 110
    with pytest.raises(ExpectedError, match=r"Episode \d+ was played 50 times, and a full buffer .* use impl='jax'"):
        generate(tmp_path / "b.h5", ToyEnv(overflow_share=1.0), n_episodes=2)


def test_one_trace_for_all_chunks():
    traces = []
    env = ToyEnv()
    original = env.step
    env.step = lambda state, action: traces.append(0) or original(state, action)
    chunk_fn = make_chunk_fn(env, EXPERT, 0, chunk_steps=2)
    slots = empty_slots(env, EXPERT, 4)
    todo = np.arange(8, dtype=np.int32)
    for _ in range(4):
        slots, _ = chunk_fn(slots, todo, np.int32(8))
    assert len(traces) == 1


def test_image_rule_is_shared():
    assert is_image_key("image_front_cam")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_episodes": 0}, "n_episodes must be at least 1, got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"num_envs": 0}, "num_envs must be at least 1"),
        ({"policy_type": "scriptd"}, "Unknown policy_type 'scriptd'.*Did you mean 'scripted'"),
        ({"policy_type": "random"}, "belong together"),
        ({"policy": None}, "belong together"),
        ({"shards": 31}, "shards must lie between 1 and n_episodes=30"),
        ({"valid_fraction": 1.0}, r"valid_fraction must lie in \[0, 1\)"),
        ({"noise": -1}, "std >= 0"),
    ],
)
def test_bad_options(tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        generate(tmp_path / "a.h5", **{k: NoiseConfig(v) if k == "noise" else v for k, v in options.items()})
    assert not list(tmp_path.glob("*.h5"))


def test_every_process_needs_a_shard(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with pytest.raises(ValueError, match="at least the number of processes, 2, got 1"):
        generate(tmp_path / "a.h5", shards=1)
    assert not list(tmp_path.iterdir())


def test_the_instruction_of_a_file_means_what_its_episode_does(tmp_path):
    path = tmp_path / "told.h5"
    generate_dataset(
        "reach_language", 24, str(path), "scripted", domain_randomization=False, dt=0.01, seed=3, only_success=True,
        with_next_obs=True,
    )  # fmt: skip
    demos = DemonstrationFile(path)
    assert "language" not in demos.obs_keys
    texts = [demos.language(number) for number in range(24)]
    assert len(set(texts)) > 15
    for number, text in enumerate(texts):
        group = demos.group(number)
        balls = group["obs/balls_pos"][0].reshape(3, 3)
        touched = np.argmin(np.linalg.norm(balls - group["next_obs/ee_pos"][-1], axis=1))
        assert ("green", "red", "blue")[touched] in text
    with pytest.raises(ValueError, match="have instructions of their own"):
        register_instructions("reach_language", ["go"])
