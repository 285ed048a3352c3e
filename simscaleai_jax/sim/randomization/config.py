"""What may be randomized, by how much, and three presets."""

import dataclasses

from simscaleai_jax.core.config import settle

Range = tuple[float, float]

# Ranges that leave the model as it is.
NOMINAL: dict[str, Range] = {
    "friction": (1.0, 1.0),
    "object_mass": (1.0, 1.0),
    "object_size": (1.0, 1.0),
    "joint_damping": (1.0, 1.0),
    "actuator_gain": (1.0, 1.0),
    "gravity": (1.0, 1.0),
    "table_height": (0.0, 0.0),
}
SCALES = tuple(name for name in NOMINAL if name != "table_height")
JITTERS = ("colour", "light_direction", "light_intensity", "camera_position", "camera_rotation")


@dataclasses.dataclass(frozen=True)
class DomainRandomizationConfig:
    """Uniform ranges (low, high) of physical parameters, and largest deviations of what the cameras see.

    The ranges of `NOMINAL` change nothing, and neither does a deviation of 0; those are the defaults.

    Attributes:
      friction: factor on sliding friction of every contact pair.
      object_mass: factor on the object's mass (its inertia follows).
      object_size: factor on the object's lengths, about its body's origin; its mass stays. Not of one with meshes.
      joint_damping: factor on the damping of every joint.
      actuator_gain: factor on stiffness and damping of every actuator.
      gravity: factor on gravity; the arm is compensated for it, the object is not.
      table_height: metres added to the table's height; objects and targets move with it.
      colour: deviation of each RGB component of every geom, colours being in [0, 1].
      light_direction: deviation of each component of a light's direction (and of its position, m).
      light_intensity: relative deviation of each light's brightness.
      camera_position: metres along each of the camera's axes.
      camera_rotation: radians about each of the camera's axes.
    """

    friction: Range = NOMINAL["friction"]
    object_mass: Range = NOMINAL["object_mass"]
    object_size: Range = NOMINAL["object_size"]
    joint_damping: Range = NOMINAL["joint_damping"]
    actuator_gain: Range = NOMINAL["actuator_gain"]
    gravity: Range = NOMINAL["gravity"]
    table_height: Range = NOMINAL["table_height"]
    colour: float = 0.0
    light_direction: float = 0.0
    light_intensity: float = 0.0
    camera_position: float = 0.0
    camera_rotation: float = 0.0

    def __post_init__(self) -> None:
        settle(self)
        for name in NOMINAL:
            low, high = getattr(self, name)
            if not low <= high:
                raise ValueError(f"randomization range {name} is inverted: {low} > {high}")
            if name in SCALES and low <= 0.0:
                raise ValueError(f"randomization factor {name} must be positive, got {low}..{high}")
        for name in JITTERS:
            if getattr(self, name) < 0.0:
                raise ValueError(f"randomization deviation {name} must not be negative, got {getattr(self, name)}")


PRESETS: dict[str, DomainRandomizationConfig] = {
    "clean": DomainRandomizationConfig(),
    "light": DomainRandomizationConfig(
        friction=(0.9, 1.1), object_mass=(0.9, 1.1), object_size=(0.97, 1.03), joint_damping=(0.9, 1.1),
        actuator_gain=(0.97, 1.03), gravity=(0.99, 1.01), table_height=(-0.005, 0.005),
        colour=0.05, light_direction=0.1, light_intensity=0.1, camera_position=0.005, camera_rotation=0.01,
    ),
    "default": DomainRandomizationConfig(
        friction=(0.7, 1.3), object_mass=(0.6, 1.6), object_size=(0.9, 1.1), joint_damping=(0.6, 1.6),
        actuator_gain=(0.9, 1.1), gravity=(0.95, 1.05), table_height=(-0.02, 0.02),
        colour=0.15, light_direction=0.3, light_intensity=0.3, camera_position=0.015, camera_rotation=0.03,
    ),
    "heavy": DomainRandomizationConfig(
        friction=(0.5, 1.5), object_mass=(0.3, 3.0), object_size=(0.75, 1.25), joint_damping=(0.3, 3.0),
        actuator_gain=(0.75, 1.25), gravity=(0.85, 1.15), table_height=(-0.05, 0.05),
        colour=0.4, light_direction=0.6, light_intensity=0.6, camera_position=0.04, camera_rotation=0.08,
    ),
}  # fmt: skip
