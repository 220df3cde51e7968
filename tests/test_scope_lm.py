"""Pictures of a language model: every measured number is drawn once, bad input is refused."""

import numpy as np
import pytest
from PIL import Image

from fastsnn_jax import scope

HISTORY = {
    "steps": [0, 10, 20, 35], "train_loss": [None, 3.0, 2.5, 1.5], "val_loss": [4, None, 2.0, 2.25],
}
TWIN = {"steps": [0, 20], "train_loss": [None, 1.0], "val_loss": [3.5, 1.75]}
LAYERS = {"block_0/q": [None, 1.5, 1.25, 1.0], "block_1/up": [0.5, 0.5, 0.25, 0.0]}
# 8 counts of at most 4: two silent, three at a limit.
COUNTS = np.array([[0, 4, -4, 1], [0, 4, -2, 1]])


def points(line):
    return [tuple(point) for point in line.get_xydata().tolist()]


def bars(axes):
    """{value: height} of the bars that rise above the foot."""
    heights, edges, foot = axes.patches[0].get_data()
    return {edge + 0.5: height for edge, height in zip(edges, heights, strict=False)
            if height > foot}


def test_loss_curves_draw_what_was_measured_and_mark_the_lowest():
    training, validation, lowest = scope.loss_curves(HISTORY).axes[0].lines
    assert points(training) == [(10, 3), (20, 2.5), (35, 1.5)]
    assert points(validation) == [(0, 4), (20, 2), (35, 2.25)]
    assert points(lowest) == [(20, 2)]
    assert lowest.get_label() == "lowest: step 20, 2.0000"


def test_loss_curves_draw_the_validation_of_the_twin():
    lines = scope.loss_curves(HISTORY, twin=TWIN).axes[0].lines
    labels = [line.get_label() for line in lines]
    assert labels[:3] == ["training", "validation", "validation without spikes"]
    assert points(lines[2]) == [(0, 3.5), (20, 1.75)]


def test_loss_curves_without_validation_have_no_mark():
    lines = scope.loss_curves(HISTORY | {"val_loss": [None] * 4}).axes[0].lines
    assert [line.get_label() for line in lines] == ["training"]


def test_one_step_makes_loss_curves_with_one_whole_numbered_tick():
    axes = scope.loss_curves({"steps": [7], "train_loss": [1.0], "val_loss": [2.0]}).axes[0]
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [7]


def test_spike_rates_draw_every_layer_from_zero_up():
    axes = scope.spike_rates(HISTORY["steps"], LAYERS).axes[0]
    first, second = axes.lines
    assert points(first) == [(10, 1.5), (20, 1.25), (35, 1.0)]
    assert points(second) == [(0, 0.5), (10, 0.5), (20, 0.25), (35, 0.0)]
    assert [line.get_label() for line in axes.lines] == ["block_0/q", "block_1/up"]
    assert axes.get_ylim()[0] == 0


def test_spike_rates_draw_no_two_of_many_layers_alike():
    layers = {f"layer {i}": [1.0, i / 8] for i in range(40)}
    lines = scope.spike_rates([0, 1], layers).axes[0].lines
    assert len({tuple(line.get_color()) for line in lines}) == 40


def test_count_histogram_counts_every_value_once():
    axes = scope.count_histogram(COUNTS, limit=4).axes[0]
    assert bars(axes) == {-4: 1, -2: 1, 0: 2, 1: 2, 4: 2}
    assert axes.get_yscale() == "log"
    low, high = axes.get_ylim()
    assert low < 1 and high > 2


def test_count_histogram_marks_the_silent_and_the_saturated():
    axes = scope.count_histogram(COUNTS, limit=4).axes[0]
    assert [text.get_text() for text in axes.texts] == ["silent 25 %", "saturated 37.5 %"]
    silent, saturated = axes.lines
    assert silent.get_xdata().tolist() == [0]
    assert saturated.get_xdata().tolist() == [-4, 4]
    assert [(bar.get_x() + 0.5, bar.get_height()) for bar in axes.patches[1:]] == [
        (0, 2), (-4, 1), (4, 2)
    ]


