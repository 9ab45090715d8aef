"""How every model does with its defaults alone, on data that it was not tuned on.

    python benchmarks/defaults.py --data DATA --out defaults
    python benchmarks/defaults.py --data DATA --datasets tiktok,shop-baby --models SIGRec,MGCN
    python benchmarks/defaults.py --out defaults --table

DATA holds tiktok, baby, sports and microlens, in MMRec's layout. The others are ml-100k and three
small shops, drawn from them. No property file of a data set is read. A call goes on where an
earlier one was cut off, and the table is of all runs in the folder: each model's test recall@20 and
NDCG@20 on each data set, the mean over seeds, and how far they are from the best there.
"""

import argparse
import json
import statistics
from collections import defaultdict
from pathlib import Path

from defaults_data import NAMES, make

from recbole_sigrec import compare

MODELS = (
    *("SIGRec", "MGCN", "SMORE", "FREEDOM", "BM3", "LATTICE", "VBPR", "ContentEASE", "ContentKNN"),
    *("LightGCN", "BPR", "EASE", "ItemKNN"),
)
METRICS = ("recall@20", "ndcg@20")

Found = dict[str, dict[str, dict[str, float]]]
"""Data set → model → metric → mean over the seeds."""


def read(out: Path) -> Found:
    """The results of all runs in a folder."""
    found: Found = {}
    for name in NAMES:
        runs = defaultdict(lambda: defaultdict(list))
        for file in sorted((out / name / "runs").glob("*.json")):
            run = json.loads(file.read_text(encoding="utf-8"))
            for metric in METRICS:
                runs[run["label"]][metric].append(run["test_result"][metric])
        if runs:
            found[name] = {
                model: {metric: statistics.mean(values) for metric, values in metrics.items()}
                for model, metrics in runs.items()
            }
    return found


def table(found: Found) -> str:
    """A Markdown table: figures, then the distances from the best of each data set in per cent."""
    models = [model for model in MODELS if any(model in runs for runs in found.values())]
    lines = []
    for metric in METRICS:
        best = {name: max(run[metric] for run in runs.values()) for name, runs in found.items()}
        lines.append(f"| {metric} | {' | '.join(found)} | mean distance | worst | times first |")
        lines.append("|" + "---|" * (len(found) + 4))
        for model in models:
            cells, distances = [], []
            for name, runs in found.items():
                if model not in runs:
                    cells.append("")
                    continue
                value = runs[model][metric]
                rank = 1 + sum(other[metric] > value for other in runs.values())
                distances.append(100 * (value / best[name] - 1))
                cells.append(f"{value:.4f} ({rank}, {distances[-1]:.1f} %)")
            summary = f"{statistics.mean(distances):.1f} % | {min(distances):.1f} %"
            firsts = sum(distance == 0 for distance in distances)
            lines.append(
                f"| {model} | {' | '.join(cells)} | {summary} | {firsts} of {len(distances)} |"
            )
        lines.append("")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="the folder of the four large data sets")
    parser.add_argument("--out", type=Path, default=Path("defaults"))
    parser.add_argument("--datasets", default=",".join(NAMES))
    parser.add_argument("--models", default=",".join(MODELS))
    parser.add_argument("--seeds", default="101,102", help="no value was chosen on these")
    parser.add_argument("--table", action="store_true", help="print what is there")
    options = parser.parse_args()
    seeds = [int(seed) for seed in options.seeds.split(",")]
    for name in () if options.table else options.datasets.split(","):
        own, needed = make(name, options.data, options.out / "data")
        values = {
            "data_path": str(options.out / "data"),
            "graph_cache_dir": str(options.out / "graphs"),
            "threads": 1,
            **needed,
        }
        models = options.models.split(",")
        compare(models, own, config_dict=values, seeds=seeds, out=options.out / name)
    print(table(read(options.out)))


if __name__ == "__main__":
    main()
