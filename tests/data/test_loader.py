import demo_files
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simscaleai_jax.core.sharding import make_mesh
from simscaleai_jax.training.data import DummyTrajectoryDataset, TrajectoryDataset, make_loader
from simscaleai_jax.training.data.augment import ImageAugmentation, augment_images
from simscaleai_jax.training.data.device import DeviceLoader
from simscaleai_jax.training.data.sampling import BatchIndices, batch_indices, shuffled_index
from simscaleai_jax.training.data.stream import StreamLoader


class TestOrder:
    @settings(max_examples=40, deadline=None)
    @given(st.integers(1, 2000), st.integers(0, 5), st.integers(0, 2**32 - 1))
    def test_every_epoch_holds_every_sample_once(self, num_samples, epoch, seed):
        order = shuffled_index(np.arange(num_samples), num_samples, epoch, seed)
        np.testing.assert_array_equal(np.sort(order), np.arange(num_samples))

    def test_epochs_and_seeds_differ_and_look_random(self):
        orders = [shuffled_index(np.arange(1000), 1000, epoch, seed) for epoch, seed in ((0, 0), (1, 0), (0, 1))]
        for first, second in ((0, 1), (0, 2)):
            assert (orders[first] == orders[second]).mean() < 0.02
        steps = np.abs(np.diff(orders[0].astype(int)))
        assert 250 < steps.mean() < 420  # a third of the range for a random order, 1 for the identity

    def test_numpy_and_jax_agree(self):
        for step in (0, 7, 41):
            host = batch_indices(step, 16, 333, 5, True)
            device = jax.jit(lambda s: batch_indices(s, 16, 333, 5, True, jnp))(step)
            np.testing.assert_array_equal(host, device)


def rows_of(dataset: TrajectoryDataset, loader, step: int) -> list[dict]:
    """The items that batch `step` should hold."""
    return [dataset[int(i)] for i in batch_indices(step, loader.batch_size, len(dataset), loader.seed, True)]


def check_batch(batch: dict, items: list[dict]) -> None:
    for key in items[0]["observations"]:
        wanted = np.stack([item["observations"][key] for item in items])
        np.testing.assert_allclose(np.asarray(batch["observations"][key]), wanted, atol=1e-6, err_msg=key)
    np.testing.assert_array_equal(np.asarray(batch["actions"]), np.stack([item["actions"] for item in items]))
    assert ("is_pad" in batch) == ("is_pad" in items[0])
    if "is_pad" in batch:
        np.testing.assert_array_equal(np.asarray(batch["is_pad"]), np.stack([item["is_pad"] for item in items]))


@pytest.mark.parametrize(("seq_len", "obs_horizon"), [(1, None), (4, None), (4, 1), (4, 3), (1, 2)])
def test_device_batches_equal_the_items(demos, seq_len, obs_horizon):
    dataset = TrajectoryDataset(demos[0], seq_len=seq_len, obs_horizon=obs_horizon)
    loader = make_loader(dataset, 4, seed=3)
    assert isinstance(loader, DeviceLoader)
    for step in range(7):  # into the second epoch
        check_batch(next(loader), rows_of(dataset, loader, step))


@pytest.mark.parametrize(("seq_len", "obs_horizon"), [(1, None), (4, None), (4, 1), (2, 4)])
@pytest.mark.parametrize("split", [None, "success"])
def test_past_device_mb_the_same_batches_are_streamed(demos, seq_len, obs_horizon, split):
    dataset = TrajectoryDataset(demos[0], seq_len=seq_len, obs_horizon=obs_horizon, split=split)
    resident, streamed = make_loader(dataset, 4, seed=3), make_loader(dataset, 4, seed=3, device_mb=0)
    assert (type(resident), type(streamed)) == (DeviceLoader, StreamLoader)
    for _ in range(7):
        one, two = next(resident), next(streamed)
        assert jax.tree.structure(one) == jax.tree.structure(two)
        jax.tree.map(np.testing.assert_array_equal, one, two)
        assert jax.tree.map(lambda leaf: leaf.dtype, one) == jax.tree.map(lambda leaf: leaf.dtype, two)


