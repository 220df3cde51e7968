"""``record.json`` on disk: written whole or not at all, read back only if valid."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastsnn_jax._files import write_text
from fastsnn_jax.record.kinds import RecordError
from fastsnn_jax.record.runs import validate_record

FILE_NAME = "record.json"


def write_record(path: str | Path, record: Mapping[str, Any]) -> Path:
    """Writes ``record`` to the file ``path``, or to ``record.json`` in the directory ``path``.

    A reader finds the old record or the new one, never a part. Returns the path written. Raises
    RecordError, before touching the disk, for an invalid record, and OSError when the disk refuses.
    """
    validate_record(record)
    path = _file(path)
    write_text(path, _pretty(record) + "\n")
    return path


def load_record(path: str | Path) -> dict[str, Any]:
    """Reads and validates the record ``path``, a file or the directory of a run.

    Raises RecordError, naming the file, when it is missing, not JSON, incomplete or inconsistent.
    """
    path = _file(path)
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise RecordError(f"{path}: expected a readable record of a run, got {reason}") from error
    validate_record(record, where=str(path))
    return record


def _file(path: str | Path) -> Path:
    path = Path(path)
    return path / FILE_NAME if path.is_dir() else path


def _pretty(value: Any, indent: str = "") -> str:
    """JSON with a line per key and per row, and plain lists on one line."""
    deeper = indent + "  "
    if isinstance(value, dict) and value:
        items = [f"{json.dumps(key)}: {_pretty(item, deeper)}" for key, item in value.items()]
        return "{\n" + ",\n".join(deeper + item for item in items) + f"\n{indent}}}"
    if isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        rows = [deeper + _pretty(item, deeper) for item in value]
        return "[\n" + ",\n".join(rows) + f"\n{indent}]"
    return json.dumps(value, allow_nan=False)
