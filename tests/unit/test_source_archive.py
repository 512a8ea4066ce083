"""Archives as sources: read whole or refused, from the disk or from a web server that is asked once."""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.flaskworks.server.plugins.module_utils.release.building import unpack
from ansible_collections.flaskworks.server.plugins.module_utils.tree import digest, walk
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources import archive as archive_module
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources import download
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.base import Source, SourceFailure
from ansible_collections.flaskworks.server.plugins.plugin_utils.sources.gathering import gather

from tests.unit.web_server import Server, serving

FILES = {
    "src/hello/__init__.py": b"app = None\n",
    "src/hello/static/style.css": b"body {}\n",
    "requirements.txt": b"flask\n",
    "run.sh": b"#!/bin/sh\n",
}
DIGEST = "62b891a38181fc959cb991eee75854ed0a0c4f7ce5ee2494ce235d16718bd8cd"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with serving(monkeypatch) as one:
        yield one


def packed_tar(
    files: dict[str, bytes], top: str = "", mode: str = "w:gz", *, more: list[tarfile.TarInfo] | None = None
) -> bytes:
    raw = io.BytesIO()
    # call-overload: mypy wants the mode as a literal.
    with tarfile.open(fileobj=raw, mode=mode) as tar:  # type: ignore[call-overload]
        for path, content in files.items():
            info = tarfile.TarInfo(top + path)
            info.size, info.mode = len(content), 0o755 if path.endswith(".sh") else 0o644
            tar.addfile(info, io.BytesIO(content))
        for info in more or []:
            tar.addfile(info)
    return raw.getvalue()


def packed_zip(files: dict[str, bytes], top: str = "") -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", zipfile.ZIP_DEFLATED) as packed:
        for path, content in files.items():
            info = zipfile.ZipInfo(top + path)
            info.external_attr = (stat.S_IFREG | (0o755 if path.endswith(".sh") else 0o644)) << 16
            packed.writestr(info, content, zipfile.ZIP_DEFLATED)
    return raw.getvalue()


