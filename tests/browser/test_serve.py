"""The server of the page: its answers, and what it refuses."""

import io
import json
import os
import pathlib
import pickle
import signal
import subprocess

import front_door
import numpy as np
import pytest
from PIL import Image
from site_of_index import Stripes, ask, copied, make_index, maps_of, serving

from mhcvse_jax import serve
from mhcvse_jax.browser import app, files
from mhcvse_jax.encoders import ENCODERS
from mhcvse_jax.indexing import store

QUERY = "a red circle above a blue square"


@pytest.fixture(scope="module")
def index(finished, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(ENCODERS, "stripes", Stripes)
        yield make_index(finished[0], tmp_path_factory.mktemp("index"))


@pytest.fixture(scope="module")
def port(index):
    with serving(index) as port:
        yield port


def png(picture):
    content = io.BytesIO()
    Image.fromarray(picture).save(content, "PNG")
    return content.getvalue()


def test_words_find_what_the_index_finds(index, port):
    status, _, found = ask(port, "/api/search", q=f"{QUERY} xyzzy", k=7)
    assert (status, found["query"], found["unknown_words"]) == (200, f"{QUERY} xyzzy", ["xyzzy"])
    (hits,) = index.search([f"{QUERY} xyzzy"], 7)
    assert [hit["place"] for hit in found["hits"]] == [hit.place for hit in hits]
    assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in hits], abs=1e-4)
    assert found["hits"][0]["captions"] == hits[0].picture.captions
    assert found["hits"][0]["file"] == pathlib.Path(hits[0].picture.file).name
    assert len(ask(port, "/api/search", q=QUERY)[2]["hits"]) == min(app.DEFAULT, len(index))


def test_more_like_a_picture_leaves_it_out(index, port):
    found = ask(port, "/api/search", like=3, k=5)[2]["hits"]
    order = np.argsort(-(index.vectors(range(len(index))) @ index.vectors([3])[0]), kind="stable")
    assert [hit["place"] for hit in found] == [place for place in order if place != 3][:5]


def test_a_picture_that_is_sent_finds_what_its_vector_finds(index, port):
    picture = np.random.default_rng(0).integers(0, 256, (37, 53, 3)).astype(np.uint8)
    status, _, found = ask(port, "/api/search?k=6", body=png(picture))
    assert status == 200
    vectors = index.model.encode_images([picture])
    assert [hit["place"] for hit in found["hits"]] == index.search_vectors(vectors, 6).places[0].tolist()
    assert found["captions"] == [hit.caption for hit in index.search_captions(vectors, app.CAPTIONS)[0]]


def test_a_picture_is_explained_by_the_maps_of_its_model(index, port):
    status, _, found = ask(port, "/api/explain", picture=4, q=QUERY)
    assert status == 200
    picture, model = index.pictures[4], index.model
    assert found["words"] == ["<start>", *QUERY.split(), "<end>"]
    assert found["captions"] == picture.captions
    np.testing.assert_allclose(found["boxes"], picture.boxes, atol=0.051)
    with Image.open(picture.file) as whole:
        assert found["size"] == [*whole.size]
    maps = maps_of(model.experiment, model.variables, index.regions(4), QUERY)
    np.testing.assert_allclose(found["cosines"], maps.words[0] @ maps.regions[0].T, atol=2e-4)
    assert set(found["maps"]) == {"image", "text"}
    for name, values in found["maps"].items():
        np.testing.assert_allclose(values, getattr(maps, name)[0], atol=2e-4)
    assert found["score"] == pytest.approx(index.vectors([4])[0] @ model.encode_texts([QUERY])[0], abs=1e-4)


def test_pictures_come_small_and_whole(index, port):
    for path, side in (("/thumbnails/2", files.THUMBNAIL), ("/pictures/2", files.WHOLE)):
        status, headers, content = ask(port, path)
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        with Image.open(io.BytesIO(content)) as picture, Image.open(index.pictures[2].file) as whole:
            assert picture.size == whole.size
            assert max(picture.size) <= side
            difference = np.asarray(picture, np.float32) - np.asarray(whole.convert("RGB"), np.float32)
        assert np.abs(difference).mean() < 12
    assert ask(port, f"/pictures/{len(index)}")[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../../../etc/passwd",
        "/pictures/../../../../etc/passwd",
        "/pictures/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
        "/pictures/..%5c..%5cetc%5cpasswd",
        "/page.css/../../app.py",
        "/app.py",
        "/pictures/-1",
        "/pictures/2.jpg",
        "/pictures/99999999999999999999999",
        "//etc/passwd",
    ],
)
def test_no_path_leads_anywhere_else(port, path):
    status, _, found = ask(port, path)
    assert status == 404
    assert [*found] == ["error"]


