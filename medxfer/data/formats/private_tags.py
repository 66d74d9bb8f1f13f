"""What in a file's header may tell who the patient is: names of tags only, never what they say."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..image import heard

# Direct identifiers (DICOM PS3.15 annex E, in part); PatientID is looked at as the key of patients.
NAMES = (
    "PatientName", "PatientBirthDate", "PatientAddress", "PatientTelephoneNumbers", "PatientMotherBirthName",
    "OtherPatientIDs", "OtherPatientNames", "AccessionNumber", "ReferringPhysicianName",
    "PerformingPhysicianName", "OperatorsName", "PhysiciansOfRecord", "InstitutionName", "InstitutionAddress",
)  # fmt: skip
_OTHERS = ("Modality", "SeriesInstanceUID", "PatientIdentityRemoved", "BurnedInAnnotation", "NumberOfFrames")
_BLANKED = re.compile(r"[\W_]*|(?:.*anonym.*|.*de-?identif.*|.*removed.*|none|unknown|x+|0+)", re.IGNORECASE)
_FILES = 8  # of a series, spread over it
_EXIF = {
    0x8825: "EXIF GPS position",
    0x013B: "EXIF Artist",
    0x9C9D: "EXIF author",
    0x010E: "EXIF ImageDescription",
}
# Modalities that come with text in their pixels.
_WRITTEN_ON = ("US", "SC", "OT", "XC", "ES")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tags:
    """What the headers of a case hold beside the image."""

    modality: str = ""
    series: str = ""
    telling: frozenset[str] = frozenset()  # names of tags that are filled in
    not_removed: bool = False  # DICOM that does not say PatientIdentityRemoved YES
    burned_in: bool = False  # says that text is burned in, or says nothing where the modality does so


def tags_of(path: Path, kind: str | None, files: Sequence[Path] = ()) -> Tags:
    """Look at the headers of a case.

    Args:
        path: A file, or the folder of a series.
        kind: Of the file, as `kind_of` says.
        files: Of a series.
    """
    if path.is_dir():
        every = sorted(files) or sorted(one for one in path.rglob("*") if one.is_file())
        some = every[:: max(1, len(every) // _FILES)]
        found = [_of_dicom(one) for one in some]
        first = next((tags for tags in found if tags.modality), Tags())
        return Tags(
            modality=first.modality,
            series=first.series,
            telling=frozenset().union(*(tags.telling for tags in found)),
            not_removed=any(tags.not_removed for tags in found),
            burned_in=any(tags.burned_in for tags in found),
        )
    if kind == "DICOM":
        return _of_dicom(path)
    if kind in ("JPEG", "PNG", "TIFF"):
        return Tags(telling=_of_picture(path))
    return Tags()


def _of_dicom(path: Path) -> Tags:
    import pydicom

    try:
        with heard():
            wanted = [*NAMES, *_OTHERS]
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=wanted, force=True)
            values = {name: _text(header, name) for name in wanted}
    except Exception:  # damaged: the reader names the fault
        return Tags()
    if not values["SeriesInstanceUID"] and not values["Modality"]:
        return Tags()
    said = values["BurnedInAnnotation"].upper()
    modality = values["Modality"].upper()
    return Tags(
        modality=modality if re.fullmatch(r"[A-Z]{2,16}", modality) else "",
        series=values["SeriesInstanceUID"],
        telling=frozenset(name for name in NAMES if not _BLANKED.fullmatch(values[name])),
        not_removed=values["PatientIdentityRemoved"].upper() != "YES",
        burned_in=said == "YES" or (said != "NO" and modality in _WRITTEN_ON),
    )


def _text(header: Any, name: str) -> str:
    value = header.get(name)
    return "" if value is None else str(value).strip()


def _of_picture(path: Path) -> frozenset[str]:
    """Text chunks and EXIF fields that are filled in, by name."""
    from PIL import Image

    try:
        with heard(), Image.open(path) as picture:
            found = {name for tag, name in _EXIF.items() if picture.getexif().get(tag)}
            texts = getattr(picture, "text", {}) if picture.format == "PNG" else {}
    except Exception:  # damaged: the reader names the fault
        return frozenset()
    return frozenset(found | ({"PNG text"} if texts else set()))