def link(path: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type, info.linkname = kind, target
    return info


def sha256(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def read(where: Path | str, tmp_path: Path, **source: Any) -> Source:
    release = {
        "name": "hello",
        "source": {"archive": str(where), **source},
        "wsgi": "hello:app",
        "static": [{"url": "/static/", "path": "src/hello/static"}],
        "environment": {"lock": None},
    }
    cache = tmp_path / "cache"
    cache.mkdir(exist_ok=True)
    return gather(release, cache)


def saved(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "hello-1.2.archive"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        packed_tar(FILES),
        packed_tar(FILES, "./"),
        packed_tar(FILES, "hello-1.2/"),
        packed_tar(FILES, "hello-1.2/", "w:xz"),
        packed_tar(FILES, "hello-1.2/", "w:bz2"),
        packed_tar(FILES, "hello-1.2/", "w:"),
        packed_zip(FILES),
        packed_zip(FILES, "hello-1.2/"),
    ],
    ids=["tar.gz", "dot", "one top", "tar.xz", "tar.bz2", "tar", "zip", "zip with one top"],
)
def test_the_same_files_are_the_same_source_however_they_are_packed(content: bytes, tmp_path: Path) -> None:
    source = read(saved(tmp_path, content), tmp_path)
    assert source.digest == DIGEST
    assert source.revision == "hello-1.2.archive"
    assert (source.kind, source.pythonpath, source.requirements) == ("tree", "src", "flask\n")
    assert [entry.path for entry in source.entries if entry.executable] == ["run.sh"]
    unpack(str(source.bundle(tmp_path / "cache")), str(tmp_path / "there"))
    assert digest(walk(str(tmp_path / "there"))) == source.digest


def test_an_archive_of_git_knows_its_commit(tmp_path: Path) -> None:
    root = tmp_path / "app"
    for path, content in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(content)
    settings = {**os.environ, "GIT_CONFIG_GLOBAL": "/dev/null", "GIT_CONFIG_NOSYSTEM": "1"}

    def git(*arguments: str) -> bytes:
        identity = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
        done = subprocess.run(
            ["git", *identity, *arguments], cwd=root, check=True, capture_output=True, env=settings
        )
        return done.stdout

    git("init", "-q")
    git("add", "-A")
    git("commit", "-q", "-m", "all")
    commit = git("rev-parse", "HEAD").decode().strip()
    for form in ("tar.gz", "zip"):
        content = git("archive", "--format", form, "--prefix", "hello/", "HEAD")
        assert read(saved(tmp_path, content), tmp_path).revision == commit


def test_a_subdirectory_of_an_archive(tmp_path: Path) -> None:
    inside = {f"apps/hello/{path}": content for path, content in FILES.items()}
    path = saved(tmp_path, packed_tar({**inside, "README": b"x"}, "monorepo-1/"))
    assert read(path, tmp_path, subdirectory="apps/hello").digest == DIGEST
    with pytest.raises(SourceFailure, match=r"hello: source\.subdirectory apps/hallo is not in source\.arch"):
        read(path, tmp_path, subdirectory="apps/hallo")


def test_links_are_kept_and_hard_links_become_files(tmp_path: Path) -> None:
    more = [link("top/src/same.py", "hello/__init__.py"), link("top/hard.txt", "top/requirements.txt", b"1")]
    source = read(saved(tmp_path, packed_tar(FILES, "top/", more=more)), tmp_path)
    assert {entry.path: entry.target for entry in source.entries if entry.target} == {
        "src/same.py": "hello/__init__.py"
    }
    assert {entry.path: entry.read() for entry in source.entries}["hard.txt"] == b"flask\n"


def pipe(path: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(path)
    info.type = tarfile.FIFOTYPE
    return info


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (packed_tar({**FILES, "../evil": b""}), r"the path '\.\./evil' leads out of it"),
        (packed_tar({**FILES, "a/../../evil": b""}), r"the path 'a/\.\./\.\./evil' leads out of it"),
        (packed_tar({**FILES, "/etc/evil": b""}), "the path '/etc/evil' leads out of it"),
        (packed_zip({**FILES, "../evil": b""}), r"the path '\.\./evil' leads out of it"),
        (packed_zip({**FILES, "a\\b": b""}), "has backslashes"),
        (packed_tar(FILES, more=[link("src/evil", "../../etc/passwd")]), "outside the source"),
        (packed_tar(FILES, more=[link("evil", "/etc/passwd")]), "outside the source"),
        (packed_tar(FILES, "top/", more=[link("top/evil", "../other")]), "outside the source"),
        (packed_tar(FILES, more=[link("evil", "/etc/passwd", b"1")]), "'/etc/passwd' leads out of it"),
        (packed_tar(FILES, more=[link("hard", "missing", b"1")]), "hard is a hard link to missing, which"),
        (
            packed_tar({"src/x": b"", **FILES}, more=[link("src", "run.sh")]),
            "lies below src, which is no",
        ),
        (packed_tar(FILES, more=[pipe("pipe")]), "pipe is a device or a pipe"),
        (packed_tar({}), "the source holds no files"),
        (b"", "is no whole tar"),
        (b"<html>Please log in</html>", "is no whole tar"),
        (packed_tar(FILES)[:-10], "is no whole tar"),
        (packed_tar(FILES)[:60], "is no whole tar"),
        (packed_tar(FILES, "", "w:xz")[:-20], "is no whole tar"),
        (packed_tar(FILES, "", "w:")[:2048], "is cut off or damaged"),
        (packed_zip(FILES)[:-30], "is no whole tar"),
        (packed_tar(FILES)[:-6] + b"\0\0\0\0\0\0", "is no whole tar"),
    ],
)
def test_what_is_not_a_whole_and_safe_archive_is_refused(content: bytes, told: str, tmp_path: Path) -> None:
    with pytest.raises(SourceFailure, match=f"hello: .*{told}"):
        read(saved(tmp_path, content), tmp_path)
    assert not (tmp_path / "evil").exists()


