"""A reader of Dockerfiles: instructions by stage, and the rules that a hardened image keeps."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

TOOLS = re.compile(
    r"\b(gcc|g\+\+|clang|make|build-essential|apt-get|apk|cargo|git|curl|wget)\b|pip3?\b[^&;]*\binstall\b"
)
"""What a final stage neither installs nor runs."""
PINNED = re.compile(r"[^:@\s]+:(?!latest\b)[\w.-]*\d[\w.-]*(@sha256:[0-9a-f]{64})?")
"""An image with a tag that says which version."""


@dataclass(frozen=True)
class Instruction:
    """One instruction: ``COPY``, its flags, and what follows."""

    name: str
    text: str

    @property
    def flags(self) -> dict[str, str]:
        """Return ``--name=value`` flags before the arguments."""
        return dict(re.findall(r"--([\w-]+)=(\S+)", self._head))

    @property
    def rest(self) -> str:
        """Return the text after the flags."""
        return self.text[len(self._head) :].strip()

    @property
    def _head(self) -> str:
        found = re.match(r"(?:--[\w-]+=\S+\s+)*", self.text)
        return found.group() if found else ""

    @property
    def command(self) -> list[str]:
        """Return the exec form's words; raises ValueError for the shell form."""
        return list(json.loads(self.rest))

    @property
    def pairs(self) -> dict[str, str]:
        """Return the ``name=value`` pairs of ENV and LABEL."""
        return dict(word.split("=", 1) for word in shlex.split(self.rest))


@dataclass
class Stage:
    """What one ``FROM`` begins."""

    image: str
    name: str
    instructions: list[Instruction] = field(default_factory=list)

    def all(self, name: str) -> list[Instruction]:
        """Return the instructions called *name*."""
        return [each for each in self.instructions if each.name == name]

    def last(self, name: str) -> Instruction:
        """Return the instruction called *name* that counts; raises LookupError when there is none."""
        found = self.all(name)
        if not found:
            raise LookupError(f"no {name}")
        return found[-1]

    @property
    def environ(self) -> dict[str, str]:
        """Return the image's environment, as far as it is set here."""
        return {name: value for each in self.all("ENV") for name, value in each.pairs.items()}


def parse(text: str) -> list[Stage]:
    """Return the stages of a Dockerfile."""
    stages: list[Stage] = []
    lines = (line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        name, _, rest = line.strip().partition(" ")
        if name.upper() == "FROM":
            image, *alias = re.split(r"\s+AS\s+", rest.strip(), flags=re.IGNORECASE)
            stages.append(Stage(image, alias[0] if alias else ""))
        elif stages:
            stages[-1].instructions.append(Instruction(name.upper(), rest.strip()))
        elif name.upper() != "ARG":
            raise ValueError(f"{name} before FROM")
    return stages


def complaints(text: str) -> Iterator[str]:
    """Iterate over what is wrong with a Dockerfile, as hadolint would say it and then some."""
    stages = parse(text)
    names = {stage.name for stage in stages if stage.name}
    for stage in stages:
        if stage.image not in names and not PINNED.fullmatch(stage.image):
            yield f"FROM {stage.image}: no version in its tag"
        for each in stage.instructions:
            yield from _of_instruction(each, names)
    if len(stages) < 2:
        yield "one stage only"
    yield from _of_final(stages[-1])


def _of_instruction(each: Instruction, stages: set[str]) -> Iterator[str]:
    if each.name == "ADD":
        yield "ADD where COPY does"
    if each.name == "RUN" and "pip" in each.text and "install" in each.text and "--no-cache-dir" not in each.text:
        yield "pip install keeps its cache"
    if each.name == "RUN" and re.search(r"\bsudo\b|\bcurl\b.*\|\s*(ba)?sh|chmod .*777", each.text):
        yield f"RUN {each.text}: sudo, a script from the network, or a mode of 777"
    if each.name == "COPY":
        yield from _of_copy(each, stages)
    if each.name in ("ENV", "ARG") and re.search(r"(?i)(password|token|secret|private)", each.text):
        yield f"{each.name}: a secret would stay in the image"
    if each.name in ("ENTRYPOINT", "CMD") and not each.rest.startswith("["):
        yield f"{each.name} {each.rest}: a shell would be process 1 and keep signals to itself"
    if each.name == "WORKDIR" and not each.rest.startswith("/"):
        yield f"WORKDIR {each.rest}: not absolute"


def _of_copy(each: Instruction, stages: set[str]) -> Iterator[str]:
    if each.flags.get("from", "") not in {"", *stages}:
        yield f"COPY --from={each.flags['from']}: no such stage"
    if each.flags.get("chown", "0:0") not in ("0:0", "root:root"):
        yield f"COPY --chown={each.flags['chown']}: the daemon could change its own code"
    if re.search(r"(^|\s)\.(\s|$)(?!$)", each.rest):
        yield "COPY . takes everything"


def _of_final(stage: Stage) -> Iterator[str]:
    users = [each.rest for each in stage.all("USER")]
    if not users or not re.fullmatch(r"65532(:65532)?", users[-1]):
        yield f"USER is {users[-1] if users else 'root'}, not 65532"
    elif stage.instructions[-1].name != "USER":
        yield f"{stage.instructions[-1].name} after USER"
    for name in ("HEALTHCHECK", "ENTRYPOINT", "LABEL"):
        if len(stage.all(name)) != 1:
            yield f"{len(stage.all(name))} {name}"
    for each in stage.all("RUN"):
        if TOOLS.search(each.text):
            yield f"RUN {each.text}: a build tool in the final stage"
    if not any("pip uninstall" in each.text for each in stage.all("RUN")):
        yield "pip in the final stage"
