"""Checkpoints of others that recipes, metrics and the harness load: no pickle of them is read and none of their code runs."""

from __future__ import annotations

import ast
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer, BertConfig, BertModel

import ldlm_hf
from ldlm_hf.d1 import recipe as d1
from ldlm_hf.ladir import recipe as ladir
from ldlm_hf.ldlm import recipe as ldlm
from ldlm_hf.ldlm import recipe_baseline as baseline
from ldlm_hf.llada import recipe as llada
from ldlm_hf.loading import load_tokenizer
from ldlm_hf.metrics.bert_score import bert_scores
from ldlm_hf.metrics.likelihood import perplexities
from tests.faults.attacks import Bait, change_json, weights_of
from tests.faults.malicious_repositories import says_yes
from tests.ladir.tiny_ladir import tiny_lm
from tests.ladir.tiny_ladir import tokenizer as ladir_tokenizer
from tests.llada.tiny_llada import tiny_llada
from tests.tiny import tiny_bart, tiny_tokenizer


ROOT = Path(ldlm_hf.__file__).parents[1]
TEXTS = ["1+2"]
UNUSED = {"output_dir": "unused", "task": "addition"}


class Place(NamedTuple):
    """Somewhere that a checkpoint is loaded: what makes a healthy one, what loads it, and whether it loads the model too."""

    make: Callable
    load: Callable[[Path], object]
    tokenizer: Callable = tiny_tokenizer
    has_model: bool = True


def small_llada():
    """Return a LLaDA for the tokenizer of the small task."""
    return tiny_llada(vocab_size=len(tiny_tokenizer()))


def tiny_bert() -> BertModel:
    """Return an encoder for the tokenizer of the small task."""
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return BertModel(BertConfig(vocab_size=len(tiny_tokenizer()), pad_token_id=1, **sizes))


def start_of_masked_diffusion(folder: Path) -> object:
    """Return what a recipe of masked diffusion goes on from."""
    return llada._make_model(llada.MaskedDiffusionRecipe(**UNUSED, pretrained=str(folder)), None)


def start_of_reinforcement(folder: Path) -> object:
    """Return what a recipe of d1 reinforces; in 4 bits only where there is a GPU."""
    section = d1.ReinforcementRecipe(task="countdown", rewards={"countdown": {}}, load_in_4bit=True)
    return d1._load_policy(str(folder), section)


def start_of_baseline(folder: Path) -> object:
    """Return what a baseline goes on from."""
    recipe = baseline.BaselineRecipe(**UNUSED, pretrained_seq2seq=str(folder))
    return baseline._make_model(recipe, recipe.make_task(), None)


def pipeline_of_the_harness(folder: Path) -> object:
    """Return what the adapter of the harness asks."""
    pytest.importorskip("lm_eval")
    from ldlm_hf.llada.lm_eval_adapter import load_pipeline

    return load_pipeline(str(folder))


def first_stage_of_ldlm(folder: Path) -> object:
    """Run the stage that takes the tokenizer of a ready model."""
    values = {**UNUSED, "output_dir": str(folder.parent / "run"), "pretrained_seq2seq": str(folder)}
    return ldlm.train_seq2seq(ldlm.LatentReasoningRecipe(**values), None, False)


def first_stage_of_ladir(folder: Path) -> object:
    """Run the stage that takes the tokenizer of a ready model."""
    values = {**UNUSED, "output_dir": str(folder.parent / "run"), "pretrained_lm": str(folder)}
    return ladir.train_language_model(ladir.LaDiRRecipe(**values), None, None, False)


PLACES = {
    "masked diffusion": Place(small_llada, start_of_masked_diffusion),
    "d1": Place(small_llada, start_of_reinforcement),
    "lm_eval": Place(small_llada, pipeline_of_the_harness),
    "perplexities": Place(tiny_lm, lambda folder: perplexities(TEXTS, str(folder)), ladir_tokenizer),
    "bert_scores": Place(tiny_bert, lambda folder: bert_scores(TEXTS, TEXTS, str(folder), num_layers=1)),
    "baseline": Place(tiny_bart, start_of_baseline),
    "ldlm": Place(tiny_bart, first_stage_of_ldlm, has_model=False),
    "ladir": Place(tiny_lm, first_stage_of_ladir, ladir_tokenizer, has_model=False),
}
WITH_MODEL = [name for name, place in PLACES.items() if place.has_model]


