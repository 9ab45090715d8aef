"""The roles of keys, from which follows what may differ between runs."""

from __future__ import annotations

from recbole.utils.argument_list import dataset_arguments, evaluation_arguments

from recbole_sigrec.config.keys import PATH_KEYS, RESUME_KEYS, SHARED_KEYS, keys_of

PLUGIN_DATA = {
    *("modalities", "item_modalities", "missing_modality", "strict_ids", "noisy_features"),
    *("dropped_modalities", "rewired_edges", "corruption_seed"),
}


def test_contenders_share_data_split_and_evaluation():
    recboles = {*dataset_arguments, *evaluation_arguments} - {"eval_batch_size"}
    more = {"numerical_features", "discretization", "encoding", "tail_ratio"}
    own = PLUGIN_DATA | {"dataset", "data_path", "seed", "split_seed", "split_field", "refit"}
    assert SHARED_KEYS == recboles | more | own


def test_a_resumed_run_may_compute_elsewhere_and_longer():
    assert keys_of("machine") == {
        *("data_path", "checkpoint_dir", "result_file", "bundle", "resume", "threads"),
        *("show_progress", "verbose"),
        *("state", "device", "gpu_id", "use_gpu", "worker", "eval_batch_size", "eval_memory_mb"),
        *("graph_memory_mb", "graph_cache_dir", "log_wandb", "wandb_project", "loss_decimal_place"),
        *("config_file", "config_files", "config_file_list", "reproducibility"),
        *("save_dataset", "dataset_save_path", "save_dataloaders", "dataloaders_save_path"),
    }
    longer = {"epochs", "stopping_step", "metrics", "topk", "warm_start"}
    assert RESUME_KEYS == keys_of("machine") | longer


def test_what_decides_on_the_model_is_not_shared():
    free = {"negative_items", "learning_rate_scheduler", "knn_search", "epochs", "learning_rate"}
    assert free <= keys_of("model")
    assert not keys_of("model") & (SHARED_KEYS | keys_of("machine", "derived"))


def test_paths_are_read_as_they_stand():
    paths = {"data_path", "checkpoint_dir", "graph_cache_dir", "result_file", "bundle"}
    assert PATH_KEYS == paths | {"refit", "warm_start", "resume"}
