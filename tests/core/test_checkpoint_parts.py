"""Arrays by parts: each device's share on disk, onto other devices, checked where it is read, in object stores too."""

import json
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from simscaleai_jax.core import checkpoint, checkpoint_files, flat_tree, paths, sharding
from simscaleai_jax.core.checkpoint import Manifest
from simscaleai_jax.core.checkpoint_series import CheckpointSeries

MANIFEST = Manifest(kind="model", model_name="bc", step=1)
VALUES = np.arange(16 * 24, dtype=np.float32).reshape(16, 24)


def spread(count: int) -> dict:
    """Arrays split along one axis or the other, copied, and keys, over so many devices."""
    mesh = sharding.make_mesh(jax.devices()[:count])
    keys = jax.random.split(jax.random.key(1), 16)
    return {
        "rows": jax.device_put(VALUES, NamedSharding(mesh, P(sharding.AXIS))),
        "columns": jax.device_put(VALUES + 0.5, NamedSharding(mesh, P(None, sharding.AXIS))),
        "copied": sharding.put_replicated(jnp.float32(3), mesh),
        "keys": jax.device_put(keys, NamedSharding(mesh, P(sharding.AXIS))),
    }


@pytest.fixture(params=[7, 64, 1 << 22])
def small_blocks(request, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "BLOCK_BYTES", request.param)
    monkeypatch.setattr(checkpoint_files, "MAX_CHUNK_BYTES", 200)


@pytest.mark.parametrize(("written", "read"), [(4, 4), (4, 2), (2, 8), (8, 1)])
def test_shares_are_restored_onto_another_number_of_devices(tmp_path, small_blocks, written, read):
    path = checkpoint.save(tmp_path / "a", spread(written), MANIFEST)
    target = spread(read)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), target)
    restored, _ = checkpoint.load(path, shapes)
    for name, leaf in target.items():
        assert restored[name].sharding == leaf.sharding, name
        is_key = name == "keys"
        pair = [jax.random.key_data(x) if is_key else x for x in (restored[name], leaf)]
        assert np.array_equal(*pair), name
    plain, _ = checkpoint.load(path)
    assert np.array_equal(plain["columns"], VALUES + 0.5)


def test_a_share_is_written_once_and_nothing_is_gathered():
    snapshot = flat_tree.snapshot(spread(4))
    names = [piece.name for piece in snapshot.pieces]
    assert {name: names.count(name) for name in set(names)} == {"rows": 4, "columns": 4, "copied": 1, "keys": 4}
    assert snapshot.nbytes == 2 * VALUES.nbytes + 4 + 16 * 8


def test_only_the_wanted_part_is_read_and_checked(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint_files, "BLOCK_BYTES", 96)  # a row of the array
    path = checkpoint.save(tmp_path / "a", {"x": VALUES}, MANIFEST)
    part = path / "tree" / "part-00000.bin"
    content = bytearray(part.read_bytes())
    content[96 * 10 + 7] ^= 4  # one bit of row 10
    part.write_bytes(content)
    stored, _ = checkpoint.open_tree(path)
    assert np.array_equal(stored["x"].read((slice(2, 9), slice(3, 5))), VALUES[2:9, 3:5])
    with pytest.raises(ValueError, match=r"part-00000\.bin do not match their checksum \(bytes 960 to 1,056\)"):
        stored["x"].read((slice(9, 12), slice(None)))
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(path, {"x": np.zeros_like(VALUES)})


@pytest.mark.parametrize("position", range(0, 1536, 97))
def test_every_flipped_bit_is_noticed(tmp_path, position):
    path = checkpoint.save(tmp_path / "a", {"x": VALUES}, MANIFEST)
    part = path / "tree" / "part-00000.bin"
    content = bytearray(part.read_bytes())
    content[position] ^= 1 << position % 8
    part.write_bytes(content)
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(path)


def test_what_was_opened_can_be_read_after_it_was_deleted(tmp_path):
    path = checkpoint.save(tmp_path / "a", {"x": VALUES}, MANIFEST)
    stored, _ = checkpoint.open_tree(path)
    paths.remove_tree(path)
    assert np.array_equal(np.asarray(stored["x"]), VALUES)


def test_checkpoints_of_the_first_format_are_read(tmp_path):
    import orbax.checkpoint as ocp

    arrays = {"params/kernel": VALUES, "params/empty": np.zeros((0, 2), np.float32)}
    folder = tmp_path / "old"
    with ocp.PyTreeCheckpointer() as writer:
        writer.save(folder / "tree", {"params/kernel": VALUES})
    files = {str(file.relative_to(folder)): file for file in (folder / "tree").rglob("*") if file.is_file()}
    record = {
        "manifest": {"kind": "model", "model_name": "bc", "step": 4, "format_version": 1},
        "arrays": {name: {"shape": list(x.shape), "dtype": str(x.dtype)} for name, x in arrays.items()},
        "files": {name: file.stat().st_size for name, file in files.items()},
        "crc32": {name: zlib.crc32(file.read_bytes()) for name, file in files.items()},
    }
    (folder / "manifest.json").write_text(json.dumps(record))
    tree, manifest = checkpoint.load(folder, {"params": {"kernel": VALUES * 0, "empty": arrays["params/empty"]}})
    assert manifest.step == 4
    assert np.array_equal(tree["params"]["kernel"], VALUES)
    victim = max(files.values(), key=lambda file: file.stat().st_size)
    victim.write_bytes(bytes([victim.read_bytes()[0] ^ 1]) + victim.read_bytes()[1:])
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(folder)


def test_a_series_in_an_object_store():
    folder = "memory://bucket/run"
    with CheckpointSeries(folder, keep=2) as series:
        for step, metric in ((1, 0.1), (2, 0.9), (3, 0.5), (4, 0.4)):
            series.save(step, {"x": VALUES * step}, MANIFEST, metric)
            series.wait()
        assert [path.name for path in series.steps()] == ["step_000000002", "step_000000003", "step_000000004"]
    assert checkpoint.resolve(folder).name == "step_000000002"
    assert np.array_equal(checkpoint.load(folder)[0]["x"], VALUES * 2)
    newest = series.latest()
    (newest / "manifest.json").unlink()
    assert series.latest().name == "step_000000003", "without its manifest it was cut short"
    mesh = sharding.make_mesh(jax.devices()[:4])
    target = {"x": jax.device_put(VALUES, NamedSharding(mesh, P(sharding.AXIS)))}
    assert np.array_equal(checkpoint.load(f"{folder}/step_000000003", target)[0]["x"], VALUES * 3)


def test_paths_are_expanded_and_unknown_stores_are_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert paths.locate("~/run") == tmp_path / "run"
    monkeypatch.chdir(tmp_path)
    assert paths.locate("run") == tmp_path / "run"
    assert str(paths.locate("memory://a/b") / "c") == "memory://a/b/c"
    with pytest.raises(ValueError, match="nothing"):
        paths.locate("nothing://a")
    with pytest.raises(ValueError, match="A scene must lie on a local or mounted disk; got 'gs://a'"):
        paths.local("gs://a", "A scene")
