"""An energy report on disk: the report itself and a text to read."""

from pathlib import Path
from typing import Any

from fastsnn_jax._files import make_directory, write_text
from fastsnn_jax.energy.report import to_bytes

REPORT_FILE, TEXT_FILE = "energy.json", "energy.txt"


def save_report(directory: Path, document: Any, text: str) -> None:
    """Writes ``energy.json`` and ``energy.txt`` into ``directory``, each whole or not at all.

    Args:
      document: a report, or several in a list.
      text: what the second file says, as of ``format_report``.

    Raises:
      ValueError: ``directory`` is a file.
      OSError: the disk refuses.
    """
    make_directory("save_report", directory)
    write_text(directory / REPORT_FILE, to_bytes(document).decode())
    write_text(directory / TEXT_FILE, text + "\n")
