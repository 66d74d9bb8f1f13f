"""The page "Your own data": its commands are run, its bundles read their data."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import nibabel
import numpy as np
import pytest

import medxfer
from medxfer.bundle.parser import load_bundle
from medxfer.cli import main
from medxfer.data.cases import find_cases
from medxfer.data.presets import prepared, steps_of
from medxfer.data.sampling import digest_of, read_case, reading_of
from medxfer.data.synthetic.chest_findings import write_chest_findings
from medxfer.data.synthetic.hippocampus_mri import write_hippocampi
from medxfer.data.synthetic.lung_nodule_ct import write_nodule_volumes

from ..data.faults import chest, class_folders, picture

TEXT = (Path(__file__).parents[2] / "docs" / "your-own-data.md").read_text(encoding="utf-8")


def blocks(kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


LINES = [line for block in blocks("sh") for line in block.splitlines()]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders that the page speaks of."""
    root = tmp_path_factory.mktemp("sources")
    class_folders(root / "PATH", 12)
    labels, patients = ["file,diagnosis,part"], ["file,patient"]
    for number in range(40):
        name = f"n{number:03}.png"
        picture(root / "films" / name, chest(number))
        part = ("train", "test", "train", "val")[number // 2 % 4]
        labels.append(f"{name},{('normal', 'pneumonia')[number % 2]},{part}")
        patients.append(f"{name},P{number // 2}")
    written(root / "films/labels.csv", labels)
    written(root / "films/patients.csv", patients)
    written(
        root / "films/exclude.txt", ["n003.png            # lateral view", "copy_*.png          # copies"]
    )
    write_chest_findings(root / "findings", count=40, seed=0, advance=None)
    write_nodule_volumes(root / "scans", count=24, seed=0, advance=None)
    write_hippocampi(root / "hippocampus", count=4, seed=0, advance=None)
    (root / "sequences").mkdir()
    rows = ["t1,t2,label"]
    for number in range(8):
        for name in ("t1", "t2"):
            voxels = np.random.default_rng(number).normal(100, 10, (20, 22, 18)).astype(np.float32)
            nibabel.Nifti1Image(voxels, np.eye(4)).to_filename(root / f"sequences/p{number}_{name}.nii")
        rows.append(f"p{number}_t1.nii,p{number}_t2.nii,{('healthy', 'tumour')[number % 2]}")
    written(root / "sequences/labels.csv", rows)
    return root


def written(path: Path, lines: list[str]) -> None:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def desk(sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with these folders in it."""
    for folder in sources.iterdir():
        shutil.copytree(folder, tmp_path / folder.name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said_by(line: str, capsys: pytest.CaptureFixture[str], code: int = 0) -> str:
    """What a command prints; training is left out: the whole configuration is enough."""
    words = shlex.split(line)[1:]
    extra = ["--print-config"] if words[0] == "run" and "--print-config" not in words else []
    with pytest.raises(SystemExit) as left:
        main([*words, *extra])
    output = capsys.readouterr()
    assert (left.value.code or 0) == code, f"{line}\n{output.out}{output.err}"
    return output.out


@pytest.mark.usefixtures("desk")
def test_commands_of_the_page_do_what_it_says(capsys: pytest.CaptureFixture[str]) -> None:
    assert len(LINES) > 12

    # Values in quotes hold the reason: spaces of the folder walk change nothing.
    said = {line: re.sub(r"\s+", " ", said_by(line, capsys)) for line in LINES}

    def of(words: str) -> str:
        return next(text for line, text in said.items() if words in line)

    assert "given split train 20, test 10, val 10" in of("split.column=part --no-sheet")
    assert "cases 39" in of("data.exclude")
    assert "1 cases left out by exclude.txt (1: lateral view)" in of("data.exclude")
    assert "patients 20, told apart by column" in of("data.join")
    assert "fold: 2" in of("split.fold=2")
    assert "spacing: [1.5, 1.5, 1.5]" in of("images.spacing")
    assert "upper: 99.0" in of("PercentileWindow.upper")
    assert "windows: [lung]" in of("windows=[lung]")


@pytest.mark.usefixtures("desk")
@pytest.mark.parametrize(
    ("words", "shape", "labels"),
    [
        ("task: {_target_: Findings", (1, 64, 64), None),
        ("slices:", (3, 64, 64), {"none", "lesion"}),
        ("images: [t1, t2]", (2, 32, 32, 32), {"healthy", "tumour"}),
    ],
)
def test_bundles_of_the_page_read_their_data(
    words: str, shape: tuple[int, ...], labels: set[str] | None
) -> None:
    (text,) = [block for block in blocks("yaml") if words in block]
    Path("train.yaml").write_text(text, encoding="utf-8")

    bundle = load_bundle(Path("train.yaml"))
    found = find_cases(bundle.data, Path(bundle.data.source))
    reading = reading_of(bundle.data)
    parts = [part for case in found.cases for part in read_case(case, digest_of(case), reading).images]
    steps = steps_of(bundle.images, bundle.encoder.in_channels)

    card = next(one.card for one in medxfer.list_encoders() if one.id == bundle.encoder.id)
    assert card is not None
    assert bundle.images.dims in card.spatial_dims
    assert tuple(prepared(parts[len(parts) // 2].image, steps).values.shape) == shape
    if labels is None:
        assert found.findings == bundle.data.findings
    else:
        assert labels <= ({part.label for part in parts} | {str(case.label) for case in found.cases})


def test_a_stated_reason_lets_a_patient_be_on_two_sides(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = [line for line in LINES if "accept_leak" in line]
    rows = (desk / "films/labels.csv").read_text(encoding="utf-8").splitlines()
    patients = [f",P{max(number, 2) // 2}" for number in range(40)]  # the first four films are of one patient
    written(
        desk / "films/labels.csv", [row + one for row, one in zip(rows, [",patient", *patients], strict=True)]
    )
    shutil.move(desk / "films/patients.csv", desk / "patients.csv")

    without = said_by(re.sub(r' --set "data.accept_leak[^"]*"', "", line), capsys, code=3)
    accepted = said_by(line, capsys)

    assert "in train and test" in re.sub(r"\s+", " ", without)
    assert "follow-up films, wanted" in re.sub(r"\s+", " ", accepted)


def test_python_of_the_page_reads_an_image_under_a_policy(
    desk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (code,) = blocks("python")
    shutil.copy(next((desk / "scans/images").iterdir()), desk / "scans/images/scan.nii.gz")
    names: dict[str, object] = {}

    exec(code, names)

    image = medxfer.load_image("scans/images/scan.nii.gz")
    assert str(image.array.shape) in capsys.readouterr().out
    assert tuple(names["tensor"].shape) == image.array.shape  # type: ignore[attr-defined]
