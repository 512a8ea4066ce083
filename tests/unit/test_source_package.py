"""Packages as sources: one wheel from an index, a directory or a file, named by its content."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release.building import unpack
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import Source, SourceFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.gathering import gather

from tests.unit.web_server import Server, serving

# A project that builds itself without anything from an index.
BACKEND = """
import os, zipfile

def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    name = "hello_app-2.0-TAG.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        info = "hello_app-2.0.dist-info/"
        wheel.writestr("hello.py", "app = 2\\n")
        wheel.writestr("built", os.urandom(8))
        wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\\nName: hello-app\\nVersion: 2.0\\n")
        wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: TAG\\n")
        wheel.writestr(info + "RECORD", "")
    return name

def build_sdist(sdist_directory, config_settings=None):
    raise NotImplementedError
"""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as one:
        yield one


def wheel(version: str = "1.0", name: str = "hello_app", code: str = "app = 1\n") -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as packed:
        info = f"{name}-{version}.dist-info/"
        packed.writestr(zipfile.ZipInfo("hello.py"), code)
        metadata = f"Metadata-Version: 2.1\nName: {name.replace('_', '-')}\nVersion: {version}\n"
        packed.writestr(zipfile.ZipInfo(info + "METADATA"), metadata)
        packed.writestr(
            zipfile.ZipInfo(info + "WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        packed.writestr(zipfile.ZipInfo(info + "RECORD"), "")
    return raw.getvalue()


def sdist(tag: str = "py3-none-any", backend: str = BACKEND) -> bytes:
    raw = io.BytesIO()
    files = {
        "PKG-INFO": "Metadata-Version: 2.1\nName: hello-app\nVersion: 2.0\n",
        "pyproject.toml": '[build-system]\nrequires = []\nbuild-backend = "own"\nbackend-path = ["."]\n',
        "own.py": backend.replace("TAG", tag),
    }
    with tarfile.open(fileobj=raw, mode="w:gz") as tar:
        for path, text in files.items():
            info = tarfile.TarInfo(f"hello_app-2.0/{path}")
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return raw.getvalue()


def publish(server: Server, files: dict[str, bytes], project: str = "hello-app") -> str:
    links = "".join(
        f'<a href="/files/{name}#sha256={hashlib.sha256(content).hexdigest()}">{name}</a>\n'
        for name, content in files.items()
    )
    page = f"<!DOCTYPE html><html><body>{links}</body></html>".encode()
    server.answers[f"/simple/{project}/"] = (200, {"Content-Type": "text/html"}, page)
    for name, content in files.items():
        server.answers[f"/files/{name}"] = (200, {}, content)
    return server.url("/simple/")


def read(package: str, tmp_path: Path, **source: Any) -> Source:
    release = {
        "name": "hello",
        "source": {"package": package, **source},
        "wsgi": "hello:app",
        "static": [{"url": "/static/", "path": "hello/static"}],
        "environment": {"lock": None},
    }
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    return gather(release, cache)


def new_run(tmp_path: Path) -> None:
    shutil.rmtree(tmp_path / "cache/answers", ignore_errors=True)


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


ONE = "hello_app-1.0-py3-none-any.whl"


def test_a_version_from_an_index_is_fetched_once_for_good(tmp_path: Path, server: Server) -> None:
    index = publish(server, {ONE: wheel(), "hello_app-0.9-py3-none-any.whl": wheel("0.9")})
    source = read("Hello.App==1.0", tmp_path, index=index)
    assert (source.kind, source.wheel, source.revision) == ("wheel", ONE, "hello_app-1.0")
    assert (source.digest, source.origin, source.requirements) == (sha256(wheel()), ONE, "")
    unpack(str(source.bundle(tmp_path / "cache")), str(tmp_path / "there"))
    assert (tmp_path / "there" / ONE).read_bytes() == wheel()
    asked = len(server.asked)
    server.answers.clear()
    assert read("Hello.App==1.0", tmp_path, index=index).digest == source.digest
    new_run(tmp_path)
    assert read("Hello.App==1.0", tmp_path, index=index).digest == source.digest
    assert read("Hello.App==1.0", tmp_path, index=index, checksum=f"sha256:{sha256(wheel())}").wheel == ONE
    assert len(server.asked) == asked
    with pytest.raises(SourceFailure, match=r"source\.package Hello\.App==1\.0 is not the file that"):
        read("Hello.App==1.0", tmp_path, index=index, checksum="sha256:" + 64 * "0")


def test_what_nobody_asked_for_in_a_month_is_forgotten(tmp_path: Path) -> None:
    house, store = tmp_path / "house", tmp_path / "cache/packages"
    house.mkdir()
    for version in ("1.0", "1.1", "1.2"):
        (house / f"hello_app-{version}-py3-none-any.whl").write_bytes(wheel(version))
    for version in ("1.0", "1.1"):
        read(f"hello-app=={version}", tmp_path, index=str(house))
    age(store)
    new_run(tmp_path)
    changed = wheel(code="app = 2\n")
    (house / ONE).write_bytes(changed)
    read("hello-app==1.0", tmp_path, index=str(house))
    assert {path.read_bytes() for path in store.rglob("*.whl")} == {wheel(), changed}
    assert len(list(store.glob("*/"))) == 1
    age(store)
    new_run(tmp_path)
    for version in ("1.0", "1.2"):
        read(f"hello-app=={version}", tmp_path, index=str(house))
    assert {path.read_bytes() for path in store.rglob("*.whl")} == {changed, wheel("1.2")}


def age(store: Path) -> None:
    for path in (store, *store.rglob("*")):
        os.utime(path, (1, 1))


def test_a_named_index_is_the_only_one(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else whoever publishes a higher or equal version elsewhere could replace a private package."""
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/hello_app-1.0-1-py3-none-any.whl").write_bytes(wheel(code="evil\n"))
    (tmp_path / "pip.conf").write_text(f"[global]\nfind-links = {tmp_path}/elsewhere\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    index = publish(server, {ONE: wheel()})
    assert read("hello-app==1.0", tmp_path, index=index).digest == sha256(wheel())


def test_what_an_index_does_not_have_is_named(tmp_path: Path, server: Server) -> None:
    index = publish(server, {"hello_app-0.9-py3-none-any.whl": wheel("0.9")})
    with pytest.raises(SourceFailure, match=r"hello: cannot get hello-app==1\.0 from http.*/simple/") as told:
        read("hello-app==1.0", tmp_path, index=index)
    assert "Correct source.package." in str(told.value)
    with pytest.raises(SourceFailure, match=r"cannot get hallo==1\.0 from http"):
        read("hallo==1.0", tmp_path, index=index)


def test_an_index_that_is_away_is_not_taken_for_an_empty_one(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_RETRIES", "1")
    index = publish(server, {ONE: wheel()})
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceFailure, match="The controller cannot reach it: see its network"):
        read("hello-app==1.0", tmp_path, index=index)


def test_a_directory_of_packages_is_looked_at_in_every_run(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / ONE).write_bytes(wheel())
    assert read("hello-app==1.0", tmp_path, index=str(house)).digest == sha256(wheel())
    (house / ONE).write_bytes(wheel(code="app = 2\n"))
    assert read("hello-app==1.0", tmp_path, index=str(house)).digest == sha256(wheel())
    new_run(tmp_path)
    assert read("hello-app==1.0", tmp_path, index=str(house)).digest == sha256(wheel(code="app = 2\n"))


def test_a_source_distribution_is_built_once_and_named_by_itself(tmp_path: Path) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / "hello_app-2.0.tar.gz").write_bytes(sdist())
    source = read("hello-app==2.0", tmp_path, index=str(house))
    assert (source.digest, source.wheel) == (sha256((house / "hello_app-2.0.tar.gz").read_bytes()), TWO)
    built = source.entries[0].read()
    new_run(tmp_path)
    assert read("hello-app==2.0", tmp_path, index=str(house)).entries[0].read() == built
    shutil.rmtree(tmp_path / "cache")
    again = read("hello-app==2.0", tmp_path, index=str(house))
    assert again.entries[0].read() != built
    assert again.digest == source.digest


