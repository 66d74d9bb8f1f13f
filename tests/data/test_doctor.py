from __future__ import annotations

import io
import json
import os
import shutil
import struct
import zlib
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from pydicom.pixels.decoders import RLELosslessDecoder
from pydicom.uid import RLELossless

from medxfer.bundle.schema import DataSpec, ImagesSpec, PatientSpec, SplitSpec
from medxfer.data.doctor import Health, Request, examine
from medxfer.data.health.contact_sheet import draw, rows_of
from medxfer.data.health.findings_of_data import auroc
from medxfer.data.health.suspects import has_text
from medxfer.data.presets import steps_of
from medxfer.errors import DataError
from medxfer.progress import Progress

from .faults import anatomy, chest, class_folders, dicom, jpeg_bytes, picture, saved, saved_series, series

QUIET = Progress(quiet=True)
CANARY = ("Quill", "Zephyrine", "P0417", "19410203")


def look(root: Path, **data: Any) -> Health:
    return examine(root, Request(data=DataSpec(source=str(root), **data)), QUIET)


def said(health: Health, level: str | None = None) -> str:
    return "\n".join(
        f"{one.where}: {one.problem}; {one.todo}" for one in health.findings if level in (None, one.level)
    )


def bomb() -> bytes:
    """A PNG of 60000 x 60000 pixels in a few bytes."""
    head = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b"")]
    body = [struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
            for name, data in chunks]  # fmt: skip
    return b"\x89PNG\r\n\x1a\n" + b"".join(body)


def test_good_data_are_counted_and_taken(tmp_path: Path) -> None:
    health = look(class_folders(tmp_path, 12))

    assert not health.is_refused
    assert not health.bad
    assert health.facts["classes"] == {"normal": 12, "pneumonia": 12}
    assert health.facts["splits_of_a_run"] == {"train": 16, "val": 4, "test": 4}
    assert health.facts["sizes"]["most"] == [48, 48]
    assert "patients cannot be told apart" in said(health, "suspect")


def test_every_bad_file_is_named_with_cause_and_remedy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RLELosslessDecoder, "_available", {})
    monkeypatch.setattr(RLELosslessDecoder, "_unavailable", {"pylibjpeg": ("pylibjpeg-rle>=2.0",)})
    root = class_folders(tmp_path, 12)
    folder = root / "normal"
    (folder / "zero.png").touch()
    (folder / "cut.jpg").write_bytes(jpeg_bytes()[:900])
    (folder / "page.png").write_text("<html>not found</html>")
    (folder / "bomb.png").write_bytes(bomb())
    saved(dicom(chest(1), Rows=None, Columns=None, PixelData=None), folder / "report.dcm")
    rare = dicom(chest(2))
    rare.compress(RLELossless)
    saved(rare, folder / "rare.dcm")
    values = np.ones((9, 9, 9), np.float32)
    values[1, 2, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4)), folder / "nan.nii.gz")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (folder / "round").symlink_to(root)
    picture(folder / "wrong.png", chest(3)).rename(folder / "wrong.dcm")
    picture(folder / "dot.png", np.zeros((1, 1), np.uint8))
    Path(os.fsdecode(os.fsencode(folder) + b"/na\xefve.png")).write_bytes(b"")

    health = look(root)

    bad = {Path(one.case).name: one for one in health.bad}
    for name, cause in {
        "zero.png": "0 bytes", "cut.jpg": "", "page.png": "web page", "bomb.png": "60000 x 60000",
        "rare.dcm": "RLE Lossless), no codec installed", "nan.nii.gz": "NaN", "loop.png": "",
        "na\\xefve.png": "0 bytes",
    }.items():  # fmt: skip
        assert cause in bad[name].seen, bad[name]
        assert bad[name].seen
        assert bad[name].todo
    assert len(bad) == 8
    assert bad["rare.dcm"].todo == 'install the codecs: pip install "medxfer[dicom]"'
    assert health.is_refused
    assert "8 of 34 cases: cannot be used" in said(health, "refused")
    text = said(health)
    assert "the content is PNG, the name says .dcm" in text
    assert "only 1 x 1 pixels" in text
    assert "1 DICOM files without pixels" in text


def test_bad_files_are_left_out_where_the_bundle_says_so(tmp_path: Path) -> None:
    root = class_folders(tmp_path, 12)
    (root / "normal" / "zero.png").touch()

    health = look(root, on_bad_image="skip")

    assert not health.is_refused
    assert "the run leaves them out" in said(health, "suspect")


