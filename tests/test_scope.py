"""Pictures: every number is drawn once, bad input is refused, files are whole, small and equal."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fastsnn_jax import scope

HISTORY = {"losses": [0.9, 0.5, 0.4], "train_acc": [70.0, 85.0, 91.0], "val_acc": [75, 88, 88]}
# T=5, N=3; neuron 1 never fires
SPIKES = np.array([[1, 0, 0], [0, 0, 0], [1, 0, 1], [0, 0, 1], [0, 0, 0]])
DOTS = [(0, 0), (2, 0), (2, 2), (3, 2)]  # (step, neuron)
RATES = np.array([0.0, 0.0, 0.0, 0.25, 0.5, 1.0, 1.0])


def dots(axes):
    return [tuple(point) for point in axes.lines[0].get_xydata().tolist()]


def pixels(figure, path):
    scope.save(figure, path)
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def test_curves_draw_every_epoch_and_mark_the_first_best():
    loss, accuracy = scope.curves(HISTORY).axes
    assert loss.lines[0].get_xydata().tolist() == [[1, 0.9], [2, 0.5], [3, 0.4]]
    assert accuracy.lines[0].get_ydata().tolist() == [70, 85, 91]
    assert accuracy.lines[1].get_ydata().tolist() == [75, 88, 88]
    mark = accuracy.lines[-1]
    assert mark.get_xydata().tolist() == [[2, 88]]
    assert mark.get_label() == "selected: epoch 2, 88.00 %"


def test_curves_call_the_held_out_data_by_its_name():
    lines = scope.curves(HISTORY, held_out="test").axes[1].lines
    assert [line.get_label() for line in lines[:2]] == ["training", "test"]


def test_one_epoch_makes_curves_with_one_whole_numbered_tick():
    figure = scope.curves({name: values[:1] for name, values in HISTORY.items()})
    for axes in figure.axes:
        low, high = axes.get_xlim()
        assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [1]


def test_confusion_matrix_writes_counts_above_zero_and_recall():
    axes = scope.confusion_matrix([[3, 1, 0], [0, 0, 0], [0, 0, 4]], ["a", "b", "c"]).axes[0]
    written = [text.get_text() for text in axes.texts]
    assert written == ["3", "1", "4", "75.0 %", "none", "100.0 %", "recall"]
    assert axes.get_title(loc="left") == "87.50 % of 8 correct"  # 7 of 8
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["a", "b", "c"]


def test_confusion_matrix_shades_zero_white_and_one_rare_error_visibly():
    counts = np.diag([1000, 1000]) + [[0, 1], [0, 0]]
    image = scope.confusion_matrix(counts).axes[0].images[0].get_array()
    assert image[1, 0].tolist() == [1, 1, 1]
    assert np.ptp(image[0, 1]) > 0.5


def test_raster_draws_one_dot_per_spike_at_its_step_and_neuron():
    axes = scope.raster(SPIKES).axes[0]
    assert sorted(dots(axes)) == DOTS
    assert axes.texts[0].get_text() == "4 spikes"


def test_raster_shows_silent_neurons_and_steps_as_empty_room():
    axes = scope.raster(np.zeros((5, 3))).axes[0]
    assert dots(axes) == []
    assert axes.get_xlim() == (-0.5, 4.5)
    assert axes.get_ylim() == (-0.5, 2.5)


def test_raster_places_layers_in_rows_and_examples_in_columns():
    wide = np.ones((5, 4))
    layers = {"input": [SPIKES, SPIKES], "hidden": [wide, wide]}
    images = [np.ones((2, 2, 1)), np.ones((2, 2))]
    figure = scope.raster(layers, titles=["7", "2"], images=images)
    image, other, first, second, third, fourth = figure.axes
    assert [image.get_title(), other.get_title()] == ["7", "2"]
    assert [len(dots(axes)) for axes in (first, second, third, fourth)] == [4, 4, 20, 20]
    assert [first.get_ylabel(), third.get_ylabel()] == ["input\nneuron", "hidden\nneuron"]


def test_raster_of_a_list_is_a_row_of_panels():
    figure = scope.raster([SPIKES, 0 * SPIKES], titles=["busy", "mute"])
    assert [len(dots(axes)) for axes in figure.axes] == [4, 0]
    assert [axes.get_title() for axes in figure.axes] == ["busy", "mute"]


def test_membrane_draws_every_trace_its_threshold_and_a_bar_per_spike():
    v = np.array([[0.5, -0.25], [0.75, 0.5], [0.0, 1.0]])  # T=3, N=2
    spikes = np.array([[0, 0], [0, 0], [1, 0]])
    first, second = scope.membrane(v, [1.0, 1.5], spikes, names=["a", "b"]).axes
    for axes, neuron, level, bars in ((first, 0, 1.0, 1), (second, 1, 1.5, 0)):
        trace, dashes = axes.lines
        assert trace.get_ydata().tolist() == v[:, neuron].tolist()
        assert list(dashes.get_ydata()) == [level, level]
        assert len(axes.collections[0].get_segments()) == bars
    assert first.collections[0].get_segments()[0][:, 0].tolist() == [2, 2]
    assert [first.get_ylabel(), second.get_ylabel()] == ["a", "b"]


def test_membrane_shows_a_value_above_the_threshold():
    axes = scope.membrane(np.array([[0.0], [7.0]])).axes[0]
    low, top = axes.get_ylim()
    assert low <= 0 and top >= 7


@pytest.mark.parametrize(("scale", "threshold"), [(0.5, 0.25), (30.0, 1.0), (-65.0, -60.0)])
def test_membrane_far_from_the_threshold_keeps_its_spikes_and_ticks_apart(scale, threshold):
    v = scale * np.array([[0.9], [1.0], [0.95]])
    axes = scope.membrane(v, threshold, v > threshold).axes[0]
    assert len(axes.collections[0].get_segments()) >= 1
    height = np.diff(axes.get_ylim())[0]
    assert abs(np.diff(axes.get_yticks())[0]) > 0.15 * height
    for (_, start), (_, end) in axes.collections[0].get_segments():
        assert start > v.max() and end - start > 0.1 * height and end < axes.get_ylim()[1]


def test_rate_histogram_counts_every_neuron_once():
    low, middle, high = scope.rate_histogram(RATES, RATES == 0, RATES == 1).axes
    assert [text.get_text() for text in (low.texts[0], high.texts[0])] == ["3", "2"]
    assert [low.patches[0].get_height(), high.patches[0].get_height()] == [3, 2]
    assert sum(bar.get_height() for bar in middle.patches) == 2
    assert middle.get_title(loc="left") == "2 of 7 neurons active"
    assert middle.texts[0].get_text().strip() == "mean 0.375"


def test_rate_histogram_of_a_dead_layer_is_drawn():
    low, middle, _ = scope.rate_histogram(RATES * 0, RATES >= 0, RATES < 0).axes
    assert low.texts[0].get_text() == "7"
    assert sum(bar.get_height() for bar in middle.patches) == 0


PICTURES = {
    "curves": lambda: scope.curves(HISTORY),
    "confusion_matrix": lambda: scope.confusion_matrix(np.arange(100).reshape(10, 10)),
    "raster": lambda: scope.raster(
        {"input": [np.eye(50, 784)] * 2, "hidden": [np.ones((50, 400))] * 2},
        titles="72", images=[np.arange(784).reshape(28, 28)] * 2,
    ),
    "membrane": lambda: scope.membrane(np.sin(np.arange(200).reshape(50, 4))),
    "rate_histogram": lambda: scope.rate_histogram(RATES, RATES == 0, RATES == 1),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_written_whole_small_and_the_same_each_time(name, tmp_path):
    image = pixels(PICTURES[name](), tmp_path / "one.png")
    scope.save(PICTURES[name](), tmp_path / "two.png")
    # Ink, and white paper around it: nothing is cut off at the edge.
    assert (image != 255).any(axis=2).mean() > 0.01
    border = [image[0], image[-1], image[:, 0], image[:, -1]]
    assert all((edge == 255).all() for edge in border)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    assert (tmp_path / "one.png").stat().st_size < 200_000
    assert sorted(file.name for file in tmp_path.iterdir()) == ["one.png", "two.png"]


def test_a_failed_save_keeps_the_old_picture_and_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "curves.png"
    path.write_bytes(b"old")

    figure = scope.curves(HISTORY)
    whole = Image.Image.save

    def half_written(self, file, **options):
        if not isinstance(file, Path):  # matplotlib's own drawing, in memory
            return whole(self, file, **options)
        file.write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(Image.Image, "save", half_written)
    with pytest.raises(OSError, match="disk full"):
        scope.save(figure, path)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    assert path.read_bytes() == b"old"


@pytest.mark.slow
def test_pictures_leave_pyplot_and_its_settings_alone():
    code = (
        "import sys, matplotlib; before = matplotlib.rcParams.copy()\n"
        "from fastsnn_jax import scope\n"
        "scope.membrane([[0, 1], [1, 0]]).savefig('/dev/null', format='png')\n"
        "assert 'matplotlib.pyplot' not in sys.modules\n"
        "assert dict.__eq__(matplotlib.rcParams, before)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


NAN = np.array([[0.5], [np.nan]])
BAD = {
    "a history without a key": (lambda: scope.curves({"losses": [1.0]}), "history must hold"),
    "an empty history": (lambda: scope.curves(dict.fromkeys(HISTORY, [])), "must not be empty"),
    "a loss of NaN": (lambda: scope.curves(HISTORY | {"losses": [1, 2, np.nan]}), "finite"),
    "lists of two lengths": (lambda: scope.curves(HISTORY | {"losses": [1, 2]}), "one length"),
    "words for numbers": (lambda: scope.curves(HISTORY | {"losses": ["a"] * 3}), "be numbers"),
    "an oblong matrix": (lambda: scope.confusion_matrix(np.ones((2, 3))), "square"),
    "a negative count": (lambda: scope.confusion_matrix([[1, -1], [0, 1]]), ">= 0"),
    "too few names": (lambda: scope.confusion_matrix(np.eye(3), ["a"]), "3 names"),
    "a train of counts": (lambda: scope.raster(np.array([[0, 2]])), "zeros and ones"),
    "a train without a time axis": (lambda: scope.raster(np.ones(3)), "2 axes"),
    "no train": (lambda: scope.raster([]), "at least one train"),
    "layers of unlike length": (
        lambda: scope.raster({"a": [SPIKES], "b": [SPIKES] * 2}), "as many for every layer"
    ),
    "too many titles": (lambda: scope.raster(SPIKES, titles=["a", "b"]), "titles must be 1"),
    "an image in colour": (lambda: scope.raster(SPIKES, images=[np.ones((2, 2, 3))]), "2 axes"),
    "a membrane of NaN": (lambda: scope.membrane(NAN), "finite"),
    "too many traces": (lambda: scope.membrane(np.ones((2, 13))), "at most 12"),
    "thresholds of another shape": (lambda: scope.membrane(SPIKES, [1.0]), "threshold"),
    "spikes of another shape": (lambda: scope.membrane(SPIKES, 1.0, SPIKES[:2]), "shape"),
    "spikes of a half": (lambda: scope.membrane(SPIKES, 1.0, SPIKES / 2), "zeros and ones"),
    "one name for three": (lambda: scope.membrane(SPIKES, names=["a"]), "names must be 3"),
    "a rate in hertz": (lambda: scope.rate_histogram([80.0], [False], [False]), "spikes per step"),
    "a mask of numbers": (lambda: scope.rate_histogram([0.0], [1], [False]), "booleans"),
    "silent and saturated": (lambda: scope.rate_histogram([0.0], [True], [True]), "1 that are"),
    "another file type": (lambda: scope.save(scope.curves(HISTORY), "a.jpg"), "end in .png"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_is_refused_with_a_reason(what):
    draw, reason = BAD[what]
    with pytest.raises(ValueError, match=reason):
        draw()
