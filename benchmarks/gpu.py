"""The same runs on the CPU and on the GPUs of a machine, as a table.

    python benchmarks/gpu.py [--scale=1] [--epochs=3] [--devices=cpu,cuda] [--out=gpu.md]

The data is synthetic (powerlaw.py): 50,000 users, 10,000 items, 500,000 interactions, features of
128 dimensions. For each model the table has the set-up, in which graphs are built, the median epoch
and the median evaluation. SIGRec is evaluated with and without item scores. Where there are several
GPUs, SIGRec and LightGCN are trained by one process on each of them, too.
"""

import argparse
import tempfile
from pathlib import Path

import large_epoch
import torch
from powerlaw import powerlaw

from recbole_sigrec import run

USERS, ITEMS, INTERACTIONS = 50_000, 10_000, 500_000
ARMS = {
    "LightGCN": ("LightGCN", {}),
    "MGCN": ("MGCN", {}),
    "SIGRec": ("SIGRec", {"item_score_weight": 0.0}),
    "SIGRec, item scores": ("SIGRec", {"item_score_weight": 0.25}),
}
FIXED = {"modality_weights": None, "item_score_reg": 100.0, "item_score_content": 10.0}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--devices", default="cpu,cuda")
    parser.add_argument("--out", type=Path, default=Path("gpu.md"))
    options = parser.parse_args()
    devices = options.devices.split(",")
    lines = ["| device | model | set-up, s | epoch, s | evaluation, s | recall@20 |"]
    lines += ["|---|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as place:
        sizes = (int(n * options.scale) for n in (USERS, ITEMS, INTERACTIONS))
        folder = Path(place) / "powerlaw"
        folder.mkdir()
        large_epoch.write_folder(folder, *powerlaw(*sizes), evaluated=5000)
        for device in devices:
            for name in ARMS:
                lines.append(row(device, name, 1, place, options.epochs))
        n_gpus = torch.cuda.device_count() if "cuda" in devices else 1
        for name in ("LightGCN", "SIGRec") if n_gpus > 1 else ():
            lines.append(row("cuda", name, n_gpus, place, options.epochs))
    text = "\n".join(lines) + "\n"
    options.out.write_text(text, encoding="utf-8")
    print(text)


def row(device, name, nproc, place, epochs):
    """One run, as a row of the table."""
    model, keys = ARMS[name]
    values = {
        **{"data_path": place, "epochs": epochs, "eval_step": 1, "strict_ids": False},
        **{"use_gpu": device == "cuda", "show_progress": False, "checkpoint_dir": place},
        **(FIXED if model == "SIGRec" else {}),
        **keys,
    }
    if device == "cuda":
        values["gpu_id"] = ",".join(map(str, range(nproc)))
    result = run(model, "powerlaw", config_dict=values, nproc=nproc, saved=False)
    figures = (result.seconds_setup, result.seconds_per_epoch, result.seconds_per_evaluation)
    cells = [f"{device} x {nproc}", name, *(f"{seconds:.2f}" for seconds in figures)]
    return "| " + " | ".join([*cells, f"{result.test_result['recall@20']:.4f}"]) + " |"


if __name__ == "__main__":
    main()
