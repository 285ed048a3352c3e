"""Each primitive's intersections and normals against MuJoCo's own rays, and the awkward directions."""

import jax
import jax.numpy as jnp
import mujoco
import numpy as np
import pytest

from simscaleai_jax.sim.render.shapes import DISTANCE, MISS, NORMAL, Shape

SIZES = {
    "plane": (0.7, 0.4, 0.1),
    "sphere": (0.3, 0.0, 0.0),
    "capsule": (0.15, 0.3, 0.0),
    "cylinder": (0.2, 0.25, 0.0),
    "box": (0.2, 0.3, 0.1),
    "ellipsoid": (0.15, 0.3, 0.2),
}
NUM_RAYS = 4000


def shape_of(kind: str, centre: np.ndarray, frame: np.ndarray) -> Shape:
    axes = tuple(tuple(frame[:, i].astype(np.float32)) for i in range(3))
    size = tuple(np.float32(s) for s in SIZES[kind])
    return Shape(tuple(centre.astype(np.float32)), axes, size, is_endless=False)


def mujoco_rays(kind: str, centre, frame, rays) -> tuple[np.ndarray, np.ndarray]:
    """Distances (-1 for a miss) and normals that MuJoCo's C code finds from the origin."""
    quat = np.zeros(4)
    mujoco.mju_mat2Quat(quat, frame.ravel())
    numbers = [" ".join(f"{x:.9g}" for x in values) for values in (SIZES[kind], centre, quat)]
    model = mujoco.MjModel.from_xml_string(
        "<mujoco><worldbody><geom type='{}' size='{}' pos='{}' quat='{}'/></worldbody></mujoco>".format(kind, *numbers)
    )
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    distances, normals = np.zeros(len(rays)), np.zeros((len(rays), 3))
    for i, ray in enumerate(rays):
        distances[i] = mujoco.mj_ray(model, data, np.zeros(3), ray, None, True, -1, None, normals[i])
    return distances, normals


def random_frame(rng: np.random.Generator) -> np.ndarray:
    frame, _ = np.linalg.qr(rng.normal(size=(3, 3)))
    return frame * np.sign(np.linalg.det(frame))


@pytest.mark.parametrize("kind", sorted(SIZES))
def test_distance_and_normal_equal_mujoco_rays(kind):
    rng = np.random.default_rng(3)
    frame = random_frame(rng)
    centre = np.array([0.3, -0.2, -1.1])
    if kind == "plane" and frame[:, 2] @ centre > 0:  # C MuJoCo sees a plane from its front only
        frame = frame @ np.diag([1.0, -1.0, -1.0])
    rays = centre + rng.uniform(-0.6, 0.6, (NUM_RAYS, 3))
    rays *= rng.uniform(0.5, 2.0, (NUM_RAYS, 1))
    expected, normals = mujoco_rays(kind, centre, frame, rays)

    @jax.jit
    def cast(x, y, z):
        shape = shape_of(kind, centre, frame)
        distance = DISTANCE[kind](shape, (x, y, z))
        normal = jnp.stack(NORMAL[kind](shape, (distance * x, distance * y, distance * z)), axis=-1)
        return distance, normal / jnp.linalg.norm(normal, axis=-1, keepdims=True)

    distance, normal = (np.asarray(a) for a in cast(*rays.T.astype(np.float32)))
    is_hit = expected >= 0
    assert 0.1 < is_hit.mean() < 0.9
    assert np.mean((distance < 0.5 * MISS) == is_hit) > 0.999  # silhouettes round either way
    both = is_hit & (distance < 0.5 * MISS)
    # A grazing hit amplifies rounding by one over the cosine of incidence.
    cosine = np.abs(np.sum(normals * rays, axis=1)) / np.linalg.norm(rays, axis=1)
    error = np.abs(distance - expected)
    assert np.max((error * cosine)[both]) < 2e-5
    assert (
        np.mean(np.sum(normal * normals, axis=1)[both] > 0.9999) > 0.99
    )  # edges of boxes and cylinders round either way


@pytest.mark.parametrize("kind", sorted(SIZES))
def test_a_shape_behind_the_rays_is_not_in_front(kind):
    centre = np.array([0.1, 0.1, 2.0])
    rays = np.random.default_rng(0).uniform([-0.5, -0.5, -1], [0.5, 0.5, -1], (200, 3)).astype(np.float32)
    distance = DISTANCE[kind](shape_of(kind, centre, np.eye(3)), tuple(rays.T))
    assert np.all((np.asarray(distance) < 0) | (np.asarray(distance) >= 0.5 * MISS))


@pytest.mark.parametrize("kind", ["capsule", "cylinder", "box", "ellipsoid", "sphere"])
def test_a_ray_along_an_axis_hits_the_near_end(kind):
    """Directions with exact zeros divide by nothing."""
    half = {"capsule": 0.45, "cylinder": 0.25, "box": 0.1, "ellipsoid": 0.2, "sphere": 0.3}[kind]
    ray = tuple(jnp.float32(x) for x in (0.0, 0.0, -1.0))
    shape = shape_of(kind, np.array([0.0, 0.0, -2.0]), np.eye(3))
    assert float(DISTANCE[kind](shape, ray)) == pytest.approx(2.0 - half, abs=1e-5)


def test_a_ray_in_the_plane_never_meets_it():
    shape = shape_of("plane", np.array([0.0, 0.0, -0.5]), np.eye(3))
    rays = tuple(jnp.array(x, jnp.float32) for x in ([1.0, 0.6, 0.0], [0.0, 0.6, 1.0], [0.0, 0.0, 0.0]))
    assert np.all(np.asarray(DISTANCE["plane"](shape, rays)) >= 0.5 * MISS)
    endless = shape._replace(is_endless=True)
    assert np.all(np.abs(np.asarray(DISTANCE["plane"](endless, rays))) > 1e6)


def test_from_inside_nothing_is_entered():
    """As with back-face culling, the walls around the rays' origin are not seen."""
    rays = tuple(np.random.default_rng(1).normal(size=(3, 100)).astype(np.float32))
    for kind in ("sphere", "capsule", "cylinder", "box", "ellipsoid"):
        distance = np.asarray(DISTANCE[kind](shape_of(kind, np.zeros(3), np.eye(3)), rays))
        assert np.all((distance < 0) | (distance >= 0.5 * MISS)), kind
