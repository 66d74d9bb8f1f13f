"""Names for files that belong to cases, such as their masks."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Sequence

_LONGEST = 160  # bytes; most systems allow 255, and endings are added
_ENDING = re.compile(r"\.(nii(\.gz)?|hdr|img(\.gz)?|nrrd|mha|mhd|dcm|png|jpe?g|tiff?|bmp)$", re.IGNORECASE)


def file_stem(name: str) -> str:
    """A case's path without the ending of an image, in letters that every system takes; `a/b.nii.gz` is `a__b`."""
    return _safe(_ENDING.sub("", name))


def file_stems(names: Sequence[str]) -> list[str]:
    """As `file_stem`, and no two alike, not even where capitals count for nothing.

    Names that differ by their ending only keep it (`a_png`, `a_jpg`); what is still alike is numbered.
    """
    stems = [file_stem(name) for name in names]
    count = Counter(stem.lower() for stem in stems)
    stems = [
        stem if count[stem.lower()] == 1 else _safe(name.replace(".", "_"))
        for stem, name in zip(stems, names, strict=True)
    ]
    taken: set[str] = set()
    different = []
    for stem in stems:
        one, number = stem, 1
        while one.lower() in taken:
            number += 1
            one = f"{stem}-{number}"
        taken.add(one.lower())
        different.append(one)
    return different


def _safe(name: str) -> str:
    safe = re.sub(r"[^\w.-]+", "_", name.replace("/", "__")).strip("._") or "image"
    content = safe.encode()
    if len(content) <= _LONGEST:
        return safe
    # the end of a path tells more than its beginning
    end = content[-_LONGEST + 10 :].decode(errors="ignore").lstrip("._")
    return f"{hashlib.sha256(content).hexdigest()[:8]}__{end}"
