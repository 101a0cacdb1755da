"""Commands that look: list, explain, status, health, plugins. None of them changes a thing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from oneiric.cli.desk import ask, client, from_disk
from oneiric.cli.options import Options, domain_option, global_options, key_option, slot_options
from oneiric.cli.output import print_document, safe, table
from oneiric.core.words import plural

if TYPE_CHECKING:
    import msgspec


@click.command("list")
@global_options
@domain_option(required=False)
@click.option("--show-shadowed", is_flag=True, help="Also every candidate that lost, and why.")
def list_slots(options: Options, domain: str | None, show_shadowed: bool) -> None:
    """Show one row a slot: the provider that wins it, where that comes from, and its state.

    Why a slot is filled as it is: oneiric explain KEY --domain D.
    """

    def otherwise() -> msgspec.Struct:
        from oneiric.api.views import list_document

        return list_document(from_disk(options), domain=domain, shadowed=show_shadowed)

    answer = ask(options, "/v1/list", otherwise=otherwise, domain=domain, shadowed=show_shadowed)
    print_document(answer, options, lambda found: _list_text(found["slots"], domain))


def _list_text(slots: list[dict[str, Any]], domain: str | None) -> str:
    if not slots:
        return f"no candidate is registered{f' in domain {domain}' if domain else ''}; see: oneiric plugins"
    header = ["DOMAIN", "KEY", "PROVIDER", "STATE", "STACK LEVEL", "PRIORITY", "VERSION", "SOURCE", "WHY"]
    rows: list[list[Any]] = []
    for slot in slots:
        state = f"{slot['state']}, pinned" if slot["pinned"] else slot["state"]
        why = "" if slot["provider"] else slot["summary"]
        ranked = [slot["stack_level"], slot["priority"], slot["version"]] if slot["provider"] else ["", "", ""]
        rows.append([slot["domain"], slot["key"], slot["provider"] or "-", state, *ranked, slot["source"], why])
        for loser in slot["shadowed"]:
            ranked = [loser["stack_level"], loser["priority"], loser["version"]]
            rows.append(["", "", loser["provider"], loser["verdict"], *ranked, loser["source"], loser["reason"]])
    if not any(row[-1] for row in rows):
        header, rows = header[:-1], [row[:-1] for row in rows]
    return table(header, rows)


@click.command()
@global_options
@slot_options
def explain(options: Options, domain: str, key: str) -> int:
    """Show who fills a slot, what decided, and why each other candidate lost; exits 1 when nobody does."""

    def otherwise() -> msgspec.Struct:
        from oneiric.api.views import explain_document
        from oneiric.core.candidate import Slot

        return explain_document(from_disk(options), Slot[Any](domain, key))

    answer = ask(options, "/v1/explain", otherwise=otherwise, domain=domain, key=key)
    print_document(answer, options, lambda found: str(found["text"]))
    return 0 if answer["provider"] else 1


@click.command()
@global_options
@domain_option(required=False)
@key_option
def status(options: Options, domain: str | None, key: str | None) -> None:
    """Show slots in operation: state, provider, pin, leases, swaps by outcome, last error and recent history.

    With --domain and KEY, or -v, every slot is shown in full, with its leaks and its last swaps.
    """

    def otherwise() -> msgspec.Struct:
        from oneiric.api.views import status_document

        return status_document(from_disk(options), domain=domain, key=key)

    answer = ask(options, "/v1/status", otherwise=otherwise, domain=domain, key=key)
    one = domain is not None and key is not None
    print_document(answer, options, lambda found: _status_text(found, detailed=one or options.verbose))


def _status_text(answer: dict[str, Any], *, detailed: bool) -> str:
    if detailed:
        return "\n\n".join(_slot_text(slot) for slot in answer["slots"]) or "no slot"
    rows = [
        [
            f"{slot['domain']}/{slot['key']}",
            slot["state"],
            slot["provider"] or "-",
            slot["pin"]["provider"] if slot["pin"] else "",
            slot["leases"],
            slot["leaked"],
            "/".join(str(slot["swaps"][outcome]) for outcome in ("success", "failed", "rollback")),
            slot["last_error"],
        ]
        for slot in answer["slots"]
    ]
    header = ["SLOT", "STATE", "PROVIDER", "PIN", "LEASES", "LEAKED", "OK/FAILED/ROLLBACK", "LAST ERROR"]
    text = table(header, rows) if rows else "no slot"
    daemon = answer["daemon"]
    return text if daemon is None else f"{_daemon_text(daemon)}\n\n{text}"


def _daemon_text(daemon: dict[str, Any]) -> str:
    text = f"daemon pid {daemon['pid']}, version {daemon['version']}, since {daemon['started_at']}, "
    text += f"http {daemon['http']}, settings {daemon['settings']} (watch {daemon['watch']})"
    text += f"\ninstances {daemon['instances']}, memory {daemon['memory_bytes'] / 1_048_576:.1f} MiB"
    trouble = [f"degraded: {daemon['degraded']}"] if daemon["degraded"] else []
    if daemon["abandoned_calls"]:
        trouble.append(f"{plural(daemon['abandoned_calls'], 'call')} of providers given up and not ended")
    return "\n".join([text, *trouble])


def _slot_text(slot: dict[str, Any]) -> str:
    health, pin = slot["last_health"], slot["pin"]
    swaps = ", ".join(f"{count} {outcome}" for outcome, count in slot["swaps"].items())
    facts = [
        ("slot", f"{slot['domain']}/{slot['key']}"),
        ("state", slot["state"] + (f" ({slot['note']})" if slot["note"] else "")),
        ("provider", slot["provider"] or "-"),
        ("wanted", slot["wanted"] if slot["wanted"] != slot["provider"] else ""),
        ("instance", f"{slot['instance_id']} since {slot['since']}" if slot["instance_id"] else ""),
        ("pin", f"{pin['provider']}, by {pin['by']} since {pin['since']}" if pin else ""),
        ("leases", slot["leases"]),
        ("leaked", slot["leaked"] or ""),
        ("swaps", swaps),
        ("last swap", f"{slot['last_swap_ms']} ms" if slot["last_swap_ms"] is not None else ""),
        ("last error", slot["last_error"]),
        ("last health", _health_words(health) if health else ""),
    ]
    lines = [f"{name + ':':<13}{safe(value)}" for name, value in facts if value != ""]
    if slot["leaks"]:
        rows = [
            [
                leak["instance_id"],
                leak["provider"],
                leak["kind"],
                leak["leases"],
                f"{leak['age']:.0f} s",
                leak["holder"],
            ]
            for leak in slot["leaks"]
        ]
        lines += ["leaks:", table(["INSTANCE", "PROVIDER", "WHY", "LEASES", "AGE", "HOLDER"], rows)]
    if slot["history"]:
        names = ("at", "outcome", "previous", "provider", "duration_ms", "by", "error")
        rows = [
            ["-" if swap[name] == "" else swap[name] for name in names[:-1]] + [swap["error"]]
            for swap in slot["history"]
        ]
        lines += ["history:", table(["AT", "OUTCOME", "FROM", "TO", "MS", "BY", "ERROR"], rows)]
    return "\n".join(lines)


@click.command()
@global_options
@domain_option(required=False)
@key_option
@click.option("--probe", is_flag=True, help="Ask the live instances now.")
def health(options: Options, domain: str | None, key: str | None, probe: bool) -> int:
    """Show the last known health of live instances.

    Exits 1 when one is unhealthy or KEY has none, 3 when no daemon runs.
    """
    if probe:
        body = {name: value for name, value in (("domain", domain), ("key", key)) if value is not None}
        answer = client(options).post("/v1/probe", body)
    else:

        def otherwise() -> msgspec.Struct:
            from oneiric.api.schemas import HealthDocument

            return HealthDocument(live=False, probed=False, healthy=False)

        answer = ask(options, "/v1/health", otherwise=otherwise, domain=domain, key=key)
    print_document(answer, options, _health_text)
    if not answer["live"]:
        return 3
    return 0 if answer["healthy"] and (answer["instances"] or key is None) else 1


def _health_text(answer: dict[str, Any]) -> str:
    if not answer["live"]:
        return "nothing is known: instances live in a daemon; start one: oneiric orchestrate"
    if not answer["instances"]:
        return "no live instance"
    rows = [
        [f"{row['domain']}/{row['key']}", row["provider"], _verdict(row), row["at"], row["error"]]
        for row in answer["instances"]
    ]
    return table(["SLOT", "PROVIDER", "HEALTH", "AT", "ERROR"], rows)


def _verdict(row: dict[str, Any]) -> str:
    return {True: "healthy", False: "unhealthy", None: "not probed yet"}[row["healthy"]]


def _health_words(row: dict[str, Any]) -> str:
    return f"{_verdict(row)} at {row['at']}" + (f": {row['error']}" if row["error"] else "")


@click.command()
@global_options
def plugins(options: Options) -> int:
    """Show every entry point of the six groups: its candidates, or what kept it out; exits 1 when one is broken."""

    def otherwise() -> msgspec.Struct:
        import os

        from oneiric.api.views import plugins_document
        from oneiric.config.loader import load

        settings = load(options.directory, environ=os.environ, flags=options.flags)
        return plugins_document(from_disk(options), settings.app.plugins)

    answer = ask(options, "/v1/plugins", otherwise=otherwise)
    print_document(answer, options, _plugins_text)
    return 1 if any(plugin["error"] for plugin in answer["plugins"]) else 0


def _plugins_text(answer: dict[str, Any]) -> str:
    unmatched = answer.get("unmatched", [])
    in_vain = [f"plugins.disabled: nothing installed is called {' or '.join(unmatched)}"] if unmatched else []
    if not answer["plugins"]:
        return "\n".join(["no plugin is installed, or plugins.enabled is false", *in_vain])
    rows = [
        [
            plugin["group"],
            plugin["name"],
            plugin["distribution"],
            plugin["version"],
            "failed" if plugin["error"] else "disabled" if plugin["disabled"] else "active",
            plugin["error"] or ", ".join(plugin["candidates"]),
        ]
        for plugin in answer["plugins"]
    ]
    header = ["GROUP", "NAME", "DISTRIBUTION", "VERSION", "VERDICT", "CANDIDATES OR ERROR"]
    return "\n".join([table(header, rows), *in_vain])
