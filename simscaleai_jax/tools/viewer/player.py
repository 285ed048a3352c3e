"""A player in the browser: the scene in 3D, play and pause, steps, episodes, reward terms, cameras."""

import threading
import time
from typing import Any

import mujoco
import numpy as np

from simscaleai_jax.sim.cameras import portrait_camera
from simscaleai_jax.sim.render import make_host_renderer
from simscaleai_jax.tools.viewer.geometry import shapes
from simscaleai_jax.tools.viewer.recording import Recording

PICTURE = (240, 320)  # pixels of a camera's picture, height and width
PICTURES_PER_SECOND = 5.0  # at most: each takes the CPU some milliseconds
SPEEDS = ("0.25x", "0.5x", "1x", "2x", "4x")


class Player:
    """Serves one recording; `play` moves it until it is closed."""

    def __init__(self, recording: Recording, title: str, host: str = "127.0.0.1", port: int = 8080) -> None:
        """Opens the server.

        Args:
          recording: what to show.
          title: what the page says about it, Markdown.
          host: address to listen on; 0.0.0.0 lets other machines see it.
          port: the first that is tried; the next free one is taken where it is in use.
        """
        import viser

        self.recording = recording
        self.data = mujoco.MjData(recording.model)
        self.renderer = make_host_renderer(recording.model)
        self.is_closed = threading.Event()
        self._picture_time, self._is_stale = 0.0, True
        self.server = viser.ViserServer(host, port, label="simscale view", verbose=False)
        self.port = self.server.get_port()
        self._build_scene()
        self._build_panel(title)
        self.show()

    def _build_scene(self) -> None:
        scene, model = self.server.scene, self.recording.model
        scene.set_up_direction("+z")
        scene.configure_default_lights()
        self.meshes = {}
        for geom, vertices, faces, rgba in shapes(model):
            name = model.geom(geom).name or str(geom)
            colour = np.round(255 * np.clip(rgba[:3], 0, 1)).astype(np.uint8)
            self.meshes[geom] = scene.add_mesh_simple(
                f"/geoms/{geom}_{name.replace('/', '_')}",
                vertices,
                faces,
                color=colour,
                opacity=None if rgba[3] >= 1 else float(rgba[3]),
                flat_shading=model.geom_type[geom] == mujoco.mjtGeom.mjGEOM_BOX,
                side="double",
            )
        self.recording.pose(self.data, 0, 0)
        centre, position = model.stat.center, model.stat.center + model.stat.extent * np.array([0.8, -0.8, 0.5])
        if model.ncam:
            position = self.data.cam_xpos[model.camera(portrait_camera(model)).id]
        view = self.server.initial_camera
        view.position, view.look_at = tuple(position.tolist()), tuple(centre.tolist())

    def _build_panel(self, title: str) -> None:
        gui, recording = self.server.gui, self.recording
        gui.add_markdown(title)
        self.labels = [
            f"{k}: {'success' if recording.successes[k] else 'failure'}, return {recording.returns(k)[-1]:.2f}"
            for k in range(recording.num_episodes)
        ]
        self.episodes = gui.add_dropdown("Episode", self.labels)
        self.button = gui.add_button("Pause")
        self.steps = gui.add_slider("Step", 0, max(1, int(recording.lengths[0]) - 1), 1, 0)
        self.speed = gui.add_dropdown("Speed", SPEEDS, initial_value="1x")
        cameras = [recording.model.camera(i).name for i in range(recording.model.ncam)]
        self.camera = gui.add_dropdown("Camera", (*cameras, "none")) if cameras else None
        self.picture = gui.add_image(np.zeros((*PICTURE, 3), np.uint8), visible=bool(cameras))
        self.numbers = gui.add_markdown("")
        self.chart = gui.add_uplot(*self._curves(), title="Reward terms", aspect=1.4)
        self.is_playing, self._episode = True, 0
        self.button.on_click(lambda _: self._toggle())
        for handle in filter(None, (self.episodes, self.steps, self.camera)):
            handle.on_update(lambda _: self._mark_stale())

    @property
    def episode(self) -> int:
        """The one that is chosen."""
        return self.labels.index(self.episodes.value)

    def play(self) -> None:
        """Moves the scene until `close`: a step, as long as the robot takes for it, at the speed that is chosen."""
        while not self.is_closed.is_set():
            started = time.perf_counter()
            if self.is_playing:
                self._advance()
            if self._is_stale:
                self.show()
            speed = float(self.speed.value.removesuffix("x"))
            self.is_closed.wait(max(0.005, self.recording.seconds_per_step / speed - (time.perf_counter() - started)))

    def show(self) -> None:
        """Puts the scene, the numbers and the picture at the chosen step; another episode begins at its first."""
        self._is_stale = False
        episode = self.episode
        last = int(self.recording.lengths[episode]) - 1
        if episode != self._episode:
            self._episode, self.steps.max, self.steps.value = episode, max(1, last), 0
            self.chart.data, self.chart.series = self._curves()
        step = min(int(self.steps.value), last)
        self.recording.pose(self.data, episode, step)
        quat = np.empty(4)
        with self.server.atomic():
            for geom, mesh in self.meshes.items():
                mujoco.mju_mat2Quat(quat, self.data.geom_xmat[geom])
                mesh.position, mesh.wxyz = self.data.geom_xpos[geom].copy(), quat.copy()
        rows = [f"| {name} | {values[step, episode]:.4f} |" for name, values in self.recording.terms.items()]
        total = f"| **return so far** | **{self.recording.returns(episode)[step]:.3f}** |"
        self.numbers.content = "\n".join(["| reward term | now |", "|---|---|", *rows, total])
        self._draw_picture()

    def close(self) -> None:
        """Ends `play` and the server."""
        self.is_closed.set()
        self.server.stop()
        self.renderer.close()

    def _advance(self) -> None:
        """The next step, or the first of the next episode."""
        if self.episode == self._episode and self.steps.value < self.recording.lengths[self._episode] - 1:
            self.steps.value = int(self.steps.value) + 1
        elif self.episode == self._episode:
            self.episodes.value = self.labels[(self._episode + 1) % len(self.labels)]
        self._is_stale = True

    def _mark_stale(self) -> None:
        self._is_stale = True

    def _toggle(self) -> None:
        self.is_playing = not self.is_playing
        self.button.label = "Pause" if self.is_playing else "Play"
        self._is_stale = True

    def _draw_picture(self) -> None:
        now = time.perf_counter()
        if self.camera is None:
            return
        is_shown = self.camera.value != "none"
        if self.picture.visible != is_shown:
            self.picture.visible = is_shown
        if is_shown and (not self.is_playing or now - self._picture_time >= 1 / PICTURES_PER_SECOND):
            height, width = PICTURE
            self.picture.image = self.renderer.picture(self.data, self.camera.value, width, height)
            self._picture_time = now

    def _curves(self) -> tuple[Any, Any]:
        """Data and series of the chart: every reward term of the episode against its steps."""
        import viser.uplot

        length = int(self.recording.lengths[self.episode])
        colours = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#7f7f7f")
        lines = [
            viser.uplot.Series(label=name, stroke=colours[i % len(colours)], width=1.5)
            for i, name in enumerate(self.recording.terms)
        ]
        values = [np.asarray(each[:length, self.episode], np.float64) for each in self.recording.terms.values()]
        return (np.arange(length, dtype=np.float64), *values), (viser.uplot.Series(label="step"), *lines)
