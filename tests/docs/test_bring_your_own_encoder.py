"""The page "Bring your own encoder": its commands are run from top to bottom, its code is that of the package."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.torch import save_file

from medxfer.cli import main
from medxfer.encoders.keymaps import read_key_map
from medxfer.encoders.scaffold import rendered
from medxfer.files import sha256_of
from medxfer.run_folder import RunFolder

ROOT = Path(__file__).parents[2]
TEXT = (ROOT / "docs" / "bring-your-own-encoder.md").read_text(encoding="utf-8")
SMALL = ["images.size=32", "phases.0.epochs=1", "phases.1.epochs=1", "training.precision=fp32"]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("language", ["toml", "python", "yaml"])
def test_code_on_the_page_is_that_of_a_new_plugin(language: str) -> None:
    files = "\n".join(rendered("mynet").values())
    shown = [block for block in blocks(language) if "features." not in block and "weights:" not in block]

    assert shown
    for block in shown:
        assert block in files, f"no file of a new plugin holds\n{block}"


class Desk:
    """A working folder with an own place for installed packages, and the commands that the page uses."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.patch, self.capsys = folder, patch, capsys
        self.prefix = folder / "installed"
        self.runs = 0

    def do(self, line: str) -> str:
        """Run a command line of the page; it must succeed. Returns what it printed."""
        words = shlex.split(line, comments=True)
        if words[0] == "pip":
            return self.install(*words[2:])
        if words[0] == "medxfer":
            return self.medxfer(words[1:])
        words[0] = sys.executable if words[0] == "python" else words[0]
        return subprocess.run(words, cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def install(self, *words: str) -> str:
        """As pip does it, into a place of this test's own, without network."""
        options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--prefix", str(self.prefix)]
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", *options, *words]
        subprocess.run(command, cwd=self.folder, check=True, capture_output=True)
        place = sysconfig.get_path("purelib", vars={"base": str(self.prefix)})
        for file in Path(place).glob("*.pth"):
            self.patch.syspath_prepend(file.read_text(encoding="utf-8").strip())
        self.patch.syspath_prepend(place)
        return ""

    def medxfer(self, words: list[str]) -> str:
        self.runs += 1  # a command starts anew in reality: here, another path is looked at anew
        self.patch.syspath_prepend(str(self.folder / f"empty-{self.runs}"))
        if words[0] == "run":
            words += ["--data", str(self.folder / "pictures"), "--out", str(self.folder / f"run-{self.runs}")]
            words += ["--quiet", *[word for value in SMALL for word in ("--set", value)]]
        with pytest.raises(SystemExit) as left:
            main(words)
        said = self.capsys.readouterr()
        assert not left.value.code, f"medxfer {' '.join(words)}\n{said.out}{said.err}"
        return said.out


@pytest.fixture
def desk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Desk]:
    random = np.random.default_rng(0)
    for number, name in enumerate(("normal", "pneumonia")):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for index in range(8):
            pixels = (random.random((40, 40)) * 150 + 50 * number).astype(np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / name / f"IM-{number}{index:03d}-0001.png")
    shutil.copytree(ROOT / "bundles" / "pneumonia_cls", tmp_path / "bundles" / "pneumonia_cls")
    monkeypatch.chdir(tmp_path)
    yield Desk(tmp_path, monkeypatch, capsys)
    for name in [name for name in sys.modules if name.partition(".")[0] == "medxfer_mynet"]:
        del sys.modules[name]


def publish(desk: Desk) -> None:
    """What the page says that a publisher has: the encoder's tensors under names of their own."""
    import medxfer

    ours = blocks("yaml")[1]
    (desk.folder / "keys.yaml").write_text(ours, encoding="utf-8")
    names = {our: theirs for theirs, our in read_key_map("keys.yaml", desk.folder).names.items()}
    encoder, _ = medxfer.create_encoder("mynet", weights="none", in_channels=3)
    tensors = {}
    for name, value in encoder.state_dict().items():
        module, _, last = name.rpartition(".")
        if module in names:
            tensors[f"{names[module]}.{last}"] = value
    tensors["classifier.weight"] = encoder.normalise.mean.new_zeros(1000, 64)
    save_file(tensors, desk.folder / "backbone.safetensors")


def complete(desk: Desk) -> None:
    """Key map and weights card of the page, with the file's own hash and size."""
    package = desk.folder / "medxfer-mynet" / "src" / "medxfer_mynet"
    shutil.copy(desk.folder / "keys.yaml", package)
    file = desk.folder / "backbone.safetensors"
    card = blocks("yaml")[2].replace("64 hexadecimal digits", sha256_of(file))
    card = card.replace("size_bytes: 1\n", f"size_bytes: {file.stat().st_size}\n")
    cards = package / "cards.yaml"
    cards.write_text(cards.read_text(encoding="utf-8") + card, encoding="utf-8")


def test_commands_of_the_page_lead_to_a_plugin_with_weights_that_runs(desk: Desk) -> None:
    begin, look, end = blocks("sh")

    said = [desk.do(line) for line in begin.splitlines()]
    publish(desk)
    names, _, digest = [desk.do(line) for line in look.splitlines()]
    complete(desk)
    told = [desk.do(line) for line in end.splitlines()]

    assert "medxfer-mynet" in said[2]
    assert "23,808 in 2D" in said[3]
    assert "mynet: 52 of 52 checks passed" in said[4]
    assert "features.0.weight" in names
    assert sha256_of(desk.folder / "backbone.safetensors") in digest
    assert "mynet.published" in told[0]
    assert "loaded: published" in told[1]
    assert "mynet: 52 of 52 checks passed" in told[1]
    receipt = RunFolder.open(desk.folder / f"run-{desk.runs}").read("receipt.json")
    assert receipt["coverage"] == 1.0
    assert receipt["counts"]["unused"] == 1  # the classifier
