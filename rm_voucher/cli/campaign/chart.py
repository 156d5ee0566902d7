"""Bars by day, and one bar of parts, as SVG that stands in a page. Pure; no script, no styles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date, timedelta

import attrs

from rm_voucher.text import counted

_MOST_BARS = 62
_STEPS_DAYS = (1, 7, 28, 91, 364)
# In the units of the picture, which is about as wide as a telephone is in points.
_WIDTH, _HEIGHT = 360, 172
_LEFT, _RIGHT, _TOP, _BOTTOM = 38, 6, 10, 22


@attrs.frozen
class Axis:
    """The days of a plot: ``bars`` spans of ``step_days`` each, from ``first`` on."""

    first: date
    step_days: int
    bars: int

    @classmethod
    def over(cls, days: Sequence[date]) -> Axis:
        """Return the axis for these days, of which there must be one: whatever they are, it fits.

        A bar has one day, where there are not too many, or a week, or more.
        """
        first, last = min(days), max(days)
        span, steps = (last - first).days + 1, list(_STEPS_DAYS)
        while (step := steps.pop(0)) * _MOST_BARS < span:
            steps = steps or [2 * step]
        return cls(first, step, -(-span // step))

    def place(self, day: date) -> int:
        """Return the number of the bar that a day belongs to, from 0."""
        return (day - self.first).days // self.step_days

    def name(self, bar: int) -> str:
        """Return what a bar is about: its day, or its first and last one."""
        begin = self.first + timedelta(days=bar * self.step_days)
        if self.step_days == 1:
            return long_day(begin)
        # The last bar may end after the last day that there is.
        days = min(self.step_days - 1, (date.max - begin).days)
        return f"{long_day(begin)} to {long_day(begin + timedelta(days=days))}"

    def label(self, bar: int) -> str:
        """Return the first day of a bar, in short."""
        begin = self.first + timedelta(days=bar * self.step_days)
        return (
            f"{begin.day} {begin:%b}"
            if self.bars * self.step_days < 366
            else f"{begin:%b} {begin.year}"
        )


def long_day(day: date) -> str:
    """Return a day as people write it."""
    return f"{day.day} {day:%b} {day.year}"


def nice_top(most: int) -> int:
    """Return the end of a scale: a digit with zeros, even but for 1, not under the highest bar."""
    power = 1
    while True:
        for digit in (1, 2, 4, 6, 8):
            if digit * power >= most:
                return digit * power
        power *= 10


def day_bars(title: str, kind: str, days: Mapping[date, int], axis: Axis) -> str:
    """Return a plot of what happened by day; ``kind`` is the class that gives it its colour."""
    heights = [0] * axis.bars
    for day, number in days.items():
        heights[axis.place(day)] += number
    top = nice_top(max(heights))
    wide, high = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    slot, ground = wide / axis.bars, _TOP + high
    # One bar alone, or a few, are not as wide as the plot.
    thick = min(slot * 0.8, 28.0)
    words = f"{title} by day, {sum(heights):,} together"
    parts = [f'<svg class="plot" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{words}">']
    for value in (0, top // 2, top) if top % 2 == 0 else (0, top):
        y = ground - high * value / top
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        parts.append(
            f'<text class="tick" x="{_LEFT - 5}" y="{y + 3.5:.1f}" text-anchor="end">'
            f"{value:,}</text>"
        )
    for bar, number in enumerate(heights):
        if number:
            tall = max(high * number / top, 1.0)
            x = _LEFT + slot * (bar + 0.5) - thick / 2
            parts.append(
                f'<rect class="{kind}" x="{x:.1f}" y="{ground - tall:.1f}" width="{thick:.1f}" '
                f'height="{tall:.1f}"><title>{axis.name(bar)}: {number:,}</title></rect>'
            )
    for bar in _labelled(axis.bars):
        x = _LEFT + slot * (bar + 0.5)
        anchor = "middle"
        if axis.bars > 1 and bar in (0, axis.bars - 1) and slot < 36:
            anchor, x = ("start", _LEFT) if bar == 0 else ("end", _WIDTH - _RIGHT)
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">'
            f"{axis.label(bar)}</text>"
        )
    return "".join([*parts, "</svg>"])


def _labelled(bars: int) -> Sequence[int]:
    """Return the bars with a date beneath: few enough to be read."""
    if bars <= 5:
        return range(bars)
    return sorted({0, bars // 2, bars - 1})


def part_bar(parts: Mapping[str, tuple[int, str]]) -> str:
    """Return one bar of parts, by their classes, with the number and the name of each."""
    whole, x = sum(number for number, _ in parts.values()), 0.0
    drawn = []
    for kind, (number, name) in parts.items():
        wide = 1000 * number / whole if whole else 0
        if number:
            drawn.append(
                f'<rect class="{kind}" x="{x:.2f}" y="0" width="{wide:.2f}" height="20">'
                f"<title>{name}: {number:,}</title></rect>"
            )
        x += wide
    words = f"{counted(whole, 'recipient')} by where they stand"
    return (
        f'<svg class="parts" viewBox="0 0 1000 20" preserveAspectRatio="none" role="img" '
        f'aria-label="{words}">{"".join(drawn)}</svg>'
    )