def test_every_faulty_row_of_a_label_table_is_named(tmp_path: Path) -> None:
    names = [f"i{number:02}.png" for number in range(30)]
    for number, name in enumerate(names):
        picture(tmp_path / name, chest(number))
    rows = [f"{name};{'ab'[number % 2]};" for number, name in enumerate(names)]
    rows[4] = "../../etc/passwd;a;"
    rows[9] = "gone.png;b;"
    rows[20] = "i03.png;a;"
    rows[25] = "i25.png;a;sometimes"
    (tmp_path / "labels.csv").write_text(
        "\ufefffile;label;split\n" + "\n".join(rows) + "\n", encoding="utf-8"
    )

    health = look(tmp_path)

    seen = "\n".join(f"{one.case}: {one.seen}" for one in health.bad)
    assert len(health.bad) == 4, seen
    assert "labels.csv, line 6: ../../etc/passwd leaves the data folder" in seen
    assert "labels.csv, line 11: gone.png: no such file" in seen
    assert "i03.png is named in lines 5 and 22, with the labels `b` and `a`" in seen
    assert "split `sometimes`" in seen
    assert health.is_refused
    assert health.facts["readable"] == 30


def test_leaks_are_refused_and_told_by_picture(tmp_path: Path) -> None:
    root = class_folders(class_folders(tmp_path, 8, "train"), 8, "test")
    shutil.copy(root / "train/normal/ntrain000.png", root / "test/normal/again.png")
    array = np.asarray(Image.open(root / "train/normal/ntrain001.png"))
    picture(
        root / "train/pneumonia/bright.jpg", np.clip(array * 0.9 + 10, 0, 255).astype(np.uint8), quality=95
    )

    health = look(root)

    refused = said(health, "refused")
    assert "1 groups of equal pictures in two splits" in refused
    assert "again.png = train/normal/ntrain000.png" in refused
    assert "1 groups of nearly equal pictures have two labels" in refused
    accepted = look(root, accept_leak="known to us")
    assert not accepted.is_refused
    assert "accepted: known to us" in said(accepted, "suspect")


def test_patients_on_two_sides_are_refused_without_their_names(tmp_path: Path) -> None:
    for number in range(24):
        picture(tmp_path / f"i{number:02}.png", chest(number))
    rows = [
        f"i{number:02}.png,{'ab'[number % 2]},{'train' if number < 12 else 'test'},Quill{number % 20}"
        for number in range(24)
    ]
    (tmp_path / "labels.csv").write_text("file,label,side,PatientName\n" + "\n".join(rows))

    health = look(tmp_path, patient=PatientSpec(column="PatientName"), split=SplitSpec(column="side"))

    assert "4 patients in train and test: i00.png and i20.png" in said(health, "refused")
    assert "columns that may name people: PatientName" in said(health, "suspect")
    plain = json.dumps(health.to_plain())
    assert "Quill" not in plain
    assert all(name.startswith("p_") for name in health.facts["patients_as_pseudonyms"])


def test_pictures_that_are_constant_clipped_empty_or_masks_are_told(tmp_path: Path) -> None:
    root = class_folders(tmp_path, 12)
    picture(root / "normal/constant.png", np.full((48, 48), 7, np.uint8))
    picture(root / "normal/clipped.png", np.clip(chest(77).astype(int) + 120, 0, 255).astype(np.uint8))
    empty = np.zeros((48, 48), np.uint8)
    empty[:6, :10] = np.arange(60).reshape(6, 10) + 10
    picture(root / "normal/empty.png", empty)
    picture(root / "normal/mask.png", (chest(5) > 128).astype(np.uint8) * 255)

    by_word = {one.problem: one.cases for one in look(root).findings}

    for word, name in {
        "one value": "constant",
        "clipped": "clipped",
        "empty": "empty",
        "masks": "mask",
    }.items():
        cases = next(cases for problem, cases in by_word.items() if word in problem)
        assert cases == (f"normal/{name}.png",), word


def test_inverted_chest_films_are_told(tmp_path: Path) -> None:
    rows, columns = np.mgrid[0:96, 0:96] / 95
    lungs = np.exp(-(((rows - 0.45) / 0.25) ** 2)) * (
        np.exp(-(((columns - 0.28) / 0.1) ** 2)) + np.exp(-(((columns - 0.74) / 0.1) ** 2))
    )
    body = (np.abs(columns - 0.5) < 0.42) & (np.abs(rows - 0.5) < 0.46)
    film = np.where(body, 0.8 - 0.6 * lungs, 0)
    random = np.random.default_rng(0)
    for number in range(24):
        noisy = np.clip(film + random.normal(0, 0.02, film.shape), 0, 1)
        noisy = 1 - noisy if number % 4 == 0 else noisy
        picture(tmp_path / "ab"[number % 2] / f"{number}.png", (noisy * 255).astype(np.uint8))

    inverted = next(one for one in look(tmp_path).findings if "look inverted" in one.problem)

    assert inverted.level == "suspect"
    assert sorted(inverted.cases) == sorted(f"a/{number}.png" for number in range(0, 24, 4))


