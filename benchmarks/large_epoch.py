"""One training epoch on synthetic data (powerlaw.py) of 10⁶ users, 5·10⁵ items, 2·10⁷ interactions.

    python benchmarks/large_epoch.py --models LightGCN,SIGRec [--scale 0.05] [--threads 2]

Each model runs in a process of its own, through the command line and from a folder of files, as
a user would run it; what is printed is the result's own times and peak of resident memory.
Batches are of 2²⁰ pairs: each propagates over the whole graph. SIGRec's contrastive terms cost
anchors times nodes of the batch: 256 of its pairs are anchors; its item graphs come from IVF.
1,000 users are validated and tested. Linux only. ``--scale`` shrinks it all.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from powerlaw import powerlaw

USERS, ITEMS, INTERACTIONS, FEATURES = 10**6, 5 * 10**5, 2 * 10**7, 128
BATCH, ANCHORS, EVALUATED = 2**20, 256, 1000
SETTINGS = {
    "SIGRec": [f"--contrastive_anchors={ANCHORS / BATCH}", "--knn_search=ivf"],
    "BM3": [],
    "LightGCN": [],
}


def write(folder, scale):
    """The data set of a scale."""
    n_users, n_items = int(USERS * scale), int(ITEMS * scale)
    n_pairs = int(INTERACTIONS * scale)
    data = powerlaw(n_users, n_items, n_pairs, max(10, n_items // 1000), FEATURES)
    write_folder(folder, *data, EVALUATED)


def write_folder(folder, users, items, features, evaluated):
    """A data set in MMRec's layout; some users' last interactions are validated and tested."""
    label = np.zeros(len(users), dtype=np.int8)
    ends = np.searchsorted(users, np.arange(users.max() + 1), side="right") - 1
    several = ends[np.diff(ends, prepend=-1) >= 3]
    chosen = np.random.default_rng(0).choice(several, min(evaluated, len(several)), replace=False)
    label[chosen], label[chosen - 1] = 2, 1
    np.save(folder / "content_feat.npy", features)
    frame = pd.DataFrame({"userID": users, "itemID": items, "x_label": label})
    frame.to_csv(folder / f"{folder.name}.inter", sep="\t", index=False)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="LightGCN,SIGRec")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "powerlaw"
        folder.mkdir()
        started = time.perf_counter()
        subprocess.run([sys.executable, __file__, str(folder), str(options.scale)], check=True)
        print(f"data written in {time.perf_counter() - started:.0f} s", flush=True)
        print("| model | set-up | one epoch | peak memory | recall@20 |\n|---|---|---|---|---|")
        for model in options.models.split(","):
            print(row(model, place, options), flush=True)


def row(model, place, options):
    command = [sys.executable, "-m", "recbole_sigrec.cli", "run", f"--model={model}"]
    command += ["--dataset=powerlaw", f"--data_path={place}", "--epochs=1", "--eval_step=1"]
    command += [f"--train_batch_size={BATCH}", f"--threads={options.threads}", "--strict_ids=False"]
    command += ["--result_file=result.json", "--use_gpu=False", *SETTINGS[model]]
    environment = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True)
    if done.returncode:
        return f"| {model} | failed: {(done.stderr.strip() or 'killed').splitlines()[-1]} | | | |"
    result = json.loads((Path(place) / "result.json").read_text(encoding="utf-8"))
    return (
        f"| {model} | {result['seconds_setup']:.0f} s | {result['seconds_per_epoch']:.0f} s | "
        f"{result['peak_rss_mb'] / 1024:.1f} GiB | {result['test_result']['recall@20']:.4f} |"
    )


if __name__ == "__main__":
    if len(sys.argv) == 3 and not sys.argv[1].startswith("-"):
        write(Path(sys.argv[1]), float(sys.argv[2]))  # in a process whose memory is then free
    else:
        main()
