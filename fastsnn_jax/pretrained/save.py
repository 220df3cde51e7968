"""Language models written in the layout of published ones."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastsnn_jax.config import DTYPES, SNNConfig
from fastsnn_jax.data.tokenizers import Tokenizer
from fastsnn_jax.pretrained.errors import faults_of, pretrained_error
from fastsnn_jax.pretrained.hf_config import stop_tokens_of
from fastsnn_jax.pretrained.hf_fields import published_fields
from fastsnn_jax.pretrained.load import CONFIG_FILE, TOKENIZER_FILE
from fastsnn_jax.pretrained.parameters import expected_parameters, named_parameters
from fastsnn_jax.pretrained.safetensors_file import write_arrays
from fastsnn_jax.pretrained.shards import WEIGHTS_FILE, check_names, shown
from fastsnn_jax.pretrained.weight_names import place_of


def save_pretrained(
    directory: str | Path, config: SNNConfig, variables: Any, *,
    tokenizer: Tokenizer | None = None, stop_tokens: Sequence[int] = (),
) -> Path:
    """Writes config.json, model.safetensors and tokenizer.json, all of them or none.

    A model that Llama, Qwen2, Qwen3 or SpikingBrain-7B can say in full is written as one of these,
    which transformers reads; any other, spiking ones among them, in a layout of our own.
    ``load_pretrained`` gives back the same weights, bit for bit, and the same configuration, its
    sizes filled in where they were left open.

    Args:
      directory: to be made; it may be there if it is empty.
      config, variables: of a ``LanguageModel``, weights in float32 or bfloat16.
      tokenizer, stop_tokens: as in ``Pretrained``.
    Returns:
      The directory.
    Raises:
      PretrainedError: if the directory holds something, the disk refuses, or the variables are
        not those of the configuration.

    >>> import jax, tempfile
    >>> from fastsnn_jax import build_model_from_config
    >>> config = SNNConfig(vocab_size=11, d_model=8, n_heads=2, n_layers=1, d_ff=12, ffn="gated",
    ...                    attn_kind="softmax", spiking=False)
    >>> tokens = jax.numpy.zeros((1, 1), int)
    >>> variables = build_model_from_config(config).init(jax.random.key(0), tokens)
    >>> directory = save_pretrained(Path(tempfile.mkdtemp()) / "tiny", config, variables)
    >>> sorted(path.name for path in directory.iterdir())
    ['config.json', 'model.safetensors']
    >>> json.loads((directory / "config.json").read_text())["architectures"]
    ['LlamaForCausalLM']
    """
    directory = Path(directory).expanduser().absolute()
    params = _checked(directory, config, variables)
    fields = published_fields(config)
    (architecture,) = fields["architectures"]
    if stop_tokens:
        fields["eos_token_id"] = [int(token) for token in stop_tokens]
        with faults_of(directory):
            stop_tokens_of(fields, config.vocab_size)
    places = {place_of(architecture, path): leaf for path, leaf in params.items()}
    scratch = directory.with_name(f".{directory.name}.{os.getpid()}")
    with faults_of(directory):
        if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
            raise pretrained_error(directory, "it must be new or an empty directory", "files")
        scratch.mkdir(parents=True)
        try:
            (scratch / CONFIG_FILE).write_text(json.dumps(fields, indent=2) + "\n", "utf-8")
            if tokenizer is not None:
                tokenizer.save(scratch / TOKENIZER_FILE)
            write_arrays(
                scratch / WEIGHTS_FILE, {place.name: leaf for place, leaf in places.items()},
                transposed={place.name for place in places if place.transposed},
            )
            scratch.replace(directory)
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    return directory


def _checked(directory: Path, config: SNNConfig, variables: Any) -> dict[str, Any]:
    """The parameters by path, those of the configuration."""
    params = named_parameters(variables)
    expected = expected_parameters(config)
    check_names(f"{directory}: variables against config", set(expected), set(params))
    faults = [
        f"{path} is {leaf.dtype}{list(leaf.shape)} and not {list(expected[path])} of "
        f"{' or '.join(DTYPES)}"
        for path, leaf in params.items()
        if leaf.shape != expected[path] or str(leaf.dtype) not in DTYPES
    ]
    if faults:
        raise pretrained_error(directory, "variables must be those of config",
                               shown(faults, "; "))
    return {path: params[path] for path in expected}
