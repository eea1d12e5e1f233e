"""Draw the panels of hookmirror.json from a Prometheus, without Grafana:

pip install matplotlib
python deploy/grafana/picture.py http://localhost:9090 picture.png --minutes 60

Each query is asked as it stands in the JSON, of Prometheus' own HTTP API.
"""

# mypy: disable-error-code="arg-type, list-item, no-untyped-call"
# matplotlib takes moments for coordinates, but its types do not say so.

import argparse
import io
import json
import math
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.dates import DateFormatter
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

DASHBOARD = Path(__file__).with_name("hookmirror.json")
PIXELS, POINTS = 1600, 240
CELL, GAP = 38, 8
"""Height of a grid cell, and what lies between two panels, in pixels."""

BACK, FRONT, TEXT, FAINT = "#0e1014", "#1a1d23", "#e6e6e6", "#3a3f47"
PALETTE = ("#5794F2", "#FF9830", "#73BF69", "#B877D9", "#F2495C", "#FADE2A", "#37A2B4", "#FF7BC5")

Panel = dict[str, Any]
Series = tuple[str, list[float]]
"""A legend, and a value for each moment, NaN where there is none."""


class Prometheus:
    """Asks for one span of time. `rate` stands for Grafana's $__rate_interval."""

    def __init__(self, url: str, start: float, end: float, *, rate: str, route: str) -> None:
        self.start, self.end = int(start), int(end)
        self._step = max(round((end - start) / POINTS), 1)
        self.moments = [datetime.fromtimestamp(at, UTC) for at in range(int(start), int(end) + 1, self._step)]
        self._url = url.rstrip("/")
        self._values = {"$__rate_interval": rate, "$route": route}

    def series(self, panel: Panel) -> list[Series]:
        """Return what the panel's queries give over the span, by their legends."""
        span = {"start": self.start, "end": self.end, "step": self._step}
        found = []
        for target in panel["targets"]:
            for one in self._ask("query_range", target["expr"], span):
                told = {round(at): float(value) for at, value in one["values"]}
                values = [told.get(round(at.timestamp()), math.nan) for at in self.moments]
                found.append((_legend(target["legendFormat"], one["metric"]), values))
        return found

    def number(self, panel: Panel) -> float | None:
        """Return what the panel's query gives at the end of the span."""
        found = self._ask("query", panel["targets"][0]["expr"], {"time": self.end})
        return float(found[0]["value"][1]) if found else None

    def _ask(self, path: str, expr: str, span: dict[str, Any]) -> list[dict[str, Any]]:
        for name, value in self._values.items():
            expr = expr.replace(name, value)
        query = urllib.parse.urlencode({"query": expr, **span})
        with urllib.request.urlopen(f"{self._url}/api/v1/{path}?{query}") as answer:  # noqa: S310 - the user's
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        return result


def _legend(form: str, metric: dict[str, str]) -> str:
    for name, value in metric.items():
        form = form.replace("{{%s}}" % name, value)  # noqa: UP031 - braces all the way
    return form


def shown(value: float, unit: str) -> str:
    """Return a number as a person writes it."""
    if not value:
        return "0"
    steps: tuple[tuple[float, float, str], ...]
    if unit == "s":
        steps = ((7200, 3600, "h"), (600, 60, "min"), (1, 1, "s"), (0, 0.001, "ms"))
    elif unit == "Bps":
        steps = ((1e6, 1e6, "MB/s"), (1e3, 1e3, "kB/s"), (0, 1, "B/s"))
    else:
        steps = ((1e6, 1e6, "M"), (1e4, 1e3, "k"), (0, 1, "/s" if unit in {"ops", "reqps"} else ""))
    divisor, name = next((divisor, name) for least, divisor, name in steps if value >= least or not least)
    gap = "" if name in {"", "/s", "k", "M"} else " "
    return f"{value / divisor:.3g}{gap}{name}"


