"""Two arms and eight objects in one scene: it loads, steps and renders, and a line of YAML says which arm works."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.sim import make_batched_env, make_env

NUM_OBJECTS = 8
HOME = (0.0, 0.5, 0.9, 0.0, 0.6, 0.0)
AXES = ("0 0 1", "0 1 0", "0 1 0", "0 0 1", "0 1 0", "0 0 1")


def arm(side, y):
    """Six joints, a tool site and a gripper of two slides; the names begin with the side."""
    body = f'<site name="{side}_tool" pos="0 0 .1"/>' + "".join(
        f'<body pos="0 0 .06"><joint name="{side}_finger{i}" type="slide" axis="0 {1 - 2 * i} 0" range="0 .04"/>'
        f'<geom name="{side}_pad{i}" type="box" size=".01 .005 .02" pos="0 {0.005 - 0.01 * i} .02"/></body>'
        for i in (0, 1)
    )
    for number in reversed(range(len(AXES))):
        body = (
            f'<body gravcomp="1" pos="0 {0 if number else y} {0.15 if number else 0.05}">'
            f'<joint name="{side}{number}" axis="{AXES[number]}" range="-2.5 2.5" armature=".1" damping="1"/>'
            f'<geom type="capsule" size=".03" fromto="0 0 0 0 0 .13"/>{body}</body>'
        )
    servos = "".join(f'<position joint="{side}{i}" kp="500" kv="50" ctrlrange="-2.5 2.5"/>' for i in range(len(AXES)))
    fingers = "".join(
        f'<position joint="{side}_finger{i}" kp="200" kv="5" ctrlrange="0 .04" forcerange="-5 5"/>' for i in (0, 1)
    )
    return body, servos + fingers


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """Writes the scene once for each arm that may work; gives the paths."""
    names = [f"object{number or ''}" for number in (0, *range(2, NUM_OBJECTS + 1))]
    places = [(0.35 + 0.1 * (k % 4), 0.15 * (k // 4) - 0.075, 0.02) for k in range(NUM_OBJECTS)]
    objects = "".join(
        f'<body name="{name}" pos="{x} {y} {z}"><freejoint/>'
        f'<geom name="{name}" type="box" size=".02 .02 .02" rgba="{k / 8} .2 {1 - k / 8} 1"/></body>'
        for k, (name, (x, y, z)) in enumerate(zip(names, places, strict=True))
    )
    (left, left_servos), (right, right_servos) = arm("left", 0.3), arm("right", -0.3)
    joints = " ".join(map(str, [*HOME, 0.04, 0.04] * 2))
    poses = " ".join(f"{x} {y} {z} 1 0 0 0" for x, y, z in places)
    pairs = "".join(f'<pair geom1="floor" geom2="{name}"/>' for name in names)
    xml = f"""<mujoco><compiler angle="radian" autolimits="true"/><option integrator="implicitfast"/>
        <default><geom contype="0" conaffinity="0"/></default>
        <worldbody><light pos="1 0 2" dir="-.3 0 -1"/><geom name="floor" type="plane" size="2 2 .1" rgba=".7 .7 .7 1"/>
        <camera name="front_cam" pos="1.6 0 .9" xyaxes="0 1 0 -.45 0 .89"/>
        <body name="target" mocap="true"><geom size=".02" rgba="0 1 0 1"/></body>{left}{right}{objects}</worldbody>
        <contact>{pairs}</contact><actuator>{left_servos}{right_servos}</actuator>
        <keyframe><key name="home" qpos="{joints} {poses}" ctrl="{joints}"/></keyframe></mujoco>"""
    folder = tmp_path_factory.mktemp("bimanual")
    for side in ("left", "right"):
        (folder / f"{side}.xml").write_text(xml)
        (folder / f"{side}.robot.yaml").write_text(f"tool: {side}_tool\nobjects: [{', '.join(names)}]\n")
    return folder


def settings(scene, side):
    y = 0.3 if side == "left" else -0.3
    box = {"target_low": (0.4, y - 0.05, 0.2), "target_high": (0.5, y + 0.05, 0.3), "min_distance": 0.0}
    return {"xml_path": str(scene / f"{side}.xml"), "dt": 0.01, **box}


@pytest.mark.wide
@pytest.mark.parametrize("side", ["left", "right"])
def test_either_arm_works_while_the_other_holds_still(scene, side):
    camera = {"name": "front_cam", "width": 48, "height": 36}
    env = make_env("reach", cameras=[camera], **settings(scene, side))
    first, _ = env.reset(seed=0)
    robot, moved = env.task.robot, env.data.qpos.copy()
    assert [env.model.joint(j).name for j in robot.joints] == [f"{side}{number}" for number in range(6)]
    assert env.snapshot.object_pos.shape == (NUM_OBJECTS, 3)
    for _ in range(10):
        obs, *_ = env.step(np.array([0.3, 0.0, -0.5, -1.0], np.float32))
    assert obs["image"].shape == (36, 48, 3)
    assert len(np.unique(obs["image"].reshape(-1, 3), axis=0)) > NUM_OBJECTS
    assert np.any(obs["image"] != first["image"])
    moved = np.abs(env.data.qpos - moved)
    working = [*robot.joint_qpos, *robot.finger_qpos]
    assert moved[robot.joint_qpos].max() > 0.05
    assert moved[robot.finger_qpos].min() > 0.02, "its gripper has closed"
    others = np.setdiff1d(np.arange(16), working)
    assert moved[others].max() < 1e-3, "the other arm"
    assert moved[16:].max() < 1e-3, "the objects"


def test_a_batch_steps_two_arms_and_eight_objects(scene):
    env = make_batched_env("reach", cameras=[], impl="c", **settings(scene, "left"))
    state = jax.jit(env.init)(jax.random.key(0), jnp.arange(4))
    step = jax.jit(env.step)
    for _ in range(5):
        state = step(state, jnp.full((4, env.action_size), 0.2))
    assert state.obs["object_pos"].shape == (4, 3)
    assert np.all(np.isfinite(state.obs["joint_pos"]))
    assert not np.any(state.info["nan"])
