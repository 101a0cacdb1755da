"""A document's bytes to plain values: strict JSON, or a YAML that can say no more than JSON can.

There is exactly one reading of the bytes, or none. Refused are duplicate keys, keys that are not text, NaN, infinity
and numbers beyond 64 bits, half surrogate pairs, and what is nested too deeply or holds too many values; in YAML also
anchors, aliases, tags, merge keys and a second document. Instants stay text.
"""

from __future__ import annotations

import re
from typing import Any, Final

from oneiric.core.json_document import read_json
from oneiric.errors import ManifestError

_IS_JSON: Final = re.compile(r"[ \t\r\n]*[{\[]")


def read_document(content: bytes) -> dict[str, Any]:
    """Return the mapping that *content* is, as plain values; its size is the caller's to check.

    Raises ManifestError, which says in which line, when it is anything else.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"not UTF-8: byte {error.start} is 0x{content[error.start]:02x}") from None
    if _IS_JSON.match(text):
        value = read_json(text)
    else:
        from oneiric.core.yaml_document import read_yaml

        value = read_yaml(text)
    if not isinstance(value, dict):
        raise ManifestError("the document is not a mapping", hint="source: ..., entries: [...]")
    return value