class Board:
    """The figure, and each kind of panel drawn on it."""

    def __init__(
        self, source: Prometheus, panels: Sequence[Panel], marks: Sequence[tuple[float, str]]
    ) -> None:
        self._source = source
        self._marks = [(datetime.fromtimestamp(at, UTC), text) for at, text in marks]
        self._rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
        self._high = self._rows * CELL + (44 if marks else 0)
        self.figure = Figure(figsize=(PIXELS / 100, self._high / 100), dpi=100, facecolor=BACK)
        kinds: dict[str, Callable[[Axes, Panel], None]] = {
            "stat": self._stat,
            "timeseries": self._lines,
            "heatmap": self._heatmap,
            "state-timeline": self._states,
        }
        for panel in panels:
            kinds[panel["type"]](self._place(panel), panel)
        self._explain()

    def _place(self, panel: Panel) -> Axes:
        """Return the axes of a panel, after drawing its frame and its title."""
        at, one = panel["gridPos"], PIXELS / 24
        left, wide = at["x"] * one + GAP / 2, at["w"] * one - GAP
        top, high = at["y"] * CELL + GAP / 2, at["h"] * CELL - GAP
        inner = (0, 0, 0, 0) if panel["type"] == "stat" else (52, 50, 34, 46)  # left, right, top, bottom

        def box(west: float, east: float, north: float, south: float) -> tuple[float, float, float, float]:
            down = self._high - (top + high) + south
            return (
                (left + west) / PIXELS,
                down / self._high,
                (wide - west - east) / PIXELS,
                ((high - north - south) / self._high),
            )

        frame = self.figure.add_axes(box(0, 0, 0, 0), facecolor=FRONT)
        frame.set(xticks=[], yticks=[])
        frame.spines[:].set_visible(False)
        if panel["type"] == "stat":
            return frame
        frame.text(12 / wide, 1 - 17 / high, panel["title"], color=TEXT, va="center", weight="bold", size=10)
        axes = self.figure.add_axes(box(*inner), facecolor=FRONT)
        axes.tick_params(colors=TEXT, labelsize=8, length=0)
        axes.spines[:].set_visible(False)
        axes.grid(color=FAINT, linewidth=0.5)
        axes.xaxis.set_major_formatter(DateFormatter("%H:%M", tz=UTC))
        axes.set_xlim(
            datetime.fromtimestamp(self._source.start, UTC), datetime.fromtimestamp(self._source.end, UTC)
        )
        for number, (moment, _) in enumerate(self._marks, 1):
            axes.axvline(moment, color="#9aa0a8", linewidth=0.8, linestyle=":")
            across = axes.get_xaxis_transform()
            axes.text(moment, 1.01, f"{number}", transform=across, color="#9aa0a8", ha="center", size=7)
        return axes

    def _stat(self, axes: Axes, panel: Panel) -> None:
        defaults = panel["fieldConfig"]["defaults"]
        value = self._source.number(panel)
        words = {**_words(panel)}
        if value is None or math.isnan(value):
            text, colour = defaults["noValue"], "#44484f"
        elif value in words:
            text, colour = words[value]
        else:
            text = shown(value, defaults["unit"])
            colour = [
                step["color"]
                for step in defaults["thresholds"]["steps"]
                if step["value"] is None or value >= step["value"]
            ][-1]
        axes.set_facecolor(colour)
        axes.text(0.06, 0.86, panel["title"], color="#14161a", va="center", weight="bold", size=10)
        axes.text(0.5, 0.42, text, color="#14161a", ha="center", va="center", weight="bold", size=25)

    def _lines(self, axes: Axes, panel: Panel) -> None:
        field = panel["fieldConfig"]
        special: dict[str, dict[str, Any]] = {}
        for one in field["overrides"]:
            mine = special.setdefault(one["matcher"]["options"], {})
            mine |= {entry["id"]: entry["value"] for entry in one["properties"]}
        custom, unit = field["defaults"]["custom"], field["defaults"]["unit"]
        moments, floor = self._source.moments, [0.0] * len(self._source.moments)
        for number, (name, values) in enumerate(self._source.series(panel)):
            own = special.get(name, {})
            colour = own.get("color", {}).get("fixedColor", PALETTE[number % len(PALETTE)])
            if custom["stacking"]["mode"] == "normal" and "custom.stacking" not in own:
                top = [low + (0 if math.isnan(v) else v) for low, v in zip(floor, values, strict=True)]
                axes.fill_between(moments, floor, top, color=colour, alpha=0.8, label=name, linewidth=0)
                floor = top
                continue
            onto = axes
            if "custom.axisPlacement" in own:
                onto = self._right(axes, own["unit"], values)
            onto.plot(moments, values, color=colour, linewidth=1.4, label=name)
            if onto is not axes:
                axes.plot([], [], color=colour, label=name)
        if custom.get("scaleDistribution"):
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 3, 6, 10] if unit == "s" else None))
        axes.yaxis.set_major_formatter(lambda value, _: shown(value, unit))
        axes.yaxis.set_minor_formatter(lambda *_: "")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(
                loc="upper center", bbox_to_anchor=(0.5, -0.09), ncol=7, fontsize=8, frameon=False,
                labelcolor=TEXT, handlelength=0.9, handletextpad=0.4, columnspacing=0.9,
            )  # fmt: skip

    @staticmethod
    def _right(axes: Axes, unit: str, values: Sequence[float]) -> Axes:
        right = axes.twinx()
        right.tick_params(colors=TEXT, labelsize=8, length=0)
        right.spines[:].set_visible(False)
        right.set_ylim(0, max([1.0, *(value for value in values if not math.isnan(value))]) * 1.1)
        right.yaxis.set_major_formatter(lambda value, _: shown(value, unit))
        return right

    def _heatmap(self, axes: Axes, panel: Panel) -> None:
        found = sorted((float(name), values) for name, values in self._source.series(panel))
        axes.grid(visible=False)
        if not found:
            return
        rows = [found[0][1]] + [
            [max(high - low, 0) for low, high in zip(below[1], above[1], strict=True)]
            for below, above in pairwise(found)
        ]
        colours = mpl.colormaps["YlOrRd_r"].copy()
        colours.set_bad(FRONT)
        cells = [[value if value > 0.05 else math.nan for value in row] for row in rows]
        axes.pcolormesh(self._source.moments, range(len(rows)), cells, cmap=colours, norm=LogNorm(0.3, 300))
        bounds = [shown(bound, "s") if math.isfinite(bound) else "more" for bound, _ in found]
        axes.set_yticks(range(0, len(rows), 2), bounds[::2])

    def _states(self, axes: Axes, panel: Panel) -> None:
        words, found = _words(panel), self._source.series(panel)
        moments = self._source.moments
        wide = moments[1] - moments[0]
        axes.grid(visible=False)
        for row, (_, values) in enumerate(found):
            for value, run in groupby(zip(moments, values, strict=True), key=lambda one: one[1]):
                if math.isnan(value):
                    continue
                times = [moment for moment, _ in run]
                text, colour = words[value]
                axes.broken_barh([(times[0], times[-1] - times[0] + wide)], (-row - 0.35, 0.7), color=colour)
                if value and len(times) * 8 > len(text) * 7 / 2:
                    middle = times[0] + (times[-1] - times[0] + wide) / 2
                    axes.text(middle, -row, text, color="#14161a", ha="center", va="center", size=8)
        axes.set_yticks([-row for row in range(len(found))], [name for name, _ in found])

    def _explain(self) -> None:
        """Number the marks along the bottom, and say what they are."""
        said = "      ".join(f"{number}  {text}" for number, (_, text) in enumerate(self._marks, 1))
        self.figure.text(0.5, 20 / self._high, said, color=TEXT, ha="center", va="center", size=9.5)


