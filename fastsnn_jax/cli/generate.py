"""The door to a trained language model's text."""

from pathlib import Path
from typing import Any

from fastsnn_jax._checks import check_count
from fastsnn_jax.cli.common import Parser, read_record
from fastsnn_jax.data import load_tokenizer
from fastsnn_jax.recipes import lm, load_run
from fastsnn_jax.record import printable

DESCRIPTION = """Writes on after a prompt, with the language model of a finished run.

    {command} DIR "To be"              as much text as the run's own sample has
    {command} DIR "To be" --tokens 40 --seed 3
"""


def main(arguments: list[str], command: str) -> dict[str, Any]:
    """Runs the command line and returns the headline figures of the run."""
    parser = Parser(DESCRIPTION.format(command=command), command)
    parser.add_argument("directory", metavar="DIR", help="directory of a run of train lm")
    parser.add_argument("prompt", metavar="TEXT", help="what to continue")
    parser.add_argument("--tokens", type=int, metavar="N",
                        help="how many to write (default: as many as the run's own sample)")
    parser.add_argument("--seed", type=int, help="of what is drawn (default: the run's)")
    options = parser.parse_args(arguments)
    if options.tokens is not None:
        check_count("generate", "tokens", options.tokens)
    if options.seed is not None:
        check_count("generate", "seed", options.seed, at_least=0)
    return write_on(options.directory, options.prompt, options.tokens, options.seed)


def write_on(
    directory: str | Path, prompt: str, num_tokens: int | None = None, seed: int | None = None
) -> dict[str, Any]:
    """Prints what the model of a finished run writes after ``prompt``; None: as the run has it."""
    record = read_record(directory)
    if record["kind"] != "lm":
        raise ValueError(f"{directory}: expected a run of kind lm, got {record['kind']}")
    model, variables, record = load_run(directory)
    tokenizer = load_tokenizer(Path(directory) / lm.TOKENIZER_FILE)
    text = lm.sample_text(
        model, variables, tokenizer, prompt,
        record["config"]["sample_tokens"] if num_tokens is None else num_tokens,
        record["seed"] if seed is None else seed,
    )
    print(printable(text))
    return lm.headline(record, directory)
