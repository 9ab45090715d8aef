"""Peak memory of importing, at one and at ten times the size, beyond what is resident before.

python benchmarks/import_memory.py          all cases; each runs in a process of its own
python benchmarks/import_memory.py CASE N   one: its peak in MiB

The cases: ``table``, ``lattice`` and ``mmssl`` grow in interactions of the same users and items,
``features`` in the rows of a feature file, ``amazon`` in the records of all three raw files;
``electronics`` is Amazon's largest, with 27 reviews of an item. Linux only.
"""

import gzip
import json
import multiprocessing
import pickle
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from peak_memory import resident

SIZES = {
    "table": (200_000, 2_000_000),
    "lattice": (200_000, 2_000_000),
    "mmssl": (200_000, 2_000_000),
    "features": (6_000, 60_000),
    "amazon": (1_000, 10_000),
    "electronics": (63_001,),
}
WIDTH = 1024


def table(folder: Path, n: int):
    """A CSV of n interactions of 20,000 users and 5,000 items."""
    rng, path = np.random.default_rng(0), folder / "t.csv"
    with open(path, "w", encoding="ascii") as file:
        file.write("user,item,rating\n")
        for _ in range(n // 100_000):
            users, items = rng.integers(0, 20_000, 100_000), rng.integers(0, 5_000, 100_000)
            file.writelines(f"user{u},item{i},5\n" for u, i in zip(users, items, strict=True))


def lattice(folder: Path, n: int):
    """JSON files of n pairs in all, of 20,000 users and 5,000 items."""
    for name, part in zip(("train", "val", "test"), parts(n), strict=True):
        lists = {str(user): row.indices.tolist() for user, row in enumerate(part)}
        (folder / f"{name}.json").write_text(json.dumps(lists), encoding="ascii")


def mmssl(folder: Path, n: int):
    """Pickled matrices of the same."""
    for name, part in zip(("trn", "val", "tst"), parts(n), strict=True):
        with open(folder / f"{name}Mat.pkl", "wb") as file:
            pickle.dump(part, file)


def parts(n: int):
    """Training, validation and test of n pairs, as matrices."""
    cells = np.random.default_rng(0).choice(20_000 * 5_000, n, replace=False)
    for pairs in np.split(cells, [8 * n // 10, 9 * n // 10]):
        users, items = np.divmod(pairs, 5_000)
        ones = np.ones(len(pairs), dtype=np.float32)
        yield sp.csr_matrix((ones, (users, items)), shape=(20_000, 5_000))


def features(folder: Path, n: int):
    """Features of n items, in another order than the items'; 3 interactions of each item."""
    rng, path = np.random.default_rng(0), folder / "t.csv"
    with open(path, "w", encoding="ascii") as file:
        file.write("user,item\n")
        file.writelines(f"u{i % 999},i{i}\nu{i % 998},i{i}\nu{i % 997},i{i}\n" for i in range(n))
    array = np.lib.format.open_memmap(folder / "f.npy", "w+", np.float32, (n, WIDTH))
    for start in range(0, n, 1000):
        array[start : start + 1000] = rng.normal(size=(len(array[start : start + 1000]), WIDTH))
    del array
    order = rng.permutation(n)
    (folder / "ids.txt").write_text("".join(f"i{i}\n" for i in order), encoding="ascii")


def electronics(folder: Path, n: int):
    """As many reviews of an item as Electronics has: 1.7 million of 63,001."""
    amazon(folder, n, reviews=27)


def amazon(folder: Path, n: int, reviews: int = 10):
    """Raw files of n items: so many reviews and 16 KB of image features each."""
    rng = np.random.default_rng(0)
    asins = [f"B{i:09d}" for i in range(n)]
    with gzip.open(folder / "reviews_Baby_5.json.gz", "wt", compresslevel=1) as file:
        for i in range(reviews * n):
            review = {"reviewerID": f"A{rng.integers(0, n)}", "asin": asins[i % n], "overall": 5.0}
            file.write(json.dumps({**review, "reviewText": "x" * 500}) + "\n")
    with gzip.open(folder / "meta_Baby.json.gz", "wt", compresslevel=1) as file:
        file.writelines(
            repr({"asin": a, "title": f"word{n % 50} word{n % 99}", "related": asins[:9]}) + "\n"
            for n, a in enumerate(asins)
        )
    with open(folder / "image_features_Baby.b", "wb") as file:
        for asin in asins:
            file.write(asin.encode() + rng.random(4096, dtype=np.float32).tobytes())


def steps(folder: Path):
    """Case → what is measured of it, with the files in the folder."""
    from recbole_sigrec.preparation.importers import import_data
    from recbole_sigrec.preparation.importers.table import Columns
    from recbole_sigrec.preparation.prepare import prepare

    given = folder / "t.csv", "made", "table", folder, Columns("user", "item")
    rows = {"image": (folder / "f.npy", folder / "ids.txt")}
    raw = partial(prepare, "baby", folder, folder / "out", text_model="tfidf")
    return {
        "table": partial(import_data, *given),
        "features": partial(import_data, *given, rows),
        "lattice": partial(import_data, folder, "made", "lattice", folder),
        "mmssl": partial(import_data, folder, "made", "mmssl", folder),
        "amazon": raw,
        "electronics": raw,
    }


def peak(case: str, n: int) -> float:
    """MiB beyond what is resident before, of one case."""
    with tempfile.TemporaryDirectory() as folder:
        cases = {f.__name__: f for f in (table, lattice, mmssl, features, amazon, electronics)}
        made = multiprocessing.Process(target=cases[case], args=(Path(folder), n))
        made.start()  # in a process of its own, whose memory is not ours
        made.join()
        step = steps(Path(folder))[case]
        with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
            file.write("5")  # VmHWM starts again from what is resident now
        before = resident("VmRSS")
        step()
        return resident("VmHWM") - before


def main():
    if len(sys.argv) == 3:
        print(f"{peak(sys.argv[1], int(sys.argv[2])):.0f}")
        return
    for case, sizes in SIZES.items():
        for n in sizes:
            command = [sys.executable, __file__, case, str(n)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            print(f"{case:10}{n:>10,}{done.stdout.strip():>8} MiB")


if __name__ == "__main__":
    main()
