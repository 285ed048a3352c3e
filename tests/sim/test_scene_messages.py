"""Scenes that cannot be played, and settings that would do nothing: said at once, with the reason and what to do."""

import re
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import simscaleai_jax.sim as sim
from simscaleai_jax.rl.evaluator import EvalConfig, evaluate_policy
from simscaleai_jax.sim.registry import asset
from simscaleai_jax.sim.robot import load_model
from simscaleai_jax.sim.robot.feasibility import unreached

KEY = re.compile(r"  <keyframe>.*?</keyframe>\n", re.DOTALL)
TETRAHEDRON = '<asset><mesh name="t" vertex="0 0 0  .1 0 0  0 .1 0  0 0 .1"/></asset>'


@pytest.fixture
def scene(tmp_path):
    """Writes the reach scene with pieces of it replaced; gives the path."""

    def write(*replace):
        text = Path(asset("reach.xml")).read_text().replace("panda.xml", asset("panda.xml"))
        for old, new in replace:
            changed = old.sub(new, text) if isinstance(old, re.Pattern) else text.replace(old, new)
            assert changed != text, old
            text = changed
        (tmp_path / "scene.xml").write_text(text)
        return str(tmp_path / "scene.xml")

    return write


def functional(path, **options):
    return sim.make_functional_env("reach", xml_path=path, cameras=[], dt=0.01, **options)


@pytest.mark.parametrize("make", [sim.make_env, sim.make_functional_env])
def test_a_start_pose_outside_a_joints_range_is_named(scene, make):
    pattern = (
        r"start pose violates the range of joint joint4 at 0 outside -3\.07.*\.\.-0\.0698: "
        r"give the scene a keyframe named 'home' with a pose that the arm can hold$"
    )
    with pytest.raises(ValueError, match=pattern):
        make("reach", xml_path=scene((KEY, "")), cameras=[])
    renamed = scene(('<key name="home"', '<key name="homee"'))
    with pytest.raises(ValueError, match=r"joint4.*the scene's keyframes are 'homee'\. Did you mean 'homee'\?"):
        make("reach", xml_path=renamed, cameras=[])
    with pytest.raises(ValueError, match=r"joint4 at 0\.5 outside.*: mend the keyframe 'home'"):
        make("reach", xml_path=scene(('qpos="0 0 0 -1.9', 'qpos="0 0 0 0.5')), cameras=[])


def test_all_that_mjx_lacks_is_listed_at_once_and_the_host_plays_it(scene):
    option = '<option solver="PGS" integrator="implicit" noslip_iterations="2">'
    path = scene(("<option>", option), ('limit="disable"', 'limit="disable" energy="enable"'))
    with pytest.raises(ValueError, match="MJX") as raised:
        functional(path, impl="jax")
    said = str(raised.value)
    for part in ("solver PGS (it has CG, NEWTON)", "integrator IMPLICIT (it has EULER", "ENERGY", "noslip", "impl='c'"):
        assert part in said, said
    sim.make_env("reach", xml_path=path, cameras=[]).reset(seed=0)


def test_parts_that_mjx_lacks_are_named(scene):
    sensors = '<sensor><contact name="c" body1="table" data="found"/><user name="u" dim="1"/></sensor>\n  <keyframe>'
    with pytest.raises(ValueError, match=r"sensor USER; contact sensors of a body \(it has those of two geoms\)"):
        functional(scene(("<keyframe>", sensors)), impl="jax")
    meshes = (
        ("<worldbody>", TETRAHEDRON + "<worldbody>"),
        ('<body name="target"', mesh_bodies(1) + '<body name="target"'),
    )
    margin = (*meshes, ('type="mesh"', 'type="mesh" margin=".01"'), ('name="floor"', 'name="floor" contype="1"'))
    with pytest.raises(ValueError, match=r"a margin between mesh and plane \('floor' with #\d+ of body ''\)"):
        functional(scene(*margin), impl="jax")
    cans = "".join(
        f'<body name="can{i}" pos="{i} 3 0"><freejoint/><geom name="can{i}" type="cylinder" size=".1 .1" '
        'contype="1" conaffinity="2"/></body>'
        for i in range(8)
    )
    crate = '<geom name="crate" type="box" size=".1 .1 .1" contype="2" conaffinity="1"/>'
    path = scene(('<body name="target"', cans + crate + '<body name="target"'))
    named = r"contacts between box and cylinder \('can0' with 'crate', .*'can5' with 'crate' and 2 more\)"
    with pytest.raises(ValueError, match=named):
        functional(path, impl="jax")
    sim.make_env("reach", xml_path=path, cameras=[])


def mesh_bodies(count):
    bodies = (
        f'<body pos="{i} 3 0"><freejoint/><geom type="mesh" mesh="t" contype="1" conaffinity="1" group="3"/></body>'
        for i in range(count)
    )
    return "".join(bodies)


def with_meshes(count):
    """Replacements that add that many bodies of one mesh each, which may touch each other."""
    return ("<worldbody>", TETRAHEDRON + "<worldbody>"), (
        '<body name="target"',
        mesh_bodies(count) + '<body name="target"',
    )


