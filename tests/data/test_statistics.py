import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simscaleai_jax.core.demonstrations import QUANTILES, compute_statistics
from simscaleai_jax.core.demonstrations import statistics as module

floats = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


def chunked(array: np.ndarray, size: int = 3):
    return lambda key: (array[start : start + size] for start in range(0, len(array), size))


def check_exact(result: dict, array: np.ndarray) -> None:
    """Everything against NumPy on the whole array in float64."""
    whole = array.astype(np.float64)
    scale = np.abs(whole).max() + 1e-300
    np.testing.assert_allclose(result["mean"], whole.mean(0), rtol=0, atol=1e-13 * scale)
    np.testing.assert_allclose(result["std"], whole.std(0), rtol=0, atol=1e-13 * scale)
    np.testing.assert_array_equal(result["min"], whole.min(0))
    np.testing.assert_array_equal(result["max"], whole.max(0))
    for name, q in QUANTILES.items():
        np.testing.assert_allclose(result[name], np.quantile(whole, q, axis=0), rtol=0, atol=1e-15 * scale)
    assert result["count"].tolist() == [len(array)]


@settings(max_examples=30, deadline=None)
@given(st.lists(floats, min_size=1, max_size=40))
def test_equal_to_numpy_on_any_numbers(values):
    array = np.array(values, np.float32)[:, None]
    check_exact(compute_statistics(chunked(array), ["x"])["x"], array)


def test_many_columns_and_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK_ROWS", 50)
    rng = np.random.default_rng(0)
    array = (rng.normal(size=(501, 19)) * 10.0 ** rng.integers(-20, 20, 19)).astype(np.float32)
    array[:, 3] = 0.5
    array[:, 4] = rng.integers(0, 2, 501)
    result = compute_statistics(chunked(array, 7), ["x"])["x"]
    for name in ("mean", "q01", "q99"):
        assert result[name].shape == (19,)
    for column in range(19):
        check_exact(
            {k: v if k == "count" else v[column : column + 1] for k, v in result.items()}, array[:, column : column + 1]
        )


def test_images_give_one_number_per_channel_in_unit_range():
    images = np.random.default_rng(0).integers(0, 256, (10, 4, 5, 3), dtype=np.uint8)
    images[..., 2] = 255
    result = compute_statistics(chunked(images), ["image"])["image"]
    pixels = images.reshape(-1, 3) / 255.0
    check_exact(result, pixels)
    assert result["min"][2] == 1.0


def test_not_finite_is_named():
    with pytest.raises(ValueError, match="'velocity' holds values that are not finite"):
        compute_statistics(chunked(np.array([[1.0], [np.nan]], np.float32)), ["velocity"])
