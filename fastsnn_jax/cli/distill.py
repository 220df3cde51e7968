"""The door to the distillation recipe."""

from typing import Any

from fastsnn_jax.cli.common import (
    Flags,
    Parser,
    add_common_flags,
    add_flags,
    given_fields,
    inspect,
    say,
    settle,
)
from fastsnn_jax.recipes import distill, lm
from fastsnn_jax.record import printable
from fastsnn_jax.train import stream_progress

DESCRIPTION = """Makes a hybrid, spiking student of a language model and trains it on its choices.

    {command}                    a small teacher first, minutes on two cores
    {command} --teacher DIR      a directory as load_pretrained reads it, or
                                 a run of the language-model recipe
    {command} --attn softmax     spikes alone: the teacher's attention stays
    {command} --no-spikes        attention alone
    {command} inspect DIR        print the record of a run

The student is left in models/student of the run, in the layout of published models. --data-dir
holds tiny_shakespeare as TensorFlow Datasets prepared it. Without it, "auto" takes the sources of
Python's standard library. --smoke takes a tiny network: seconds, to see that it runs.
"""
_FLAGS: Flags = {
    "teacher": ("teacher", str, "directory of the teacher; None: it is trained first"),
    "teacher_steps": ("teacher_steps", int, "updates of a teacher that is trained here"),
    "corpus": ("corpus", str, "auto, tiny_shakespeare, stdlib or the path of a text file"),
    "attn": ("attn", str, "of the student: interleaved, linear, sliding or softmax"),
    "window": ("window", int, "keys of sliding layers in place of softmax ones"),
    "k": ("k", float, "mean spike count of a channel: the threshold is mean|x| / k"),
    "temperature": ("temperature", float, "at which the two models' choices are compared"),
    "mix": ("mix", float, "share of the teacher in the loss, against that of the text"),
    "steps": ("steps", int, "updates of the student"),
    "context": ("context", int, "tokens per training window"),
    "batch_size": ("batch_size", int, "windows per update"),
    "learning_rate": ("learning_rate", float, "peak of the student's schedule"),
}


def main(arguments: list[str], command: str) -> dict[str, Any]:
    """Runs the command line and returns the headline figures."""
    if arguments[:1] == ["inspect"]:
        return inspect(arguments[1:], "lm", f"{command} inspect")
    options = build_parser(command).parse_args(arguments)
    given = given_fields(options, _FLAGS, ("seed", "spiking"))

    def build(fields: dict[str, Any]) -> distill.DistillConfig:
        named = fields.pop("preset", "default")
        distill.preset(named)  # what a file says must be right, even where a flag wins
        config = distill.preset("smoke" if options.smoke else named, **{**fields, **given})
        if config.teacher is not None and "teacher_steps" in given:
            raise ValueError("--teacher-steps trains a teacher; leave out it or --teacher")
        return config

    known = given | ({"preset": "smoke"} if options.smoke else {})
    config, out = settle(options, "distill", distill.saved_config, known, build)
    record = distill.run(
        config, out, data_dir=options.data_dir, resume=bool(options.resume), say=say,
        progress=stream_progress(),
    )
    say(printable(record["sample"]))
    return lm.headline(record, out)


def build_parser(command: str) -> Parser:
    """The flags, with their defaults in the help."""
    parser = Parser(DESCRIPTION.format(command=command), command)
    add_common_flags(parser)
    add_flags(parser, _FLAGS, distill.preset())
    parser.add_argument("--no-spikes", dest="spiking", action="store_const", const=False,
                        help="a student without spikes")
    return parser
