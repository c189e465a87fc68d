"""A small dataset of images of different sizes, downloaded and prepared by TFDS."""

import functools
import http.server
import pathlib
import tarfile
import threading

import numpy as np
import tensorflow_datasets as tfds

from examples.images import data


def photo(i):
    """An image of a size and, in its middle, a color of its own."""
    pixels = np.zeros((24 + i % 7, 20 + i % 5, 3), np.uint8)
    pixels[...] = (i, 255 - i, 7)
    return pixels


class Photos(tfds.core.GeneratorBasedBuilder):
    """Images of different sizes, downloaded from `url`; the test labels are hidden."""

    VERSION = tfds.core.Version("1.0.0")
    url = ""

    def _info(self):
        features = tfds.features.FeaturesDict(
            {
                "image": tfds.features.Image(shape=(None, None, 3)),
                "label": tfds.features.ClassLabel(num_classes=50),
            }
        )
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        folder = pathlib.Path(dl_manager.download_and_extract(self.url))
        return {
            "train": self._generate_examples(folder, range(50), labelled=True),
            "validation": self._generate_examples(folder, range(10), labelled=True),
            "test": self._generate_examples(folder, range(5), labelled=False),
        }

    def _generate_examples(self, folder, numbers, labelled):
        for i in numbers:
            pixels = np.load(folder / f"{i}.npy")
            yield i, {"image": pixels, "label": i if labelled else -1}


def prepare(served, folder):
    """Lets TFDS prepare Photos in a folder, from what a server sends."""
    with tarfile.open(served / "photos.tar.gz", "w:gz") as archive:
        for i in range(50):
            np.save(served / f"{i}.npy", photo(i))
            archive.add(served / f"{i}.npy", f"{i}.npy")
    handler = functools.partial(
        http.server.SimpleHTTPRequestHandler, directory=str(served)
    )
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        Photos.url = f"http://127.0.0.1:{server.server_port}/photos.tar.gz"
        found = data.find("photos", folder)
        server.shutdown()
    assert found == data.Streamed("photos", folder, classes=50, train=50, test=10)
    return folder