def test_indices_of_many_batches_at_a_time_are_those_of_each():
    for shuffle in (True, False):
        indices = BatchIndices(16, 333, 5, shuffle)
        for step in (0, 63, 64, 19, 10**6, 2**33):
            np.testing.assert_array_equal(indices(step), batch_indices(step, 16, 333, 5, shuffle))


def test_a_transform_is_applied_item_by_item(demos):
    def doubled(item):
        return item | {"actions": 2 * item["actions"]}

    plain, changed = (TrajectoryDataset(demos[0], transform=t) for t in (None, doubled))
    one, two = (next(make_loader(data, 4, seed=3, device_resident=False)) for data in (plain, changed))
    np.testing.assert_array_equal(2 * one["actions"], two["actions"])
    jax.tree.map(np.testing.assert_array_equal, one["observations"], two["observations"])


def test_stream_batches_equal_the_items(image_demos):
    dataset = TrajectoryDataset(image_demos[0], seq_len=2, include_language=True)
    loader = make_loader(dataset, 4, seed=3)
    assert isinstance(loader, StreamLoader)
    for step in range(7):
        batch, items = next(loader), rows_of(dataset, loader, step)
        check_batch(batch, items)
        assert batch["language"] == [item["language"] for item in items]
        assert batch["observations"]["image"].shape == (4, 2, 3, 12, 12)


@pytest.mark.parametrize("kind", ["device", "stream", "states"])
@pytest.mark.parametrize("workers", [0, 3])
def test_resume_is_exact_and_checked(demos, image_demos, kind, workers):
    dataset = TrajectoryDataset(image_demos[0] if kind == "stream" else demos[0])
    options = {"augmentation": ImageAugmentation(2) if kind == "stream" else None, "num_workers": workers}
    options |= {"device_mb": 0} if kind == "states" else {}
    first, second = (make_loader(dataset, 4, seed=1, **options) for _ in range(2))
    for _ in range(3):
        next(first)
    next(second)  # it has read ahead by then
    state = first.get_state()
    wanted = [next(first) for _ in range(4)]
    second.set_state(state)
    for batch in wanted:
        jax.tree.map(np.testing.assert_array_equal, next(second), batch)
    with pytest.raises(ValueError, match=r"num_samples 999 \(here 20\)"):
        second.set_state(state | {"num_samples": 999})


def test_epochs_end(demos):
    loader = make_loader(TrajectoryDataset(demos[0]), 6, num_epochs=2)
    assert loader.steps_per_epoch == 3
    assert len(list(loader)) == 6


@pytest.mark.parametrize("seq_len", [1, 4])
@pytest.mark.parametrize("batch_size", [6, 64])
def test_the_rest_of_an_epoch_counts_once(demos, seq_len, batch_size):
    dataset = TrajectoryDataset(demos[0], seq_len=seq_len)
    options = {"shuffle": False, "drop_last": False, "num_epochs": 1}
    for device_mb in (1, 0):
        batches = list(make_loader(dataset, batch_size, device_mb=device_mb, **options))
        assert len(batches) == -(-20 // batch_size)
        actions, is_pad = (np.concatenate([batch[name] for batch in batches]) for name in ("actions", "is_pad"))
        assert is_pad[20:].all()
        np.testing.assert_array_equal(actions[:20], np.stack([dataset[i]["actions"] for i in range(20)]))
        wanted = [dataset[i].get("is_pad", np.zeros(())) for i in range(20)]
        np.testing.assert_array_equal(is_pad[:20], np.stack(wanted).astype(bool))


@pytest.mark.parametrize("kind", ["device", "stream"])
def test_batches_are_sharded_and_the_same_on_any_mesh(demos, image_demos, kind):
    dataset = TrajectoryDataset(demos[0] if kind == "device" else image_demos[0])
    augmentation = ImageAugmentation(2) if kind == "stream" else None
    mesh = make_mesh(jax.devices()[:8])
    assert mesh.size == 8
    batch = next(make_loader(dataset, 8, mesh=mesh, augmentation=augmentation))
    alone = next(make_loader(dataset, 8, augmentation=augmentation))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), batch, alone)
    for leaf in jax.tree.leaves(batch):
        assert {shard.data.shape[0] for shard in leaf.addressable_shards} == {1}


