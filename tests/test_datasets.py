"""The registry of public data sets and the downloader, against a server on this machine."""

import hashlib
import http.server
import io
import json
import os
import re
import tarfile
import threading
import zipfile
from dataclasses import replace

import h5py
import imageio.v3 as imageio
import numpy as np
import pytest

from neuropil import progress
from neuropil.errors import ConfigError, InputError, StorageFull, VolumeError, VolumeNotFound
from neuropil.stages import data as stage
from neuropil.volume import catalogue, datasets, download

BODY = np.random.default_rng(0).bytes(900_000)


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`; can drop the line, ignore ranges, change a file, or be busy."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {"/body": BODY}
        self.drop_after = []  # bytes sent before each of the next answers is cut
        self.status = []  # status of each of the next answers
        self.ranges = True
        self.etag = True
        self.length = True
        self.log = []

    def handle_error(self, request, client_address):
        """Clients that hang up are part of the tests."""

    def url(self, path="/body"):
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.do_GET(head=True)

    def do_GET(self, head=False):
        server = self.server
        asked = self.headers.get("Range")
        server.log.append((self.command, asked, self.headers.get("If-Range")))
        status = server.status.pop(0) if server.status else None
        body = server.files.get(self.path)
        if status or body is None:
            self.send_response(status or 404)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        tag = '"' + hashlib.md5(body).hexdigest() + '"'
        start = 0
        if server.ranges and asked and self.headers.get("If-Range", tag) == tag:
            start = int(re.fullmatch(r"bytes=(\d+)-", asked)[1])
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        else:
            self.send_response(200)
        if server.etag:
            self.send_header("ETag", tag)
        if server.length:
            self.send_header("Content-Length", str(len(body) - start))
        else:
            self.close_connection = True
        self.end_headers()
        if head:
            return
        rest = body[start:]
        if server.drop_after:
            rest = rest[: server.drop_after.pop(0)]
            self.close_connection = True
        self.wfile.write(rest)


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("NEUROPIL_DATA", raising=False)
    return tmp_path


def digest(body):
    return hashlib.sha256(body).hexdigest()


def quick(url, path, **more):
    return download.fetch(url, path, wait=0.01, timeout=5, **more)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


def test_fetch_whole_file_with_progress(server, tmp_path):
    told = []
    with progress.show(lambda what, done, total, note, eta: told.append((done, total))):
        assert quick(server.url(), tmp_path / "a.bin", sha256=digest(BODY)) == digest(BODY)
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert left(tmp_path) == ["a.bin"]
    assert told[-1] == (len(BODY), len(BODY))


def test_a_dropped_line_is_resumed_where_it_stopped(server, tmp_path):
    server.drop_after = [100_000, 300_000]
    quick(server.url(), tmp_path / "a.bin", sha256=digest(BODY))
    assert (tmp_path / "a.bin").read_bytes() == BODY
    assert [asked for _, asked, _ in server.log] == [None, "bytes=100000-", "bytes=400000-"]
    assert all(tag for _, asked, tag in server.log if asked)


def test_a_stopped_download_is_continued_by_the_next_call(server, tmp_path):
    server.drop_after = [50_000]
    with pytest.raises(VolumeError, match="50,000 bytes are kept"):
        quick(server.url(), tmp_path / "a.bin", tries=1)
    assert left(tmp_path) == ["a.bin.part", "a.bin.part.json"]
    assert quick(server.url(), tmp_path / "a.bin", tries=1) == digest(BODY)
    assert server.log[-1][1] == "bytes=50000-"


def test_a_server_without_ranges_starts_again(server, tmp_path):
    server.ranges, server.drop_after = False, [100_000]
    assert quick(server.url(), tmp_path / "a.bin") == digest(BODY)


def test_without_a_validator_nothing_is_glued(server, tmp_path):
    server.etag, server.drop_after = False, [100_000]
    assert quick(server.url(), tmp_path / "a.bin") == digest(BODY)
    assert [asked for _, asked, _ in server.log] == [None, None]


def test_a_file_that_changed_in_between_arrives_whole(server, tmp_path):
    server.drop_after = [100_000]
    with pytest.raises(VolumeError):
        quick(server.url(), tmp_path / "a.bin", tries=1)
    server.files["/body"] = other = BODY[::-1]
    assert quick(server.url(), tmp_path / "a.bin") == digest(other)


def test_a_part_damaged_on_disk_is_fetched_again(server, tmp_path):
    server.drop_after = [100_000]
    with pytest.raises(VolumeError):
        quick(server.url(), tmp_path / "a.bin", tries=1)
    (tmp_path / "a.bin.part").write_bytes(b"x" * 100_000)
    assert quick(server.url(), tmp_path / "a.bin", sha256=digest(BODY)) == digest(BODY)


def test_a_part_that_was_complete_is_used(server, tmp_path):
    server.status = [416]
    (tmp_path / "a.bin.part").write_bytes(BODY)
    (tmp_path / "a.bin.part.json").write_text(json.dumps({"url": server.url(), "validator": "x"}))
    assert quick(server.url(), tmp_path / "a.bin", sha256=digest(BODY)) == digest(BODY)


def test_a_body_of_unknown_length(server, tmp_path):
    server.length = False
    assert quick(server.url(), tmp_path / "a.bin") == digest(BODY)


def test_a_busy_server_is_asked_again(server, tmp_path):
    server.status = [503, 429]
    assert quick(server.url(), tmp_path / "a.bin") == digest(BODY)


def test_wrong_checksum_leaves_nothing(server, tmp_path):
    with pytest.raises(VolumeError, match=r"0{64} is published"):
        quick(server.url(), tmp_path / "a.bin", sha256="0" * 64)
    assert left(tmp_path) == []
    assert len(server.log) == 1


def test_not_found_and_refused(server, tmp_path):
    with pytest.raises(VolumeNotFound, match="HTTP 404"):
        quick(server.url("/none"), tmp_path / "a.bin")
    server.status = [403]
    with pytest.raises(VolumeError, match=r"refuses .* \(HTTP 403"):
        quick(server.url(), tmp_path / "a.bin")
    with pytest.raises(InputError, match="must start with http"):
        quick("file:///etc/passwd", tmp_path / "a.bin")
    assert left(tmp_path) == []


def test_no_connection_is_one_sentence(server, tmp_path):
    url = server.url().replace(str(server.server_port), "9")
    with pytest.raises(VolumeError, match=r"no connection to 127\.0\.0\.1:9 .* 0 bytes are kept"):
        quick(url, tmp_path / "a.bin", tries=2)


def test_full_disk_is_told_before_and_keeps_what_is_there(server, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(download.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(StorageFull, match="MB are needed"):
        quick(server.url(), tmp_path / "a.bin")


def test_full_disk_in_the_middle(server, tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(download, "_receive", full)
    with pytest.raises(StorageFull, match="disk is full"):
        quick(server.url(), tmp_path / "a.bin")


def make_zip(entries):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, body in entries.items():
            archive.writestr(name, body)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["../evil", "/evil", "a/../../evil", "..\\evil", "C:/evil"])
def test_unpack_refuses_paths_that_leave_the_folder(tmp_path, name):
    (tmp_path / "a.zip").write_bytes(make_zip({"fine": b"1", name: b"2"}))
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for entry in ("fine", name):
            tar.addfile(tarfile.TarInfo(entry), io.BytesIO(b""))
    for archive in ("a.zip", "a.tar"):
        with pytest.raises(VolumeError, match=r"outside .*nothing was unpacked"):
            download.unpack(tmp_path / archive, tmp_path / "out")
    assert left(tmp_path / "out") == []
    assert not (tmp_path / "evil").exists()


def test_unpack_refuses_links_and_damage(tmp_path):
    link = zipfile.ZipInfo("link")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        entry = tarfile.TarInfo("link")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        tar.addfile(entry)
    for name in ("a.zip", "a.tar"):
        with pytest.raises(VolumeError, match="outside"):
            download.unpack(tmp_path / name, tmp_path / "out")
    whole = make_zip({"a": BODY})
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VolumeError, match="truncated"):
        download.unpack(tmp_path / "cut.zip", tmp_path / "out")
    broken = bytearray(whole)
    broken[400_000] ^= 255
    (tmp_path / "broken.zip").write_bytes(broken)
    with pytest.raises(VolumeError, match="damaged"):
        download.unpack(tmp_path / "broken.zip", tmp_path / "out")


def test_unpack_zip_and_tar(tmp_path):
    (tmp_path / "a.zip").write_bytes(make_zip({"d/one": b"1"}))
    with tarfile.open(tmp_path / "a.tgz", "w:gz") as tar:
        entry = tarfile.TarInfo("d/two")
        entry.size = 1
        tar.addfile(entry, io.BytesIO(b"2"))
    for name in ("a.zip", "a.tgz"):
        download.unpack(tmp_path / name, tmp_path / "out")
    assert left(tmp_path / "out" / "d") == ["one", "two"]


def test_registry_is_sound():
    names = [dataset.name for dataset in datasets.list_datasets()]
    assert names[0] == "vnc"
    assert len(set(names)) == len(names)
    assert {"isbi2012", "snemi3d", "fib25", "cremi_a", "cremi_b_padded", "gala", "lucchi"} <= set(names)
    for dataset in datasets.list_datasets():
        assert all(length > 0 for length in dataset.voxel_size_nm)
        assert dataset.licence
        assert dataset.citation
        assert bool(dataset.prepare) == bool(dataset.stacks)
        for file in dataset.files:
            assert file.url.startswith(("https://", "http://"))
            assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
            assert file.sha256 is not None or file.url.startswith("https://")
    with pytest.raises(InputError, match="did you mean 'snemi3d'"):
        datasets.get_dataset("snemi")


def vnc_zip(sections=11, labels=11):
    rng, entries = np.random.default_rng(1), {}
    for folder, count, suffix in (
        ("stack1/raw", sections, "tif"),
        ("stack1/labels", labels, "png"),
        ("stack2/raw", 2, "tif"),
    ):
        for z in range(count):
            image = (
                np.full((12, 16), z, np.uint8) if "raw" in folder else rng.integers(0, 255, (12, 16)).astype(np.uint8)
            )
            # Names without leading zeros: they must be sorted as numbers.
            name = f"groundtruth-drosophila-vnc-master/{folder}/{'labels' if suffix == 'png' else ''}{z}.{suffix}"
            entries[name] = imageio.imwrite("<bytes>", image, extension=f".{suffix}")
    return make_zip(entries)


@pytest.fixture
def vnc(server, monkeypatch):
    """The vnc entry, served from this machine."""

    def serve(body, sha256=None):
        server.files["/vnc.zip"] = body
        file = catalogue.RemoteFile(server.url("/vnc.zip"), "vnc.zip", sha256 or digest(body))
        entry = replace(datasets.get_dataset("vnc"), files=(file,))
        monkeypatch.setattr(datasets, "DATASETS", (entry, *catalogue.DATASETS[1:]))
        return entry

    return serve


def test_get_prepares_one_hdf5_file_with_its_terms_inside(vnc, home):
    vnc(vnc_zip())
    assert datasets.find("vnc") is None
    path = datasets.get("vnc", accept=True)
    assert path == home / "cache" / "neuropil" / "data" / "vnc" / "vnc.h5" == datasets.find("vnc")
    assert left(path.parent) == ["vnc.h5"]
    with h5py.File(path) as file:
        assert file["raw"].shape == file["labels"].shape == (11, 12, 16)
        assert file["raw"][:, 0, 0].tolist() == list(range(11))
        assert file["raw_stack2"].shape == (2, 12, 16)
        assert "NC-SA" in file.attrs["licence"]
        assert "Gerhard" in file.attrs["citation"]
        assert file.attrs["voxel_size_nm_zyx"].tolist() == [47.5, 4.6, 4.6]


def test_get_does_not_download_twice_or_unasked(vnc, home, server):
    vnc(vnc_zip())
    with pytest.raises(InputError, match="accept must be True"):
        datasets.get("vnc", accept=False)
    assert server.log == []
    first = datasets.get("vnc", home / "mine", accept=True)
    asked = len(server.log)
    assert datasets.get("vnc", home / "mine", accept=False) == first
    assert len(server.log) == asked


def test_a_file_fetched_by_hand_is_verified_and_used(vnc, home, server):
    body = vnc_zip()
    vnc(body)
    folder = home / "mine" / "vnc"
    folder.mkdir(parents=True)
    (folder / "vnc.zip").write_bytes(b"something else")
    with pytest.raises(VolumeError, match="does not have the SHA-256"):
        datasets.get("vnc", home / "mine", accept=True)
    (folder / "vnc.zip").write_bytes(body)
    datasets.get("vnc", home / "mine", accept=True)
    assert server.log == []


@pytest.mark.parametrize(
    ("make", "words"),
    [(lambda: vnc_zip(labels=9), "must have the shape"), (lambda: make_zip({"x": b""}), "layout has changed")],
    ids=["shape", "files"],  # an archive holds the time it was made at: as an id it would differ between workers
)
def test_an_archive_of_another_layout_leaves_no_data_set(vnc, home, make, words):
    vnc(make())
    with pytest.raises(VolumeError, match=words):
        datasets.get("vnc", accept=True)
    assert datasets.find("vnc") is None
    assert left(home / "cache" / "neuropil" / "data" / "vnc") == ["vnc.zip"]


def h5_bytes(**arrays):
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for name, array in arrays.items():
            file[name] = array
    return buffer.getvalue()


def test_fragments_become_bodies_and_unpublished_checksums_are_recorded(server, home, monkeypatch, caplog):
    stack = np.arange(24).reshape(2, 3, 4)
    table = np.array([[i, i % 5 + 2**40] for i in range(23, 0, -1)], np.uint64)
    server.files |= {"/raw": h5_bytes(raw=stack.astype(np.uint8)), "/gt": h5_bytes(stack=stack, transforms=table)}
    entry = datasets.get_dataset("fib25")
    files = tuple(
        catalogue.RemoteFile(server.url(path), name)
        for path, name in (("/raw", "grayscale_maps.h5"), ("/gt", "groundtruth.h5"))
    )
    entry = replace(entry, files=files)
    monkeypatch.setattr(datasets, "DATASETS", (entry,))
    made = []
    real = datasets._PREPARE["merged"]
    monkeypatch.setitem(
        datasets._PREPARE, "merged", lambda d, f, m, s: (made.extend(left(m.parent.parent)), real(d, f, m, s))
    )
    with caplog.at_level("WARNING", "neuropil"):
        path = datasets.get("fib25", accept=True)
    assert "cannot be verified" in caplog.text
    assert "groundtruth.h5.sha256" in made
    with h5py.File(path) as file:
        assert file["neuron_ids"][0, 0].tolist() == [0, 2**40 + 1, 2**40 + 2, 2**40 + 3]


def test_find_looks_in_neuropil_data_first(home, monkeypatch):
    for root, file in (("b", "vnc_crop.h5"), ("a", "vnc_x.h5"), ("a", "vnc.h5")):
        (home / root / "vnc").mkdir(parents=True, exist_ok=True)
        (home / root / "vnc" / file).write_bytes(b"")
    monkeypatch.setenv("NEUROPIL_DATA", str(home / "b"))
    assert datasets.find("vnc").name == "vnc_crop.h5"
    monkeypatch.setenv("NEUROPIL_DATA", str(home / "a"))
    assert datasets.find("vnc").name == "vnc.h5"


@pytest.mark.skipif(not os.environ.get("NEUROPIL_DATA"), reason="NEUROPIL_DATA is not set")
def test_real_data_are_found():
    assert any(datasets.find(dataset.name) is not None for dataset in datasets.list_datasets())


def test_stage_shows_terms_and_downloads_only_with_yes(vnc, home, server):
    vnc(vnc_zip())
    shown = stage.run(stage.Config(action="get", name="vnc", folder=home / "mine"))
    for words in ("NC-SA", "Gerhard", server.url("/vnc.zip"), "size      0 MB", f"--folder {home / 'mine'} --yes"):
        assert words in shown.summary
    assert {command for command, _, _ in server.log} == {"HEAD"}
    assert not (home / "mine").exists()
    done = stage.run(stage.Config(action="get", name="vnc", folder=home / "mine", yes=True))
    assert done.data["path"] == str(home / "mine" / "vnc" / "vnc.h5")
    assert f"NEUROPIL_DATA={home / 'mine'}" in done.summary
    assert stage.run(stage.Config(action="get", name="vnc", folder=home / "mine", yes=True)).data == done.data


def test_stage_lists_what_is_here_and_what_is_not(home, monkeypatch):
    listed = stage.run(stage.Config())
    assert "not here: neuropil data get vnc" in listed.summary
    assert {entry["path"] for entry in listed.data["datasets"]} == {None}
    (home / "isbi2012").mkdir()
    (home / "isbi2012" / "isbi2012_z00-19.h5").write_bytes(b"")
    monkeypatch.setenv("NEUROPIL_DATA", str(home))
    assert str(home / "isbi2012" / "isbi2012_z00-19.h5") in stage.run(stage.Config()).summary
    assert "here already" in stage.run(stage.Config(action="get", name="isbi2012")).summary
    with pytest.raises(ConfigError, match="which set"):
        stage.run(stage.Config(action="get"))