@pytest.mark.parametrize("dark", [False, True])
def test_text_is_found_at_the_border_and_a_lone_letter_is_none(dark: bool) -> None:
    base = np.asarray(Image.fromarray(chest(3)).resize((300, 300))).astype(float) * 0.3 + (
        110 if dark else 20
    )
    plain = Image.fromarray(base.astype(np.uint8))
    font = ImageFont.load_default(14)
    ink = 0 if dark else 255
    written, marked = plain.copy(), plain.copy()
    ImageDraw.Draw(written).text((20, 8), "QUILL ZEPHYRINE", fill=ink, font=font)
    ImageDraw.Draw(marked).text((20, 8), "R", fill=ink, font=font)

    assert has_text(np.asarray(written, dtype=np.float32))
    assert not has_text(np.asarray(marked, dtype=np.float32))
    assert not has_text(np.asarray(plain, dtype=np.float32))


def test_nothing_that_names_a_patient_leaves_the_doctor(tmp_path: Path) -> None:
    for number in range(24):
        image = dicom(
            chest(number).astype(np.uint16), PatientName="Quill^Zephyrine", PatientID=f"P0417-{number % 20}",
            PatientBirthDate="19410203", AccessionNumber="P0417", InstitutionName="Quill Clinic",
            StudyDescription="Zephyrine", BurnedInAnnotation="YES",
        )  # fmt: skip
        saved(image, tmp_path / "ab"[number % 2] / f"{number}.dcm")

    health = look(tmp_path)
    sheet = draw(rows_of(health))

    text = json.dumps(health.to_plain()) + json.dumps(sheet.cases) + repr(health)
    assert not [word for word in CANARY if word in text]
    assert "AccessionNumber in 24, InstitutionName in 24, PatientBirthDate in 24, PatientName in 24" in text
    assert "24 of 24 cases: say, or do not deny, that text is burned in" in said(health, "suspect")
    assert health.facts["patients"] == 20


def test_blanked_tags_are_no_names(tmp_path: Path) -> None:
    root = class_folders(tmp_path, 6)
    image = dicom(chest(50).astype(np.uint16), PatientName="ANONYMIZED", PatientIdentityRemoved="YES")
    saved(image, root / "normal" / "x.dcm")

    assert "tags filled in" not in said(look(root))


def test_a_folder_of_series_without_labels_is_read_all_the_same(tmp_path: Path) -> None:
    good = saved_series(series(), tmp_path / "good")
    gap = series(anatomy() + 1, SeriesInstanceUID="1.2.826.0.1.77")
    del gap[5]
    saved_series(gap, tmp_path / "gap")

    health = look(tmp_path)

    assert health.is_refused
    assert good.is_dir()
    assert health.facts["kinds"] == {"DICOM series": 1}
    assert health.facts["volumes"]["most"] == [26, 20, 12]
    assert health.facts["modalities"] == {"CT": 1}
    assert [one.case for one in health.bad] == ["gap"]
    assert "gap 5.0 mm" in health.bad[0].seen


def volume(path: Path, values: np.ndarray, affine: np.ndarray | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([1.0, 2, 3, 1]) if affine is None else affine), path)
    return path