def test_one_trace_only(demos):
    traces = []
    loader = make_loader(TrajectoryDataset(demos[0]), 4)
    loader._sample = jax.jit(lambda data, step: traces.append(0) or loader.batch_at(data, step))
    for _ in range(5):
        next(loader)
    assert len(traces) == 1


@pytest.mark.wide
def test_worker_processes_give_the_same_batches(image_demos):
    dataset = TrajectoryDataset(image_demos[0], include_language=True)
    alone, workers = make_loader(dataset, 4), make_loader(dataset, 4, num_workers=2)
    for _ in range(6):
        one, two = next(alone), next(workers)
        assert one.pop("language") == two.pop("language")
        jax.tree.map(np.testing.assert_array_equal, one, two)


def test_dummy_data_feeds_both_loaders():
    states = make_loader(DummyTrajectoryDataset(40), 8)
    assert next(states)["observations"]["state"].shape == (8, 20)
    images = make_loader(DummyTrajectoryDataset(40, image_size=(6, 6), include_image=True), 8)
    assert next(images)["observations"]["image"].shape == (8, 3, 6, 6)


def test_bad_options(demos):
    dataset = TrajectoryDataset(demos[0])
    with pytest.raises(ValueError, match="batch_size 21 does not fit a data set of 20"):
        make_loader(dataset, 21)
    with pytest.raises(ValueError, match="strings do not live on devices"):
        make_loader(TrajectoryDataset(demos[0], include_language=True), 4, device_resident=True)
    with pytest.raises(ValueError, match="more than device_mb=1e-06"):
        make_loader(dataset, 4, device_resident=True, device_mb=1e-6)
    with pytest.raises(ValueError, match="does not split evenly"):
        make_loader(dataset, 4, mesh=make_mesh(jax.devices()[:8]))


class TestAugmentation:
    def images(self, time: int = 3):
        return jnp.asarray(np.random.default_rng(0).random((4, time, 3, 10, 10)), jnp.float32)

    def test_shift_moves_whole_windows_and_repeats_edges(self):
        images = self.images()
        moved = augment_images(jax.random.key(0), images, ImageAugmentation(3, 0.0, 0.0, 0.0))
        padded = np.pad(np.asarray(images), [(0, 0)] * 3 + [(3, 3)] * 2, mode="edge")
        offsets = []
        for before, after in zip(padded, np.asarray(moved), strict=True):
            fits = [
                (y, x)
                for y in range(7)
                for x in range(7)
                if np.allclose(before[..., y : y + 10, x : x + 10], after, atol=1e-5)
            ]
            assert len(fits) == 1  # one offset for all frames of a window
            offsets += fits
        assert len(set(offsets)) > 1

    def test_jitter_changes_colours_within_bounds(self):
        images = self.images()
        jittered = augment_images(jax.random.key(1), images, ImageAugmentation(0, 0.3, 0.0, 0.0))
        ratio = np.asarray(jittered / images)
        brightest = np.asarray(images * 1.3).max(axis=(1, 2, 3, 4)) < 1.0
        for window, unclipped in zip(ratio, brightest, strict=True):
            if unclipped:
                assert window.std() < 1e-5
        assert ratio.min() >= 0.7
        assert ratio.max() <= 1.3 + 1e-5
        assert np.asarray(jittered).max() <= 1.0
        contrasted = augment_images(jax.random.key(2), images, ImageAugmentation(0, 0.0, 0.5, 0.5))
        assert not np.allclose(contrasted, images, atol=1e-2)

    def test_zero_is_identity_and_the_key_decides(self):
        images = self.images()
        nothing = ImageAugmentation(0, 0.0, 0.0, 0.0)
        np.testing.assert_allclose(augment_images(jax.random.key(0), images, nothing), images, atol=1e-6)
        one, same, other = (augment_images(jax.random.key(k), images, ImageAugmentation()) for k in (3, 3, 4))
        np.testing.assert_array_equal(one, same)
        assert not np.allclose(one, other)

    def test_negative_strength_is_refused(self):
        with pytest.raises(ValueError, match="contrast must not be negative"):
            ImageAugmentation(contrast=-0.1)


def test_lengths_are_what_the_files_say():
    assert sum(demo_files.LENGTHS) == 20  # several tests above count on it
