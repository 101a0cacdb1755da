"""From everything a diagnosis needs to the document of ``oneiric doctor``."""

from __future__ import annotations

from oneiric.api.schemas import DoctorDocument, FindingRow
from oneiric.api.views import instant
from oneiric.doctor.examine import examine
from oneiric.doctor.finding import Finding
from oneiric.doctor.vitals import Vitals


def doctor_document(vitals: Vitals, *, live: bool = True) -> DoctorDocument:
    """Return what is wrong by all rules."""
    return DoctorDocument(live=live, at=instant(vitals.at), findings=tuple(map(_row, examine(vitals))))


def _row(finding: Finding) -> FindingRow:
    return FindingRow(
        code=finding.code,
        runbook=finding.runbook,
        scenario=finding.code[1:] if finding.runbook is not None else "",
        heading=finding.heading,
        priority=finding.priority,
        title=finding.title,
        subject=finding.subject,
        variant=finding.variant,
        evidence=finding.evidence,
        commands=finding.commands,
        confirm=finding.confirm,
        caused_by=finding.caused_by,
    )
