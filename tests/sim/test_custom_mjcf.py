"""The robot of docs/custom_mjcf.md, another arm than the package's, in both tasks and on both physics."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.observations import state_vector
from simscaleai_jax.sim import make_env, make_functional_env
from simscaleai_jax.sim.registry import find_expert

GUIDE = Path(__file__).parents[2] / "docs" / "custom_mjcf.md"
STATE_SIZE = {"reach": 20, "pick_place": 28}
STEPS = 60


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    """The guide's two models as files, by task."""
    return write_scenes(tmp_path_factory.mktemp("custom"))


def write_scenes(folder, replace=()):
    arm, pick = re.findall(r"```xml\n(.*?)```", GUIDE.read_text(), flags=re.DOTALL)
    for old, new in replace:
        assert old in arm + pick
        arm, pick = arm.replace(old, new), pick.replace(old, new)
    (folder / "reach.xml").write_text(arm)
    (folder / "arm.xml").write_text(re.sub(r"  <keyframe>.*?</keyframe>\n", "", arm, flags=re.DOTALL))
    (folder / "pick.xml").write_text(pick)
    return {"reach": str(folder / "reach.xml"), "pick_place": str(folder / "pick.xml")}


@pytest.mark.parametrize("name", ["reach", pytest.param("pick_place", marks=pytest.mark.wide)])
def test_the_expert_works_with_another_arm_on_both_physics(name, scenes):
    """The expert acts in MJX; the host follows its actions, and both end the episode in success."""
    functional = make_functional_env(name, cameras=[], dt=0.01, xml_path=scenes[name])
    host = make_env(name, cameras=[], dt=0.01, xml_path=scenes[name])
    assert host.model.joint(0).name != "joint1"
    expert = find_expert(name, functional.task)
    phase = expert.first_phase

    @jax.jit
    def step(state, phase):
        action, phase = expert.act(state.snapshot, state.task_state, phase)
        return functional.step(state, action), phase, action

    key = jax.random.key(2)
    state = jax.jit(functional.reset)(key)
    obs, _ = host.reset(options={"key": key})
    assert state_vector(state.obs).shape == state_vector(obs).shape == (STATE_SIZE[name],)
    for t in range(STEPS):
        state, phase, action = step(state, phase)
        obs, _, terminated, _, info = host.step(np.asarray(action))
        if t < 10:
            np.testing.assert_allclose(obs["joint_pos"], state.obs["joint_pos"], atol=1e-3)
        if state.terminated and terminated:
            break
    assert state.info["success"]
    assert info["success"]
    assert not state.info["overflow"]


def test_random_starts_fit_another_arm(scenes):
    functional = make_functional_env("pick_place", cameras=[], dt=0.01, xml_path=scenes["pick_place"])
    starts = jax.jit(jax.vmap(lambda key: functional.task.sample(key, {})))(jax.random.split(jax.random.key(0), 64))
    block = np.asarray(starts[0].qpos[:, 9:12])
    np.testing.assert_allclose(block[:, 2], 0.025, atol=1e-6)  # no table: it rests where the model has it
    assert np.ptp(block[:, 0]) > 0.2
    gap = jnp.linalg.norm(starts[1].target_pos - block, axis=1)
    assert np.all(gap > 0.1)


def test_all_that_is_missing_is_listed_at_once(tmp_path):
    scenes = write_scenes(
        tmp_path,
        [('name="ee_site"', 'name="tool"'), ('<body name="target"', '<body name="goal"'),
         ('name="left_touch"', 'name="touch_a"'), ("<freejoint/>", "")],
    )  # fmt: skip
    wanted = r"lacks: site 'ee_site'.*body 'target'.*body 'object' with a freejoint.*'left_touch'"
    for make in (make_env, make_functional_env):
        with pytest.raises(ValueError, match=wanted) as error:
            make("pick_place", cameras=[], xml_path=_without_keyframe(scenes["pick_place"]))
        assert "right_touch" not in str(error.value)
        with pytest.raises(ValueError, match=r"lacks: site 'ee_site'.*body 'target'"):
            make("reach", cameras=[], xml_path=scenes["reach"])


