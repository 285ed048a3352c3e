import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "datagen"))  # the makers of small files live there


@pytest.fixture(scope="session")
def demos(tmp_path_factory):
    """(path, episodes) of a complete state-only file."""
    from demo_files import write_file

    path = tmp_path_factory.mktemp("demos") / "demos.h5"
    return path, write_file(path)


@pytest.fixture(scope="session")
def image_demos(tmp_path_factory):
    """(path, episodes) of a complete file with 12x12 images."""
    from demo_files import write_file

    path = tmp_path_factory.mktemp("demos") / "images.h5"
    return path, write_file(path, image=12)
