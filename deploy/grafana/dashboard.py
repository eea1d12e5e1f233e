"""Print hookmirror.json, the dashboard for Grafana:

python deploy/grafana/dashboard.py >deploy/grafana/hookmirror.json

A test says when the JSON is not what this prints.
"""

import json
import sys
from typing import Any

from panels import (
    BLUE,
    GREEN,
    GREY,
    ORANGE,
    PINK,
    PURPLE,
    RATE,
    RED,
    TEAL,
    WHITE,
    YELLOW,
    Panel,
    heatmap,
    lines,
    quantile,
    stat,
    states,
)  # fmt: skip

ROUTE = 'route=~"$route"'

HOOKS = {
    "accepted": GREEN,
    "confirmed": TEAL,
    "notified": BLUE,
    "deferred": ORANGE,
    "failed": RED,
    "not_ours": PINK,
    "not_a_hook": PURPLE,
    "unrouted": WHITE,
    "too_large": YELLOW,
    "incomplete": GREY,
}
ACTIONS = dict.fromkeys(("executed", "forwarded", "logged"), TEAL)
ENDS = ACTIONS | {"copied": GREEN, "deleted": BLUE, "skipped": GREY, "look_later": PURPLE, "buried": RED}
ATTEMPTS = ENDS | {"continued": WHITE, "waited": YELLOW, "retried": ORANGE, "lost": PINK}
QUANTILES = {"p50": GREEN, "p95": YELLOW, "p99": ORANGE}
"""One word has one colour in every panel."""


def in_sync() -> Panel:
    """Return the panel that answers the first question."""
    made = stat(
        "In sync?",
        "max(hookmirror_queue_up) * (max(hookmirror_oldest_waiting_seconds) <= bool 120)"
        " * (1 - max(hookmirror_route_paused)) * (1 - max(hookmirror_brake_on))"
        " * (max(hookmirror_dead_letters) == bool 0)",
        "Yes: the queue answers, no event has waited for two minutes, no route is paused, no brake"
        " is on, and there is no dead letter.",
        steps=(),
    )
    yes_or_no = {"1": {"text": "YES", "color": GREEN}, "0": {"text": "NO", "color": RED}}
    unknown = {"match": "null+nan", "result": {"text": "UNKNOWN", "color": RED}}
    made["fieldConfig"]["defaults"] |= {
        "noValue": "UNKNOWN",
        "mappings": [{"type": "value", "options": yes_or_no}, {"type": "special", "options": unknown}],
    }
    return made


def top() -> list[Panel]:
    """Return the first row: what one looks at first, from left to right."""
    lag = "hookmirror_lag_seconds"
    return [
        in_sync(),
        stat("Dead letters", "max(hookmirror_dead_letters)", "hookmirror dead list", steps=[(1, RED)]),
        stat(
            "Paused routes",
            f"sum(max by (route) (hookmirror_route_paused{{{ROUTE}}}))",
            "Routes that work for no object at the moment.",
            steps=[(1, RED)],
        ),
        stat(
            "Brakes on",
            f"sum(max by (route) (hookmirror_brake_on{{{ROUTE}}}))",
            "Routes whose deletes are held: hookmirror brake list",
            steps=[(1, RED)],
        ),
        stat(
            "Lag, median",
            quantile(0.5, lag, where=ROUTE, window="[5m]"),
            "From the hook's arrival to the target, last 5 minutes.",
            unit="s",
            steps=[(60, ORANGE), (300, RED)],
        ),
        stat(
            "Lag, p99",
            quantile(0.99, lag, where=ROUTE, window="[5m]"),
            "99 of 100 changes were faster, last 5 minutes.",
            unit="s",
            steps=[(60, ORANGE), (300, RED)],
        ),
        stat(
            "Oldest waiting",
            "max(hookmirror_oldest_waiting_seconds)",
            "The age of the oldest event that is not done.",
            unit="s",
            steps=[(120, ORANGE), (3600, RED)],
        ),
        stat(
            "Ready in the queue",
            'sum(max by (route, lane) (hookmirror_queue_depth{state="ready"}))',
            "Tasks that no worker has taken yet.",
            steps=[(1000, ORANGE)],
        ),
    ]


def flow() -> list[Panel]:
    """Return what comes in and what becomes of it."""
    ended = f"sum by (outcome) (rate(hookmirror_tasks_ended_total{{{ROUTE}}}{RATE}))"
    failed = f'sum by (error) (rate(hookmirror_attempts_total{{{ROUTE}, error!=""}}{RATE}))'
    return [
        lines(
            "Hooks, by answer",
            {"{{outcome}}": f"sum by (outcome) (rate(hookmirror_hooks_total{RATE})) > 0"},
            "accepted, confirmed, notified (of a stack) are 200; deferred 503: the sender is to come again;"
            " failed 500.",
            colours=HOOKS,
            unit="reqps",
            stacked=True,
        ),
        lines(
            "Attempts, by outcome",
            {"{{outcome}}": f"sum by (outcome) (rate(hookmirror_attempts_total{{{ROUTE}}}{RATE})) > 0"},
            "Re-checks among them. buried: dead letters. waited uses up no attempt; retried does.",
            colours=ATTEMPTS,
            unit="ops",
            stacked=True,
        ),
        lines(
            "Lag, from hook to target",
            {
                f"p{q * 100:.0f}": quantile(q, "hookmirror_lag_seconds", where=ROUTE)
                for q in (0.5, 0.95, 0.99)
            },
            "Of what has arrived. What has not shows as the oldest that waits.",
            colours=QUANTILES,
            unit="s",
            logarithmic=True,
        ),
        lines(
            "Ledger: received against ended",
            {
                "{{outcome}}": f"{ended} > 0",
                "received": f"sum(rate(hookmirror_tasks_received_total{{{ROUTE}}}{RATE}))",
            },
            "The line is what came in, the areas what became of it. A line above the areas is a backlog that"
            " grows, areas above the line are one that is worked off.",
            colours=ENDS | {"received": WHITE},
            unit="ops",
            stacked=True,
            on_top="received",
        ),
        lines(
            "What went wrong, by reason",
            {"{{error}}": f"{failed} > 0"},
            "RouteDown waits for a paused route, KeyBusy for another task of its key; Unforeseen: a defect."
            " AccessDenied and its like are what a store said.",
            colours={},
            unit="ops",
            stacked=True,
        ),
        heatmap(
            "Lag, all of it",
            f"sum by (le) (increase(hookmirror_lag_seconds_bucket{{{ROUTE}}}{RATE}))",
            "How many changes took how long.",
            unit="s",
        ),
    ]


