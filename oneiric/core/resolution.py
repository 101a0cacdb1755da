"""Who fills a slot, and why: the precedence rule and the explanation derived from it.

Eligibility is decided first (requirements, Python version, platform, capabilities, anything that bars a provider).
Then ``Rank`` orders the eligible candidates, field by field, and the larger wins. A loser's reason is the first field
in which its rank is smaller than the winner's, so an explanation cannot disagree with a decision.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

import msgspec
from msgspec import field

from oneiric.core.candidate import Candidate, Slot, is_name, is_version
from oneiric.core.domain import DOMAINS
from oneiric.core.registry import Registry
from oneiric.core.words import plural
from oneiric.errors import ConfigError, NoCandidateError, Problem

if TYPE_CHECKING:
    from packaging.version import Version

Verdict = Literal["active", "shadowed", "rejected"]
FailureReason = Literal["no-candidates", "all-shadowed", "unhealthy", "config", "unknown-key"]
STACK_ORDER: Final = "ONEIRIC_STACK_ORDER"
_REASON_LIMIT: Final = 500  # characters

# A name and at most one bound. Told apart because importing what reads all of PEP 508 is a tenth of a ``list``.
_PLAIN_REQUIREMENT: Final = (
    r"(?P<name>[A-Za-z0-9]+(?:[._-]+[A-Za-z0-9]+)*) *(?P<bound>(?:(?:[<>]=?|[=!]=) *[0-9]+(?:\.[0-9]+)*)?)"
)

# One lower bound, as most have. Told apart because importing what reads all others takes longer than the ``list``.
_LEAST: Final = r">= *(?P<version>[0-9]+(?:\.[0-9]+)*)"


class Rank(NamedTuple):
    """The precedence rule. Fields compare left to right and the larger wins."""

    selection: bool
    stack_level: int
    priority: int
    version: Version


class Selection(msgspec.Struct, frozen=True):
    """The operator's explicit choice of a provider, and where it was made."""

    provider: str
    origin: Literal["argument", "pin", "settings"]
    detail: str = ""

    def __str__(self) -> str:
        return f"{self.origin} names {self.provider}" + (f" ({self.detail})" if self.detail else "")


class Host(msgspec.Struct, frozen=True):
    """The machine as eligibility sees it: Python version, platform, and the version of an installed distribution."""

    python_version: str = "3.11"
    os_platform: str = "linux"
    installed: Callable[[str], str | None] = lambda _name: None


class Bar(msgspec.Struct, frozen=True):
    """Why one provider may not fill a slot just now, beyond what its candidate declares."""

    reason: str
    kind: FailureReason = "config"


class StackOrder(msgspec.Struct, frozen=True):
    """Levels that the environment gives to stacks: ``myapp:20,oneiric:10,default:0``."""

    levels: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def parse(cls, text: str) -> StackOrder:
        """Read ``name:level`` pairs separated by commas; raises ConfigError naming every malformed one."""
        levels: dict[str, int] = {}
        problems: list[Problem] = []
        for token in filter(None, (part.strip() for part in text.split(","))):
            name, colon, level = (part.strip() for part in token.partition(":"))
            digits = level.removeprefix("-")
            if not (colon and is_name(name) and digits.isascii() and digits.isdigit() and len(digits) <= 9):
                problems.append(Problem(STACK_ORDER, f"{token!r} is not name:level", "myapp:20,oneiric:10,default:0"))
            elif name in levels:
                problems.append(Problem(STACK_ORDER, f"{name!r} is named twice", "one level a stack"))
            else:
                levels[name] = int(level)
        if problems:
            raise ConfigError(*problems, hint=f'export {STACK_ORDER}="myapp:20,oneiric:10,default:0"')
        return cls(MappingProxyType(levels))

    def level(self, candidate: Candidate[Any]) -> int:
        """Return the level of *candidate*: by its stack's name, else its own, else the default, else 0."""
        named = self.levels.get(candidate.stack) if candidate.stack != "default" else None
        if named is not None:
            return named
        if candidate.stack_level is not None:
            return candidate.stack_level
        return self.levels.get("default", 0)


