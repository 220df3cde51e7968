"""Runs a language-model configuration from text to record."""

import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Int, Params
from fastsnn_jax.activity import warn_unhealthy
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.data import Corpus, Tokenizer, Windows, load_corpus, windows
from fastsnn_jax.generation import Sampling, generate
from fastsnn_jax.jaxpr import run_needed
from fastsnn_jax.models import LanguageModel, build_model_from_config
from fastsnn_jax.recipes.lm import network
from fastsnn_jax.recipes.lm.config import LMConfig
from fastsnn_jax.recipes.lm.pictures import draw_all
from fastsnn_jax.recipes.lm.training import Evaluate, history_of, make_evaluation, train_windows
from fastsnn_jax.recipes.lm.work import decoding_work
from fastsnn_jax.recipes.run_directory import (
    begin,
    check_resumable,
    finished_record,
    read_begun,
    resumable,
)
from fastsnn_jax.record import (
    Evaluation,
    LossHistory,
    SynapseCounts,
    build_lm_record,
    environment,
    write_record,
)
from fastsnn_jax.train import Interrupted, Journal, Progress, next_token_sums

TOKENIZER_FILE = "tokenizer.json"
TWIN = "twin"  # directory of the twin's checkpoints
_MAX_HELD_OUT = 2**22  # tokens of the held-out text that are evaluated, of longer texts
_PROMPT_TOKENS = 32  # of the held-out text, where no prompt is given
_SAMPLING = Sampling(temperature=0.8, top_p=0.95)
Say = Callable[[str], Any]


def run(
    config: LMConfig, out: str | Path, *, data_dir: str | Path | None = None,
    resume: bool = False, say: Say = lambda line: None, progress: Progress | None = None,
) -> dict[str, Any]:
    """Trains, evaluates, writes a sample; leaves ``record.json``, checkpoints and pictures.

    What is evaluated and kept are the last parameters (their average where one is kept): nothing is
    selected on the held-out text. A finished run is not repeated: with ``resume`` its record is
    returned as it stands.

    Args:
      config: with ``resume`` it must be the one the run began with, see `saved_config`.
      out: directory of the run; without ``resume`` it must hold none.
      say: told in words what is being done.
      progress: told of every dispatch.

    Returns:
      The record.

    Raises:
      ValueError: bad text, directory or configuration (DataError, CheckpointError, RecordError), or
        training that went wrong (TrainingError).
      OSError: ``out`` cannot be written.
      Interrupted: after Ctrl-C, resumable.
    """
    out = Path(out).resolve()
    if resume and (record := finished_record(out, config.to_json())) is not None:
        say(f"{out} is finished; nothing to resume")
        return record
    remarks: list[str] = []  # a complaint about the input is to be the first thing said
    corpus = load_corpus(config.corpus, data_dir, _tokenizer_kind(config), remarks.append)
    work = prepare(config, corpus)
    start(out, config.to_json(), corpus, resume, [*remarks, *work.remarks], say)
    twin_history = None
    try:
        params, journal, evaluate = train_new(work, out, resume, work.model, progress)
        if config.compare_ann and work.model.config.spiking:
            say("the twin without spikes, with the same recipe")
            twin = network.build_model(work.config, spiking=False)
            _, twin_journal, _ = train_new(work, out / TWIN, resume, twin, progress)
            twin_history = history_of(work.config, twin_journal, spiking=False)
    except Interrupted as stopped:
        raise resumable(stopped, out, data_dir) from None
    say("evaluating on all of the held-out text")
    return conclude(out, work, work.config.to_json(), params, journal, evaluate(params),
                    history_of(work.config, journal, work.model.config.spiking),
                    twin_history=twin_history)


class Prepared(NamedTuple):
    """A configuration that was found fit for its text, and what follows from the two.

    Attributes:
      config: with the size of its vocabulary.
      held_out: windows of the text that are evaluated.
      prompt: tokens that the sample goes on from.
      remarks: what is to be told of the text.
    """

    config: LMConfig
    corpus: Corpus
    model: LanguageModel
    held_out: Windows
    prompt: Int[np.ndarray, " L"]
    remarks: tuple[str, ...]


