"""Recurrent cells as NeuroBench counts them: two synapses, and the products of their gates."""

from typing import NamedTuple

import numpy as np
from jax.typing import ArrayLike

from fastsnn_jax._checks import check, check_choice

GATES = {"rnn": 1, "gru": 3, "lstm": 4}


class Cell(NamedTuple):
    """A recurrent cell with the weights that torch's cell of its kind has.

    Attributes:
      kind: "rnn", "gru" (gates r, z, n) or "lstm" (gates i, f, g, o).
      weight_ih: ``[gates * M, N]``, from the input.
      weight_hh: ``[gates * M, M]``, from the state.
      bias_ih, bias_hh: ``[gates * M]``, or None.
    """

    kind: str
    weight_ih: ArrayLike
    weight_hh: ArrayLike
    bias_ih: ArrayLike | None = None
    bias_hh: ArrayLike | None = None

    @property
    def weights(self) -> list[ArrayLike]:
        """All parameters: NeuroBench counts the biases of a cell among its connections."""
        return [weight for weight in self[1:] if weight is not None]


class CellOperations(NamedTuple):
    """Operations of every row of every call, int64 ``[T, B]``.

    ``spike_driven`` are those of ``effective`` whose signal is -1 or 1; products of two gates never
    are. Under ``quirks`` a call may have fewer rows than samples.
    """

    effective: np.ndarray
    spike_driven: np.ndarray
    dense: np.ndarray


def cell_operations(
    cell: Cell, x: np.ndarray, states: tuple[np.ndarray, ...], quirks: bool
) -> CellOperations:
    """Counts what a cell does with inputs ``x`` [T, B, N].

    The synapses cost a product for each non-zero weight and signal. A gate is on where one such
    product or a bias reaches it; the products of the state update count where both factors are on:
    f * c, i * g, o * c' of an lstm; r * (W_hn h + b_hn), (1 - z) * n, z * h of a gru. Two of these
    are taken from NeuroBench's code as they stand: 1 - z is off where exactly one product or bias
    reaches z, and n does not see the input.

    Args:
      states: h, of an lstm h and c, each ``[T, B, M]``; () where the cell was called without, which
        is a state of zeros.
      quirks: as NeuroBench 2.3.0 does, count only the first row of a call of an rnn without state,
        and fill the state of an lstm with ones for the dense count only where it is not zero.

    Raises:
      ValueError: shapes that do not fit, or with ``quirks`` a call that NeuroBench cannot count: of
        a gru without biases, of a gru or lstm without state.
    """
    where = f"{cell.kind} cell"
    check_choice("Cell", "kind", cell.kind, tuple(GATES))
    masks = _Masks.of(cell)
    lead, size = x.shape[:-1], masks.hh.shape[1]
    check(x.ndim == 3 and x.shape[-1] == masks.ih.shape[1], where,
          f"inputs must be [T, B, {masks.ih.shape[1]}]", x.shape)
    number = 2 if cell.kind == "lstm" else 1
    shapes = [state.shape for state in states]
    check(shapes in ([], number * [(*lead, size)]), where,
          f"there must be {number} states {(*lead, size)}, or none", shapes)
    bare_gru = cell.kind == "gru" and cell.bias_ih is None
    counted = cell.kind == "rnn" or (states and not bare_gru)
    check(bool(counted or not quirks), where,
          "NeuroBench 2.3.0 needs a state, of a gru also biases", f"{len(states)} states",
          "count it without quirks")

    dense_masks = masks.filled()
    if quirks and not states:
        x, zeros = x[:, :1], np.zeros((len(x), 1, size))
        dense = dense_masks.products("rnn", np.ones_like(x), (zeros,))
        states = (zeros,)
    else:
        states = states or number * (np.zeros((*lead, size)),)
        keeps_zeros = quirks and cell.kind == "lstm"
        filled = tuple((state != 0) if keeps_zeros else np.ones_like(state) for state in states)
        dense = dense_masks.products(cell.kind, np.ones_like(x), filled)
    effective = masks.products(cell.kind, x != 0, tuple(state != 0 for state in states))
    spikes = masks.products("rnn", np.abs(x) == 1, (np.abs(states[0]) == 1,))
    return CellOperations(effective, spikes, dense)


class _Masks(NamedTuple):
    """Weights as 0 and 1, in float64: their products are exact and fast."""

    ih: np.ndarray
    hh: np.ndarray
    bias_ih: np.ndarray
    bias_hh: np.ndarray

    @classmethod
    def of(cls, cell: Cell) -> "_Masks":
        ih, hh = (np.asarray(weight) != 0 for weight in cell[1:3])
        rows = GATES[cell.kind] * (hh.shape[-1] if hh.ndim == 2 else 0)
        check(hh.ndim == ih.ndim == 2 and len(ih) == len(hh) == rows, f"{cell.kind} cell",
              "weights must be [gates * M, N] and [gates * M, M]", (ih.shape, hh.shape))
        biases = (np.zeros(rows) if bias is None else np.asarray(bias) != 0 for bias in cell[3:])
        return cls(*(np.asarray(mask, np.float64) for mask in (ih, hh, *biases)))

    def filled(self) -> "_Masks":
        """All weights 1; biases that are absent are as good as any, the gates are on."""
        return _Masks(*map(np.ones_like, self))

    def products(self, kind: str, x: np.ndarray, states: tuple[np.ndarray, ...]) -> np.ndarray:
        """Products of each row, int64, for masks of inputs and states; of "rnn" the synapses'."""
        h = states[0]
        hidden = h.astype(np.float64) @ self.hh.T
        reached = x.astype(np.float64) @ self.ih.T + hidden
        count = reached.sum(-1).astype(np.int64)
        gates = np.split(reached + self.bias_ih + self.bias_hh, GATES[kind], axis=-1)
        if kind == "lstm":
            i, f, g, o = (gate != 0 for gate in gates)
            kept, new = f & (states[1] != 0), i & g
            return count + _sum(kept) + _sum(new) + _sum(o & (kept | new))
        if kind == "gru":
            r, z, _ = gates
            bias_ih, bias_hh = (np.split(bias, 3)[2] for bias in (self.bias_ih, self.bias_hh))
            candidate = np.split(hidden, 3, axis=-1)[2]
            recalled = (r != 0) & (candidate + bias_hh != 0)
            n = candidate + bias_ih + recalled != 0
            return count + _sum(recalled) + _sum((z != 1) & n) + _sum((z != 0) & (h != 0))
        return count


def _sum(mask: np.ndarray) -> np.ndarray:
    return mask.sum(-1, dtype=np.int64)