def parts() -> list[Panel]:
    """Return how the parts do."""
    depth = "max by (route, lane, state) (hookmirror_queue_depth{%s})"
    done = f'{ROUTE}, outcome=~"copied|deleted"'
    return [
        lines(
            "The queue: by route, and by state",
            {
                "{{route}} {{lane}}": depth % 'state="ready"',
                "{{route}} {{state}}": "sum by (route, state) (" + depth % 'state!="ready"' + ")",
            },
            "live: what hooks bring, tasks of paused routes among it. bulk: what backfills bring. waiting:"
            " retries, re-checks. held: in progress. RabbitMQ tells the last two for no route by itself.",
            colours={},
            unit="short",
        ),
        lines(
            "Throughput",
            {
                "objects/s": f"sum(rate(hookmirror_attempts_total{{{done}}}{RATE}))",
                "bytes/s": f"sum(rate(hookmirror_copied_bytes_total{{{ROUTE}}}{RATE}))",
            },
            "Objects copied and deleted, and the bytes of those copied.",
            colours={"objects/s": GREEN, "bytes/s": BLUE},
            unit="ops",
            right=("bytes/s", "Bps"),
        ),
        lines(
            "Copy, p95 by size",
            {"{{size_class}}": quantile(0.95, "hookmirror_copy_seconds", by="size_class")},
            "Seconds of work on a copied object.",
            colours={},
            unit="s",
            logarithmic=True,
        ),
        states(
            "What stood still",
            {
                "{{route}}": (
                    f"2 * max by (route) (hookmirror_brake_on{{{ROUTE}}})"
                    f" + max by (route) (hookmirror_route_paused{{{ROUTE}}})"
                ),
                "queue": "4 * (1 - max(hookmirror_queue_up))",
                "spool": "5 * max(hookmirror_spool_in_use)",
            },
            "Green goes, orange is a paused route, red a brake; then the queue away, and hooks to the spool.",
            {
                0: ("goes", GREEN),
                1: ("paused", ORANGE),
                2: ("brake", RED),
                3: ("paused and brake", RED),
                4: ("away", RED),
                5: ("in use", ORANGE),
            },
        ),
        lines(
            "Oldest waiting, and what is in the spool",
            {
                "oldest event": "max(hookmirror_oldest_waiting_seconds)",
                "spooled records": "sum(hookmirror_spool_records)",
            },
            "An age that climbs by a second a second is something that stands still.",
            colours={"oldest event": GREEN, "spooled records": ORANGE},
            unit="s",
            right=("spooled records", "short"),
        ),
        lines(
            "Making a hook durable",
            {f"p{q * 100:.0f}": quantile(q, "hookmirror_publish_seconds") for q in (0.5, 0.99)},
            "Seconds until the queue has confirmed every record of a hook: its sender waits for so long.",
            colours=QUANTILES,
            unit="s",
            logarithmic=True,
        ),
    ]


def variables() -> list[dict[str, Any]]:
    """Return what can be chosen at the top."""
    source = {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus"}
    query = "label_values(hookmirror_route_paused, route)"
    route = {
        "name": "route",
        "label": "Route",
        "type": "query",
        "datasource": {"type": "prometheus", "uid": "${datasource}"},
        "definition": query,
        "query": {"query": query, "refId": "routes"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }
    return [source, route]


def dashboard() -> dict[str, Any]:
    """Return the whole of it: eight numbers, and below them three panels a row."""
    panels = []
    for number, made in enumerate(top()):
        panels.append(made | {"gridPos": {"x": 3 * number, "y": 0, "w": 3, "h": 4}})
    for number, made in enumerate((*flow(), *parts())):
        row, column = divmod(number, 3)
        panels.append(made | {"gridPos": {"x": 8 * column, "y": 4 + 8 * row, "w": 8, "h": 8}})
    for number, made in enumerate(panels, 1):
        made["id"] = number
    return {
        "uid": "hookmirror",
        "title": "hookmirror",
        "tags": ["hookmirror"],
        "schemaVersion": 39,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "",
        "templating": {"list": variables()},
        "panels": panels,
    }


if __name__ == "__main__":
    sys.stdout.write(json.dumps(dashboard(), indent=2, ensure_ascii=False) + "\n")
