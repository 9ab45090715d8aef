"""Keys that a config may not set, since nothing would read them: each with what to give instead."""

from __future__ import annotations

from recbole_sigrec.config.keys import keys_of

_NEGATIVES = "{distribution: uniform, sample_num: 1}, or None for none"
_OLDER = {
    "neg_sampling": f"train_neg_sample_args: {_NEGATIVES}",
    "training_neg_sample_num": f"train_neg_sample_args: {_NEGATIVES}",
    "eval_setting": "eval_args: {split: {RS: [0.8, 0.1, 0.1]}, order: RO, mode: full}",
    "split_ratio": "eval_args: {split: {RS: [0.8, 0.1, 0.1]}}",
    "leave_one_num": "eval_args: {split: {LS: valid_and_test}}",
    "group_by_user": "eval_args: {group_by: user}, or None",
    "min_user_inter_num": "user_inter_num_interval: '[5,inf)'",
    "max_user_inter_num": "user_inter_num_interval: '[0,100]'",
    "min_item_inter_num": "item_inter_num_interval: '[5,inf)'",
    "max_item_inter_num": "item_inter_num_interval: '[0,100]'",
    "lowest_val": "val_interval: {rating: '[3,inf)'}",
    "highest_val": "val_interval: {rating: '(-inf,5]'}",
    "equal_val": "val_interval: {rating: '[1,1]'}",
    "not_equal_val": "val_interval: {rating: '(-inf,1);(1,inf)'}",
    "fields_in_same_space": "alias_of_user_id and alias_of_item_id: [field]",
}
_PLACES = ("nproc", "world_size", "ip", "port", "offset", "group_offset", "local_rank")
_FILES = ("config_file", "config_files", "config_file_list")

NOT_SET_HERE = {
    **dict.fromkeys(keys_of("derived") - {"model"}, "it follows from other keys; remove it"),
    "interaction_weight": "interactions have no weights here, see docs/data.md; turn ratings into "
    "interactions with recbole-sigrec import --min_rating",
    "device": "give use_gpu: False for the CPU, or gpu_id for a GPU",
    **{key: f"it is of an older RecBole; today it is {today}" for key, today in _OLDER.items()},
    **dict.fromkeys(
        _PLACES, "it is an argument of its own: run(…, nproc=2), or recbole-sigrec run --nproc=2"
    ),
    **dict.fromkeys(
        _FILES, "name the files in config_file_list of the function, or with --config_files"
    ),
}
"""Key → what to do instead."""
