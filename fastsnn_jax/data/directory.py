"""Where prepared data is looked for."""

import os
from pathlib import Path

from fastsnn_jax.data.dataset import data_error


def data_directory(data_dir: str | Path | None, remedy: str) -> Path:
    """``data_dir``, else ``$TFDS_DATA_DIR``, else ``~/tensorflow_datasets``.

    Raises DataError, with the ``remedy``, for an empty name.
    """
    if data_dir is None:
        data_dir = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    if not str(data_dir):  # an unset shell variable, not the current directory
        raise data_error("data_dir", "a directory", "an empty name", remedy)
    return Path(data_dir).expanduser()
