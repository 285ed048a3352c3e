"""Tasks that are told what to do: each episode's instruction means its goal, everywhere."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from simscaleai_jax.core.text import tokenize
from simscaleai_jax.datagen.experts import make_expert
from simscaleai_jax.sim import make_batched_env, make_env, make_functional_env, make_vec_env
from simscaleai_jax.sim.envs.episodes import rollout
from simscaleai_jax.sim.registry import find_expert
from simscaleai_jax.sim.tasks import pick_place_language, reach_language
from simscaleai_jax.sim.tasks.instructions import Instructions
from tests.params import others_wide

from .scenes import HALF, PRESSED, assert_inside, scene, starts, task

NAMES = ("reach_language", "pick_place_language")


def said(tokens):
    """The text of token ids."""
    known = {tuple(row): text for name in NAMES for text in task(name).instructions.sentences
             for row in tokenize([text], 64)}  # fmt: skip
    return known[tuple(np.asarray(tokens, int))]


def means(name, text):
    """The number of the goal that a sentence names, read off its words."""
    words = text.replace(",", "").replace("?", "").split()
    if name == "reach_language":
        return next(i for i, colour in enumerate(reach_language.COLOURS) if colour in words)
    return next(i for i, goal in enumerate(pick_place_language.GOALS) if set(goal) <= set(words))


@pytest.mark.parametrize("phrases", ["train", "held_out"])
@pytest.mark.parametrize("name", NAMES)
def test_every_episode_is_told_its_goal(name, phrases):
    of = task(name, phrases=phrases)
    _, state = starts(of)
    texts = [of.instructions.sentences[number] for number in state.sentence]
    assert [means(name, text) for text in texts] == state.goal.tolist()
    known = getattr(of.instructions, phrases)
    assert set(texts) <= {text for of_goal in known for text in of_goal}
    goals = len(of.instructions.goals)
    assert np.bincount(state.goal, minlength=goals).min() > 0.7 * len(texts) / goals
    assert [means(name, text) for text in of.instructions.goals] == list(range(goals))


@pytest.mark.parametrize("name", NAMES)
def test_sentences_held_out_are_in_no_demonstration(name):
    known = task(name).instructions
    assert not {text for of in known.train for text in of} & {text for of in known.held_out for text in of}
    with pytest.raises(ValueError, match="wanted different sentences"):
        Instructions(("a", "b"), (("go",), ("went",)), (("go",), ("gone",)))
    with pytest.raises(ValueError, match="train: wanted as many sentences of each of 2 goals"):
        Instructions(("a", "b"), (("go", "do"), ("went",)), (("x",), ("y",)))
    with pytest.raises(ValueError, match="characters that models do not read: é"):
        Instructions(("a",), (("allé",),), (("x",),))


@pytest.mark.parametrize("name", NAMES)
def test_things_lie_apart_and_inside(name):
    of = task(name)
    start, state = starts(of)
    places = state.balls_pos if name == "reach_language" else start.qpos[:, of.robot.object_qpos[:, :3]]
    for first, second in ((0, 1), (0, 2), (1, 2)):
        assert np.linalg.norm(places[:, first] - places[:, second], axis=1).min() >= of.config.min_distance - 1e-6
    markers = start.mocap_pos[:, of.robot.target_mocaps]
    if name == "reach_language":
        np.testing.assert_array_equal(markers, places)
    else:  # the pads lie on the table, left and right
        np.testing.assert_allclose(markers[0], [[0.5, 0.25, 0.0], [0.5, -0.25, 0.0]], atol=1e-6)
    low, high = (np.float32(bound) for bound in (of.config.area_low, of.config.area_high))
    assert np.all((places[..., :2] >= low) & (places[..., :2] <= high))


@pytest.mark.parametrize("name", NAMES)
def test_settings_are_checked(name):
    with pytest.raises(ValueError, match=r"Unknown phrases 'heldout'\. Available: held_out, train|held_out"):
        task(name, phrases="heldout")
    with pytest.raises(ValueError, match="min_distance must be"):
        task(name, min_distance=0.2)


@pytest.mark.parametrize("name", NAMES)
def test_the_goal_is_observed_only_where_it_is_asked_for(name):
    now = scene(task(name), *[(0.5, y, HALF) for y in (-0.1, 0.0, 0.1)][: 3 * (name != "reach_language")])
    for shown in (False, True):
        of = task(name, observe_goal=shown)
        _, state = of.sample(jax.random.key(0), {})
        obs = of.observe(now, state)
        assert ("goal" in obs) == shown
        assert_inside(obs, of.observation_bounds())


def test_touching_another_ball_is_failure():
    of = task("reach_language")
    _, state = of.sample(jax.random.key(1), {})
    for ball in range(3):
        now = scene(of, ee_pos=np.add(state.balls_pos[ball], (0.0, 0.0, 0.04)))
        info = of.info(now, state)
        assert (bool(info["success"]), bool(info["failed"])) == (ball == state.goal, ball != state.goal)
        assert of.terminated(now, state)
        reward = of.reward_terms(now, state, jnp.zeros(4), jnp.int32(50))["touch"]
        assert reward == (50.0 if ball == state.goal else -50.0)
    assert not of.terminated(scene(of), state)


def put(cube, *, goal, side="left", height=HALF, touch=(0.0, 0.0), lifted=True):
    """Information on a scene in which that cube lies on the middle of a pad, in an episode with that goal."""
    of = task("pick_place_language")
    _, state = of.sample(jax.random.key(0), {})
    rest = HALF
    y = of.config.pad_pos[1] * (1 if goal % 2 == 0 else -1)
    target = jnp.array([of.config.pad_pos[0], y, rest], jnp.float32)
    state = state.replace(goal=jnp.int32(goal), target_pos=target, lifted=jnp.bool_(lifted))
    cubes = [(0.5, place, HALF) for place in (-0.1, 0.0, 0.1)]
    cubes[cube] = (0.5, of.config.pad_pos[1] * (1 if side == "left" else -1), height)
    touches = np.zeros((3, 2), np.float32)
    touches[cube] = touch
    now = scene(of, *cubes).replace(touch=jnp.asarray(touches))
    state = of.update(now, state, jnp.zeros(4))
    return {key: np.asarray(value).item() for key, value in of.info(now, state).items()}


@pytest.mark.parametrize("goal", others_wide(range(6), 0, 3))
def test_the_right_cube_on_the_right_pad_is_success(goal):
    colour, side = pick_place_language.GOALS[goal]
    cube = pick_place_language.COLOURS.index(colour)
    assert put(cube, goal=goal, side=side)["success"]
    other = "right" if side == "left" else "left"
    wrong = put(cube, goal=goal, side=other)
    assert wrong["failed"]
    assert not wrong["success"]
    for unfinished in ({"touch": PRESSED}, {"height": HALF + 0.015}, {"lifted": False}):
        info = put(cube, goal=goal, side=side, **unfinished)
        assert (info["success"], info["failed"]) == (False, False), unfinished


def test_lifting_another_cube_is_failure():
    for cube in range(3):
        info = put(cube, goal=2, height=0.1, lifted=False)  # the blue one, number 1, on the left pad
        assert info["failed"] == (cube != 1)
        assert not info["success"]


def test_an_instruction_stays_with_its_episode_through_auto_reset():
    env = make_batched_env("reach_language", cameras=[], dt=0.01, impl="c", max_episode_steps=5)
    table = tokenize(list(env.functional.task.instructions.sentences), 64)
    step, state = jax.jit(env.step), jax.jit(env.init)(jax.random.key(0), jnp.arange(16))
    told = [np.asarray(state.env.task_state.sentence)]
    for _ in range(12):
        before = np.asarray(state.obs["language"])
        state = step(state, jnp.zeros((16, env.action_size)))
        now = np.asarray(state.env.task_state.sentence)
        np.testing.assert_array_equal(state.obs["language"], table[now])
        np.testing.assert_array_equal(state.final_obs["language"], before)
        done = np.asarray(state.done)
        assert (now[~done] == told[-1][~done]).all()
        told.append(now)
    assert len(np.unique(told)) > 20


@pytest.mark.wide
def test_gymnasium_tells_the_sentence():
    env = make_env("reach_language", cameras=[], dt=0.01)
    obs, info = env.reset(seed=3)
    assert env.observation_space.contains(obs)
    assert said(obs["language"]) == info["instruction"]
    again, more = env.step(np.zeros(4, np.float32))[0::4]
    assert more["instruction"] == info["instruction"]
    assert (again["language"] == obs["language"]).all()
    assert len({env.reset(seed=seed)[1]["instruction"] for seed in range(12)}) > 8
    envs = make_vec_env("reach_language", num_envs=3, dt=0.01)
    envs.reset(seed=0)
    obs, _, _, _, infos = envs.step(np.zeros((3, 4), np.float32))
    assert [said(row) for row in obs["language"]] == [env.task.instructions.sentences[i] for i in infos["sentence"]]


@functools.cache
def played(name, impl):
    """Goal, sentence and end of an expert's episodes on an engine."""
    env = make_functional_env(name, cameras=[], dt=0.01, impl=impl)
    policy = make_expert(name, env)

    @jax.jit
    def episodes(keys):
        carry = jax.vmap(policy.init_fn)(keys)
        return rollout(env, policy.act_fn, carry, keys, 100, lambda *step: ())[0]

    return jax.tree.map(np.asarray, episodes(jax.random.split(jax.random.key(5), 4)).replace(physics=None, key=None))


