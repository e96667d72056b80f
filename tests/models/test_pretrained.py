"""Weights by name: where they are looked for, and downloads from a server that may misbehave."""

from __future__ import annotations

import hashlib
import http.server
import io
import json
import logging
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partialmethod
from pathlib import Path

import pooch
import pytest
import requests
import torch
from safetensors.torch import save_file

from sqlib import models
from sqlib.cli import main
from sqlib.errors import DataError, InputError
from sqlib.models import WeightsFile, _spec
from sqlib.models._state_dict import weights_id

NAME, SCALE, FILE = "edsr-small", 3, "small_x3.pth"  # a small network at a scale that does not ship
_Answer = Callable[[http.server.BaseHTTPRequestHandler], None]


def checkpoint(seed: int = 0) -> bytes:
    """A file of our small network."""
    torch.manual_seed(seed)
    buffer = io.BytesIO()
    torch.save({"params": models.create(NAME, scale=SCALE).state_dict()}, buffer)
    return buffer.getvalue()


GOOD = checkpoint()
SHA256 = hashlib.sha256(GOOD).hexdigest()


class Server:
    """Answers every request with ``answer``; counts them."""

    def __init__(self) -> None:
        self.answer: _Answer = sends(GOOD)
        self.requests = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.requests += 1
                outer.answer(self)

            def log_message(self, *args: object) -> None:
                """Keep test output clean."""

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/raw/0123/{FILE}"