def test_joints_and_actuators_are_counted(tmp_path):
    scenes = write_scenes(tmp_path, [('<position joint="elbow"/>', ""), (' ctrl="0 .4 0 1.5 0 1.2416 0 .05"', "")])
    with pytest.raises(
        ValueError, match=r"position actuators for the arm joints elbow \(add <position joint=\"elbow\""
    ):
        make_env("reach", cameras=[], xml_path=scenes["reach"])


def test_a_gripper_without_ranges_is_refused(tmp_path):
    scenes = write_scenes(
        tmp_path,
        [('damping="10" range="0 0.05"', 'damping="10" limited="false"'), ('name="target"', 'name="goal"'),
         ('<position class="jaw" joint="jaw_a"/>', '<position name="squeeze" joint="jaw_a" inheritrange="0"/>')],
    )  # fmt: skip
    wanted = (
        r"ctrlrange from closed to open for the gripper's actuators squeeze \(add ctrlrange=.*; "
        r"a range for the finger joint jaw_a \(add range=\"0 0.04\"\); body 'target'"
    )
    for make in (make_env, make_functional_env):
        with pytest.raises(ValueError, match=wanted):
            make("reach", cameras=[], xml_path=scenes["reach"])


def test_fingers_are_slides_below_the_arm(tmp_path):
    """Neither a drawer that the model names first nor a damper on the arm is part of the gripper."""
    drawer = '<body pos="1 1 .2"><joint name="drawer" type="slide" range="0 .4"/><geom size=".1" mass="1"/></body>'
    arm = '<body gravcomp="1" pos=".05 0 .3">'
    changes = [(arm, drawer + arm), ('qpos="0 .4', 'qpos="0 0 .4'), ('1.2416 0 .05"/>', '1.2416 0 .05 0"/>'),
               ("  </actuator>", '    <damper joint="waist" kv="1" ctrlrange="0 1"/>\n  </actuator>')]  # fmt: skip
    robot = make_env("reach", cameras=[], xml_path=write_scenes(tmp_path, changes)["reach"]).task.robot
    assert robot.finger_qpos.tolist() == [8, 9]
    assert robot.finger_range.tolist() == [0.0, 0.05]
    assert robot.gripper_actuators.tolist() == [7]
    assert robot.gripper_range.tolist() == [[0.0, 0.05]]
    only_drawer = [(arm, drawer + arm), ('<joint type="slide"', '<joint type="hinge"')]
    wanted = r'fingertip sites left_tip and right_tip.*<site name="left_tip"/> and <site name="right_tip"/> where'
    with pytest.raises(ValueError, match=wanted):
        make_env("reach", cameras=[], xml_path=_without_keyframe(write_scenes(tmp_path, only_drawer)["reach"]))


def test_what_does_not_fit_another_arm_is_refused(tmp_path):
    scenes = write_scenes(tmp_path, [('size=".025 .025 .025"', 'size=".05 .05 .025"')])
    with pytest.raises(ValueError, match=r"object cannot fit the gripper: 0.100 m wide"):
        make_env("pick_place", cameras=[], xml_path=scenes["pick_place"])
    with pytest.raises(ValueError, match="outside the arm's workspace"):
        make_env("pick_place", cameras=[], xml_path=write_scenes(tmp_path)["pick_place"], area_high=(0.84, 0.2))
    with pytest.raises(ValueError, match=r"outside the arm's workspace: it misses \[2.0, .* target_low..target_high"):
        make_env("reach", cameras=[], xml_path=write_scenes(tmp_path)["reach"], target_high=(2.0, 0.3, 0.5))


def _without_keyframe(path):
    text = re.sub(r"  <keyframe>.*?</keyframe>\n", "", Path(path).read_text(), flags=re.DOTALL)
    Path(path).write_text(text)
    return path
