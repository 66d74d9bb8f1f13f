"""Layouts beyond class folders and plain tables: DICOM trees, datalists, several sequences, masks."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medxfer.bundle.schema import DataSpec, ImagesSpec, PatientSpec, SliceSpec
from medxfer.data.cache import cache_arrays
from medxfer.data.cases import Found, find_cases
from medxfer.data.policy import ReadPolicy
from medxfer.data.presets import steps_of
from medxfer.data.readers import read_image
from medxfer.data.sampling import reading_of
from medxfer.errors import DataError
from medxfer.progress import Progress

from .faults import chest, dicom, picture, ramp, saved, series


def find(root: Path, **options: object) -> Found:
    return find_cases(DataSpec(source=str(root), **options), root)  # type: ignore[arg-type]


def refusal(root: Path, **options: object) -> DataError:
    with pytest.raises(DataError) as caught:
        find(root, **options)
    assert all((caught.value.seen, caught.value.accepted))
    return caught.value


def scan(folder: Path, number: int, **tags: object) -> Path:
    """A CT series of 12 slices."""
    uids = {"SeriesInstanceUID": f"1.2.9.{number}", "StudyInstanceUID": f"1.2.8.{number}"}
    own = {"PatientID": f"P{number // 2}", "FrameOfReferenceUID": f"1.2.7.{number}", **uids}
    for one, image in enumerate(series(**{**own, **tags})):
        image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"1.2.6.{number}.{one}"
        saved(image, folder / f"{one:02}.dcm")
    return folder


def volume(path: Path, seed: int = 0, shape: tuple[int, ...] = (12, 10, 8)) -> Path:
    import nibabel

    path.parent.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).uniform(0, 100, shape).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), path)  # type: ignore[attr-defined]
    return path


def datalist(root: Path, **content: object) -> Path:
    (root / "dataset.json").write_text(json.dumps(content))
    return root


def test_a_folder_of_one_series_is_one_case(tmp_path: Path) -> None:
    for number in range(4):
        scan(tmp_path / "ab"[number % 2] / f"scan{number}", number)

    found = find(tmp_path)

    assert [case.id for case in found.cases] == ["a/scan0", "a/scan2", "b/scan1", "b/scan3"]
    assert [case.patient for case in found.cases] == ["P0", "P1", "P0", "P1"]
    assert found.cases[0].study == "1.2.8.0"
    assert found.cases[0].links == ("series 1.2.9.0", "frame 1.2.7.0")
    assert read_image(found.cases[0].images[0], policy=ReadPolicy()).array.shape == (1, 26, 20, 12)


def test_two_series_in_a_folder_are_refused_unless_a_rule_chooses_one(tmp_path: Path) -> None:
    for name in "ab":
        for number in range(2):
            folder = scan(tmp_path / "tmp", number, SeriesDescription=("lung", "bone")[number])
            place = tmp_path / "data" / name / f"scan{number}"
            place.parent.mkdir(parents=True, exist_ok=True)
            folder.rename(place)
    for one in (tmp_path / "data/a/scan1").iterdir():
        one.rename(tmp_path / "data/a/scan0" / f"bone{one.name}")

    error = refusal(tmp_path / "data")
    found = find(tmp_path / "data", series={"description": "lung"})

    assert "2 series" in error.seen
    assert "data.series" in error.todo
    assert "a/scan0" in [case.id for case in found.cases]
    assert any("12 files of other series left aside" in note for note in found.notes)


@pytest.mark.parametrize(
    ("column", "values"),
    [
        ("SeriesInstanceUID", ["1.2.9.0", "1.2.9.1", "1.2.9.2"]),
        ("StudyInstanceUID", ["1.2.8.0", "1.2.8.1", "1.2.8.2"]),
        ("path", ["scans/s0", "scans/s1", "scans/s2"]),
    ],
)
def test_a_table_names_scans_by_uid_or_by_folder(tmp_path: Path, column: str, values: list[str]) -> None:
    for number in range(3):
        scan(tmp_path / "scans" / f"s{number}", number)
    rows = "".join(f"{value},{label}\n" for value, label in zip(values, "aba", strict=True))
    (tmp_path / "labels.csv").write_text(f"{column},label\n{rows}")

    found = find(tmp_path)

    assert found.layout == "dicom_csv"
    assert [(case.id, case.label) for case in found.cases] == [
        ("scans/s0", "a"),
        ("scans/s1", "b"),
        ("scans/s2", "a"),
    ]
    assert found.patient_key == "DICOM PatientID"


def test_a_label_of_a_patient_is_that_of_all_their_images(tmp_path: Path) -> None:
    for number in range(6):
        uid = f"1.2.9.{number}"
        saved(
            dicom(ramp(), PatientID=f"P{number // 2}", SeriesInstanceUID=uid),
            tmp_path / "xrays" / f"{number}.dcm",
        )
    (tmp_path / "labels.csv").write_text("PatientID,label\nP0,a\nP1,b\nP2,a\n")

    found = find(tmp_path)

    assert [case.label for case in found.cases] == ["a", "a", "b", "b", "a", "a"]
    assert [case.patient for case in found.cases] == ["P0", "P0", "P1", "P1", "P2", "P2"]


def test_ids_of_a_table_that_no_file_has_are_counted_without_being_told(tmp_path: Path) -> None:
    scan(tmp_path / "scans", 0)
    (tmp_path / "labels.csv").write_text("PatientID,label\nP0,a\nSECRET,b\n")

    error = refusal(tmp_path)

    assert "1 of 2 rows" in error.seen
    assert "SECRET" not in str(error)


def test_image_columns_are_channels_in_their_order(tmp_path: Path) -> None:
    for number in range(4):
        for sequence in ("t1", "t2"):
            volume(tmp_path / sequence / f"{number}.nii.gz", seed=number + 10 * (sequence == "t2"))
    rows = "".join(f"t1/{n}.nii.gz,t2/{n}.nii.gz,{'ab'[n % 2]}\n" for n in range(4))
    (tmp_path / "labels.csv").write_text(f"image_t1,image_t2,label\n{rows}")

    found, turned = find(tmp_path), find(tmp_path, images=("image_t2", "image_t1"))

    assert [path.parent.name for path in found.cases[0].images] == ["t1", "t2"]
    assert [path.parent.name for path in turned.cases[0].images] == ["t2", "t1"]
    assert not any("left out" in note for note in found.notes)
    (tmp_path / "t2/3.nii.gz").unlink()
    assert "1 of 4 rows" in refusal(tmp_path).seen


def test_masks_of_a_table_are_labels_and_decide_slices(tmp_path: Path) -> None:
    import nibabel

    for number in range(2):
        volume(tmp_path / "images" / f"{number}.nii.gz", seed=number)
        mask = np.zeros((12, 10, 8), np.uint8)
        mask[2:5, 3:6, 4:] = 1
        place = tmp_path / "masks" / f"{number}.nii.gz"
        place.parent.mkdir(exist_ok=True)
        nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), place)  # type: ignore[attr-defined]
    rows = "".join(f"images/{n}.nii.gz,masks/{n}.nii.gz\n" for n in range(2))
    (tmp_path / "labels.csv").write_text(f"image,mask\n{rows}")

    found = find(tmp_path)
    data = DataSpec(source=str(tmp_path), slices=SliceSpec(lesion=True))
    steps = steps_of(ImagesSpec(size=16, preset="mri"), 1)
    arrays = cache_arrays(found.cases, steps, "uint8", Progress(quiet=True), reading=reading_of(data))

    assert [case.label for case in found.cases] == [tmp_path / "masks/0.nii.gz", tmp_path / "masks/1.nii.gz"]
    assert [case.label for case in arrays.cases] == (["none"] * 4 + ["lesion"] * 4) * 2


def test_a_datalist_of_masks_is_read_with_its_splits(tmp_path: Path) -> None:
    for number in range(4):
        volume(tmp_path / "imagesTr" / f"c{number}.nii.gz")
        volume(tmp_path / "labelsTr" / f"c{number}.nii.gz", seed=1)

    def entries(*numbers: int) -> list[dict[str, str]]:
        return [
            {"image": f"./imagesTr/c{n}.nii.gz", "label": f"./labelsTr/c{n}.nii.gz", "subject": f"s{n // 2}"}
            for n in numbers
        ]

    alone = find(datalist(tmp_path, training=entries(0, 1, 2, 3), test=[]))
    split = find(datalist(tmp_path, training=entries(0, 1), validation=entries(2), test=entries(3)))
    bare = find(datalist(tmp_path, training=entries(0, 1, 2), test=["./imagesTr/c3.nii.gz"]))

    assert alone.layout == "decathlon"
    assert [case.split for case in alone.cases] == [None] * 4
    assert alone.cases[1].label == tmp_path / "labelsTr/c1.nii.gz"
    assert [case.patient for case in alone.cases] == ["s0", "s0", "s1", "s1"]
    assert [case.split for case in split.cases] == ["train", "train", "val", "test"]
    assert len(bare.cases) == 3
    assert any("1 rows of dataset.json have no label" in note for note in bare.notes)


def test_a_datalist_of_classes_findings_and_sequences_is_read(tmp_path: Path) -> None:
    for number in range(4):
        picture(tmp_path / f"{number}.png", chest(number))
        picture(tmp_path / f"{number}b.png", chest(number + 9))
    names = {"0": "well", "1": "sick"}

    classes = find(
        datalist(tmp_path, labels=names, training=[{"image": f"{n}.png", "label": n % 2} for n in range(4)])
    )
    several = find(
        datalist(
            tmp_path, labels=names, training=[{"image": f"{n}.png", "label": [1, None]} for n in range(2)]
        )
    )
    sequences = find(
        datalist(
            tmp_path, training=[{"image": [f"{n}.png", f"{n}b.png"], "label": "ab"[n % 2]} for n in range(4)]
        )
    )

    assert [case.label for case in classes.cases] == ["well", "sick", "well", "sick"]
    assert several.cases[0].label == {"well": True}  # a finding that no entry knows is none
    assert [len(case.images) for case in sequences.cases] == [2] * 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("[1]", "a list"),
        ("{", "no JSON"),
        ('{"training": []}', "no entries"),
        ('{"training": [{"label": 1}]}', "no `image`"),
        ('{"training": [{"image": "../x.png", "label": 1}]}', "leaves the data folder"),
        ('{"training": [{"image": "0.png", "label": 7}], "labels": {"0": "a"}}', "class 7"),
        ('{"training": [{"image": "gone.png", "label": 0}]}', "not there: gone.png (entry 1)"),
    ],
)
def test_broken_datalists_have_one_reason_each(tmp_path: Path, content: str, words: str) -> None:
    picture(tmp_path / "0.png", chest(0))
    (tmp_path / "list.json").write_text(content)

    assert words in refusal(tmp_path, labels="list.json").seen


def test_patients_by_a_pattern_keep_their_looser_key(tmp_path: Path) -> None:
    for name in ("person1_bacteria_1", "person1_virus_2", "IM-0115-0001"):
        picture(tmp_path / "a" / f"{name}.png", chest(len(name)))
        picture(tmp_path / "b" / f"{name}.png", chest(len(name)))

    plain = find(tmp_path, patient=PatientSpec(pattern=r"(person\d+_(?:bacteria|virus)|IM-\d+)"))
    nested = find(tmp_path, patient=PatientSpec(pattern=r"((person|IM).*)_\d|IM"))

    assert {case.patient: case.stem for case in plain.cases} == {
        "person1_bacteria": "person1", "person1_virus": "person1", "IM-0115": None
    }  # fmt: skip
    assert {case.stem for case in nested.cases} >= {"person"}


def test_excluded_patterns_and_reasons_are_told(tmp_path: Path) -> None:
    for number in range(4):
        for name in "ab":
            picture(tmp_path / name / f"{'aug_' * (number > 1)}{number}.png", chest(number))
    (tmp_path / "leave.txt").write_text("# heading\n*/aug_*  # an augmented copy\na/0.png # blurred\n")

    found = find(tmp_path, exclude="leave.txt")

    assert [case.id for case in found.cases] == ["a/1.png", "b/0.png", "b/1.png"]
    assert "5 cases left out by leave.txt (4: an augmented copy; 1: blurred)" in found.notes


def test_a_scan_shared_by_two_patients_is_known_and_a_default_frame_is_not_believed(tmp_path: Path) -> None:
    for number in range(8):
        frame = "1.2.3" if number < 6 else f"1.2.7.{number}"
        saved(
            dicom(
                ramp(),
                PatientID=f"P{number}",
                SeriesInstanceUID=f"1.2.9.{number // 2}",
                FrameOfReferenceUID=frame,
            ),
            tmp_path / "ab"[number % 2] / f"{number}.dcm",
        )

    found = find(tmp_path)

    links = [case.links for case in found.cases]
    assert ("series 1.2.9.0",) in links
    assert ("series 1.2.9.3", "frame 1.2.7.6") in links
    assert any("taken for a default" in note for note in found.notes)
