"""Mean and standard deviation over seeds of the results that runs wrote with --result_file.

    python benchmarks/summarize.py results/*.json

Runs are grouped by data set, model, and the config keys named with --by (for ablations:
--by collab_weight,perturbation).
"""

import argparse
import collections
import json
import statistics
from pathlib import Path

METRICS = ("recall@10", "recall@20", "ndcg@10", "ndcg@20")


def cell(values):
    mean = f"{statistics.mean(values):.4f}"
    return f"{mean} ± {statistics.stdev(values):.4f}" if len(values) > 1 else mean


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--by", default="", help="config keys that tell runs apart")
    options = parser.parse_args()
    keys = [key for key in options.by.split(",") if key]
    groups = collections.defaultdict(list)
    for file in options.files:
        result = json.loads(file.read_text(encoding="utf-8"))
        setting = ", ".join(f"{key}={result['config'].get(key)}" for key in keys)
        groups[result["dataset"], result["model"], setting].append(result)
    print("| data set | model | " + " | ".join(METRICS) + " | best epoch | s / epoch |")
    print("|" + "---|" * (len(METRICS) + 4))
    for (dataset, model, setting), results in sorted(groups.items()):
        name = f"{model} ({setting})" if setting else model
        row = [cell([r["test_result"][metric] for r in results]) for metric in METRICS]
        epochs = ", ".join(str(r["best_epoch"]) for r in results)
        seconds = statistics.median(r["seconds_per_epoch"] for r in results)
        print(f"| {dataset} | {name} | {' | '.join(row)} | {epochs} | {seconds:.2f} |")


if __name__ == "__main__":
    main()
