"""The kinds of panel that the dashboard is made of, as Grafana's JSON."""

from collections.abc import Iterable, Mapping
from typing import Any

Panel = dict[str, Any]

RATE = "[$__rate_interval]"

GREEN, BLUE, GREY, PURPLE, TEAL = "#73BF69", "#5794F2", "#8E8E8E", "#B877D9", "#37A2B4"
YELLOW, ORANGE, RED, PINK, WHITE = "#FADE2A", "#FF9830", "#F2495C", "#FF7BC5", "#F0F0F0"


def quantile(q: float, metric: str, by: str = "", where: str = "", window: str = RATE) -> str:
    """Return the expression for a quantile of a histogram, by the labels `by`."""
    labels = ", ".join(filter(None, ("le", by)))
    return f"histogram_quantile({q}, sum by ({labels}) (rate({metric}_bucket{{{where}}}{window})))"


def target(expr: str, legend: str, ref: str, **more: Any) -> dict[str, Any]:
    """Return one query of a panel."""
    return {"refId": ref, "expr": expr, "legendFormat": legend, "range": True, **more}


def panel(kind: str, title: str, queries: Mapping[str, str], about: str, **more: Any) -> Panel:
    """Return a panel without its place. `queries` are expressions by legend."""
    return {
        "type": kind,
        "title": title,
        "description": about,
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "targets": [
            target(expr, legend, chr(ord("A") + number))
            for number, (legend, expr) in enumerate(queries.items())
        ],
        **more,
    }


def stat(
    title: str, expr: str, about: str, *, unit: str = "short", steps: Iterable[tuple[float, str]]
) -> Panel:
    """Return one large number, coloured from each of `steps` upwards."""
    thresholds = [{"color": GREEN, "value": None}, *({"color": c, "value": v} for v, c in steps)]
    made = panel("stat", title, {"": expr}, about)
    made["targets"][0] |= {"instant": True, "range": False}
    defaults = {
        "unit": unit,
        "decimals": 0 if unit == "short" else None,
        "noValue": "-",
        "mappings": [{"type": "special", "options": {"match": "nan", "result": {"text": "-"}}}],
        "thresholds": {"mode": "absolute", "steps": thresholds},
    }
    options = {"colorMode": "background", "graphMode": "none", "reduceOptions": {"calcs": ["lastNotNull"]}}
    return made | {"fieldConfig": {"defaults": defaults, "overrides": []}, "options": options}


def lines(
    title: str,
    queries: Mapping[str, str],
    about: str,
    *,
    unit: str,
    colours: Mapping[str, str],
    stacked: bool = False,
    logarithmic: bool = False,
    on_top: str = "",
    right: tuple[str, str] = ("", ""),
) -> Panel:
    """Return series over time. `on_top` is a line that is not stacked; `right` names one with an axis of its
    own, and that axis' unit."""
    custom: dict[str, Any] = {"drawStyle": "line", "lineWidth": 1, "fillOpacity": 70 if stacked else 8}
    custom |= {"stacking": {"mode": "normal" if stacked else "none"}, "showPoints": "never"}
    if logarithmic:
        custom["scaleDistribution"] = {"type": "log", "log": 10}
    overrides = [override(name, color={"mode": "fixed", "fixedColor": c}) for name, c in colours.items()]
    if on_top:
        plain = {"stacking": {"mode": "none"}, "lineWidth": 2, "fillOpacity": 0}
        overrides.append(override(on_top, **{f"custom.{key}": value for key, value in plain.items()}))
    if right[0]:
        overrides.append(override(right[0], unit=right[1], **{"custom.axisPlacement": "right"}))
    defaults = {"unit": unit, "min": None if logarithmic else 0, "custom": custom}
    options = {
        "legend": {"displayMode": "list", "placement": "bottom"},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return panel("timeseries", title, queries, about) | {
        "fieldConfig": {"defaults": defaults, "overrides": overrides},
        "options": options,
    }


def override(name: str, **properties: Any) -> dict[str, Any]:
    """Return what is different for the series `name`."""
    listed = [{"id": key, "value": value} for key, value in properties.items()]
    return {"matcher": {"id": "byName", "options": name}, "properties": listed}


def heatmap(title: str, expr: str, about: str, *, unit: str) -> Panel:
    """Return how the observations of a histogram lie over time."""
    made = panel("heatmap", title, {"{{le}}": expr}, about)
    made["targets"][0]["format"] = "heatmap"
    options = {
        "calculate": False,
        "color": {"mode": "scheme", "scheme": "Oranges", "exponent": 0.4, "steps": 64},
        "yAxis": {"unit": unit},
        "legend": {"show": False},
    }
    return made | {"fieldConfig": {"defaults": {"unit": unit}, "overrides": []}, "options": options}


def states(title: str, queries: Mapping[str, str], about: str, words: Mapping[int, tuple[str, str]]) -> Panel:
    """Return a bar for each series, coloured by what its value means."""
    mapped = {str(value): {"text": text, "color": colour} for value, (text, colour) in words.items()}
    defaults = {
        "mappings": [{"type": "value", "options": mapped}],
        "custom": {"fillOpacity": 80, "lineWidth": 0},
        "color": {"mode": "thresholds"},
    }
    return panel("state-timeline", title, queries, about) | {
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {
            "showValue": "auto",
            "rowHeight": 0.8,
            "mergeValues": True,
            "legend": {"showLegend": False},
        },
    }
