"""``make dist``: build, compare, look inside, try in an empty environment, write the bill of materials."""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.release.build import Built, build_twice
from scripts.release.changelog import not_yet_released
from scripts.release.contents import wrong_with_sdist, wrong_with_wheel
from scripts.release.project import Project, ReleaseError
from scripts.release.requirements import read_pinned
from scripts.release.sbom import bill, installed_in
from scripts.release.trial import install, try_out


def require_release(project: Project, *, strict: bool) -> None:
    """Say what keeps this from being a release; raises ReleaseError for that when *strict*."""
    reasons = not_yet_released(project)
    if changed := project.changed:
        reasons.append(f"differs from the last commit: {', '.join(changed)}")
    if reasons and strict:
        raise ReleaseError("not a release: " + "; ".join(reasons))
    for reason in reasons:
        print(f"not a release: {reason}")


def require_contents(built: Built, project: Project) -> None:
    """Look inside; raises ReleaseError for what is missing or does not belong there."""
    wrong = [f"{built.wheel.name} {what}" for what in wrong_with_wheel(built.wheel, project)]
    wrong += [f"{built.sdist.name} {what}" for what in wrong_with_sdist(built.sdist, project)]
    if wrong:
        raise ReleaseError("\n".join(wrong))


def try_and_describe(built: Built, project: Project) -> Path:
    """Try the wheel in an empty environment, and write beside it what it needs; return that file."""
    with TemporaryDirectory(prefix="oneiric-trial-") as directory:
        environment, empty = Path(directory) / "environment", Path(directory) / "empty"
        empty.mkdir()
        packages = install(built.wheel, project, environment)
        try_out(environment, empty, version=project.version)
        pinned = read_pinned(project.root / "requirements" / "run.txt")
        document = bill(project, built.wheel, pinned, installed_in(packages))
    path = built.wheel.with_name(f"oneiric-{project.version}.cdx.json")
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def main() -> None:
    """Build what is published, twice, and look whether it is good."""
    parser = argparse.ArgumentParser(prog="scripts/dist", description=main.__doc__)
    parser.add_argument(
        "--out", type=Path, default=Path("dist"), help="where it goes, in place of what was built before"
    )
    parser.add_argument("--release", action="store_true", help="refuse what is not a release")
    parser.add_argument("--no-trial", action="store_true", help="install nothing, and describe nothing")
    options = parser.parse_args()
    project = Project(Path.cwd())
    try:
        require_release(project, strict=options.release)
        built = build_twice(project, options.out)
        require_contents(built, project)
        print("built twice, with the same bytes; inside is what belongs there")
        made = [*built]
        if not options.no_trial:
            made.append(try_and_describe(built, project))
            print("installed into an empty environment, and tried in an empty directory")
    except ReleaseError as error:
        parser.exit(1, f"error: {error}\n")
    for path in made:
        print(f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path}")


if __name__ == "__main__":
    main()
