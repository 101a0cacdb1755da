"""Every error Oneiric raises on purpose.

    OneiricError
    ├── UsageError            the request itself makes no sense
    ├── ConfigError           settings, environment or a registration are invalid
    ├── NoCandidateError      nothing eligible fills a slot
    ├── SlotUnavailableError  the slot is paused, draining or stopped
    ├── ActivationError       no instance could be built
    ├── SwapFailedError       the new instance did not take over
    ├── ManifestError         a manifest or an artifact cannot be read as one
    │   └── TrustError        ... or must not be trusted
    ├── FetchError            a manifest or an artifact could not be fetched
    ├── SupersededError       a later request for the same slot took the place of this one
    ├── NotDurableError       done, but the state directory could not record it
    ├── DaemonUnreachableError  a command needs the daemon and it does not answer
    │   └── DaemonAbsentError   none runs: nobody listens on its socket
    └── DaemonRefusedError    the daemon cannot start here

Each carries ``code`` (stable, printed in brackets), ``hint`` (what to type next), ``exit_code`` and ``http_status``.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class OneiricError(Exception):
    """What went wrong and where; ``hint`` says what to do next."""

    code: str = "error"
    exit_code: int = 1
    http_status: int = 500

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message

    def render(self) -> str:
        """Return the text an operator reads: what, where, and what to type next."""
        lines = [f"error[{self.code}]: {self.message}"]
        lines += [f"try: {self.hint}"] if self.hint else []
        return "\n".join(lines)


class UsageError(OneiricError):
    """The request names something that does not exist or cannot be asked."""

    code = "usage"
    exit_code = 2
    http_status = 400


class Problem(NamedTuple):
    """One mistake in the settings: where it stands, what it is, what would be accepted."""

    where: str
    what: str
    accepted: str = ""

    def __str__(self) -> str:
        return f"{self.where}: {self.what}" + (f" ({self.accepted})" if self.accepted else "")


CHECK_SETTINGS: Final = "oneiric config check"
"""What to type next when settings are invalid, unless more is known."""


class ConfigError(OneiricError):
    """Settings, environment or a registration are invalid; ``problems`` lists every mistake found."""

    code = "config"
    exit_code = 4
    http_status = 422

    def __init__(self, *problems: Problem, hint: str = CHECK_SETTINGS) -> None:
        super().__init__("\n".join(str(problem) for problem in problems), hint=hint)
        self.problems = problems

    def render(self) -> str:
        """Return every problem on a line of its own, then what to type next."""
        lines = [f"error[{self.code}]: {problem}" for problem in self.problems]
        return "\n".join([*lines, *([f"try: {self.hint}"] if self.hint else [])])


class NoCandidateError(OneiricError):
    """Nothing eligible fills a slot; ``explanation`` is the whole answer of the resolver."""

    code = "no-candidate"
    http_status = 404

    def __init__(self, message: str, *, reason: str = "no-candidates", explanation: str = "", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.explanation = explanation


class SlotUnavailableError(OneiricError):
    """The slot takes no new lease: it is paused, draining or stopped."""

    code = "slot-unavailable"
    http_status = 409


class ActivationError(OneiricError):
    """No instance could be built; ``reason`` is ``factory``, ``health-check``, ``timeout`` or ``hook``."""

    code = "activation"
    http_status = 503

    def __init__(self, message: str, *, reason: str = "factory", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason


class SwapFailedError(ActivationError):
    """The new instance did not take over; ``rolled_back`` says whether the old one still serves."""

    code = "swap-failed"
    http_status = 409

    def __init__(self, message: str, *, reason: str, rolled_back: bool, hint: str = "") -> None:
        super().__init__(message, reason=reason, hint=hint)
        self.rolled_back = rolled_back


class SupersededError(OneiricError):
    """A later request for the same slot took the place of this one before it began."""

    code = "superseded"
    http_status = 409


class ManifestError(OneiricError):
    """A manifest or an artifact is not what it claims to be; ``reason`` names the check that failed.

    ``claimed`` are the ids of the keys that a manifest says it is signed with, ``signers`` those of trusted keys among
    them that did sign it, where that is known.
    """

    code = "manifest"
    exit_code = 1
    http_status = 422

    def __init__(self, message: str, *, reason: str = "malformed", hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.claimed: tuple[str, ...] = ()
        self.signers: tuple[str, ...] = ()


class TrustError(ManifestError):
    """A manifest or an artifact must not be trusted: signature, expiry, version, digest or policy."""

    code = "trust"
    exit_code = 5
    http_status = 403


class FetchError(OneiricError):
    """A manifest or an artifact could not be fetched.

    ``reason`` is one of ``timeout connection dns tls http size redirect policy file``; ``status`` is the HTTP status,
    where there was one; ``retry_after`` the seconds the server asks us to wait.
    """

    code = "fetch"
    http_status = 502

    def __init__(
        self,
        message: str,
        *,
        reason: str,
        hint: str = "",
        status: int | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


class NotDurableError(OneiricError):
    """The change is in force in this process, but the state directory could not record it."""

    code = "not-durable"
    http_status = 507


class DaemonUnreachableError(OneiricError):
    """A command needs the daemon, and none answers on the socket."""

    code = "no-daemon"
    exit_code = 3
    http_status = 503


class DaemonAbsentError(DaemonUnreachableError):
    """No daemon runs: there is no socket, or nobody listens on the one that was left behind."""


class DaemonRefusedError(OneiricError):
    """The daemon cannot start here: another one runs, a port is taken, a directory cannot be used."""

    code = "daemon"
    exit_code = 1