def prepare(config: LMConfig, corpus: Corpus) -> Prepared:
    """All that can be refused before a run begins; ValueError, TypeError where something is."""
    settled = _settle(config, corpus)
    model = network.build_model(settled)
    held_out = windows(corpus.validation[:_MAX_HELD_OUT], settled.context)
    prompt = _prompt(settled, corpus)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))  # refuses odd sizes
    _check_neurons(model)
    remarks = [f"text: {corpus.name}, {corpus.train.size:,} training and "
               f"{corpus.validation.size:,} held-out tokens from {corpus.source}"]
    if corpus.validation.size > _MAX_HELD_OUT:
        remarks.append(f"evaluating on the first {_MAX_HELD_OUT:,} of the held-out tokens")
    return Prepared(settled, corpus, model, held_out, prompt, tuple(remarks))


def start(
    out: Path, config: dict[str, Any], corpus: Corpus, resume: bool, remarks: Iterable[str],
    say: Say,
) -> None:
    """Takes ``out`` for a run on the text, or makes sure that it holds the one to resume."""
    claim = check_resumable if resume else begin
    claim(out, config, corpus.sha256)
    corpus.tokenizer.save(out / TOKENIZER_FILE)
    for remark in remarks:
        say(remark)


def conclude(
    out: Path, work: Prepared, config: dict[str, Any], params: Params, journal: Journal,
    sums: dict[str, Any], history: LossHistory, *, twin_history: LossHistory | None = None,
    distillation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Writes sample, pictures and record of a training that came to its end.

    Args:
      config: what the run began with, as JSON data.
      sums: of ``params`` over the held-out text.
      twin_history, distillation: see ``build_lm_record``.
    """
    model, tokenizer = work.model, work.corpus.tokenizer
    counts = network.synapse_counts(model, params, sums) if model.config.spiking else {}
    warn_unhealthy({key: network.shares(count) for key, count in counts.items()})
    sample = _continued(
        model, params, tokenizer, work.prompt, work.config.sample_tokens, work.config.seed
    )
    # Of its last parameters, too.
    twin_loss = None if twin_history is None else twin_history.val_loss[-1]
    record = _record(
        work, config, params, journal, sums, counts, history, twin_loss, sample, distillation
    )
    twin = None if twin_history is None else twin_history._asdict()
    draw_all(out, record, twin, model, params, tokenizer, work.held_out.tokens[:64, :-1])
    write_record(out, record)
    return record


def sample_text(
    model: LanguageModel, params: Params, tokenizer: Tokenizer, prompt: str, num_tokens: int,
    seed: int,
) -> str:
    """The prompt and what the model writes after it; ValueError for a prompt it cannot read."""
    return _continued(model, params, tokenizer, _encoded(prompt, tokenizer), num_tokens, seed)


def _check_neurons(model: LanguageModel) -> None:
    """What the record and its pictures need, before a run is spent on it."""
    for neuron in (block.neuron for block in model.blocks if model.config.spiking):
        missing = [name for name in ("limit", "rounding") if not hasattr(neuron, name)]
        check(not missing, "spiking_lm", f"the neuron {model.config.neuron!r} must have the fields "
              "limit and rounding, as adaptive_threshold has", f"none named {missing}")


def _tokenizer_kind(config: LMConfig) -> str | None:
    return None if config.tokenizer == "auto" else config.tokenizer


def _settle(config: LMConfig, corpus: Corpus) -> LMConfig:
    """The configuration with its vocabulary known, checked against the text."""
    size = corpus.tokenizer.vocab_size
    check(config.vocab_size is None or config.vocab_size >= size, "spiking_lm",
          f"vocab_size must be >= {size}, the tokenizer's", config.vocab_size)
    for name, tokens in (("training", corpus.train), ("held-out", corpus.validation)):
        check(tokens.size > config.context, "spiking_lm",
              f"the {name} text must have more tokens than context {config.context}", tokens.size,
              "give a longer text or a shorter context")
    return dataclasses.replace(config, vocab_size=config.vocab_size or size)


def _prompt(config: LMConfig, corpus: Corpus) -> Int[np.ndarray, " L"]:
    if config.generate is None:
        return corpus.validation[:_PROMPT_TOKENS]
    return _encoded(config.generate, corpus.tokenizer)


def _encoded(prompt: str, tokenizer: Tokenizer) -> Int[np.ndarray, " L"]:
    check(prompt != "", "spiking_lm", "the prompt must not be empty", "''")
    return tokenizer.encode(prompt)


def _continued(
    model: LanguageModel, params: Params, tokenizer: Tokenizer, prompt: Int[np.ndarray, " L"],
    num_tokens: int, seed: int,
) -> str:
    drawn = generate(
        model, params, prompt[None], num_tokens, key=jax.random.key(seed), sampling=_SAMPLING
    )
    known = np.minimum(drawn.tokens[0], tokenizer.vocab_size - 1)  # the model may have more ids
    # Together: the prompt may end inside a character.
    return tokenizer.decode(np.concatenate([prompt, known]))


def train_new(
    work: Prepared, out: Path, resume: bool, model: LanguageModel, progress: Progress | None
) -> tuple[Params, Journal, Evaluate]:
    """Trains ``model`` from parameters that its seed draws; they, the journal and the evaluation.

    Checkpoints lie below ``out``.
    """
    config = work.config
    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    params = run_needed(model.init, init_key, jnp.zeros((1, 1), jnp.int32))
    evaluate = make_evaluation(next_token_sums(model), work.held_out, run_key)
    params, journal = train_windows(
        config, out, resume, model, params, network.make_loss(model, config), work.corpus,
        evaluate, run_key, progress,
    )
    return params, journal, evaluate


def _record(
    work: Prepared, config: dict[str, Any], params: Params, journal: Journal,
    sums: dict[str, Any], counts: dict[str, SynapseCounts], history: LossHistory,
    twin_loss: float | None, sample: str, distillation: dict[str, Any] | None,
) -> dict[str, Any]:
    training, corpus, model = work.config, work.corpus, work.model
    spiking = model.config.spiking
    tokens = journal.totals["samples"]
    return build_lm_record(
        config=config,
        dataset=corpus.describe(),
        environment=environment(),
        seed=training.seed,
        model_class=type(model).__name__,
        model=model.config.to_json(),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        tokenizer={"kind": corpus.tokenizer.to_json()["kind"],
                   "vocab_size": corpus.tokenizer.vocab_size},
        text={
            "context": training.context, "bytes_per_token": corpus.bytes_per_token,
            "train_tokens": corpus.train.size, "validation_tokens": corpus.validation.size,
        },
        training_config={
            name: getattr(training, name) for name in (
                "steps", "batch_size", "context", "learning_rate", "warmup_steps", "weight_decay",
                "clip_norm", "accumulate",
            )
        } | {"optimizer": "adamw, cosine decay", "dtype": training.model.dtype},
        history=history,
        steps_trained=tokens // (training.batch_size * training.context),
        tokens_seen=tokens,
        training_time_seconds=sum(journal.history["epoch_times"]),
        tokens_per_s=journal.samples_per_s,
        evaluation=Evaluation(sums["loss"], sums["accuracy"], sums["samples"]),
        twin_val_loss=twin_loss,
        activity=counts,
        input_groups=model.input_groups(),
        bits=network.largest_count(model).bit_length() if spiking else None,
        sample=sample,
        metrics={},
        decoding=decoding_work(model, params, training.context) if spiking else None,
        distillation=distillation,
    )


def headline(record: dict[str, Any], out: str | Path) -> dict[str, Any]:
    """The figures of a record that a command line prints as its last line."""
    return {"corpus": record["dataset"]["name"], **record["metrics"], "out": str(out)}


def recorded_model(record: dict[str, Any]) -> LanguageModel:
    """The network of a record."""
    return build_model_from_config(SNNConfig.from_json(record["model"]))


def recorded_variables(items: dict[str, Any]) -> dict[str, Any]:
    """The variables a record speaks of, among the items of the run's last checkpoint."""
    return items["state"].get("average") or items["state"]["params"]


def saved_config(directory: str | Path) -> LMConfig:
    """Configuration a run began with; CheckpointError when there is none or it is damaged."""
    return read_begun(directory, LMConfig.from_json)
