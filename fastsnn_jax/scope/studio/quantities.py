"""Quantities as short text, with a unit that keeps the figure between 1 and 1000."""

ENERGY = ((1e12, "J"), (1e9, "mJ"), (1e6, "µJ"), (1e3, "nJ"), (1.0, "pJ"))
COUNT = ((1e9, " G"), (1e6, " M"), (1e3, " k"), (1.0, ""))
BITS = ((8 * 2**30, "GiB"), (8 * 2**20, "MiB"), (8 * 2**10, "KiB"), (8.0, "bytes"))


def energy_text(picojoules: float) -> str:
    """Three digits with a unit.

    >>> energy_text(27_900_000.0), energy_text(0.0339), energy_text(0.0)
    ('27.9 µJ', '0.0339 pJ', '0 pJ')
    """
    return _scaled(picojoules, ENERGY, " ")


def interval_text(bounds: list[float]) -> str:
    """``low to high`` of [low, nominal, high]; nothing where three digits show no difference."""
    low, high = energy_text(bounds[0]), energy_text(bounds[2])
    return "" if low == high else f"{low} to {high}"


def count_text(number: float) -> str:
    """Three digits, with thousands shortened.

    >>> count_text(317600), count_text(12)
    ('318 k', '12')
    """
    return _scaled(number, COUNT, "")


def bits_text(bits: float) -> str:
    """A size in bytes, KiB, MiB or GiB.

    >>> bits_text(8 * 317600)
    '310 KiB'
    """
    return _scaled(bits, BITS, " ")


def percent_text(share: float) -> str:
    """A share of 1 in percent, three digits."""
    return f"{_digits(100 * share)} %"


def _scaled(value: float, units: tuple[tuple[float, str], ...], space: str) -> str:
    factor, unit = next((one for one in units if abs(value) >= 0.9995 * one[0]), units[-1])
    return f"{_digits(value / factor)}{space}{unit}".strip()


def _digits(value: float) -> str:
    """Three significant digits, without an exponent from 1e-5 on."""
    if value == 0 or not 1e-5 <= abs(value) < 1e15:
        return f"{value:.3g}"
    rounded = float(f"{value:.3g}")
    return f"{rounded:,.10f}".rstrip("0").rstrip(".")
