"""Trains a spiking language model on text, counts its spikes and lets it write.

    python -m experiments.spiking_lm                          a small hybrid, minutes on two cores
    python -m experiments.spiking_lm --preset nanogpt-cpu     nanoGPT's CPU budget, Shakespeare
    python -m experiments.spiking_lm --compare-ann            its twin without spikes as well
    python -m experiments.spiking_lm --resume DIR --generate "To be"   text from a finished run
    python -m experiments.spiking_lm inspect DIR              print the record of a run

--data-dir holds tiny_shakespeare as TensorFlow Datasets prepared it. Without it, "auto" takes the
sources of Python's standard library. --smoke is --preset smoke: seconds, to see that it runs.
"""

import sys
from pathlib import Path
from typing import Any

from experiments._cli import (
    Parser,
    add_common_flags,
    default_out,
    execute,
    inspect,
    refuse_conflicts,
    refuse_unfinished,
    say,
)

_FLAGS = {  # field of the configuration: (type, what it is)
    "corpus": (str, "auto, tiny_shakespeare, stdlib or the path of a text file"),
    "steps": (int, "updates"),
    "context": (int, "tokens per training window"),
    "batch_size": (int, "windows per update"),
    "learning_rate": (float, "peak of the schedule"),
    "energy_weight": (float, "price of a synaptic operation in the loss"),
    "vocab_size": (int, "of the model; None: the tokenizer's"),
    "generate": (str, "text to continue; None: the start of the held-out text"),
}
_MODEL_FLAGS = {  # flag: (field of the model's configuration, type, what it is)
    "attn": ("attn_kind", str,
             "linear, sliding, softmax, hybrid_alt, interleaved or parallel_sum"),
    "d_model": ("d_model", int, "width of the residual stream"),
    "n_heads": ("n_heads", int, "query heads"),
    "n_layers": ("n_layers", int, "blocks"),
    "d_ff": ("d_ff", int, "width of the feed-forward layers"),
    "window": ("window", int, "keys of sliding-window attention"),
    "k": ("k", float, "mean spike count of a channel: the threshold is mean|x| / k"),
}


def main(arguments: list[str]) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    from fastsnn_jax.config import read_fields
    from fastsnn_jax.recipes import lm
    from fastsnn_jax.record import printable
    from fastsnn_jax.train import stream_progress

    if arguments[:1] == ["inspect"]:
        return inspect(arguments[1:], "lm", lm.headline)
    options = build_parser().parse_args(arguments)
    given = {name: getattr(options, name) for name in (*_FLAGS, "seed", "compare_ann")
             if getattr(options, name) is not None}
    model = {field: getattr(options, flag) for flag, (field, *_) in _MODEL_FLAGS.items()
             if getattr(options, flag) is not None}
    if options.smoke and options.preset not in (None, "smoke"):
        raise ValueError(f"--smoke is --preset smoke; leave out one of it and {options.preset}")
    name = "smoke" if options.smoke else options.preset
    if options.resume:
        out, config = options.resume, lm.saved_config(options.resume)
        prompt = given.pop("generate", None)
        refuse_conflicts(options, config, given | ({"preset": name} if name else {}))
        refuse_conflicts(options, config.model, model)
        if prompt is not None:
            return write_on(out, prompt, config)
    else:
        fields = read_fields("config", options.config) if options.config else {}
        named, inner = fields.pop("preset", "default"), fields.pop("model", {})
        if isinstance(inner, dict):  # anything else is refused by the preset
            inner = {**inner, **model}
        lm.preset(named)  # what a file says must be right, even where a flag wins
        config = lm.preset(name or named, **{**fields, **given}, model=inner)
        out = options.out or default_out("spiking_lm")
    record = lm.run(
        config, out, data_dir=options.data_dir, resume=bool(options.resume), say=say,
        progress=stream_progress(),
    )
    say(printable(record["sample"]))
    return lm.headline(record, out)


def write_on(out: str, prompt: str, config: Any) -> dict[str, Any]:
    """Prints what the model of a finished run writes after ``prompt``."""
    from fastsnn_jax import load_run
    from fastsnn_jax.data import load_tokenizer
    from fastsnn_jax.recipes import lm
    from fastsnn_jax.record import printable

    refuse_unfinished(out)
    model, variables, record = load_run(out)
    tokenizer = load_tokenizer(Path(out) / lm.TOKENIZER_FILE)
    text = lm.sample_text(
        model, variables, tokenizer, prompt, config.sample_tokens, config.seed
    )
    print(printable(text))
    return lm.headline(record, out)


def build_parser() -> Parser:
    """The flags, with the defaults of the default preset in their help."""
    from fastsnn_jax.recipes.lm import preset

    default = preset()
    parser = Parser(__doc__)
    add_common_flags(parser)
    parser.add_argument("--preset", metavar="NAME",
                        help="smoke, default, nanogpt-cpu or nanogpt-gpu (default: default)")
    for name, (kind, text) in _FLAGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=kind, metavar=name.upper(),
                            help=f"{text} (default: {getattr(default, name)})")
    for flag, (field, kind, text) in _MODEL_FLAGS.items():
        parser.add_argument(f"--{flag.replace('_', '-')}", type=kind, metavar=flag.upper(),
                            help=f"{text} (default: {getattr(default.model, field)})")
    parser.add_argument("--compare-ann", action="store_true", default=None,
                        help="train the twin without spikes as well, with the same recipe")
    return parser


if __name__ == "__main__":
    execute(lambda: main(sys.argv[1:]))