def test_count_histogram_far_from_the_limit_marks_nothing_and_ends_early():
    axes = scope.count_histogram([-3.0, 2.0, 1.0]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["silent 0 %", "saturated 0 %"]
    assert [line.get_xdata().tolist() for line in axes.lines] == [[], []]
    low, high = axes.get_xlim()
    assert -5 < low < -3.5 and 3.5 < high < 5


def test_count_histogram_has_a_panel_per_layer_on_one_scale():
    layers = {f"layer {i}": COUNTS * (i == 4) for i in range(5)}
    shown = [axes for axes in scope.count_histogram(layers, limit=4).axes if axes.axison]
    assert [axes.get_title(loc="left") for axes in shown] == list(layers)
    assert [bars(axes).get(0) for axes in shown] == [8, 8, 8, 8, 2]
    assert len({(axes.get_xlim(), axes.get_ylim()) for axes in shown}) == 1


PICTURES = {
    "loss_curves": lambda: scope.loss_curves(HISTORY, twin=TWIN),
    "spike_rates": lambda: scope.spike_rates(
        [0, 1], {f"block_{i}/attention/query/kernel": [1.0, i / 8] for i in range(20)}
    ),
    "count_histogram": lambda: scope.count_histogram(
        {f"block_{i}/attention/query/kernel": COUNTS for i in range(3)}, limit=4
    ),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_written_with_nothing_cut_off(name, tmp_path):
    path = tmp_path / f"{name}.png"
    scope.save(PICTURES[name](), path)
    with Image.open(path) as picture:
        image = np.asarray(picture.convert("RGB"))
    assert (image != 255).any(axis=2).mean() > 0.01
    assert all((edge == 255).all() for edge in (image[0], image[-1], image[:, 0], image[:, -1]))


STEPS = HISTORY["steps"]
BAD = {
    "a history without steps": (lambda: scope.loss_curves({"val_loss": [1.0]}), "must hold steps"),
    "a history without a loss": (
        lambda: scope.loss_curves({"steps": [1], "val_loss": [1.0]}), "train_loss"
    ),
    "no step": (
        lambda: scope.loss_curves({"steps": [], "train_loss": [], "val_loss": []}), "not be empty"
    ),
    "nothing measured": (
        lambda: scope.loss_curves({"steps": [1], "train_loss": [None], "val_loss": [None]}),
        "must hold a loss",
    ),
    "a loss of NaN": (
        lambda: scope.loss_curves(HISTORY | {"val_loss": [1, 2, 3, np.nan]}), "must be finite"
    ),
    "too few losses": (
        lambda: scope.loss_curves(HISTORY | {"val_loss": [1.0]}), "4 entries, one per step, got 1"
    ),
    "steps that go back": (
        lambda: scope.loss_curves(HISTORY | {"steps": [0, 20, 10, 35]}), "must ascend"
    ),
    "a twin of NaN": (
        lambda: scope.loss_curves(HISTORY, twin=TWIN | {"val_loss": [np.nan, 1]}), "finite"
    ),
    "no layer": (lambda: scope.spike_rates(STEPS, {}), "at least one layer"),
    "a short layer": (lambda: scope.spike_rates(STEPS, {"up": [1.0]}), "up must have 4 entries"),
    "a rate below zero": (lambda: scope.spike_rates([1], {"up": [-0.5]}), ">= 0, got -0.5"),
    "a rate of NaN": (lambda: scope.spike_rates([1], {"up": [np.nan]}), "up must be finite"),
    "rates at steps that go back": (
        lambda: scope.spike_rates([2, 1], {"up": [1.0, 1.0]}), "must ascend"
    ),
    "no panel": (lambda: scope.count_histogram({}), "at least one layer"),
    "no counts": (lambda: scope.count_histogram([]), "must not be empty"),
    "half a spike": (lambda: scope.count_histogram({"up": [0.5]}), "up must be whole numbers"),
    "a count beyond the limit": (lambda: scope.count_histogram([128]), "within 127 of 0, got 128"),
    "counts of NaN": (lambda: scope.count_histogram([np.nan]), "must be finite"),
    "a limit of 0": (lambda: scope.count_histogram([0], limit=0), "limit must be >= 1"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_with_a_reason(what):
    draw, reason = BAD[what]
    with pytest.raises(ValueError, match=reason):
        draw()