def test_masks_are_laid_beside_their_images(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    rows = []
    for number in range(24):
        volume(tmp_path / f"v{number}.nii.gz", random.normal(100, 20, (12, 14, 10)).astype(np.float32))
        mask = np.zeros((12, 14, 10), np.float32)
        mask[3:6, 3:7, 2:5] = 1
        affine = None
        if number == 1:
            mask = mask[:, :, 1:]
        if number == 2:
            affine = np.diag([1.0, 2, 3, 1])
            affine[0, 3] = 4
        if number == 3:
            mask[4, 4, 4] = 0.5
        if number == 4:
            mask[:] = 0
        if number == 5:
            mask[5, 5, 4] = 9
        volume(tmp_path / f"m{number}.nii.gz", mask, affine)
        rows.append(f"v{number}.nii.gz,m{number}.nii.gz")
    (tmp_path / "labels.csv").write_text("file,mask\n" + "\n".join(rows))

    health = look(tmp_path)

    refused, suspect = said(health, "refused"), said(health, "suspect")
    assert "the mask has 12 x 14 x 9 voxels, the image 12 x 14 x 10 (first: v1.nii.gz)" in refused
    assert "the mask lies up to 4 mm beside the image (first: v2.nii.gz)" in refused
    assert "the mask holds 0.5, which is no class (first: v3.nii.gz)" in refused
    assert "have an empty mask" in suspect
    assert "hardly any other has: 0.5, 9" in suspect
    assert health.facts["mask_values"] == [0, 0.5, 1, 9]
    assert health.facts["spacings_mm"] == {"known": 24, "least": 1.0, "most": 3.0}


def test_a_figure_that_tells_the_class_is_told(tmp_path: Path) -> None:
    for number in range(24):
        side = 40 if number % 2 else 64
        picture(tmp_path / "ab"[number % 2] / f"{number}.png", chest(number, side))

    assert "the number of pixels alone tells it from the others: AUROC 1.00" in said(
        look(tmp_path), "suspect"
    )


def test_auroc_counts_ties_half() -> None:
    assert auroc(np.array([1.0, 2, 3, 4]), np.array([False, False, True, True])) == 1
    assert auroc(np.array([1.0, 1, 1, 1]), np.array([False, True, False, True])) == 0.5
    assert auroc(np.array([1.0, 2, 2, 3]), np.array([False, True, False, True])) == pytest.approx(0.875)


def test_an_absent_folder_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    class_folders(tmp_path / "films", 2)

    with pytest.raises(DataError, match="did you mean"):
        look(tmp_path / "flims")


def test_the_sheet_numbers_its_pictures_and_shows_duplicates_side_by_side(tmp_path: Path) -> None:
    root = class_folders(tmp_path, 12)
    shutil.copy(root / "normal/n003.png", root / "normal/z.png")
    health = look(root)

    rows = rows_of(health)
    sheet = draw(rows)

    assert [row.title for row in rows] == [
        "normal: 13",
        "pneumonia: 12",
        "equal images, group after group: 1 groups",
    ]
    assert [one.case.id for one in rows[2].looks] == ["normal/n003.png", "normal/z.png"]
    assert sheet.png.startswith(b"\x89PNG")
    assert set(sheet.cases.values()) >= {"normal/n003.png", "normal/z.png", "pneumonia/p000.png"}


@pytest.mark.parametrize(
    ("name", "equal", "near"),
    [("brain_mri", (22, 47), 18), ("abdomen_chest", (1, 2), 0), ("pathology_cls", (7, 14), 2)],
)
def test_duplicates_of_public_sets_are_those_that_were_counted(
    shared: Path, name: str, equal: tuple[int, int], near: int
) -> None:
    health = look(shared / "data" / name)

    assert (len(health.duplicates.exact), sum(map(len, health.duplicates.exact))) == equal
    assert len(health.duplicates.near) == near
    assert health.is_refused == (name == "pathology_cls")


def test_volumes_are_shown_in_one_plane_whichever_axis_is_short(tmp_path: Path) -> None:
    for name, shape in (("flat", (40, 30, 8)), ("narrow", (8, 40, 30))):
        voxels = np.zeros(shape, np.float32)
        voxels[shape[0] // 2 :] = 100  # the patient's right, shown on the left
        nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(tmp_path / f"{name}.nii")

    looks = {one.case.id: one for one in look(tmp_path).looks}

    for name, width, height in (("flat.nii", 40, 30), ("narrow.nii", 8, 40)):
        with Image.open(io.BytesIO(looks[name].preview)) as shown:
            grey = np.asarray(shown, np.float32)
        assert grey.shape[1] / grey.shape[0] == pytest.approx(width / height, rel=0.05)
        half = grey.shape[1] // 2
        assert grey[:, :half].mean() > 150 > 100 > grey[:, half + 1 :].mean()


def test_images_of_one_value_are_no_duplicates_and_refused_as_by_a_run(tmp_path: Path) -> None:
    class_folders(tmp_path, 12)
    for label in ("normal", "pneumonia"):
        for number in range(3):
            picture(tmp_path / label / f"x{number}.png", np.full((48, 48), 7, np.uint8))
    steps = steps_of(ImagesSpec(size=32), 1)

    for request in (
        Request(data=DataSpec(source=str(tmp_path))),
        Request(data=DataSpec(source=str(tmp_path)), steps=steps),
    ):
        health = examine(tmp_path, request, QUIET)

        assert health.duplicates.exact == health.duplicates.near == ()
        assert "have one value everywhere" in said(health, "refused")