def checkpoint(name: str, root: Path) -> tuple[Path, Bait]:
    """Return the folder of a healthy checkpoint, and bait."""
    folder = root / "checkpoint"
    PLACES[name].make().save_pretrained(folder)
    PLACES[name].tokenizer().save_pretrained(folder)
    bait = Bait(root / "marker", root)
    (folder / "evil.py").write_text(bait.code)
    return folder, bait


def name_code(folder: Path) -> None:
    """Let the tokenizer of a checkpoint name the code beside it."""
    remote = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer"] * 2}}
    change_json(folder / "tokenizer_config.json", **remote)


@pytest.mark.parametrize("name", PLACES)
def test_a_healthy_checkpoint_loads_and_one_whose_tokenizer_is_code_does_not_run_it(name, tmp_path):
    folder, bait = checkpoint(name, tmp_path)
    PLACES[name].load(folder)
    name_code(folder)
    with says_yes():
        try:
            PLACES[name].load(folder)  # by a class of the library, where there is one
        except (ValueError, OSError) as error:
            assert "code" in str(error)
    assert not bait.marker.exists()


@pytest.mark.parametrize("name", WITH_MODEL)
def test_pickled_weights_are_refused(name, tmp_path):
    folder, bait = checkpoint(name, tmp_path)
    weights_of(folder).unlink()
    (folder / "pytorch_model.bin").write_bytes(bait.pickled)
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        PLACES[name].load(folder)
    assert not bait.marker.exists()


@pytest.mark.parametrize("name", WITH_MODEL)
def test_a_model_that_is_code_is_refused(name, tmp_path):
    folder, bait = checkpoint(name, tmp_path)
    classes = ("AutoConfig", "AutoModel", "AutoModelForCausalLM", "AutoModelForMaskedLM", "AutoModelForSeq2SeqLM")
    change_json(folder / "config.json", model_type="evil", auto_map=dict.fromkeys(classes, "evil.EvilConfig"))
    with says_yes(), pytest.raises((ValueError, OSError), match="custom code|evil"):
        PLACES[name].load(folder)
    assert not bait.marker.exists()


@pytest.mark.parametrize("auto_class", [AutoTokenizer, AutoModelForCausalLM])
def test_the_library_itself_would_run_it(auto_class, tmp_path):
    folder, bait = checkpoint("perplexities", tmp_path)
    name_code(folder)
    change_json(folder / "config.json", model_type="evil", auto_map={"AutoConfig": "evil.EvilConfig"})
    with says_yes(), pytest.raises(Exception, match=r"\w"):  # the class in the bait is none
        auto_class.from_pretrained(folder)
    assert bait.marker.exists()


def test_code_of_a_tokenizer_is_not_run_by_request_either(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_tokenizer(tmp_path, trust_remote_code=True)
    (tmp_path / "tokenizer.json").write_text(json.dumps({"version": "1.0"}))
    with pytest.raises(OSError, match=str(tmp_path)):
        load_tokenizer(tmp_path)


def calls_of_auto_classes(file: Path) -> Iterator[ast.Call]:
    """Yield the calls of a file that make something by an auto class of transformers."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            maker = ast.unparse(node.func.value)
            if node.func.attr in ("from_pretrained", "from_config") and maker.lower().startswith("auto"):
                yield node


def test_every_call_of_an_auto_class_says_that_no_code_is_trusted():
    files = [file for folder in ("ldlm_hf", "examples") for file in sorted((ROOT / folder).rglob("*.py"))]
    calls = [(file.name, ast.unparse(call)) for file in files for call in calls_of_auto_classes(file)]
    assert [call for call in calls if "trust_remote_code=False" not in call[1]] == []
    assert len(calls) > 5
