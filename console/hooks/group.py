"""`hookmirror hooks ...`: the webhooks of the source buckets, as they are and as the routes need them."""

import asyncio
import sys
from collections.abc import Collection, Iterable
from dataclasses import asdict
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from common import settings as configuration
from common.errors import ConfigError
from common.settings import Settings
from common.store.notifications import Hook
from common.telemetry import one_line
from console.hooks import answer, buckets
from console.hooks.buckets import Act, Outcome
from console.options import config_option, json_option, print_json, print_table, sure, yes_option

sources_argument = click.argument("sources", nargs=-1, metavar="[STORE:BUCKET]...")

dry_run_option = click.option("--dry-run", is_flag=True, help="Only say what would be changed.")


@click.group()
def hooks() -> None:
    """Register the public URL at the source buckets.

    For MCS (VK Cloud), and stores that know its SimpleTopicConfiguration. Ours are the entries with the Id
    of one of our routes, and those that call receiver.public_url or that of a store; all others keep every
    byte. Two installations on one bucket give their routes different names. Without STORE:BUCKET every
    bucket that a route starts from is meant.
    """


@hooks.command(name="list")
@config_option
@json_option
@sources_argument
def list_(config: str | None, as_json: bool, sources: tuple[str, ...]) -> None:
    """List the buckets' hooks, ours and those of others."""
    settings, meant = _read(config, sources)
    outcomes = _each(settings, meant, buckets.look(settings))
    if as_json:
        print_json([_listed(outcome) for outcome in outcomes])
    elif any(_all(outcome) for outcome in outcomes):
        print_table(_table(outcomes))
    elif not any(outcome.error for outcome in outcomes):
        click.echo("No hooks.  Next:  hookmirror hooks add")
    _end(outcomes)


@hooks.command()
@config_option
@json_option
@dry_run_option
@sources_argument
def add(config: str | None, as_json: bool, dry_run: bool, sources: tuple[str, ...]) -> None:
    """Register what the routes need and is not there.

    The receiver must answer already: MCS asks the public URL to confirm before it accepts. What is ours and
    not needed any more goes. Nobody else should change the bucket's hooks in the same
    second: the store replaces the whole list.
    """
    settings, meant = _read(config, sources)
    _warn(_warnings(_public_urls(settings, meant).values()))
    _changed(_each(settings, meant, buckets.add(settings, dry_run=dry_run)), as_json, dry_run)


@hooks.command()
@config_option
@json_option
@dry_run_option
@yes_option
@sources_argument
def remove(config: str | None, as_json: bool, dry_run: bool, yes: bool, sources: tuple[str, ...]) -> None:
    """Take back what is ours.

    The buckets' changes are no longer told. The hooks are listed first, and you are asked.
    """
    settings, meant = _read(config, sources)
    outcomes = _each(settings, meant, buckets.remove(settings, dry_run=True))
    count = sum(len(outcome.found.surplus) for outcome in outcomes)
    if count and not dry_run:
        if not (as_json or yes):
            _say_changes(outcomes, "would be ")
        sure(f"remove {'this hook' if count == 1 else f'these {count} hooks'}?", yes=yes)
        outcomes = _each(settings, meant, buckets.remove(settings, dry_run=False))
    _changed(outcomes, as_json, dry_run)


@hooks.command()
@config_option
@json_option
@sources_argument
def check(config: str | None, as_json: bool, sources: tuple[str, ...]) -> None:
    """Compare hooks with routes, and ask the public URL.

    Exit 0 when all is as needed, 1 when anything differs. The URL is asked as MCS asks it, but from this
    machine: run it where the network is not the receiver's own, and it says what the world sees.
    """
    settings, meant = _read(config, sources)
    urls = _public_urls(settings, meant)
    outcomes = _each(settings, meant, buckets.look(settings, closely=True))
    by_topic = {urls[outcome.source] for outcome in outcomes if outcome.found.by_topic}
    warned = _warnings(urls.values(), by_topic)
    answers = {source: answer.problem(url, source.partition(":")[2]) for source, url in urls.items()}
    fine = all(outcome.found.as_needed and not outcome.error for outcome in outcomes)
    fine = fine and not any(answers.values())
    if as_json:
        buckets_ = [_checked(outcome, urls[outcome.source], answers[outcome.source]) for outcome in outcomes]
        print_json({"ok": fine, "warnings": warned, "buckets": buckets_})
    else:
        _warn(warned)
        for outcome in outcomes:
            _say(outcome, missing="missing", surplus="not needed")
            _say_topics(outcome)
            wrong = answers[outcome.source]
            state = (
                f"the public URL does not confirm: {one_line(wrong)}"
                if wrong
                else "the public URL answers the handshake"
            )
            click.echo(f"{outcome.source}: {state} (asked from this machine)")
        wanting = [outcome.found for outcome in outcomes if not outcome.found.as_needed]
        if any(not found.by_topic for found in wanting):
            click.echo("\nNext:  hookmirror hooks add --dry-run")
        if any(found.by_topic for found in wanting):
            click.echo("\nNext:  a topic that calls the public URL: docs/senders.md")
    _complain(outcomes)
    sys.exit(0 if fine else 1)