def test_only_files_in_the_folder_of_the_index_are_served(index, tmp_path):
    """Neither a link nor a name in the index's records leads out of the folder; a pipe holds nobody up."""
    folder = tmp_path / "images"
    folder.mkdir()
    secret = tmp_path / "secret.png"
    Image.new("RGB", (5, 7), "red").save(secret)
    index = copied(index, tmp_path / "index")
    part = index.header.parts[0]
    index.header = index.header._replace(parts=(part._replace(images=str(folder)),))
    (folder / "link.png").symlink_to(secret)
    (folder / "within.png").symlink_to(folder / "true.png")
    Image.new("RGB", (5, 7), "blue").save(folder / "true.png")
    (folder / "text.png").write_text("root:x:0:0")
    os.mkfifo(folder / "pipe.png")
    names = ["link.png", "../secret.png", str(secret), "pipe.png", "text.png", "missing.png", "true.png", "within.png"]

    class Renamed(list):
        locate = staticmethod(lambda place: (0, place))

    index.pictures = Renamed(
        picture._replace(file=os.path.join(folder, name)) for picture, name in zip(index.pictures, names, strict=False)
    )
    with serving(index) as port:
        statuses = [ask(port, f"/pictures/{place}")[0] for place in range(len(names))]
    assert statuses == [404, 404, 404, 404, 404, 404, 200, 200]


@pytest.mark.parametrize(
    ("path", "status", "sentence"),
    [
        ("/api/search?q=" + "a" * 1_000_000, 400, "the query has 1,000,000 characters; expected 4,096 at most"),
        ("/api/explain?picture=1&q=" + "a" * 5_000, 400, "the query has 5,000 characters; expected 4,096 at most"),
        ("/api/search?q=", 400, "the query is empty; expected words"),
        ("/api/search", 400, "there is no query; expected q=WORDS"),
        ("/api/search?q=xyzzy", 400, "'xyzzy' has no word that the vocabulary of"),
        ("/api/search?q=red&k=0", 400, "k is 0; expected a whole number from 1 to 100"),
        ("/api/search?q=red&k=many", 400, "k is many; expected a whole number from 1 to 100"),
        ("/api/search?q=red&k=" + "9" * 9_999, 400, "k is 99999999999999999999; expected"),
        ("/api/search?like=20", 400, "like is 20; expected a whole number from 0 to 19"),
        ("/api/explain?q=red", 400, "picture is missing; expected a whole number from 0 to 19"),
        ("/nothing", 404, "there is nothing here; the page is at /"),
    ],
)
def test_bad_questions_are_refused_in_a_sentence(port, path, status, sentence):
    found = ask(port, path)
    assert found[0] == status
    assert found[2]["error"].startswith(sentence)
    assert len(found[2]["error"]) < 400


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"", "there is no picture"),
        (b"<svg onload='alert(1)'/>", "the picture: not a whole picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "the picture: not a whole picture"),
        (png(np.zeros((9, 9, 3), np.uint8))[:-30], "the picture: not a whole picture"),
        (png(np.zeros((8_000, 7_000), np.uint8)), "the picture: 7,000 x 8,000 pixels; expected 50,000,000 at most"),
    ],
    ids=["empty", "svg", "eps", "cut", "bomb"],
)
def test_bad_pictures_are_refused_in_a_sentence(port, content, sentence):
    status, _, found = ask(port, "/api/search", body=content)
    assert status == 400
    assert found["error"].startswith(sentence)
    assert "BytesIO" not in found["error"]


