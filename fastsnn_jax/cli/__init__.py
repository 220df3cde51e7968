"""The console command ``fastsnn``, and what it shares with the experiments' command lines."""

from fastsnn_jax.cli.command import COMMANDS, main
from fastsnn_jax.cli.common import Parser, execute, is_refusal

__all__ = ["COMMANDS", "Parser", "execute", "is_refusal", "main"]
