"""A scene with one geom of each drawn kind, and random poses for it."""

import mujoco
import numpy as np

KINDS = ("sphere", "capsule", "cylinder", "box", "ellipsoid")

GALLERY = """
<mujoco>
  <statistic extent="2"/>
  <asset>
    <texture name="grid" type="2d" builtin="checker" rgb1=".2 .3 .4" rgb2=".6 .7 .8" width="64" height="64"/>
    <material name="grid" texture="grid" texrepeat="2 2" texuniform="true"/>
    <material name="paint" rgba=".1 .6 .2 1"/>
  </asset>
  <default><geom contype="0" conaffinity="0" mass="1"/></default>
  <worldbody>
    <light name="lamp" pos="0 0 3" diffuse=".6 .6 .6"/>
    <light name="sun" directional="true" dir="-.3 .2 -1" diffuse=".3 .3 .3"/>
    <geom name="floor" type="plane" size="1.5 1 .1" material="grid"/>
    <body name="sphere"><freejoint/><geom type="sphere" size=".12" rgba="1 0 0 1"/></body>
    <body name="capsule"><freejoint/><geom type="capsule" size=".06 .15" rgba="0 1 0 1"/></body>
    <body name="cylinder"><freejoint/><geom type="cylinder" size=".08 .12" rgba="0 0 1 1"/></body>
    <body name="box"><freejoint/>
      <geom type="box" size=".1 .15 .05" rgba="1 1 0 1"/>
      <camera name="rider" pos="0 0 .3" xyaxes="0 1 0 -1 0 .2" fovy="60"/>
    </body>
    <body name="ellipsoid"><freejoint/><geom type="ellipsoid" size=".06 .1 .16" material="paint"/></body>
    <geom name="hidden" type="sphere" size=".5" pos="0 0 .5" group="3"/>
    <geom name="clear" type="sphere" size=".5" pos="0 0 .5" rgba="1 1 1 0"/>
    <camera name="front" pos="1.6 0 1" xyaxes="0 1 0 -.5 0 .9" fovy="50"/>
    <camera name="chaser" mode="trackcom" pos="1 0 1"/>
  </worldbody>
</mujoco>
"""


def random_states(model: mujoco.MjModel, count: int) -> list[mujoco.MjData]:
    """Data with every free body somewhere above the floor, turned at random."""
    rng = np.random.default_rng(0)
    states = []
    for _ in range(count):
        data = mujoco.MjData(model)
        qpos = data.qpos.reshape(-1, 7)
        qpos[:, :3] = rng.uniform([-0.6, -0.6, 0.2], [0.6, 0.6, 0.8], (len(qpos), 3))
        qpos[:, 3:] = rng.normal(size=(len(qpos), 4))
        qpos[:, 3:] /= np.linalg.norm(qpos[:, 3:], axis=-1, keepdims=True)
        mujoco.mj_forward(model, data)
        states.append(data)
    return states


def body_poses(data: mujoco.MjData) -> tuple[np.ndarray, np.ndarray]:
    """float32 positions (N, 3) and rotations (N, 3, 3)."""
    return data.xpos.astype(np.float32), data.xmat.reshape(-1, 3, 3).astype(np.float32)


def away_from_edges(ids: np.ndarray, width: int) -> np.ndarray:
    """Mask of the pixels whose neighbours within `width` pixels all show the same geom."""
    padded = np.pad(ids, width, mode="edge")
    same = np.ones(ids.shape, bool)
    for row in range(2 * width + 1):
        for column in range(2 * width + 1):
            same &= padded[row : row + ids.shape[0], column : column + ids.shape[1]] == ids
    return same


def assert_same_images(images: dict, expected: dict) -> None:
    """Equal but for rounding: another program may fuse its sums differently."""
    assert set(images) == set(expected)
    assert np.mean(np.asarray(images["segmentation"]) == expected["segmentation"]) > 0.999
    stable = np.asarray(images["segmentation"]) == expected["segmentation"]
    np.testing.assert_allclose(np.asarray(images["depth"])[stable], np.asarray(expected["depth"])[stable], rtol=1e-4)
    difference = np.abs(np.asarray(images["rgb"], int) - np.asarray(expected["rgb"], int))
    assert np.mean(difference <= 1) > 0.999
