"""The download, against a server on this machine that serves, stalls, truncates, corrupts and refuses."""

import hashlib
import http.server
import io
import socket
import tarfile
import threading

import pytest

from nasedu.data import download
from nasedu.data.download import DownloadError, cifar10_folder, fetch

PAYLOAD = bytes(range(256)) * 1200  # 300 kB, more than one read
MD5 = hashlib.md5(PAYLOAD).hexdigest()
QUICK = {"stall": 0.3, "wait": 0.01}


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by the path: /good serves, the others fail as their names say, the rest is 404."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        wanted_range = self.headers.get("Range")
        self.server.requests.append((self.path, wanted_range))
        visit = sum(path == self.path for path, _ in self.server.requests)
        kind = self.path.strip("/")
        body = self.server.payload
        if kind == "broken" or (kind == "broken_once" and visit == 1):
            return self.answer(500, b"sorry")
        if kind not in self.server.kinds or (kind == "die" and visit > 1):
            return self.answer(404, b"no such file")
        if kind == "corrupt":
            body = body[:1000] + b"?" + body[1001:]
        start = int(wanted_range.removeprefix("bytes=").removesuffix("-")) if wanted_range else 0
        if kind == "norange" or not wanted_range:
            status, headers, rest = 200, {}, body
        elif start >= len(body):
            return self.answer(416, b"")
        elif kind == "wrongrange":
            status, headers, rest = 206, {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"}, body
        else:
            status, headers = 206, {"Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            rest = body[start:]
        if kind == "nolength":
            headers |= {"Connection": "close"}
            self.close_connection = True
        once = kind in {"truncate_once", "stall_once", "die"} and visit == 1
        cut = once or kind in {"truncate", "stall"}
        length = None if kind == "nolength" else len(rest)
        self.answer(status, rest[: self.server.cut] if cut else rest, headers, length)
        if "stall" in kind and cut:
            self.server.stop.wait(5)
        self.close_connection = self.close_connection or cut

    def answer(self, status, body, headers=None, length=-1):
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(len(body) if length < 0 else length))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for name in ("NASEDU_OFFLINE", "NASEDU_PROFILE", "NASEDU_DATA"):
        monkeypatch.delenv(name, raising=False)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.requests, server.payload, server.cut, server.stop = [], PAYLOAD, 100_000, threading.Event()
    server.kinds = {
        *("good", "norange", "wrongrange", "nolength", "corrupt", "broken_once", "die"),
        *("stall", "stall_once", "truncate", "truncate_once"),
    }
    server.url = lambda kind: f"http://127.0.0.1:{server.server_address[1]}/{kind}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    thread.join()
    server.server_close()


def paths(server):
    return [path.strip("/") for path, _ in server.requests]


def ranges(server):
    return [wanted for _, wanted in server.requests]


@pytest.mark.parametrize("kind", ["good", "norange", "nolength"])
def test_serves(server, tmp_path, kind):
    goal = fetch([server.url(kind)], tmp_path / "new" / "file.bin", MD5, **QUICK)
    assert goal.read_bytes() == PAYLOAD
    assert [p.name for p in goal.parent.iterdir()] == ["file.bin"]


def test_goes_on_from_a_part_file(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(PAYLOAD[:1234])
    assert fetch([server.url("good")], tmp_path / "file.bin", MD5, **QUICK).read_bytes() == PAYLOAD
    assert ranges(server) == ["bytes=1234-"]


@pytest.mark.parametrize("kind", ["norange", "wrongrange"])
def test_a_server_without_ranges_starts_over(server, tmp_path, kind):
    (tmp_path / "file.bin.part").write_bytes(PAYLOAD[:1234])
    assert fetch([server.url(kind)], tmp_path / "file.bin", MD5, **QUICK).read_bytes() == PAYLOAD
    assert len(server.requests) == 1


def test_a_part_file_that_is_complete_needs_no_byte(server, tmp_path):
    (tmp_path / "file.bin.part").write_bytes(PAYLOAD)
    assert fetch([server.url("good")], tmp_path / "file.bin", MD5, **QUICK).read_bytes() == PAYLOAD
    assert ranges(server) == [f"bytes={len(PAYLOAD)}-"]


@pytest.mark.parametrize("stale", [b"another file entirely", PAYLOAD + b"too long"])
def test_a_part_file_of_something_else_is_dropped(server, tmp_path, stale):
    (tmp_path / "file.bin.part").write_bytes(stale)
    assert fetch([server.url("good")], tmp_path / "file.bin", MD5, **QUICK).read_bytes() == PAYLOAD
    assert ranges(server) == [f"bytes={len(stale)}-", None]


@pytest.mark.parametrize("kind", ["truncate_once", "stall_once"])
def test_breaking_off_once_is_resumed(server, tmp_path, kind):
    assert fetch([server.url(kind)], tmp_path / "file.bin", MD5, **QUICK).read_bytes() == PAYLOAD
    assert ranges(server) == [None, "bytes=100000-"]


def test_tries_are_counted_from_the_last_progress(server, tmp_path):
    server.cut = 50_000  # six pieces and more than three interruptions, each with progress
    assert fetch([server.url("truncate")], tmp_path / "file.bin", MD5, **QUICK).read_bytes() == PAYLOAD
    assert ranges(server) == [None] + [f"bytes={start}-" for start in range(50_000, len(PAYLOAD), 50_000)]


def test_a_server_that_only_stalls_is_given_up(server, tmp_path):
    server.cut = 0
    with pytest.raises(DownloadError, match="timed out"):
        fetch([server.url("stall")], tmp_path / "file.bin", MD5, tries=2, **QUICK)
    assert len(server.requests) == 2


def test_server_errors_are_tried_again_and_missing_files_are_not(server, tmp_path):
    assert fetch([server.url("broken_once")], tmp_path / "file.bin", MD5, **QUICK).read_bytes() == PAYLOAD
    assert paths(server) == ["broken_once"] * 2
    with pytest.raises(DownloadError, match="404"):
        fetch([server.url("missing")], tmp_path / "other.bin", MD5, **QUICK)
    assert paths(server)[2:] == ["missing"]


@pytest.mark.parametrize("first, requests", [("missing", 1), ("broken", 3), ("corrupt", 1), ("stall", 3)])
def test_the_second_address_is_used_when_the_first_fails(server, tmp_path, first, requests):
    server.cut = 0
    goal = fetch([server.url(first), server.url("good")], tmp_path / "file.bin", MD5, **QUICK)
    assert goal.read_bytes() == PAYLOAD
    assert paths(server) == [first] * requests + ["good"]


def test_the_second_address_goes_on_where_the_first_broke_off(server, tmp_path):
    goal = fetch([server.url("die"), server.url("good")], tmp_path / "file.bin", MD5, **QUICK)
    assert goal.read_bytes() == PAYLOAD
    assert list(zip(paths(server), ranges(server), strict=True)) == [
        ("die", None),
        ("die", "bytes=100000-"),
        ("good", "bytes=100000-"),
    ]


def test_a_dead_host_is_left_at_once(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download.time, "sleep", lambda seconds: pytest.fail("it waited for a dead host"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        dead = f"http://127.0.0.1:{free.getsockname()[1]}/file"  # nobody listens there
        assert fetch([dead, server.url("good")], tmp_path / "file.bin", MD5, stall=1).exists()


def test_the_error_says_how_each_address_failed_and_leaves_no_file(server, tmp_path):
    urls = [server.url(kind) for kind in ("corrupt", "missing", "broken")]
    with pytest.raises(DownloadError) as caught:
        fetch(urls, tmp_path / "file.bin", MD5, **QUICK)
    message = str(caught.value)
    assert all(part in message for part in ("/corrupt", MD5, "/missing", "404", "/broken", "500"))
    assert list(tmp_path.iterdir()) == []


# ---- CIFAR-10


def archive(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


CIFAR = archive(
    {f"{download.CIFAR10_FOLDER}/{name}": name.encode() for name in ("data_batch_1", "test_batch")}
)
CIFAR_MD5 = hashlib.md5(CIFAR).hexdigest()


def test_cifar10_is_downloaded_and_unpacked_once(server, tmp_path):
    server.payload = CIFAR
    for _ in range(2):
        root = cifar10_folder(tmp_path / "cache", [server.url("good")], CIFAR_MD5, **QUICK)
    assert (root / download.CIFAR10_FOLDER / "data_batch_1").read_bytes() == b"data_batch_1"
    assert sorted(p.name for p in root.iterdir()) == [download.CIFAR10_FOLDER, download.CIFAR10_ARCHIVE]
    assert len(server.requests) == 1


def test_cifar10_is_unpacked_from_an_archive_at_hand(tmp_path, monkeypatch):
    monkeypatch.setenv("NASEDU_OFFLINE", "1")
    (tmp_path / download.CIFAR10_ARCHIVE).write_bytes(CIFAR)
    assert (cifar10_folder(tmp_path, [], CIFAR_MD5) / download.CIFAR10_FOLDER / "test_batch").exists()


def test_a_damaged_archive_is_named(tmp_path):
    (tmp_path / download.CIFAR10_ARCHIVE).write_bytes(CIFAR[:-1])
    with pytest.raises(DownloadError, match=f"{download.CIFAR10_ARCHIVE} is damaged") as caught:
        cifar10_folder(tmp_path, ["http://nowhere/file"], CIFAR_MD5)
    assert "delete it" in str(caught.value)


def test_an_archive_that_reaches_outside_is_refused(tmp_path):
    evil = archive({"../evil": b"!", f"{download.CIFAR10_FOLDER}/test_batch": b"x"})
    root = tmp_path / "root"
    root.mkdir()
    (root / download.CIFAR10_ARCHIVE).write_bytes(evil)
    with pytest.raises(DownloadError, match="outside"):
        cifar10_folder(root, ["http://nowhere/file"], hashlib.md5(evil).hexdigest())
    assert [p.name for p in tmp_path.rglob("*") if p.is_file()] == [download.CIFAR10_ARCHIVE]


@pytest.mark.parametrize("setting", ["NASEDU_OFFLINE=1", "NASEDU_PROFILE=ci"])
def test_offline_the_error_gives_three_ways_out_and_asks_no_server(server, tmp_path, monkeypatch, setting):
    monkeypatch.setenv(*setting.split("="))
    with pytest.raises(DownloadError) as caught:
        cifar10_folder(tmp_path, [server.url("good")], CIFAR_MD5, **QUICK)
    message = str(caught.value)
    for part in (setting, str(tmp_path), download.CIFAR10_ARCHIVE, "NASEDU_DATA", 'get_dataset("shapes10")'):
        assert part in message
    assert caught.value.reason == f"{setting} forbids downloads" and server.requests == []


def test_a_failed_download_gives_the_three_ways_out_too(server, tmp_path):
    with pytest.raises(DownloadError, match="Three ways out") as caught:
        cifar10_folder(tmp_path, [server.url("missing")], CIFAR_MD5, **QUICK)
    assert "404" in str(caught.value) and caught.value.reason == "the download failed"


def test_the_mirrors_end_with_the_official_host():
    assert download.CIFAR10_URLS[-1] == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    datasets = pytest.importorskip("torchvision.datasets")
    assert datasets.CIFAR10.tgz_md5 == download.CIFAR10_MD5


def test_cache_folder_honours_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / "nasedu"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / ".cache" / "nasedu"