@pytest.mark.wide
@pytest.mark.parametrize("name", NAMES)
def test_episodes_are_the_same_on_every_engine(name):
    ours, mjx = played(name, "c"), played(name, "jax")
    for last in (ours, mjx):
        assert last.info["success"].all()
    np.testing.assert_array_equal(ours.task_state.sentence, mjx.task_state.sentence)
    np.testing.assert_array_equal(ours.obs["language"], mjx.obs["language"])
    if name == "reach_language":  # where nothing touches, every step is the same
        np.testing.assert_array_equal(ours.step, mjx.step)
    host = make_env(name, cameras=[], dt=0.01)
    act = jax.jit(find_expert(name, host.task).act)
    for number, key in enumerate(jax.random.split(jax.random.key(5), 4)):
        obs, info = host.reset(options={"key": key})
        assert info["sentence"] == ours.task_state.sentence[number]
        phase, is_over = find_expert(name, host.task).first_phase, False
        while not is_over:
            action, phase = act(host.snapshot, host.task_state, phase)
            obs, _, terminated, truncated, info = host.step(np.asarray(action))
            is_over = terminated or truncated
        assert info["success"]
        if name == "reach_language":
            assert info["step"] == ours.step[number]
            np.testing.assert_allclose(obs["ee_pos"], ours.obs["ee_pos"][number], atol=1e-3)


def test_scenes_show_all_three_colours():
    env = make_env("reach_language", cameras=["wrist_cam"], dt=0.01)
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        red, green, blue = np.moveaxis(obs["image"].astype(int), -1, 0)
        for seen in ((red > 2 * green) & (red > 2 * blue), (green > 2 * red) & (green > 2 * blue), blue > 2 * red):
            assert seen.sum() > 20
