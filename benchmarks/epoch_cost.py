"""Seconds per training epoch of several models on one data set, side by side in one process.

    python benchmarks/epoch_cost.py --data_path=DIR --dataset=tiktok --models=LightGCN,SIGRec,BM3

The models take turns, one epoch each, so that a change of the machine's load meets all of them;
medians are printed, and ratios to the first model. One thread unless --threads=N.
"""

import argparse
import logging
import statistics
import time

import torch

from recbole_sigrec import Config
from recbole_sigrec.quick_start import build_model, create_dataset, data_preparation
from recbole_sigrec.trainer import trainer_class


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="LightGCN,SIGRec,BM3")
    parser.add_argument("--dataset", default="ml-100k")
    parser.add_argument("--data_path", default="dataset")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    logging.disable(logging.INFO)

    epochs = {}
    for name in options.models.split(","):
        config = Config(name, options.dataset, config_dict={"data_path": options.data_path})
        train_data, *_ = data_preparation(config, create_dataset(config))
        trainer = trainer_class(config["MODEL_TYPE"], name)(config, build_model(config, train_data))
        epochs[name] = (trainer, train_data, [])
    for round_ in range(options.rounds + 1):  # the first warms up
        for trainer, train_data, seconds in epochs.values():
            start = time.perf_counter()
            trainer._train_epoch(train_data, round_)
            if round_:
                seconds.append(time.perf_counter() - start)
    print(f"{options.dataset}, {options.threads} thread(s), median of {options.rounds} epochs")
    reference = None
    for name, (_, _, seconds) in epochs.items():
        median = statistics.median(seconds)
        reference = reference or median
        spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
        print(f"{name:12s} {median:6.2f} s ({spread})   {median / reference:5.2f} x")


if __name__ == "__main__":
    main()
