"""Runs a language-model configuration from text to record."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fastsnn_jax._checks import check
from fastsnn_jax._typing import Int, Params
from fastsnn_jax.activity import warn_unhealthy
from fastsnn_jax.checkpoint import Checkpoints
from fastsnn_jax.config import SNNConfig
from fastsnn_jax.data import Corpus, Tokenizer, load_corpus, random_crops, windows
from fastsnn_jax.generation import Sampling, generate
from fastsnn_jax.models import LanguageModel, build_model_from_config
from fastsnn_jax.recipes.lm import network
from fastsnn_jax.recipes.lm.config import EVALUATIONS, LMConfig
from fastsnn_jax.recipes.lm.pictures import draw_all
from fastsnn_jax.recipes.lm.work import decoding_work
from fastsnn_jax.recipes.run_directory import (
    CHECKPOINTS,
    begin,
    check_resumable,
    finished_record,
    read_begun,
)
from fastsnn_jax.record import (
    Evaluation,
    LossHistory,
    SynapseCounts,
    build_lm_record,
    environment,
    write_record,
)
from fastsnn_jax.train import (
    Interrupted,
    Journal,
    LoopConfig,
    Progress,
    Source,
    eval_params,
    init_state,
    make_evaluate,
    make_train_step,
    rows_of,
    train,
)

TOKENIZER_FILE = "tokenizer.json"
TWIN = "twin"  # directory of the twin's checkpoints
EVAL_TOKENS = 8192  # per batch of the evaluation
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
    settled = _settle(config, corpus)
    model = network.build_model(settled)
    held_out = windows(corpus.validation[:_MAX_HELD_OUT], settled.context)
    prompt = _prompt(settled, corpus)
    jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))  # refuses odd sizes
    _check_neurons(model)
    claim = check_resumable if resume else begin
    claim(out, config.to_json(), corpus.sha256)
    corpus.tokenizer.save(out / TOKENIZER_FILE)
    for remark in remarks:
        say(remark)
    say(f"text: {corpus.name}, {corpus.train.size:,} training and {corpus.validation.size:,} "
        f"held-out tokens from {corpus.source}")
    if corpus.validation.size > _MAX_HELD_OUT:
        say(f"evaluating on the first {_MAX_HELD_OUT:,} of the held-out tokens")

    twin_history, twin_loss = None, None
    try:
        params, journal, evaluate = _train(settled, out, resume, model, corpus, held_out, progress)
        if config.compare_ann and model.config.spiking:
            say("the twin without spikes, with the same recipe")
            twin = network.build_model(settled, spiking=False)
            _, twin_journal, _ = _train(
                settled, out / TWIN, resume, twin, corpus, held_out, progress
            )
            twin_history = _history(settled, twin_journal, spiking=False)._asdict()
            twin_loss = twin_history["val_loss"][-1]  # of its last parameters, too
    except Interrupted as stopped:
        raise Interrupted(f"{stopped}; continue with --resume {out}") from None

    say("evaluating on all of the held-out text")
    sums = evaluate(params)
    counts = network.synapse_counts(model, params, sums) if model.config.spiking else {}
    warn_unhealthy({key: network.shares(count) for key, count in counts.items()})
    sample = _continued(
        model, params, corpus.tokenizer, prompt, config.sample_tokens, config.seed
    )
    record = _record(settled, corpus, model, params, journal, sums, counts, twin_loss, sample)
    draw_all(
        out, record, twin_history, model, params, corpus.tokenizer, held_out.tokens[:64, :-1]
    )
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


def _train(
    config: LMConfig, out: Path, resume: bool, model: LanguageModel, corpus: Corpus,
    held_out: Any, progress: Progress | None,
) -> tuple[Params, Journal, Callable[[Params], dict[str, Any]]]:
    epochs, steps = _epochs(config)

    def crops(epoch: int) -> Any:
        count = steps * config.batch_size
        return jnp.asarray(random_crops(corpus.train, config.context, count, config.seed, epoch))

    init_key, run_key = jax.random.split(jax.random.key(config.seed))
    params = model.init(init_key, jnp.zeros((1, 1), jnp.int32))
    tx = network.build_optimiser(config)
    source = Source(crops, steps * config.batch_size, lambda data, index: data[index])
    batch = max(1, EVAL_TOKENS // config.context)
    evaluate = make_evaluate(
        network.make_metrics(model), rows_of(jax.tree.map(jnp.asarray, tuple(held_out))), batch,
        run_key,
    )

    channels = network.input_channels(model)

    def evaluate_with_rates(params: Params) -> dict[str, Any]:
        sums = evaluate(params)
        return sums | {"figures": network.spikes_per_channel(channels, sums)}

    checkpoints = Checkpoints(out / CHECKPOINTS)
    result = train(
        make_train_step(
            network.make_loss(model, config), tx, ema_decay=config.ema_decay,
            accumulate=config.accumulate,
        ),
        source, init_state(params, tx, run_key, ema=config.ema_decay is not None),
        LoopConfig(epochs, config.batch_size, config.seed, monitor="loss"),
        # A run killed before its first checkpoint resumes from the start.
        evaluate=evaluate_with_rates, checkpoints=checkpoints,
        resume=resume and bool(checkpoints.labels()), progress=progress,
    )
    return eval_params(result.state), result.journal, evaluate


def _epochs(config: LMConfig) -> tuple[int, int]:
    """Evaluations of a run, and steps between them."""
    epochs = max(n for n in range(1, EVALUATIONS + 1) if config.steps % n == 0)
    return epochs, config.steps // epochs


def _history(config: LMConfig, journal: Journal, spiking: bool) -> LossHistory:
    _, steps = _epochs(config)
    done, rates = len(journal.history["losses"]), journal.history["figures"]
    return LossHistory(
        steps=[steps * (i + 1) for i in range(done)],
        train_loss=journal.history["losses"],
        val_loss=journal.history["val_losses"],
        spikes_per_channel={
            layer: [entry[layer] for entry in rates] for layer in rates[0]
        } if spiking else None,
    )


def _record(
    config: LMConfig, corpus: Corpus, model: LanguageModel, params: Params, journal: Journal,
    sums: dict[str, Any], counts: dict[str, SynapseCounts], twin_loss: float | None, sample: str,
) -> dict[str, Any]:
    spiking = model.config.spiking
    tokens = journal.totals["samples"]
    return build_lm_record(
        config=config.to_json(),
        dataset=corpus.describe(),
        environment=environment(),
        seed=config.seed,
        model_class=type(model).__name__,
        model=model.config.to_json(),
        parameters=sum(leaf.size for leaf in jax.tree.leaves(params)),
        tokenizer={"kind": corpus.tokenizer.to_json()["kind"],
                   "vocab_size": corpus.tokenizer.vocab_size},
        text={
            "context": config.context, "bytes_per_token": corpus.bytes_per_token,
            "train_tokens": corpus.train.size, "validation_tokens": corpus.validation.size,
        },
        training_config={
            name: getattr(config, name) for name in (
                "steps", "batch_size", "context", "learning_rate", "warmup_steps", "weight_decay",
                "clip_norm", "accumulate",
            )
        } | {"optimizer": "adamw, cosine decay", "dtype": config.model.dtype},
        history=_history(config, journal, spiking),
        steps_trained=tokens // (config.batch_size * config.context),
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
        decoding=decoding_work(model, params, config.context) if spiking else None,
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
