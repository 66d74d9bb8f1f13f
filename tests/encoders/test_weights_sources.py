"""Where weights come from: a server, the caches of two hubs, shards, a bundle's folder; and what is refused."""

from __future__ import annotations

import hashlib
import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from medxfer.cards import WeightsCard
from medxfer.encoders.registry import list_encoders
from medxfer.encoders.sources import (
    bundle_weights,
    kept_path,
    known_sha256,
    on_this_machine,
    record_path,
    remembered_sha256,
    url_of,
)
from medxfer.encoders.weights import read_tensors, require
from medxfer.errors import WeightsError

CONTENT = save({"a": torch.arange(3000.0)})
DIGEST = hashlib.sha256(CONTENT).hexdigest()
PAGE = b"<!DOCTYPE html><html><body>Quota exceeded</body></html>"


class Server(http.server.ThreadingHTTPServer):
    """Files by name, and what was asked for."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.announced: int | None = None
        self.asked: list[str] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        name = self.path.lstrip("/")
        self.server.asked.append(name)
        if name.startswith("moved/"):
            self.send_response(302)
            self.send_header("Location", "http://example.org/elsewhere")
            self.end_headers()
        elif name not in self.server.files:
            self.send_error(404)
        else:
            content = self.server.files[name]
            self.send_response(200)
            if self.server.announced != -1:
                self.send_header("Content-Length", str(self.server.announced or len(content)))
            self.end_headers()
            self.wfile.write(content)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        serving.files["a.safetensors"] = CONTENT
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home and empty caches."""
    monkeypatch.setenv("MEDXFER_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_ENDPOINT", "HF_HUB_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return tmp_path


def card(source: str | tuple[str, ...], sha256: str | None = DIGEST, size: int | None = -1) -> WeightsCard:
    return WeightsCard(
        tag="toy",
        source=source,
        sha256=sha256,
        size_bytes=len(CONTENT) if size == -1 else size,
        licence="MIT",
        citation="none",
        trained_on="nothing",
        in_channels=1,
        mean=(0.5,),
        std=(0.5,),
    )


def kept(place: Path) -> list[str]:
    """Names of what lies in the home, memory and records apart."""
    files = (place / "home" / "weights").glob("*")
    return sorted(one.name for one in files if one.suffix not in (".json", ".sha256"))


def write(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_file_is_fetched_once_and_kept(server: Server, place: Path) -> None:
    published = card(server.url("a.safetensors"))

    assert not on_this_machine(published)
    first, second = require(published, "foo"), require(published, "foo")

    assert first == second == kept_path(published)
    assert first.read_bytes() == CONTENT
    assert server.asked == ["a.safetensors"]
    assert on_this_machine(published)
    assert kept(place) == [f"{DIGEST[:12]}-a.safetensors"]


def test_fetched_file_is_hashed_while_it_arrives(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    path = require(card(server.url("a.safetensors")), "foo")
    monkeypatch.setattr("medxfer.encoders.sources.sha256_of", lambda _: pytest.fail("read a second time"))

    assert remembered_sha256(path) == DIGEST


@pytest.mark.parametrize(
    ("content", "announced", "sha256", "size", "words"),
    [
        (CONTENT[:-1] + b"x", None, DIGEST, -1, "seen:     sha256 "),
        (CONTENT + b"x", None, DIGEST, -1, f"announces {len(CONTENT) + 1} bytes"),
        (CONTENT + b"x", -1, DIGEST, -1, f"more than {len(CONTENT)} bytes"),
        (CONTENT[:500], -1, DIGEST, -1, f"ended after 500 bytes of {len(CONTENT)}"),
        (CONTENT[:500], len(CONTENT), None, None, f"ended after 500 bytes of {len(CONTENT)}"),
        (PAGE, None, DIGEST, -1, "a page (HTML), not the file"),
        (PAGE, -1, None, None, "a page (HTML), not the file"),
        (b"version https://git-lfs.github.com/spec/v1\n", -1, None, None, "git-lfs pointer"),
        (b"", None, None, None, "ended after 0 bytes"),
    ],
)
def test_wrong_content_leaves_nothing(
    server: Server,
    place: Path,
    content: bytes,
    announced: int | None,
    sha256: str | None,
    size: int,
    words: str,
) -> None:
    server.files["a.safetensors"], server.announced = content, announced
    published = card(server.url("a.safetensors"), sha256, size)

    with pytest.raises(WeightsError) as refused:
        require(published, "foo")

    text = str(refused.value)
    assert refused.value.exit_code == 3
    assert words in text
    assert f"put it at {kept_path(published)}" in text
    assert not list((place / "home" / "weights").glob("*"))


def test_absent_file_names_url_hash_and_place(server: Server) -> None:
    published = card(server.url("b.safetensors"))

    with pytest.raises(WeightsError) as refused:
        require(published, "foo")

    text = str(refused.value)
    for words in (
        "weights foo.toy",
        "HTTP 404",
        DIGEST,
        server.url("b.safetensors"),
        str(kept_path(published)),
    ):
        assert words in text


def test_unreachable_server_names_url_hash_and_place(server: Server) -> None:
    server.server_close()
    published = card(server.url("a.safetensors"))

    with pytest.raises(WeightsError, match=rf"(?s)cannot be fetched.*{DIGEST}.*put it at .*a.safetensors"):
        require(published, "foo")


def test_file_put_there_by_hand_is_taken() -> None:
    published = card("https://example.org/b.safetensors?download=1")

    write(kept_path(published))

    assert require(published, "foo").name == f"{DIGEST[:12]}-b.safetensors"


def test_wrong_file_put_there_by_hand_is_refused() -> None:
    published = card("https://example.org/b.safetensors")
    write(kept_path(published), CONTENT[:-1] + b"x")

    with pytest.raises(WeightsError, match=r"(?s)another version: remove it"):
        require(published, "foo")


def test_proxy_of_the_environment_is_used(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.url(""))
    server.files["http://localhost:1/a.safetensors"] = CONTENT

    path = require(card("http://localhost:1/a.safetensors"), "foo")

    assert path.read_bytes() == CONTENT


@pytest.mark.parametrize("moved", [True, False])
def test_unprotected_addresses_are_refused(server: Server, moved: bool) -> None:
    url = server.url("moved/a.safetensors") if moved else "http://example.org/a.safetensors"

    with pytest.raises(WeightsError, match="not protected by https"):
        require(card(url), "foo")


def test_unstated_hash_is_recorded_at_the_first_fetch(server: Server) -> None:
    published = card(server.url("a.safetensors"), None, None)
    assert known_sha256(published) is None

    path = require(published, "foo")

    assert known_sha256(published) == DIGEST
    assert record_path(published).read_text(encoding="utf-8") == f"{DIGEST}  {path.name}\n"
    path.unlink()
    server.files["a.safetensors"] = save({"a": torch.ones(2)})
    with pytest.raises(WeightsError, match=rf"(?s)seen: +sha256.*{DIGEST}"):
        require(published, "foo")
    write(path, server.files["a.safetensors"])
    with pytest.raises(WeightsError, match=r"(?s)recorded at its first use.*remove .*sha256"):
        require(published, "foo")


@pytest.mark.parametrize("revision", ["", "@v1"])
def test_hub_cache_is_looked_into_first(place: Path, revision: str) -> None:
    folder = place / "hf" / "hub" / "models--owner--name"
    write(folder / "refs" / (revision.lstrip("@") or "main"), b"abc123")
    cached = write(folder / "snapshots" / "abc123" / "deep" / "model.safetensors")

    assert require(card(f"hf:owner/name{revision}/deep/model.safetensors"), "foo") == cached
    assert require(card(f"hf:owner/name{revision}/deep/model.safetensors", None, None), "foo") == cached


def test_hub_file_of_another_revision_is_taken_by_its_hash_only(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    cached = write(place / "hf" / "hub" / "models--owner--name" / "snapshots" / "old" / "model.safetensors")

    assert require(card("hf:owner/name/model.safetensors"), "foo") == cached
    with pytest.raises(WeightsError, match="HF_HUB_OFFLINE is set"):
        require(card("hf:owner/name/model.safetensors", None, None), "foo")


def test_hub_file_is_fetched_from_the_endpoint(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    assert url_of("hf:owner/name/a.pt") == "https://huggingface.co/owner/name/resolve/main/a.pt"
    monkeypatch.setenv("HF_ENDPOINT", server.url(""))
    server.files["owner/name/resolve/v1/a.pt"] = CONTENT

    path = require(card("hf:owner/name@v1/a.pt"), "foo")

    assert path.name == f"{DIGEST[:12]}-a.pt"


def test_torch_cache_is_looked_into_first(server: Server, place: Path) -> None:
    cached = write(place / "torch" / "hub" / "checkpoints" / "a.safetensors")

    assert require(card(server.url("a.safetensors")), "foo") == cached
    assert not server.asked


def test_other_file_of_that_name_in_the_torch_cache_is_passed_over(server: Server, place: Path) -> None:
    write(place / "torch" / "hub" / "checkpoints" / "a.safetensors", CONTENT[:-1] + b"x")

    known, unstated = card(server.url("a.safetensors")), card(server.url("a.safetensors"), None, None)

    assert require(known, "foo") == kept_path(known)
    assert require(unstated, "foo") == kept_path(unstated)


@pytest.mark.parametrize("right", [True, False])
def test_torch_cache_is_taken_without_a_stated_hash_where_the_name_has_it(
    server: Server, place: Path, right: bool
) -> None:
    name = f"a-{DIGEST[:8]}.pth"
    content = CONTENT if right else CONTENT[:-1] + b"x"
    cached = write(place / "torch" / "hub" / "checkpoints" / name, content)
    server.files[name] = CONTENT

    path = require(card(server.url(name), None, None), "foo")

    assert (path == cached) is right


@pytest.mark.parametrize("digits", ["01234567", DIGEST[:8]])
def test_hash_in_a_publishers_file_name_is_checked_when_it_is_fetched(
    server: Server, place: Path, digits: str
) -> None:
    server.files[f"resnet-{digits}.pth"] = CONTENT
    published = card(server.url(f"resnet-{digits}.pth"), None, None)

    if digits == DIGEST[:8]:
        assert require(published, "foo") == kept_path(published)
        return
    with pytest.raises(
        WeightsError, match=rf"(?s)seen: +sha256 {DIGEST}.*sha256 {digits}\.\.\., as its name"
    ):
        require(published, "foo")
    assert not list((place / "home" / "weights").glob("*"))


def test_hash_in_a_publishers_file_name_is_checked_where_it_was_put_by_hand() -> None:
    published = card("https://example.org/resnet-01234567.pth", None, None)
    write(kept_path(published))

    with pytest.raises(WeightsError, match=r"(?s)as its name says.*remove it") as refused:
        require(published, "foo")

    assert ".sha256" not in refused.value.todo  # nothing was recorded
    assert not record_path(published).exists()


def test_date_in_a_file_name_is_no_hash(server: Server) -> None:
    server.files["resnet-20210831.pth"] = CONTENT

    assert require(card(server.url("resnet-20210831.pth"), None, None), "foo").is_file()


def test_listing_fetches_and_hashes_nothing(
    server: Server, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("medxfer.encoders.sources.sha256_of", lambda _: pytest.fail("hashed"))
    write(place / "torch" / "hub" / "checkpoints" / "a-01234567.pth")

    for one in (w for listing in list_encoders() if listing.card for w in listing.card.weights):
        on_this_machine(one)

    assert not on_this_machine(card(server.url("a.safetensors")))
    assert on_this_machine(card(server.url("a-01234567.pth"), None, None))
    assert not server.asked


@pytest.fixture
def shards(place: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Three packages that must not be imported, a third of the file in each."""
    cuts = (0, 1000, 9000, len(CONTENT))
    for index in range(3):
        package = place / "packages" / f"shard_p{index}"
        write(package / "part.bin", CONTENT[cuts[index] : cuts[index + 1]])
        write(package / "__init__.py", b"raise SystemExit('imported')\n")
    monkeypatch.syspath_prepend(str(place / "packages"))
    return tuple(f"package:shard_p{index}/part.bin" for index in range(3))


def test_shards_are_joined_once_in_their_order(shards: tuple[str, ...], place: Path) -> None:
    published = card(shards)

    assert on_this_machine(published)
    path = require(published, "foo")
    (place / "packages" / "shard_p1" / "part.bin").unlink()

    assert require(published, "foo") == path == kept_path(published)
    assert kept(place) == [f"{DIGEST[:12]}-shard_p0.bin"]
    assert torch.equal(read_tensors(path)[0]["a"], torch.arange(3000.0))


def test_shards_in_another_order_leave_nothing(shards: tuple[str, ...], place: Path) -> None:
    with pytest.raises(WeightsError, match="of 3 shards joined"):
        require(card(shards[::-1]), "foo")

    assert not kept(place)


def test_absent_shards_give_one_pip_line(shards: tuple[str, ...]) -> None:
    more = (*shards[:2], "package:shard_p8/part.bin", "package:shard_p9/part.bin")

    assert not on_this_machine(card(more))
    with pytest.raises(WeightsError, match="pip install shard-p8 shard-p9"):
        require(card(more), "foo")


def test_cut_shard_is_refused_before_anything_is_written(shards: tuple[str, ...], place: Path) -> None:
    write(place / "packages" / "shard_p2" / "part.bin", b"cut")

    with pytest.raises(WeightsError, match=f"(?s)9003 bytes in 3 shards.*{len(CONTENT)} bytes"):
        require(card(shards), "foo")
    assert not kept(place)


def test_local_file_is_a_source(place: Path) -> None:
    path = write(place / "own.safetensors")

    assert require(card(str(path)), "foo") == path
    path.unlink()
    with pytest.raises(WeightsError, match=r"no file .*own.safetensors"):
        require(card(str(path)), "foo")


@pytest.fixture
def bundle(place: Path) -> Callable[..., Path]:
    """Makes a bundle folder as the model zoo has them."""

    def make(*models: str, metadata: object = None) -> Path:
        folder = place / "zoo_bundle"
        write(folder / "configs" / "metadata.json", json.dumps(metadata).encode())
        for name in models:
            write(folder / "models" / name)
        return folder

    return make


def test_bundle_folder_gives_safetensors_before_pickle(bundle: Callable[..., Path]) -> None:
    folder = bundle("model.pt", "model.safetensors", metadata={"name": "Lung nodules", "version": "0.6.9"})

    path, note = bundle_weights(folder)

    assert path == folder / "models" / "model.safetensors"
    assert note == "models/model.safetensors of the MONAI bundle Lung nodules 0.6.9"


def test_bundle_without_a_name_goes_by_its_folder(bundle: Callable[..., Path]) -> None:
    assert bundle_weights(bundle("model.pt", metadata=[]))[1].startswith(
        "models/model.pt of the MONAI bundle zoo_bundle, which has no name"
    )


@pytest.mark.parametrize(
    ("models", "words"),
    [((), "a folder without models/"), (("model.ts",), "holds code"), (("other.pt",), "models/other.pt")],
)
def test_bundle_without_weights_is_refused(
    bundle: Callable[..., Path], models: tuple[str, ...], words: str
) -> None:
    with pytest.raises(WeightsError, match=words):
        bundle_weights(bundle(*models))