def test_mesh_collisions_are_said_before_they_are_compiled(scene):
    meshes = (
        ("<worldbody>", TETRAHEDRON + "<worldbody>"),
        ('<body name="target"', mesh_bodies(6) + '<body name="target"'),
    )
    path, before = scene(*meshes), time.monotonic()
    with pytest.warns(
        UserWarning,
        match=r"15 of the scene's 15 pairs.*have a mesh \(#\d+ of body .*\).*minutes.*primitive geoms.*impl='c'",
    ):
        functional(path, impl="jax")
    assert time.monotonic() - before < 60.0
    sim.make_env("reach", xml_path=path, cameras=[])  # host physics takes meshes: no warning


def test_a_folder_or_an_unreadable_file_is_no_model(tmp_path, monkeypatch):
    (tmp_path / "arm.xml").write_text("<mujoco/>")
    with pytest.raises(ValueError, match=r"wanted an MJCF file, got the folder .*; it holds arm\.xml"):
        sim.make_env("reach", xml_path=str(tmp_path))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"it holds no \.xml"):
        load_model(str(tmp_path / "empty"), 0.01)

    def refuse(*args):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", refuse)
    with pytest.raises(OSError, match=r"cannot read the MJCF file '.*arm\.xml': Permission denied"):
        load_model(str(tmp_path / "arm.xml"), 0.01)


@pytest.mark.parametrize("make", [lambda: sim.make_env("reach", cameras=[])])
def test_a_step_before_the_first_reset_is_refused(make):
    with pytest.raises(RuntimeError, match="call reset before step"):
        make().step(np.zeros(4, np.float32))


def test_videos_of_a_scene_without_cameras_are_refused_before_anything_is_played(scene, tmp_path):
    camera = re.compile(r" *<camera .*?/>\n")
    arm = tmp_path / "arm.xml"
    arm.write_text(camera.sub("", Path(asset("panda.xml")).read_text()))
    path = scene((camera, ""), (asset("panda.xml"), str(arm)))
    config = EvalConfig(1, 2, save_videos=True, video_dir=str(tmp_path / "videos"))

    def never(obs, key):
        raise AssertionError("played")

    for env in (functional(path), sim.make_env("reach", xml_path=path, cameras=[])):
        with pytest.raises(ValueError, match="the scene has no camera to draw from"):
            evaluate_policy(env, never, config)
        with pytest.raises(ValueError, match=r"the scene has no camera|needs a pure policy"):
            evaluate_policy(env, lambda obs: never(obs, None), config)


def test_randomization_that_reaches_nothing_is_refused_or_said(scene):
    own = {"domain_randomization": True, "cameras": []}
    with pytest.raises(ValueError, match=r"friction \(it has no contact pairs.*object_mass \(it has no body"):
        sim.make_env("reach", **own, randomization={"friction": (0.5, 2.0), "object_mass": (0.5, 2.0)})
    with pytest.raises(ValueError, match="friction"):
        sim.make_functional_env("reach", **own, randomization={"friction": (0.5, 2.0)})
    sim.make_env("reach", **own, randomization={"joint_damping": (0.5, 2.0)})
    sim.make_env("reach", **own, randomization="heavy")  # presets name what other scenes have
    touching = scene(('name="floor"', 'name="floor" contype="1"'))
    with pytest.warns(UserWarning, match="friction is not randomized in this scene: it has no contact pairs"):
        sim.make_env("reach", **own, randomization="heavy", xml_path=touching)


def test_every_reason_that_a_parameter_reaches_nothing():
    text = "<mujoco><option gravity='0 0 0'/><worldbody><body><joint/><geom size='.1'/></body></worldbody></mujoco>"
    import mujoco

    bare = unreached(mujoco.MjModel.from_xml_string(text))
    assert set(bare) == {
        "friction", "object_mass", "object_size", "joint_damping", "actuator_gain", "gravity", "table_height",
        "light_direction", "light_intensity", "camera_position", "camera_rotation",
    }  # fmt: skip
    assert unreached(load_model(asset("pick_place.xml"), 0.01)) == {}


def test_a_keyframes_velocity_is_left_behind_as_in_mjx(scene):
    path = scene(('<key name="home"', '<key name="home" time="3" qvel="1 1 1 1 1 1 1 .1 .1"'))
    env = sim.make_env("reach", xml_path=path, cameras=[], dt=0.01)
    key = jax.random.key(5)
    obs, _ = env.reset(options={"key": key})
    assert not env.data.qvel.any()
    assert not obs["joint_vel"].any()
    plain = sim.make_env("reach", cameras=[], dt=0.01)
    wanted, _ = plain.reset(options={"key": key})
    for _ in range(3):
        np.testing.assert_array_equal(obs["joint_pos"], wanted["joint_pos"])
        obs, wanted = (one.step(np.full(4, 0.5, np.float32))[0] for one in (env, plain))


def test_seeds_of_adapters_and_vector_environments(batched):
    from simscaleai_jax.sim.envs.vector_env import BatchedVectorEnv

    env = sim.make_env("reach", cameras=[], dt=0.01)
    starts = [env.reset(seed=seed)[0]["target_pos"].tolist() for seed in (0, 2**32, 2**64, np.int64(0), 0)]
    assert starts[0] == starts[3] == starts[4]
    assert starts[0] != starts[1] != starts[2] != starts[0]
    for wrong in (-1, True, 1.5, float("nan")):
        for made in (env, BatchedVectorEnv(batched, 2)):
            with pytest.raises(ValueError, match="seed must be a non-negative integer"):
                made.reset(seed=wrong)
