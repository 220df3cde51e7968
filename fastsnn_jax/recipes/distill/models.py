"""Who teaches and who learns: a teacher from disk, and the student made of its weights."""

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Key, Params
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.data import Tokenizer, load_tokenizer
from fastsnn_jax.pretrained import Pretrained, hybridize, load_pretrained
from fastsnn_jax.pretrained.parameters import expected_parameters, named_parameters
from fastsnn_jax.recipes.distill.config import DistillConfig
from fastsnn_jax.recipes.lm import TOKENIZER_FILE
from fastsnn_jax.recipes.load import load_run
from fastsnn_jax.recipes.run_directory import CHECKPOINTS
from fastsnn_jax.record import FILE_NAME


def load_teacher(directory: str | Path) -> Pretrained:
    """The language model in ``directory``: a published one, one we saved, or that of a run.

    Raises:
      ValueError: there is none, it is damaged, or the run is not finished or of another kind
        (PretrainedError, RecordError, CheckpointError, DataError).
    """
    directory = Path(directory).expanduser()
    teacher = _loaded(directory)
    for path, leaf in named_parameters(teacher.variables).items():
        check(bool(jnp.isfinite(leaf).all()), str(directory), f"{path} must be finite",
              "NaN or infinity")
    return teacher


def _loaded(directory: Path) -> Pretrained:
    if not any((directory / name).exists() for name in (FILE_NAME, CHECKPOINTS)):
        return load_pretrained(directory)
    model, variables, record = load_run(directory)
    check(record["kind"] == "lm", str(directory), "a teacher must be a run of kind lm",
          record["kind"])
    tokenizer = load_tokenizer(directory / TOKENIZER_FILE)
    return Pretrained(model, jax.tree.map(jnp.asarray, variables), model.config, tokenizer, ())


def make_student(
    config: DistillConfig, teacher: Pretrained, key: Key
) -> tuple[SNNConfig, Params]:
    """The student's configuration and its first parameters, float32: the teacher's, converted.

    Raises:
      ValueError: attention that the teacher's cannot become, or neurons that learn.
    """
    student, variables = teacher.config, teacher.variables
    if config.attn != student.attn_kind:
        student, variables = hybridize(
            student, variables, key=key, attn_kind=config.attn, window=config.window
        )
    student = dataclasses.replace(student, spiking=config.spiking, k=config.k)
    shapes = {path: leaf.shape for path, leaf in named_parameters(variables).items()}
    check(shapes == expected_parameters(student), "distill",
          "the teacher must have no neurons that learn", repr(student.neuron))
    return student, jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), variables)


def check_vocabulary(teacher: Pretrained, tokenizer: Tokenizer) -> None:
    """Raises ValueError where a teacher without a tokenizer cannot have read such tokens."""
    size = teacher.config.vocab_size
    check(teacher.tokenizer is not None or size == tokenizer.vocab_size, "distill",
          f"the teacher's vocabulary must be the text's, {tokenizer.vocab_size} tokens", size,
          "put its tokenizer.json into its directory")


def digest(variables: Any) -> str:
    """SHA-256 over the names and bytes of all parameters."""
    sha256 = hashlib.sha256()
    for path, leaf in sorted(named_parameters(variables).items()):
        sha256.update(f"{path} {leaf.dtype}{leaf.shape}".encode())
        sha256.update(np.ascontiguousarray(leaf).tobytes())
    return sha256.hexdigest()