def test_bombs_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_module, "UNPACKED_LIMIT", 3 * 1024**2)
    zeros = {**FILES, "zeros": bytes(4 * 1024**2)}
    for content in (packed_tar(zeros), packed_tar(zeros, "", "w:xz"), packed_zip(zeros)):
        assert len(content) < 20_000
        with pytest.raises(SourceFailure, match=r"unpacks to more than 3 MiB; a source holds code, not data"):
            read(saved(tmp_path, content), tmp_path)
    lying = packed_zip(zeros).replace((4 * 1024**2).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    with pytest.raises(SourceFailure, match="is no whole tar"):
        read(saved(tmp_path, lying), tmp_path)
    monkeypatch.setattr(archive_module, "FILES_LIMIT", 3)
    for content in (packed_tar(FILES), packed_zip(FILES)):
        with pytest.raises(SourceFailure, match="holds more than 3 files"):
            read(saved(tmp_path, content), tmp_path)
    monkeypatch.setattr(download, "FILE_LIMIT", 100)
    with pytest.raises(SourceFailure, match="is larger than 0 MiB"):
        read(saved(tmp_path, packed_tar(FILES)), tmp_path)


def test_a_checksum_is_demanded_of_a_file_on_the_disk_too(tmp_path: Path) -> None:
    content = packed_tar(FILES)
    path = saved(tmp_path, content)
    read(path, tmp_path, checksum=sha256(content))
    with pytest.raises(SourceFailure, match=r"it has sha256:[0-9a-f]{64}, not sha256:0{64}; find out why"):
        read(path, tmp_path, checksum="sha256:" + 64 * "0")
    with pytest.raises(SourceFailure, match=r"hello: source\.archive .*nothing is no file on the controller"):
        read(tmp_path / "nothing", tmp_path)


def test_an_address_is_asked_once_and_then_the_cache(tmp_path: Path, server: Server) -> None:
    content = packed_tar(FILES, "hello-1.2/")
    server.answers["/releases/hello-1.2.tar.gz"] = (302, {"Location": "/elsewhere?token=secret"}, b"")
    server.answers["/elsewhere?token=secret"] = (200, {}, content)
    where = server.url("/releases/hello-1.2.tar.gz?key=hidden")
    server.answers["/releases/hello-1.2.tar.gz?key=hidden"] = server.answers["/releases/hello-1.2.tar.gz"]
    first = read(where, tmp_path, checksum=sha256(content))
    assert (first.digest, first.revision) == (DIGEST, "hello-1.2.tar.gz")
    assert len(server.asked) == 2
    server.answers.clear()
    assert read(where, tmp_path, checksum=sha256(content)).digest == first.digest
    assert len(server.asked) == 2
    kept = next((tmp_path / "cache/files").glob("*/hello-1.2.tar.gz"))
    kept.write_bytes(b"damaged")
    with pytest.raises(SourceFailure, match=r"hello-1\.2\.tar\.gz cannot be fetched .*answered 404") as told:
        read(where, tmp_path, checksum=sha256(content))
    assert "hidden" not in str(told.value)


def test_forks_that_begin_together_fetch_once(tmp_path: Path, server: Server) -> None:
    content = packed_tar(FILES)
    server.answers["/hello.tgz"] = (200, {}, content)
    digests: list[str] = []

    def one() -> None:
        digests.append(read(server.url("/hello.tgz"), tmp_path, checksum=sha256(content)).digest)

    threads = [threading.Thread(target=one) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert digests == [DIGEST] * 6
    assert len(server.asked) == 1


def test_what_a_server_sends_is_not_believed(tmp_path: Path, server: Server) -> None:
    content = packed_tar(FILES)
    server.answers["/other.tgz"] = (200, {}, packed_tar({**FILES, "backdoor.py": b""}))
    server.answers["/short.tgz"] = (200, {"Content-Length": str(len(content) + 100)}, content)
    with pytest.raises(SourceFailure, match=r"other\.tgz is not the file that source\.checksum means"):
        read(server.url("/other.tgz"), tmp_path, checksum=sha256(content))
    with pytest.raises(SourceFailure, match=r"short\.tgz ended after \d+ of \d+ bytes"):
        read(server.url("/short.tgz"), tmp_path, checksum=sha256(content))
    with pytest.raises(SourceFailure, match=r"has no checksum; give it in source\.checksum"):
        read(server.url("/other.tgz"), tmp_path)
    assert [path for path in (tmp_path / "cache/files").glob("*/*") if path.is_file()] == []
    address = server.url("/hello.tgz")
    server.shutdown()
    server.server_close()
    with pytest.raises(SourceFailure, match=r"hello\.tgz cannot be fetched by the controller: .*refused"):
        read(address, tmp_path, checksum=sha256(content))


def test_a_login_comes_from_netrc_and_stays_with_its_server(
    tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = packed_tar(FILES)
    (tmp_path / "netrc").write_text("machine localhost login me password word\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    server.answers["/private.tgz"] = (302, {"Location": server.url("/public.tgz")}, b"")
    server.answers["/public.tgz"] = (200, {}, content)
    where = server.url("/private.tgz").replace("127.0.0.1", "localhost")
    read(where, tmp_path, checksum=sha256(content))
    assert server.asked == [("/private.tgz", "Basic bWU6d29yZA=="), ("/public.tgz", "")]