TWO = "hello_app-2.0-py3-none-any.whl"


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (sdist(backend="raise SystemExit('needs a compiler')"), "needs a compiler"),
        (sdist("cp313-cp313-linux_x86_64"), "cannot be built|builds into one for the controller's platform"),
    ],
)
def test_a_package_that_does_not_build_for_all_platforms_is_refused(
    content: bytes, told: str, tmp_path: Path
) -> None:
    house = tmp_path / "house"
    house.mkdir()
    (house / "hello_app-2.0.tar.gz").write_bytes(content)
    with pytest.raises(SourceFailure, match=f"hello: [^~]*({told})"):
        read("hello-app==2.0", tmp_path, index=str(house))


def test_a_wheel_by_its_path_or_address(tmp_path: Path, server: Server) -> None:
    path = tmp_path / ONE
    path.write_bytes(wheel())
    assert read(str(path), tmp_path).digest == sha256(wheel())
    with pytest.raises(SourceFailure, match=r"is not the file that source\.checksum means"):
        read(str(path), tmp_path, checksum="sha256:" + 64 * "0")
    server.answers[f"/{ONE}"] = (200, {}, wheel())
    address, checksum = server.url(f"/{ONE}"), f"sha256:{sha256(wheel())}"
    source = read(address, tmp_path, checksum=checksum)
    assert (source.digest, source.wheel) == (sha256(wheel()), ONE)
    server.answers.clear()
    assert read(address, tmp_path, checksum=checksum).digest == source.digest


def test_a_wheel_holds_what_its_name_says(tmp_path: Path) -> None:
    path = tmp_path / "other-1.0-py3-none-any.whl"
    path.write_bytes(wheel())
    with pytest.raises(SourceFailure, match=r"other-1\.0-py3-none-any\.whl holds the package hello-app, not"):
        read(str(path), tmp_path)
    path.write_bytes(b"<html>")
    with pytest.raises(SourceFailure, match=r"hello: other-1\.0-py3-none-any\.whl is no wheel"):
        read(str(path), tmp_path)


def test_without_pip_an_environment_with_it_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    monkeypatch.setattr("shutil.which", lambda _name: None)
    house = tmp_path / "house"
    house.mkdir()
    (house / ONE).write_bytes(wheel())
    assert read("hello-app==1.0", tmp_path, index=str(house)).digest == sha256(wheel())
    assert next((tmp_path / "cache/pip").glob("*/bin/python")).exists()
