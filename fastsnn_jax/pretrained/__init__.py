"""Published language models: read, turned into hybrids, and written, without torch."""

from fastsnn_jax.pretrained.errors import PretrainedError
from fastsnn_jax.pretrained.hybridize import hybridize
from fastsnn_jax.pretrained.load import Pretrained, load_pretrained
from fastsnn_jax.pretrained.save import save_pretrained

__all__ = ["Pretrained", "PretrainedError", "hybridize", "load_pretrained", "save_pretrained"]
