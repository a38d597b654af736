"""Caches of what frozen models compute: the same bytes from any number of processes, and never those of something else."""

from dataclasses import replace

import pytest
import torch
from datasets import Dataset, load_dataset
from transformers import AutoTokenizer

from ldlm_hf.ladir.configuration_ladir import LaDiRConfig
from ldlm_hf.ladir.thought_cache import cache_thoughts
from ldlm_hf.ldlm.latent_cache import cache_latents
from ldlm_hf.training.frozen_cache import fingerprint
from tests.ladir.tiny_ladir import SPLITTER, sums, tiny_reasoner, tiny_vae, tokenizer
from tests.tiny import tiny_autoencoder, tiny_problems, tiny_tokenizer


def thoughts(folder, dataset=None, vae=None, splitter=SPLITTER, config=None, **settings) -> Dataset:
    config = config or tiny_reasoner().config
    rows = sums(10) if dataset is None else dataset
    return cache_thoughts(rows, vae or tiny_vae(), tokenizer(), splitter, config, folder, **settings)


def latents(folder, dataset=None, autoencoder=None, words=None, **settings) -> Dataset:
    parts = (autoencoder or tiny_autoencoder(), words or tiny_tokenizer())
    return cache_latents(tiny_problems(size=10) if dataset is None else dataset, *parts, folder, **settings)


@pytest.fixture
def threads():
    """Return how to set torch's threads, which are as many as before in the end."""
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def files(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("make", [latents, thoughts])
def test_several_processes_write_the_same_bytes_as_one(tmp_path, make, threads):
    threads(1)  # as processes of several have: a sum that is divided among threads rounds otherwise
    written = []
    for num_proc in (None, 2, 8):  # of 8 there are batches for 4
        folder = tmp_path / str(num_proc)
        rows = make(folder, batch_size=3, num_proc=num_proc)
        (path,) = folder.iterdir()
        written.append((path.name, path.read_bytes()))
        assert len(rows) == 10
    assert written[0] == written[1] == written[2]
    in_memory = make(None, batch_size=3, num_proc=2)
    assert in_memory.with_format(None)[:] == rows.with_format(None)[:]


def test_one_batch_is_encoded_here_on_as_many_threads_as_before(threads):
    threads(2)
    assert len(latents(None, batch_size=10, num_proc=2)) == 10
    assert torch.get_num_threads() == 2


def test_the_same_is_read_back_and_not_made_again(tmp_path):
    first = thoughts(tmp_path)
    (path,) = tmp_path.iterdir()
    stamp = path.stat()
    sums(10).to_json(tmp_path.parent / "rows.jsonl")
    elsewhere = load_dataset("json", data_files=str(tmp_path.parent / "rows.jsonl"), split="train")
    tokenizer()("1+2=3", padding="max_length", truncation=True, max_length=9)  # leaves traces in the tokenizer
    other_order = sums(10).select_columns(["answer", "target", "prompt"]).add_column("unread", [*range(10)])
    for dataset in (sums(10), elsewhere, other_order, sums(20).select(range(10))):
        again = thoughts(tmp_path, dataset, config=configuration(flow_weight=2.0))
        assert again[:] == first[:]
    assert (path.stat().st_mtime_ns, path.stat().st_ino) == (stamp.st_mtime_ns, stamp.st_ino)
    assert files(tmp_path) == {path.name}


def one_row_changed() -> Dataset:
    rows = sums(10).to_list()
    rows[7]["target"] = rows[7]["target"].replace("+", " +", 1)
    return Dataset.from_list(rows)


def one_weight_changed() -> torch.nn.Module:
    vae = tiny_vae()
    with torch.no_grad():
        vae.to_mean.weight[0, 0] += 1e-6
    return vae


def configuration(**fields) -> LaDiRConfig:
    config = tiny_reasoner().config
    for name, value in fields.items():
        setattr(config, name, value)
    return config


def shorter() -> LaDiRConfig:
    config = configuration()
    config.text_config.max_position_embeddings = 95
    return config


@pytest.mark.parametrize(
    "changes",
    [
        lambda: {"dataset": one_row_changed()},
        lambda: {"dataset": sums(10).select([*range(1, 10), 0])},
        lambda: {"dataset": sums(10).remove_columns("answer")},
        lambda: {"vae": one_weight_changed()},
        lambda: {"vae": tiny_vae(min_log_variance=-11.0)},
        lambda: {"splitter": replace(SPLITTER, pieces_per_block=2)},
        lambda: {"config": configuration(bos_token_id=5)},
        lambda: {"config": shorter()},
    ],
    ids=["row", "order", "column", "weight", "configuration", "splitter", "token", "length"],
)
def test_whatever_changes_has_another_file(tmp_path, changes):
    thoughts(tmp_path)
    thoughts(tmp_path, **changes())
    assert len(files(tmp_path)) == 2


def test_a_rule_of_the_tokenizer_changes_the_file_and_a_copy_does_not(tmp_path):
    parts = (tiny_problems(size=4), tiny_autoencoder())
    names = {fingerprint(*parts, tiny_tokenizer())}
    tiny_tokenizer().save_pretrained(tmp_path)
    assert fingerprint(*parts, AutoTokenizer.from_pretrained(tmp_path)) in names
    changed = [tiny_tokenizer() for _ in range(4)]
    changed[0].add_tokens(["another"])
    changed[1].padding_side = "left"
    changed[2].backend_tokenizer.normalizer = None if changed[2].backend_tokenizer.normalizer else _lowercase()
    changed[3].pad_token = "<unk>"
    names |= {fingerprint(*parts, one) for one in changed}
    assert len(names) == 5


def _lowercase():
    from tokenizers.normalizers import Lowercase

    return Lowercase()


def test_what_was_not_written_to_its_end_is_never_read(tmp_path):
    parts = (tmp_path, tiny_problems(size=10))
    whole = latents(*parts, batch_size=3)[:]["target_latents"]
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    for end in (0, 100, len(content) // 2, len(content) - 1000):
        path.write_bytes(content[:end])
        assert torch.equal(latents(*parts, batch_size=3)[:]["target_latents"], whole)
        assert path.read_bytes() == content


@pytest.mark.parametrize("num_proc", [None, 2])
def test_a_broken_off_encoding_leaves_nothing_behind(tmp_path, num_proc):
    rows = sums(10).to_list()
    rows[8]["target"] = "=>3"  # without a step, which is found after two batches were written
    with pytest.raises(ValueError, match="target"):
        thoughts(tmp_path, Dataset.from_list(rows), batch_size=3, num_proc=num_proc)
    assert files(tmp_path) == set()


def test_arguments_out_of_range_are_refused_by_name(tmp_path):
    for argument in ("num_proc", "batch_size"):
        with pytest.raises(ValueError, match=argument):
            latents(tmp_path, **{argument: 0})
    with pytest.raises(ValueError, match="no rows"):
        latents(tmp_path, tiny_problems(size=4).select([]))