def _words(panel: Panel) -> dict[float, tuple[str, str]]:
    """Return text and colour of the values that have a meaning."""
    return {
        float(value): (result["text"], result["color"])
        for mapping in panel["fieldConfig"]["defaults"]["mappings"]
        if mapping["type"] == "value"
        for value, result in mapping["options"].items()
    }


def main() -> None:
    """Draw one picture."""
    parser = argparse.ArgumentParser(description="Draw the dashboard's panels from a Prometheus.")
    parser.add_argument("url", help="of the Prometheus, like http://localhost:9090")
    parser.add_argument("picture", type=Path, help="the PNG to write")
    parser.add_argument("--minutes", type=float, default=60.0, help="how much time it shows")
    parser.add_argument("--end", type=float, default=time.time(), help="up to when, in epoch seconds")
    parser.add_argument("--rate", default="1m", help="the window of each rate: four scrapes or more")
    parser.add_argument("--route", default=".*", help="the routes shown, as a regular expression")
    parser.add_argument(
        "--mark", nargs=2, action="append", default=[], metavar=("EPOCH", "TEXT"), help="a moment to name"
    )
    given = parser.parse_args()
    start = given.end - 60 * given.minutes
    source = Prometheus(given.url, start, given.end, rate=given.rate, route=given.route)
    panels = json.loads(DASHBOARD.read_text())["panels"]
    board = Board(source, panels, [(float(at), text) for at, text in given.mark])
    drawn = io.BytesIO()
    board.figure.savefig(drawn, facecolor=BACK)
    # A picture of few colours: a third of the bytes.
    Image.open(drawn).convert("RGB").quantize(160).save(given.picture, optimize=True)


if __name__ == "__main__":
    main()
