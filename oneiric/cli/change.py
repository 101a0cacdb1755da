"""Commands that change the running daemon: swap, unpin, pause, resume, drain, watch. Without one they exit 3."""

from __future__ import annotations

from typing import Any, Final

import click

from oneiric.cli.desk import client
from oneiric.cli.options import Group, Options, global_options, provider_option, slot_options
from oneiric.cli.output import note, print_document, warn
from oneiric.core.words import plural

NOTE_LENGTH: Final = 500  # what the API takes; a test compares the two


@click.command()
@global_options
@slot_options
@provider_option
@click.option("--force", is_flag=True, help="Do not wait for the drain and the cleanup of the old instance.")
@click.option("--skip-health", is_flag=True, help="Commit without asking the new instance whether it is healthy.")
@click.option("--dry-run", is_flag=True, help="Build, probe and close the new instance; change nothing.")
def swap(
    options: Options,
    *,
    domain: str,
    key: str,
    provider: str | None,
    force: bool,
    skip_health: bool,
    dry_run: bool,
) -> None:
    """Replace what fills a slot without failing a call, and pin the provider that was named.

    The new instance is built and probed before a caller sees it; when that fails the old one goes on serving, and this
    exits 1. A pin outlives restarts; unpin takes it back. --dry-run tries it out.
    """
    if skip_health:
        note("warning: --skip-health: the new instance serves whether it is healthy or not", options)
    body: dict[str, Any] = {
        "domain": domain,
        "key": key,
        "force": force,
        "skip_health": skip_health,
        "dry_run": dry_run,
    }
    if provider is not None:
        body["provider"] = provider
    answer = client(options).post("/v1/swap", body)
    print_document(answer, options, _swap_text)
    warn(answer["warnings"], options)


def _swap_text(answer: dict[str, Any]) -> str:
    slot = f"--domain {answer['domain']} --key {answer['key']}"
    text = answer["text"]
    for warning in reversed(answer["warnings"]):  # they go to stderr
        text = text.removesuffix(f"; {warning}")
    return f"{text}\npinned to {answer['provider']}; undo: oneiric unpin {slot}" if answer["pinned"] else text


@click.command()
@global_options
@slot_options
def unpin(options: Options, domain: str, key: str) -> None:
    """Take back the choice that a swap pinned: precedence chooses again, and the slot follows.

    Done as well when nothing was pinned; oneiric status shows the pins.
    """
    answer = client(options).post("/v1/unpin", {"domain": domain, "key": key})
    print_document(answer, options, _unpin_text)
    warn(answer["warnings"], options)


def _unpin_text(answer: dict[str, Any]) -> str:
    slot = f"{answer['domain']}/{answer['key']}"
    if not answer["provider"]:
        return f"{slot} was not pinned"
    serving = f"; {answer['serving']} serves" if answer["serving"] else ""
    return f"{slot} is no longer pinned to {answer['provider']}{serving}"


def _checked_note(_context: click.Context, _parameter: click.Parameter, value: str) -> str:
    if len(value) > NOTE_LENGTH:
        raise click.BadParameter(f"it has {len(value)} characters, {NOTE_LENGTH} are the most")
    return value


def _activity_command(verb: str, help_text: str) -> click.Command:
    @click.command(verb, help=help_text)
    @global_options
    @slot_options
    @click.option("--note", "remark", metavar="TEXT", default="", callback=_checked_note, help="Shown by status.")
    def command(options: Options, domain: str, key: str, remark: str) -> int:
        answer = client(options).post(f"/v1/{verb}", {"domain": domain, "key": key, "note": remark})
        print_document(answer, options, _activity_text)
        warn(answer["warnings"], options)
        return 1 if answer["drained"] is False else 0

    return command


def _activity_text(answer: dict[str, Any]) -> str:
    text = f"{answer['domain']}/{answer['key']} is {answer['state']}"
    if answer["drained"] is None:
        return text + (f" ({answer['note']})" if answer["note"] else "")
    if answer["drained"]:
        return f"{text}: the last lease ended"
    held = plural(answer["leases"], "lease")
    return f"{text}: {held} still held; drain again, or see by whom: oneiric status"


pause = _activity_command(
    "pause",
    "Stop new leases on a slot, also after a restart, until resume. Leases that are held go on; the instance stays.",
)
resume = _activity_command("resume", "Allow new leases on a slot again, after a pause or a drain.")
drain = _activity_command(
    "drain",
    "Stop new leases on a slot and wait for the last one, at most lifecycle.drain_timeout; exits 1 when some are "
    "still held. It stays drained, also after a restart, until resume.",
)


@click.group(cls=Group, no_args_is_help=False)
@global_options
def watch(_options: Options) -> None:
    """Stop or start the daemon's following of its settings directory."""


def _watch_command(verb: str, help_text: str) -> click.Command:
    @watch.command(verb, help=help_text)
    @global_options
    def command(options: Options) -> None:
        answer = client(options).post(f"/v1/watch/{verb}")
        print_document(answer, options, lambda found: f"watch is {found['watch']}")

    return command


_watch_command("pause", "Changes of the settings are not applied until watch resume.")
_watch_command("resume", "Apply what changed meanwhile, and follow changes again.")