def _read(config: str | None, sources: tuple[str, ...]) -> tuple[Settings, list[str]]:
    settings = configuration.start(config)
    if not (settings.routes or sources):
        raise ConfigError("routes: there is none. Add:  [[routes]]  with source and target")
    for source in sources:
        store, _, bucket = source.partition(":")
        if store not in settings.stores or not bucket:
            raise click.UsageError(f'"{source}" is not STORE:BUCKET with a store of the configuration')
    return settings, list(dict.fromkeys(sources or (route.source for route in settings.routes)))


def _public_urls(settings: Settings, sources: list[str]) -> dict[str, str]:
    """Return the URL to register at each bucket. Raises `ConfigError` when one has none."""
    urls = {source: settings.hook_url(source) for source in sources}
    if None in urls.values():
        raise ConfigError(
            "receiver.public_url is not set, and it is what is registered. "
            'Add:  public_url = "https://hooks.example.org/webhook/..."'
        )
    return {source: url for source, url in urls.items() if url}


def _warnings(urls: Iterable[str], by_topic: Collection[str] = ()) -> list[str]:
    """Return what is to be said of each URL; those in `by_topic` MCS does not call."""
    return [
        sentence
        for url in dict.fromkeys(urls)
        for sentence in answer.warnings(url, from_mcs=url not in by_topic)
    ]


def _each(settings: Settings, sources: list[str], act: Act) -> list[Outcome]:
    return asyncio.run(buckets.each(settings, sources, act))


def _changed(outcomes: list[Outcome], as_json: bool, dry_run: bool) -> None:
    if as_json:
        print_json([_written(outcome, dry_run) for outcome in outcomes])
    else:
        _say_changes(outcomes, "would be " if dry_run else "")
    _end(outcomes)


def _say_changes(outcomes: list[Outcome], would: str) -> None:
    for outcome in outcomes:
        _say(outcome, missing=f"{would}added", surplus=f"{would}removed")


def _say(outcome: Outcome, *, missing: str, surplus: str) -> None:
    """Print what of ours differs and what is fine; an error comes later."""
    if outcome.error:
        return
    found = outcome.found
    for word, listed in ((missing, found.missing), (surplus, found.surplus)):
        for hook in listed:
            click.echo(f"{outcome.source}: {word}: {_line(hook)}")
    if found.as_needed:
        ours = f"{len(found.serving)} of ours" if found.serving else "none of ours"
        click.echo(f"{outcome.source}: nothing to change: {ours}, {len(found.others)} of others")


def _say_topics(outcome: Outcome) -> None:
    """Print which topics call the public URL, and which do not."""
    if not outcome.found.by_topic:
        return
    for hook in outcome.found.serving:
        click.echo(f"{outcome.source}: a topic calls the public URL: {_line(hook)}")
    for hook in outcome.found.others:
        click.echo(f"{outcome.source}: calls another: {_line(hook)}")
    if not outcome.found.serving:
        click.echo(f"{outcome.source}: no topic of this bucket calls the public URL")


def _line(hook: Hook) -> str:
    return one_line(f"{hook.id}  {', '.join(hook.events)}  {hook.prefix}*{hook.suffix}  -> {hook.target}")


def _warn(warned: list[str]) -> None:
    for sentence in warned:
        click.echo(f"warning: {sentence}", err=True)


def _complain(outcomes: list[Outcome]) -> bool:
    for outcome in outcomes:
        if outcome.error:
            click.echo(f"hookmirror: {outcome.source}: {one_line(outcome.error)}", err=True)
    return any(outcome.error for outcome in outcomes)


def _end(outcomes: list[Outcome]) -> None:
    if _complain(outcomes):
        sys.exit(1)


def _all(outcome: Outcome) -> list[tuple[bool, Hook]]:
    """Every hook of a bucket, and whether it is ours."""
    found = outcome.found
    ours = [(True, hook) for hook in (*found.serving, *found.surplus)]
    return ours + [(False, hook) for hook in found.others]


def _listed(outcome: Outcome) -> dict[str, Any]:
    listed = [{"ours": ours, **asdict(hook)} for ours, hook in _all(outcome)]
    return {"source": outcome.source, "hooks": listed, "error": outcome.error}


def _written(outcome: Outcome, dry_run: bool) -> dict[str, Any]:
    found = outcome.found
    return {
        "source": outcome.source,
        "dry_run": dry_run,
        "added": [asdict(hook) for hook in found.missing],
        "removed": [asdict(hook) for hook in found.surplus],
        "others": len(found.others),
        "error": outcome.error,
    }


def _checked(outcome: Outcome, url: str, wrong: str) -> dict[str, Any]:
    found = outcome.found
    return {
        "source": outcome.source,
        "public_url": url,
        "as_needed": found.as_needed and not outcome.error,
        "missing": [asdict(hook) for hook in found.missing],
        "surplus": [asdict(hook) for hook in found.surplus],
        "others": len(found.others),
        "handshake": wrong or "ok",
        "error": outcome.error,
    }


def _table(outcomes: list[Outcome]) -> Table:
    table = Table("bucket", "whose", "id", "kind", "events", "keys", "told", box=None, header_style="bold")
    for outcome in outcomes:
        for ours, hook in _all(outcome):
            cells = (
                outcome.source,
                "ours" if ours else "another's",
                hook.id,
                hook.kind.removesuffix("Configuration"),
                ", ".join(hook.events),
                f"{hook.prefix}*{hook.suffix}",
                hook.target,
            )
            # Text, since a plain string would be read as markup.
            table.add_row(*(Text(one_line(cell)) for cell in cells))
    return table
