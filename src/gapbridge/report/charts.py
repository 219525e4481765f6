"""Lines and points to what the page draws as SVG: paths and ticks in the units of one view box.

Shapes: `n` values of a line, points of a cloud (n, 2).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

WIDTH, HEIGHT = 320, 200
_LEFT, _RIGHT, _TOP, _BOTTOM = 34, 8, 10, 22
_POINTS = 160
_CLOUD_MARGIN = 0.06


@dataclass(frozen=True)
class Mark:
    """One line or cloud: its name in the legend and its path."""

    name: str
    path: str


@dataclass(frozen=True)
class Tick:
    """A place on an axis and what stands there."""

    at: float
    label: str


@dataclass(frozen=True)
class Chart:
    """One small picture; `marks` are coloured by their order."""

    title: str
    marks: tuple[Mark, ...]
    x_ticks: tuple[Tick, ...] = ()
    y_ticks: tuple[Tick, ...] = ()
    x_label: str = ""
    description: str = ""
    width: int = WIDTH
    height: int = HEIGHT


Line = tuple[Sequence[float] | np.ndarray, Sequence[float] | np.ndarray]
"""x and y values (n,), x rising."""


def line_chart(title: str, lines: Mapping[str, Line], x_label: str, log_x: bool = False) -> Chart:
    """Lines over a logarithmic y axis; long ones are thinned to their means over equal stretches.

    Values must be above 0 (and x too, where `log_x`). Needs at least one line with one value.
    """
    thin = {name: _thinned(line) for name, line in lines.items() if len(line[0])}
    every_x = np.concatenate([xs for xs, _ in thin.values()])
    every_y = np.concatenate([ys for _, ys in thin.values()])
    x_axis = _Axis.over(every_x, _LEFT, WIDTH - _RIGHT, log_x)
    y_axis = _Axis.over(every_y, HEIGHT - _BOTTOM, _TOP, logarithmic=True)
    marks = tuple(Mark(name, _polyline(x_axis.place(xs), y_axis.place(ys))) for name, (xs, ys) in thin.items())
    ends = ", ".join(f"{name} {_short(ys[0])} to {_short(ys[-1])}" for name, (_, ys) in thin.items())
    return Chart(title, marks, x_axis.ticks(), y_axis.ticks(), x_label, f"{title}: {ends}")


def clouds(titles: Sequence[str], groups: Sequence[Mapping[str, np.ndarray]]) -> list[Chart]:
    """One chart a group of named clouds (n, 2), all at one scale, so that they can be compared by eye."""
    every = np.concatenate([points for clouds_ in groups for points in clouds_.values()])
    low, high = every.min(axis=0), every.max(axis=0)
    side = float((high - low).max()) * (1 + 2 * _CLOUD_MARGIN) or 1.0
    corner = (low + high) / 2 - side / 2

    def dots(points: np.ndarray) -> str:
        places = (points - corner) / side * HEIGHT
        return "".join(f"M{x:.1f} {HEIGHT - y:.1f}h0" for x, y in places)

    return [
        Chart(
            title,
            tuple(Mark(name, dots(points)) for name, points in named.items()),
            description=f"{title}: {' and '.join(named)} in two dimensions",
            width=HEIGHT,
        )
        for title, named in zip(titles, groups, strict=True)
    ]


@dataclass(frozen=True)
class _Axis:
    low: float
    high: float
    start: float
    end: float
    logarithmic: bool

    @classmethod
    def over(cls, values: np.ndarray, start: float, end: float, logarithmic: bool) -> "_Axis":
        scaled = np.log10(values) if logarithmic else values
        low, high = float(scaled.min()), float(scaled.max())
        return cls(low, high if high > low else low + 1, start, end, logarithmic)

    def place(self, values: np.ndarray) -> np.ndarray:
        scaled = np.log10(values) if self.logarithmic else values
        return self.start + (scaled - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self) -> tuple[Tick, ...]:
        values = np.array(self._log_steps() if self.logarithmic else self._even_steps())
        return tuple(
            Tick(round(float(at), 1), _short(float(value)))
            for at, value in zip(self.place(values), values, strict=True)
        )

    def _even_steps(self) -> list[float]:
        rough = (self.high - self.low) / 4
        unit = 10.0 ** math.floor(math.log10(rough))
        step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, math.floor(self.high / step) + 1)]

    def _log_steps(self) -> list[float]:
        """1, 2, 5 times powers of ten where few fit, powers of ten alone (every other one, …) where many do."""
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        for factors, every in (((1, 2, 5), 1), ((1,), 1), ((1,), 2), ((1,), 4)):
            values = [factor * 10.0**power for power in powers[::every] for factor in factors]
            inside = [value for value in values if self.low - 1e-9 <= math.log10(value) <= self.high + 1e-9]
            if len(inside) <= 6:
                return inside or [10.0**self.low]
        return inside


def _thinned(line: Line) -> tuple[np.ndarray, np.ndarray]:
    parts = min(len(line[0]), _POINTS)
    xs, ys = (
        np.array([part.mean() for part in np.array_split(np.asarray(values, dtype=np.float64), parts)])
        for values in line
    )
    return xs, ys


def _polyline(xs: np.ndarray, ys: np.ndarray) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in zip(xs, ys, strict=True))


def _short(value: float) -> str:
    """Three figures at most, no trailing zeros, thousands with k."""
    if value and (abs(value) < 1e-3 or abs(value) >= 1e6):
        mantissa, exponent = f"{value:.0e}".split("e")
        return f"{mantissa}e{int(exponent)}"
    if abs(value) >= 10_000:
        return f"{value / 1000:.3g}k"
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
