"""An index of the finished run behind a real server on a port of its own, for the tests of the page."""

import contextlib
import functools
import http.client
import itertools
import json
import shutil
import threading
import urllib.parse

import jax
import numpy as np
import uvicorn

import mhcvse_jax
from mhcvse_jax.browser.app import Site
from mhcvse_jax.data.feature_source import FeatureSource
from mhcvse_jax.encoders.encoder import Encoder
from mhcvse_jax.indexing import build
from mhcvse_jax.precompute.regions import Regions
from mhcvse_jax.serve import settings


class Stripes(Encoder):
    """The mean colour of five stripes: an encoder that needs no weights, as another program would add one."""

    name, weights_sha256, regions_width, max_regions = "stripes", "", 16, 5

    @classmethod
    def add_options(cls, options):
        pass

    def __init__(self, weights):
        pass

    def settings(self):
        return {}

    def encode(self, pictures):
        return [self._regions(picture) for picture in pictures]

    def _regions(self, picture):
        stripes = np.array_split(picture.astype(np.float32), 5, axis=1)
        edges = np.cumsum([0, *(stripe.shape[1] for stripe in stripes)])
        boxes = [(left, 0, right, len(picture)) for left, right in itertools.pairwise(edges)]
        features = np.zeros((5, 16), np.float32)
        features[:, :3] = [stripe.mean(axis=(0, 1)) / 255 for stripe in stripes]
        return Regions(features, np.array(boxes, np.float32))


def make_index(workdir, directory):
    """Returns an index of the pictures that a run tested on, whose model reads pictures by `Stripes`."""
    model = mhcvse_jax.load(workdir, source=FeatureSource("stripes", "", {}))
    data = workdir / "scenes"
    directory.mkdir(exist_ok=True)
    build.add(directory, build.new_header(model, "float32"), model, build.Source(data, ("test",), data / "images"))
    return mhcvse_jax.Index.open(directory, model)


def copied(index, directory):
    """Returns a copy of an index, to be damaged; its model is the same, with all that is compiled."""
    shutil.copytree(index.directory, directory)
    return mhcvse_jax.Index.open(directory, index.model)


@contextlib.contextmanager
def serving(index, host="127.0.0.1", reranker=None):
    """Context with the port of a server of this index, in a thread."""
    config = settings(Site(index, reranker).app(host))
    config.port = 0
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()


def ask(port, path, *, body=None, method=None, headers=(), **parameters):
    """Returns the status, the headers and the content of an answer; JSON is read. The path goes out as it is."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    with contextlib.closing(connection):
        if parameters:
            path += "?" + urllib.parse.urlencode(parameters)
        connection.request(method or ("GET" if body is None else "POST"), path, body, dict(headers))
        answer = connection.getresponse()
        content = answer.read()
        is_json = answer.getheader("content-type") == "application/json"
        return answer.status, answer.headers, json.loads(content) if is_json else content


def maps_of(experiment, variables, regions, query):
    """The attention maps of one picture's regions and one text, with a batch axis."""
    tokens, _ = experiment.language.read([query])
    inputs = regions[None], tokens.padded(np.array([0]), tokens.lengths[0]), tokens.lengths
    return jax.jit(functools.partial(experiment.model.apply, method="attention_maps"))(variables, *inputs)
