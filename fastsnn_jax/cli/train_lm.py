"""The door to the language-model recipe."""

from typing import Any

from fastsnn_jax.cli.common import (
    Flags,
    Parser,
    add_common_flags,
    add_flags,
    given_fields,
    inspect,
    refuse_conflicts,
    say,
    settle,
)
from fastsnn_jax.cli.generate import write_on
from fastsnn_jax.recipes import lm
from fastsnn_jax.record import printable
from fastsnn_jax.train import stream_progress

DESCRIPTION = """Trains a spiking language model on text, counts its spikes and lets it write.

    {command}                          a small hybrid, minutes on two cores
    {command} --preset nanogpt-cpu     nanoGPT's CPU budget, Shakespeare
    {command} --compare-ann            its twin without spikes as well
    {command} --resume DIR --generate "To be"   text from a finished run
    {command} inspect DIR              print the record of a run

--data-dir holds tiny_shakespeare as TensorFlow Datasets prepared it. Without it, "auto" takes the
sources of Python's standard library. --smoke is --preset smoke: seconds, to see that it runs.
"""
_FLAGS: Flags = {
    "corpus": ("corpus", str, "auto, tiny_shakespeare, stdlib or the path of a text file"),
    "steps": ("steps", int, "updates"),
    "context": ("context", int, "tokens per training window"),
    "batch_size": ("batch_size", int, "windows per update"),
    "learning_rate": ("learning_rate", float, "peak of the schedule"),
    "energy_weight": ("energy_weight", float, "price of a synaptic operation in the loss"),
    "vocab_size": ("vocab_size", int, "of the model; None: the tokenizer's"),
    "generate": ("generate", str, "text to continue; None: the start of the held-out text"),
}
_MODEL_FLAGS: Flags = {  # their fields are those of the model's configuration
    "attn": ("attn_kind", str,
             "linear, sliding, softmax, hybrid_alt, interleaved or parallel_sum"),
    "d_model": ("d_model", int, "width of the residual stream"),
    "n_heads": ("n_heads", int, "query heads"),
    "n_layers": ("n_layers", int, "blocks"),
    "d_ff": ("d_ff", int, "width of the feed-forward layers"),
    "window": ("window", int, "keys of sliding-window attention"),
    "k": ("k", float, "mean spike count of a channel: the threshold is mean|x| / k"),
}


def main(arguments: list[str], command: str) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    if arguments[:1] == ["inspect"]:
        return inspect(arguments[1:], "lm", f"{command} inspect")
    options = build_parser(command).parse_args(arguments)
    given = given_fields(options, _FLAGS, ("seed", "compare_ann"))
    model = given_fields(options, _MODEL_FLAGS)
    if options.smoke and options.preset not in (None, "smoke"):
        raise ValueError(f"--smoke is --preset smoke; leave out one of it and {options.preset}")
    name = "smoke" if options.smoke else options.preset
    prompt = given.pop("generate", None) if options.resume else None

    def build(fields: dict[str, Any]) -> lm.LMConfig:
        named, inner = fields.pop("preset", "default"), fields.pop("model", {})
        if isinstance(inner, dict):  # anything else is refused by the preset
            inner = {**inner, **model}
        lm.preset(named)  # what a file says must be right, even where a flag wins
        return lm.preset(name or named, **{**fields, **given}, model=inner)

    known = given | ({"preset": name} if name else {})
    config, out = settle(options, "spiking_lm", lm.saved_config, known, build)
    if options.resume:
        refuse_conflicts(options, config.model, model)
    if prompt is not None:
        return write_on(out, prompt, config.sample_tokens, config.seed)
    record = lm.run(
        config, out, data_dir=options.data_dir, resume=bool(options.resume), say=say,
        progress=stream_progress(),
    )
    say(printable(record["sample"]))
    return lm.headline(record, out)


def build_parser(command: str) -> Parser:
    """The flags, with the defaults of the default preset in their help."""
    default = lm.preset()
    parser = Parser(DESCRIPTION.format(command=command), command)
    add_common_flags(parser)
    parser.add_argument("--preset", metavar="NAME",
                        help="smoke, default, nanogpt-cpu or nanogpt-gpu (default: default)")
    add_flags(parser, _FLAGS, default)
    add_flags(parser, _MODEL_FLAGS, default.model)
    parser.add_argument("--compare-ann", action="store_true", default=None,
                        help="train the twin without spikes as well, with the same recipe")
    return parser