def test_what_is_sent_is_limited_in_bytes(port):
    """Said beforehand, or found out while it comes."""
    many = files.MAX_UPLOAD_BYTES + 1
    status, _, found = ask(port, "/api/search", body=b"", method="POST", headers={"Content-Length": str(many)})
    assert (status, found["error"]) == (413, "the picture has too many bytes; expected 20,000,000 at most")
    chunks = (b"x" * (1 << 20) for _ in range(20))
    assert ask(port, "/api/search", body=chunks)[0] == 413


def test_every_answer_forbids_the_browser_all_but_the_page(port):
    for path in ("/", "/page.js", "/api/index", "/nothing", "/thumbnails/0"):
        _, headers, _ = ask(port, path)
        assert "default-src 'none'; script-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in headers


def test_another_name_that_points_here_is_refused(index, port):
    for host, status in ((f"localhost:{port}", 200), (f"[::1]:{port}", 200), (f"evil.example:{port}", 403)):
        assert ask(port, "/api/index", headers={"Host": host})[0] == status
    with serving(index, "0.0.0.0") as open_port:
        assert ask(open_port, "/api/index", headers={"Host": "pictures.example"})[0] == 200


def test_the_page_asks_no_other_machine():
    folder = pathlib.Path(app.__file__).parent / "page"
    assert {path.name for path in folder.iterdir()} == set(app.PAGE.values())
    for path in folder.iterdir():
        content = path.read_text().replace("http://www.w3.org/2000/svg", "")  # a name, not an address
        assert "//" not in content.replace(" // ", "").replace("\n//", "") or path.suffix == ".js"
        assert "http:" not in content
        assert "https:" not in content
        assert "innerHTML" not in content


def test_it_warns_of_other_machines_and_stops_at_once(index):
    command = front_door.command("serve", index.directory, "--port", 0, "--host", "0.0.0.0")
    with subprocess.Popen(**command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as server:
        line = next((line for line in server.stdout if line.startswith("serving")), None)
        assert line, server.stderr.read()
        port = int(line.split()[1].rpartition(":")[2])
        assert ask(port, "/api/index")[2]["pictures"] == len(index)
        server.send_signal(signal.SIGINT)
        stdout, stderr = server.communicate(timeout=60)
    assert (server.returncode, stdout) == (0, "stopped\n")
    assert stderr.startswith("warning: everyone who reaches 0.0.0.0:")
    assert stderr.count("\n") == 1


def test_a_port_in_use_is_refused(index, port, capsys):
    assert serve.main([str(index.directory), "--port", str(port)]) == 2
    assert (
        capsys.readouterr().err
        == f"error: --port {port} is in use; expected a free one: --port {port + 1}, or 0 for any\n"
    )


def test_an_index_without_pictures_is_refused(index, tmp_path, capsys):
    store.write_header(tmp_path, index.header._replace(parts=()))
    assert serve.main([str(tmp_path), "--port", "0"]) == 2
    assert capsys.readouterr().err == f"error: {tmp_path} has no pictures; expected at least one\n"


class Planted:
    def __reduce__(self):
        return os.mkdir, (os.environ["PLANTED"],)


def test_nothing_is_unpickled(index, tmp_path, monkeypatch, capsys):
    index = copied(index, tmp_path / "index")
    monkeypatch.setenv("PLANTED", str(tmp_path / "planted"))
    (array,) = index.directory.glob("??????_images.npy")
    np.save(array, np.array([Planted()], object), allow_pickle=True)
    assert serve.main([str(index.directory), "--port", "0"]) == 2
    assert "not a whole .npy file" in capsys.readouterr().err
    array.write_bytes(pickle.dumps(Planted()))
    assert serve.main([str(index.directory), "--port", "0"]) == 2
    assert not (tmp_path / "planted").exists()


def test_records_are_data_never_markup(index, tmp_path):
    """JSON alone carries them; that the page shows them as text is seen in the browser."""
    index = copied(index, tmp_path / "index")
    text = "</script><img src=x onerror=alert(1)>"
    (records,) = index.directory.glob("*_pictures.jsonl")
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    for line in lines:
        line["captions"], line["id"] = [text], text
    records.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with serving(type(index).open(index.directory, index.model)) as port:
        _, headers, found = ask(port, "/api/search", q=QUERY)
        assert headers["content-type"] == "application/json"
        assert found["hits"][0]["captions"] == [text]
        assert text.encode() not in ask(port, "/")[2]