def sends(body: bytes, *, length: int | None = None, kind: str = "application/octet-stream") -> _Answer:
    """An answer with ``body``; ``length`` is what its header claims, 0 for no claim."""

    def answer(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Type", kind)
        if length != 0:
            handler.send_header("Content-Length", str(len(body) if length is None else length))
        handler.end_headers()
        handler.wfile.write(body)

    return answer


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    thread = threading.Thread(target=running.http.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield running
    running.http.shutdown()
    running.http.server_close()
    thread.join()


@pytest.fixture
def cache(no_data: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of downloaded weights, which does not exist yet; no SQLIB_WEIGHTS."""
    monkeypatch.delenv("SQLIB_WEIGHTS", raising=False)
    return no_data / "weights"


@pytest.fixture
def known(server: Server, cache: Path, monkeypatch: pytest.MonkeyPatch) -> WeightsFile:
    """Weights of our small network as its SPEC knows them, at the server's address."""
    file = WeightsFile(NAME, (SCALE,), FILE, "MIT", "https://example.org/small", server.url, SHA256)
    listed(monkeypatch, file)
    return file


def listed(monkeypatch: pytest.MonkeyPatch, file: WeightsFile, **changes: object) -> None:
    files = (replace(file, **changes),)  # type: ignore[arg-type]
    monkeypatch.setitem(_spec._SPECS, NAME, replace(models.spec(NAME), files=files))


def good_id() -> str:
    torch.manual_seed(0)
    return weights_id(models.create(NAME, scale=SCALE))


def test_right_file_is_downloaded_once_and_its_licence_shown(
    known: WeightsFile, server: Server, cache: Path
) -> None:
    shown = io.StringIO()
    handler = logging.StreamHandler(shown)
    pooch.get_logger().addHandler(handler)
    try:
        model = models.pretrained(NAME, scale=SCALE)
        again = models.pretrained(NAME, scale=SCALE)
    finally:
        pooch.get_logger().removeHandler(handler)
    assert model.weights_id == again.weights_id == good_id()
    assert model.licence == again.licence == "MIT"
    assert [path.name for path in cache.iterdir()] == [FILE]
    assert (cache / FILE).read_bytes() == GOOD
    assert server.requests == 1
    assert shown.getvalue().count("licence MIT, from https://example.org/small") == 1
    assert models.card(NAME, scale=SCALE)["sha256"] == SHA256


def broken(handler: http.server.BaseHTTPRequestHandler) -> None:
    sends(GOOD[: len(GOOD) // 2], length=len(GOOD))(handler)


def missing(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_error(404)


def failing(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_error(503)


def stalls(handler: http.server.BaseHTTPRequestHandler) -> None:
    broken(handler)
    handler.wfile.flush()
    time.sleep(3 * PATIENCE)


def silent(handler: http.server.BaseHTTPRequestHandler) -> None:
    time.sleep(3 * PATIENCE)


def closes(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.connection.shutdown(socket.SHUT_RDWR)


def circles(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(302)
    handler.send_header("Location", handler.path)
    handler.end_headers()


def not_compressed(handler: http.server.BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Encoding", "gzip")
    handler.end_headers()
    handler.wfile.write(GOOD)


PATIENCE = 0.5  # seconds, where nothing comes
PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n"
FAULTS = {
    "another file": (sends(checkpoint(1)), f"the answer is not the file on record .*expected {SHA256}"),
    "web page": (sends(PAGE, kind="text/html"), r"the answer is a web page \(HTML\)"),
    "pointer": (sends(POINTER), "the answer is a Git-LFS pointer of 63 bytes: run 'git lfs pull'"),
    "empty": (sends(b""), "the answer is empty"),
    "text": (sends(b'{"message": "rate limit"}'), "the answer is a text file that begins with"),
    "cut off": (broken, "the connection broke off before the end of the file"),
    "cut off without a length": (sends(GOOD[:-500], length=0), "damaged or cut off"),
    "absent": (missing, "the server answered 404"),
    "unavailable": (failing, "the server answered 503"),
    "stall": (stalls, "the server stopped sending before the end of the file"),
    "silence": (silent, "the server did not answer in time"),
    "closed": (closes, r"no connection \(Remote end closed connection without response\)"),
    "circle": (circles, "the server leads from address to address without end"),
    "no gzip": (not_compressed, "the server's answer is not compressed as it says"),
}


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verified", [True, False], ids=["verified", "unverified"])
def test_failed_download_leaves_nothing_and_says_what_to_do(
    known: WeightsFile,
    server: Server,
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
    verified: bool,
) -> None:
    answer, message = FAULTS[fault]
    if not verified:
        listed(monkeypatch, known, sha256=None)
        message = message.replace("the answer is", "the answer cannot be read as weights: it is")
        if fault == "another file":
            state = {"head.weight": torch.zeros(3)}
            buffer = io.BytesIO()
            torch.save(state, buffer)
            answer, message = sends(buffer.getvalue()), "the answer does not fit edsr-small x3"
    server.answer = answer
    if answer in (stalls, silent):
        patient = pooch.HTTPDownloader.__init__
        monkeypatch.setattr(pooch.HTTPDownloader, "__init__", partialmethod(patient, timeout=PATIENCE))
    with pytest.raises(DataError, match=message) as caught:
        models.pretrained(NAME, scale=SCALE, allow_unverified=not verified)
    text = str(caught.value)
    assert text.startswith(f"no weights ship for edsr-small x3, and fetching {server.url} failed: ")
    assert f"save {server.url} as {cache / FILE}" in text and "SQLIB_WEIGHTS" in text
    assert "object at 0x" not in text and ".partial" not in text and "\n" not in text
    assert list(cache.iterdir()) == []
    server.answer = sends(GOOD)
    model = models.pretrained(NAME, scale=SCALE, allow_unverified=not verified)
    assert model.weights_id == good_id()


def test_offline(known: WeightsFile, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    url = f"http://127.0.0.1:{port}/{FILE}"
    listed(monkeypatch, known, url=url)
    with pytest.raises(DataError) as caught:
        models.pretrained(NAME, scale=SCALE)
    assert str(caught.value) == (
        f"no weights ship for edsr-small x3, and fetching {url} failed: no connection (Connection refused). "
        f"By hand: save {url} as {cache / FILE}, or under that name in a folder that SQLIB_WEIGHTS names "
        "(licence MIT)"
    )
    assert list(cache.iterdir()) == []
    (cache / FILE).write_bytes(GOOD)  # as the message says
    assert models.pretrained(NAME, scale=SCALE).weights_id == good_id()


def test_unwritable_cache(known: WeightsFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("a file where the folder should be")
    monkeypatch.setenv("SQLIB_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(
        DataError, match=r"cannot be written .*set SQLIB_CACHE to one that can.*By hand: save"
    ):
        models.pretrained(NAME, scale=SCALE)


def test_full_disk(known: WeightsFile, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: object, url: str, output_file: str, pooch: object) -> None:
        Path(output_file).write_bytes(GOOD[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", full)
    with pytest.raises(DataError, match=r"failed: No space left on device\. By hand: save"):
        models.pretrained(NAME, scale=SCALE)
    assert list(cache.iterdir()) == []


CHILD = """
import dataclasses, signal, sys
from sqlib import models
from sqlib.models import _spec
signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore
url, sha256 = sys.argv[1:]
file = models.WeightsFile("edsr-small", (3,), "small_x3.pth", "MIT", "https://example.org/small", url, sha256)
_spec._SPECS["edsr-small"] = dataclasses.replace(models.spec("edsr-small"), files=(file,))
print(models.pretrained("edsr-small", scale=3).weights_id)
"""


def child(known: WeightsFile) -> subprocess.Popen[str]:
    assert known.url is not None and known.sha256 is not None
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, known.url, known.sha256],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once(known: WeightsFile, server: Server, cache: Path) -> None:
    both = threading.Barrier(2)

    def together(handler: http.server.BaseHTTPRequestHandler) -> None:
        both.wait(timeout=120)  # neither gets an answer before the other has asked
        sends(GOOD)(handler)

    server.answer = together
    children = [child(known), child(known)]
    for process in children:
        out, err = process.communicate(timeout=120)
        assert (process.returncode, out.strip()) == (0, good_id()), err
    assert server.requests == 2
    assert [path.name for path in cache.iterdir()] == [FILE]


def halfway(known: WeightsFile, server: Server) -> tuple[subprocess.Popen[str], threading.Event]:
    """A process that has half of a file, and what lets the server go on."""
    half, stop = threading.Event(), threading.Event()

    def stalling(handler: http.server.BaseHTTPRequestHandler) -> None:
        broken(handler)
        handler.wfile.flush()
        half.set()
        stop.wait(timeout=120)

    server.answer = stalling
    process = child(known)
    assert half.wait(timeout=120)
    return process, stop


def test_interrupted_download_leaves_nothing(known: WeightsFile, server: Server, cache: Path) -> None:
    process, stop = halfway(known, server)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=120)
    stop.set()
    assert process.returncode != 0 and "KeyboardInterrupt" in err
    assert list(cache.iterdir()) == []
    server.answer = sends(GOOD)
    assert models.pretrained(NAME, scale=SCALE).weights_id == good_id()


def test_no_secure_connection(known: WeightsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def untrusted(self: object, url: str, output_file: str, pooch: object) -> None:
        """As requests does, without a certificate and its key in this folder."""
        first = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed")
        first.verify_message = "certificate has expired"
        raise requests.exceptions.SSLError("Max retries exceeded") from first

    monkeypatch.setattr(pooch.HTTPDownloader, "__call__", untrusted)
    with pytest.raises(
        DataError, match=r"failed: no secure connection \(certificate has expired\)\. By hand"
    ):
        models.pretrained(NAME, scale=SCALE)


def test_a_proxy_that_is_not_there(known: WeightsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    listed(monkeypatch, known, url="http://example.invalid/x")
    with pytest.raises(
        DataError, match=r"failed: no connection to the proxy \(Connection refused\)\. By hand"
    ):
        models.pretrained(NAME, scale=SCALE)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL and flock are POSIX")
def test_what_a_killed_download_left_goes_with_the_next(
    known: WeightsFile, server: Server, cache: Path
) -> None:
    process, stop = halfway(known, server)
    process.kill()
    process.communicate(timeout=120)
    stop.set()
    assert len(list(cache.iterdir())) == 1
    server.answer = sends(GOOD)
    assert models.pretrained(NAME, scale=SCALE).weights_id == good_id()
    assert [path.name for path in cache.iterdir()] == [FILE]


def test_a_downloaded_file_has_the_permissions_of_any_new_file(known: WeightsFile, cache: Path) -> None:
    models.pretrained(NAME, scale=SCALE)
    (cache / "plain").write_bytes(b"")
    assert (cache / FILE).stat().st_mode == (cache / "plain").stat().st_mode


@pytest.mark.parametrize("variable", ["SQLIB_WEIGHTS", "SQLIB_CACHE"])
@pytest.mark.parametrize("denied", ["file", "folder"])
def test_somebody_elses_files(
    known: WeightsFile, cache: Path, monkeypatch: pytest.MonkeyPatch, variable: str, denied: str
) -> None:
    """Whoever runs the tests may read everything: the system's answer is made up."""
    cache.mkdir(parents=True)
    (cache / FILE).write_bytes(GOOD)
    if variable == "SQLIB_WEIGHTS":
        monkeypatch.setenv(variable, str(cache))
    real, operation = getattr(Path, name := {"file": "open", "folder": "is_file"}[denied]), str(cache / FILE)

    def refuse(self: Path, *args: object) -> object:
        if str(self) == operation:
            raise PermissionError(13, "Permission denied", operation)
        return real(self, *args)

    monkeypatch.setattr(Path, name, refuse)
    with pytest.raises(
        DataError, match=rf"small_x3\.pth cannot be read \(Permission denied\): .*set {variable} to another"
    ):
        models.pretrained(NAME, scale=SCALE)


def test_damaged_weights_that_ship(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """safetensors keeps no checksum, but the card does."""
    for suffix in ("safetensors", "json"):
        shutil.copy(models.WEIGHTS_FOLDER / f"edsr-small-x4.{suffix}", tmp_path)
    monkeypatch.setattr(models, "WEIGHTS_FOLDER", tmp_path)
    assert models.pretrained("edsr-small", scale=4)
    path = tmp_path / "edsr-small-x4.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
    with pytest.raises(InputError, match="is not what its card describes: damaged or replaced; reinstall"):
        models.pretrained("edsr-small", scale=4)


def test_unverified_addresses_are_fetched_on_demand_only(
    known: WeightsFile, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    listed(monkeypatch, known, sha256=None)
    with pytest.raises(
        DataError,
        match=r"pretrained\('edsr-small', scale=3, allow_unverified=True\) \(on the command line: "
        r"--allow-unverified\) downloads",
    ):
        models.pretrained(NAME, scale=SCALE)
    assert server.requests == 0
    assert models.pretrained(NAME, scale=SCALE, allow_unverified=True).weights_id == good_id()
    assert models.pretrained(NAME, scale=SCALE).licence == "MIT"  # from the cache
    assert server.requests == 1


def test_nothing_is_downloaded_where_that_is_forbidden(known: WeightsFile, server: Server) -> None:
    with pytest.raises(DataError, match=r"A third party's file exists: save http://.* as .*small_x3\.pth"):
        models.pretrained(NAME, scale=SCALE, download=False, allow_unverified=True)
    assert server.requests == 0


def test_places_in_order(
    known: WeightsFile, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    cache.mkdir(parents=True)
    (cache / FILE).write_bytes(GOOD)
    monkeypatch.setenv("SQLIB_WEIGHTS", str(folder))
    assert models.pretrained(NAME, scale=SCALE).weights_id == good_id()
    # A file of that name in the user's folder is used before, but said to be another one.
    (folder / FILE).write_bytes(checkpoint(1))
    with pytest.warns(
        UserWarning, match=r"mine/small_x3\.pth is not the file on record .*expect other scores"
    ):
        other = models.pretrained(NAME, scale=SCALE)
    torch.manual_seed(1)
    assert other.weights_id == weights_id(models.create(NAME, scale=SCALE))
    # What ships comes before everything, whatever lies in the folders.
    shipped = models.card("edsr-small", scale=4)["weights_id"]
    save_file(models.create("edsr-small", scale=4).state_dict(), folder / "edsr-small-x4.safetensors")
    assert models.pretrained("edsr-small", scale=4).weights_id == shipped


def test_weights_trained_here_are_found_by_their_own_name(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SQLIB_WEIGHTS", str(tmp_path))
    model = models.create(NAME, scale=SCALE)
    save_file(model.state_dict(), tmp_path / "edsr-small-x3.safetensors")
    found = models.pretrained(NAME, scale=SCALE)
    assert (found.weights_id, found.licence) == (weights_id(model), None)


def test_another_file_in_the_cache_is_refused(known: WeightsFile, server: Server, cache: Path) -> None:
    cache.mkdir(parents=True)
    (cache / FILE).write_bytes(GOOD[:-1])
    with pytest.raises(InputError, match=r"small_x3\.pth is .*cut off.*Delete it to fetch it again"):
        models.pretrained(NAME, scale=SCALE)
    assert (cache / FILE).read_bytes() == GOOD[:-1] and server.requests == 0


def test_command_line_goes_the_same_way(
    known: WeightsFile, server: Server, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    listed(monkeypatch, known, sha256=None)
    args = ["evaluate", NAME, "--scale", "3", "--dataset", "builtin", "--first", "1", "--json"]
    assert main(args) == 1
    error = capsys.readouterr().err
    assert f"save {server.url} as" in error and "--allow-unverified" in error and "--weights PATH" in error
    for where in ("downloaded", "from the cache"):
        assert main([*args, "--allow-unverified"]) == 0
        out, error = capsys.readouterr()
        assert (json.loads(out)["n"], json.loads(out)["licence"]) == (1, "MIT"), where
        assert error.count(f"{FILE}: licence MIT, from https://example.org/small; see their terms") == 1, (
            where
        )


def test_licence_goes_with_a_quantized_network(
    known: WeightsFile, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = str(tmp_path / "q.safetensors")
    assert main(["quantize", NAME, file, "--scale", "3", "--recipe", "minmax", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["licence"] == "MIT"
    args = ["evaluate", NAME, "--scale", "3", "--dataset", "builtin", "--first", "1", "--json"]
    assert main([*args, "--quantized", file]) == 0
    out, error = capsys.readouterr()
    assert json.loads(out)["licence"] == "MIT" and "warning" not in error
    assert error.count(f"{file}: licence of its weights MIT; see its terms") == 1
    args[args.index("3")] = "4"
    assert main(args) == 0
    out, error = capsys.readouterr()
    assert json.loads(out)["licence"] is None and "licence" not in error  # ours


def test_the_best_is_so_on_all_benchmarks_that_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two within a hundredth on Set5, the one that is ahead on the others."""
    scores = {
        "a": {"set5": 37.75, "set14": 33.2},
        "b": {"set5": 37.74, "set14": 33.3, "b100": 32.1},
        "c": {"set5": 37.0, "set14": 32.9, "b100": 39.0},
    }
    monkeypatch.setattr(models, "available", lambda: {**{name: [2] for name in scores}, "other": [4]})
    cards = {n: {"scores": {d: {"psnr": v} for d, v in s.items()}} for n, s in scores.items()}
    monkeypatch.setattr(models, "card", lambda name, *, scale: cards[name])
    assert models.best(2) == "b"
    with pytest.raises(DataError, match="no network ships for scale 3; shipped: a x2"):
        models.best(3)


def test_catalogue() -> None:
    """Complete addresses, one file a network and scale, and nothing fetched unasked without a checksum."""
    seen = set()
    files = [file for spec in dict.fromkeys(map(models.spec, models.names())) for file in spec.files]
    for known in files:
        assert models.spec(known.name).file(known.name, known.scales[0]) is known and set(known.scales) <= {
            2,
            3,
            4,
        }
        assert known.licence and known.source.startswith("https://github.com/")
        assert known.sha256 is None or (len(known.sha256) == 64 and int(known.sha256, 16))
        if known.url is None:
            assert known.sha256 is not None and "converted from" in known.source
        elif known.sha256 is not None:
            assert len(known.url.split("/raw/")[1].split("/")[0]) == 40, "pinned to a commit"
        for scale in known.scales:
            assert (known.name, scale) not in seen
            seen.add((known.name, scale))
            if scale not in models.available().get(known.name, ()):  # else the card is that of our own
                assert dict(models.card(known.name, scale=scale))["licence"]
    verified = {(k.name, s) for k in files if k.url and k.sha256 for s in k.scales}
    assert verified == {
        ("elan-light", 4),
        *(("carn-m", s) for s in (2, 3, 4)),
        *(("bsrn", s) for s in (2, 3, 4)),
    }


def test_checksums_are_those_of_the_files_at_hand(weights_dir: Path) -> None:
    files = {file for name in models.names() for file in models.spec(name).files}
    held = [known for known in files if known.sha256 and (weights_dir / known.file).is_file()]
    if not held:
        pytest.skip("none of the known files is in SQLIB_WEIGHTS")
    for known in held:
        assert hashlib.sha256((weights_dir / known.file).read_bytes()).hexdigest() == known.sha256


def test_a_folder_that_does_not_exist(known: WeightsFile, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slip in its name would mean other weights, or a download."""
    given = os.path.join("no", "such", "folder")
    monkeypatch.setenv("SQLIB_WEIGHTS", given)
    with pytest.raises(DataError, match=f"SQLIB_WEIGHTS='{given}' is not a folder .*name one, or unset"):
        models.pretrained(NAME, scale=SCALE)
    assert models.pretrained(NAME, scale=4)  # ships