class Policy(msgspec.Struct, frozen=True):
    """All that decides between candidates and is not in them."""

    selections: Mapping[Slot[Any], Selection] = field(default_factory=lambda: MappingProxyType({}))
    stack_order: StackOrder = field(default_factory=StackOrder)
    capabilities: Mapping[Slot[Any], frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    barred: Mapping[tuple[Slot[Any], str], Bar] = field(default_factory=lambda: MappingProxyType({}))
    host: Host = field(default_factory=Host)


class Placing(msgspec.Struct, frozen=True):
    """One candidate's place in a resolution. ``rank`` is None when it was rejected before ranking."""

    candidate: Candidate[Any]
    verdict: Verdict
    reason: str
    rank: Rank | None = None
    tie: bool = False


class Resolution(msgspec.Struct, frozen=True):
    """The answer for one slot: the winner, and every candidate's verdict with its reason."""

    slot: Slot[Any]
    placings: tuple[Placing, ...]
    selection: Selection | None = None
    near_misses: tuple[str, ...] = ()
    winner: Candidate[Any] | None = None
    failure: FailureReason | None = None

    def require(self) -> Candidate[Any]:
        """Return the winner, or raise NoCandidateError with the whole explanation."""
        if self.winner is not None:
            return self.winner
        raise NoCandidateError(
            f"no candidate found for {self.slot}: {self.summary}",
            reason=self.failure or "no-candidates",
            explanation=str(self),
            hint=f"oneiric explain {self.slot.key} --domain {self.slot.domain}",
        )

    @property
    def summary(self) -> str:
        """One line: who fills the slot, or why nobody does."""
        if self.winner is not None:
            return f"{self.winner.provider} (active)"
        if not self.placings:
            return "no candidate is registered"
        if self.failure == "all-shadowed":
            offered = plural(len(self.placings), "candidate")
            return f"all shadowed ({offered}): {self.selection}, which nobody offers"
        rejected = next(p for p in self.placings if p.verdict == "rejected" and self._is_decisive(p))
        others = sum(self._is_decisive(placing) for placing in self.placings) - 1
        return f"{rejected.candidate.provider} is rejected: {rejected.reason}" + (
            f" (+{others} more)" if others else ""
        )

    def _is_decisive(self, placing: Placing) -> bool:
        return self.selection is None or placing.candidate.provider == self.selection.provider

    def __str__(self) -> str:
        lines = [f"{self.slot}: {self.summary}"]
        if self.selection is not None:
            lines.append(f"  selection: {self.selection}")
        width = max((len(p.candidate.provider) for p in self.placings), default=0)
        for p in self.placings:
            origin = f"from {p.candidate.source}"
            lines.append(f"  {p.verdict:<8}  {p.candidate.provider:<{width}}  {p.reason}; {origin}")
        if self.near_misses:
            lines.append(f"  did you mean: {', '.join(self.near_misses)}?")
        if not self.placings:
            domain = DOMAINS[self.slot.domain]
            lines.append(
                f"  candidates come from: code (Runtime.register), plugins (entry-point group {domain.group}), "
                f"settings/{domain.settings_file} (candidates:), and signed manifests"
            )
        return "\n".join(lines)


def resolve(
    registry: Registry,
    policy: Policy,
    slot: Slot[Any],
    *,
    provider: str | None = None,
    capabilities: frozenset[str] = frozenset(),
) -> Resolution:
    """Choose who fills *slot*, with a verdict and a reason for every candidate.

    Args:
        provider: an explicit choice for this one question; outranks pins and settings.
        capabilities: what the caller needs beyond what the policy demands for the slot.
    """
    selection = policy.selections.get(slot) if provider is None else Selection(provider, "argument")
    needed = policy.capabilities.get(slot, frozenset()) | capabilities
    rejected: list[Placing] = []
    ranked: list[tuple[Rank, Candidate[Any]]] = []
    for candidate in registry.candidates(slot):
        obstacle = _obstacle(candidate, policy, needed, explicit=candidate.provider == provider)
        if obstacle is not None:
            rejected.append(Placing(candidate, "rejected", _one_line(obstacle)))
        else:
            ranked.append((_rank(candidate, policy, selection), candidate))
    # Two stable sorts: the smaller (source, provider) first, then the larger rank; so a full tie goes to the smaller.
    ranked.sort(key=lambda pair: (pair[1].source, pair[1].provider))
    ranked.sort(key=lambda pair: pair[0], reverse=True)
    rejected.sort(key=lambda placing: (placing.candidate.source, placing.candidate.provider))
    wins = bool(ranked) and (selection is None or ranked[0][0].selection)
    placings = (*_place(ranked, selection, wins), *rejected)
    return Resolution(
        slot=slot,
        placings=placings,
        selection=selection,
        near_misses=() if registry.candidates(slot) else near_misses(registry, slot),
        winner=ranked[0][1] if wins else None,
        failure=None if wins else _failure(policy, placings, slot, selection),
    )


def _rank(candidate: Candidate[Any], policy: Policy, selection: Selection | None) -> Rank:
    return Rank(
        selection=selection is not None and candidate.provider == selection.provider,
        stack_level=policy.stack_order.level(candidate),
        priority=candidate.priority,
        version=_version(candidate.version),
    )


def _version(text: str) -> Any:
    from packaging.version import Version

    return Version(text)


def _place(ranked: list[tuple[Rank, Candidate[Any]]], selection: Selection | None, wins: bool) -> Iterable[Placing]:
    for position, (rank, candidate) in enumerate(ranked):
        if not wins:
            yield Placing(candidate, "shadowed", str(selection), rank)
        elif position:
            best, winner = ranked[0]
            yield Placing(candidate, "shadowed", _why_lost(rank, best, winner), rank, tie=rank == best)
        else:
            tie = len(ranked) > 1 and ranked[1][0] == rank
            yield Placing(candidate, "active", _why_won(ranked, selection), rank, tie=tie)


def _why_lost(rank: Rank, best: Rank, winner: Candidate[Any]) -> str:
    for name, mine, theirs in zip(Rank._fields, rank, best, strict=True):
        if mine != theirs:
            return (
                f"not the selection ({winner.provider})" if name == "selection" else f"{_words(name)} {mine} < {theirs}"
            )
    return f"tie with {winner.provider}, which has the smaller (source, provider)"


def _why_won(ranked: list[tuple[Rank, Candidate[Any]]], selection: Selection | None) -> str:
    best, _ = ranked[0]
    if len(ranked) == 1:
        return str(selection) if selection is not None else "only eligible candidate"
    for name, mine, theirs in zip(Rank._fields, best, ranked[1][0], strict=True):
        if mine != theirs:
            return str(selection) if name == "selection" else f"{_words(name)} {mine} > {theirs}"
    return "tie, smaller (source, provider)"


def _words(field_name: str) -> str:
    return field_name.replace("_", " ")


def _obstacle(candidate: Candidate[Any], policy: Policy, needed: frozenset[str], *, explicit: bool) -> str | None:
    """Say what makes *candidate* ineligible, with what would help; None when nothing does.

    An explicit choice may try what is barred as unhealthy: it may be well again, and is probed before it serves.
    """
    host = policy.host
    hint = candidate.metadata.get("hint")
    remedy = f"; try: {hint}" if isinstance(hint, str) else ""
    bar = policy.barred.get((candidate.slot, candidate.provider))
    if bar is not None and not (explicit and bar.kind == "unhealthy"):
        return bar.reason + remedy
    missing = sorted(needed - candidate.capabilities)
    if missing:
        return f"lacks capability {', '.join(missing)}{remedy}"
    if candidate.os_platform and host.os_platform not in candidate.os_platform:
        return f"needs platform {' or '.join(candidate.os_platform)}, this is {host.os_platform}{remedy}"
    if candidate.python_version:
        obstacle = _python_obstacle(candidate.python_version, host)
        if obstacle:
            return obstacle + remedy
    unmet = [words for words in (_requirement_obstacle(text, host) for text in candidate.requires) if words]
    return "; ".join(unmet) + (remedy or f"; try: pip install {_quoted(candidate.requires)}") if unmet else None


def _one_line(text: str) -> str:
    """Return *text*, part of which a candidate's author wrote, as one line that no screen and no log chokes on."""
    words = " ".join(text.split())
    return words if len(words) <= _REASON_LIMIT else f"{words[: _REASON_LIMIT - 3]}..."


def _python_obstacle(wanted: str, host: Host) -> str | None:
    try:
        met = _is_within(host.python_version, wanted)
    except ValueError:
        return f"python_version {wanted!r} is not a PEP 440 specifier"
    return None if met else f"needs Python {wanted}, this is {host.python_version}"


def _requirement_obstacle(text: str, host: Host) -> str | None:
    plain = re.fullmatch(_PLAIN_REQUIREMENT, text)
    if plain is not None:
        return _version_obstacle(text, host, plain["name"], plain["bound"])
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        requirement = Requirement(text)
        applies = requirement.marker is None or requirement.marker.evaluate()
    except (InvalidRequirement, ValueError):  # markers raise their own ValueErrors
        return f"requirement {text!r} is not PEP 508"
    return _version_obstacle(text, host, requirement.name, str(requirement.specifier)) if applies else None


def _version_obstacle(text: str, host: Host, name: str, bounds: str) -> str | None:
    version = host.installed(name)
    if version is None:
        return f"requires {text}: not installed"
    return f"requires {text}: {version} is installed" if bounds and not _is_within(version, bounds) else None


def _is_within(version: str, bounds: str) -> bool:
    """Say whether *version* is within *bounds*; raises ValueError when those are not PEP 440."""
    least = re.fullmatch(_LEAST, bounds)
    if least is not None:
        return is_version(version) and bool(_version(version) >= _version(least["version"]))
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(bounds).contains(version, prereleases=True)


def _quoted(requirements: Iterable[str]) -> str:
    return " ".join(f"'{text}'" for text in requirements)


def _failure(
    policy: Policy, placings: tuple[Placing, ...], slot: Slot[Any], selection: Selection | None
) -> FailureReason:
    if not placings:
        return "no-candidates"
    wanted = [p for p in placings if selection is None or p.candidate.provider == selection.provider]
    if not wanted:
        return "all-shadowed"
    bars = [policy.barred.get((slot, placing.candidate.provider)) for placing in wanted]
    return bars[0].kind if bars and all(bars) and bars[0] is not None else "no-candidates"


def near_misses(registry: Registry, slot: Slot[Any]) -> tuple[str, ...]:
    """Return slots whose name is close to *slot*, or that have its key in another domain; closest first."""
    from difflib import get_close_matches

    elsewhere = [str(other) for other in registry.slots() if other.key == slot.key and other != slot]
    keys = [other.key for other in registry.slots(slot.domain)]
    close = [f"{slot.domain}/{key}" for key in get_close_matches(slot.key, keys, n=3, cutoff=0.6)]
    return tuple(dict.fromkeys([*close, *elsewhere]))[:5]
