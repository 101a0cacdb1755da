"""What the verifier accepts and which check refuses the rest, for manifests that the tests publish."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

import msgspec
import pytest
import yaml

from oneiric.core.trust import Floor, TrustPolicy, VerifiedManifest, verify_manifest
from oneiric.errors import ManifestError
from tests.remote.publisher import ALICE_KEY, NOW, URL, packed

POLICY = TrustPolicy(keys=(ALICE_KEY,))


def accept(
    found: dict[str, Any] | bytes,
    policy: TrustPolicy = POLICY,
    *,
    floor: Floor | None = None,
    now: datetime = NOW,
    url: str = URL,
) -> VerifiedManifest:
    """Verify *found*, packed unless it is bytes; raises what the verifier raises."""
    content = found if isinstance(found, bytes) else packed(found)
    return verify_manifest(content, policy=policy, floor=floor, now=now, url=url)


def refused(found: dict[str, Any] | bytes, policy: TrustPolicy = POLICY, **given: Any) -> str:
    """Return the check that refused *found*, in each of the forms that it can be published in."""
    reasons = set()
    forms = [found]
    if isinstance(found, dict):
        forms += [json.dumps(found, indent=1).encode(), yaml.safe_dump(found).encode()]
    for form in forms:
        with pytest.raises(ManifestError) as caught:
            accept(form, policy, **given)
        reasons.add(caught.value.reason)
    (reason,) = reasons
    return str(reason)


def changed(policy: TrustPolicy = POLICY, **fields: Any) -> TrustPolicy:
    """Return *policy* with other *fields*."""
    return msgspec.structs.replace(policy, **fields)
