"""Models and pipelines come back whole, by any road, or not at all."""

from __future__ import annotations

import pytest
import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BertConfig, BertForMaskedLM

from ldlm_hf import (
    ExactDenoiser,
    ExactDenoiserConfig,
    LaDiRConfig,
    LaDiRForReasoning,
    LatentDiT,
    LatentReasoningPipeline,
    LLaDAConfig,
    LLaDAForMaskedDiffusion,
    LLaDAModel,
    MaskedDiffusionPipeline,
    MaskedDiffusionScheduler,
    TextLatentAutoencoder,
    TextLatentAutoencoderConfig,
    ThoughtVAE,
    ThoughtVAEConfig,
)
from ldlm_hf.loading import check_finite, load_adapters, load_complete
from tests.faults.attacks import Bait, weights_of
from tests.ladir.tiny_ladir import tiny_lm, tiny_reasoner, tiny_vae
from tests.llada.tiny_llada import tiny_llada
from tests.test_hub import assert_equal
from tests.tiny import tiny_autoencoder, tiny_bart, tiny_denoiser, tiny_pipeline, tiny_tokenizer


NAME = "tester/tiny"
MAKERS = {
    LatentDiT: tiny_denoiser,
    TextLatentAutoencoder: tiny_autoencoder,
    ThoughtVAE: tiny_vae,
    LaDiRForReasoning: tiny_reasoner,
    LLaDAForMaskedDiffusion: tiny_llada,
    LLaDAModel: lambda: tiny_llada().model,
    ExactDenoiser: lambda: ExactDenoiser(ExactDenoiserConfig(num_questions=20)),
}
CONFIGURATIONS = (TextLatentAutoencoderConfig, ThoughtVAEConfig, LaDiRConfig, LLaDAConfig, ExactDenoiserConfig)
every_model = pytest.mark.parametrize("cls", MAKERS, ids=lambda cls: cls.__name__)


def change_weights(folder, change) -> None:
    """Rewrite a model's weights as a function leaves them."""
    path = weights_of(folder)
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path, metadata={"format": "pt"})


@every_model
def test_a_checkpoint_that_lacks_a_weight_is_refused(tmp_path, cls):
    MAKERS[cls]().save_pretrained(tmp_path)
    change_weights(tmp_path, lambda tensors: [tensors.pop(sorted(tensors)[0]), tensors.update(x=torch.zeros(1))])
    with pytest.raises(OSError, match="1 missing weights"):
        cls.from_pretrained(tmp_path)


@every_model
def test_a_weight_of_another_shape_is_named(tmp_path, cls):
    MAKERS[cls]().save_pretrained(tmp_path)
    change_weights(tmp_path, lambda tensors: tensors.update({sorted(tensors)[0]: torch.zeros(3, 3, 3)}))
    with pytest.raises(OSError, match="1 weights of another shape such as .*[a-z]"):
        cls.from_pretrained(tmp_path)


@every_model
def test_shards_variants_and_subfolders_load_from_a_folder_and_from_the_hub(hub, tmp_path, cls):
    saved = MAKERS[cls]()
    saved.save_pretrained(tmp_path / "a/shards", max_shard_size="10KB")
    saved.save_pretrained(tmp_path / "a/variant", variant="other")
    if cls is not ExactDenoiser:  # whose only tensor is smaller
        assert len(list((tmp_path / "a/shards").glob("*-of-*.safetensors"))) > 1
    saved.push_to_hub(NAME)
    for path in (tmp_path / "a").rglob("*.*"):
        hub.repositories[NAME].files[str(path.relative_to(tmp_path))] = path.read_bytes()
    for source in (tmp_path, NAME):
        options = {"cache_dir": tmp_path / "cache"}
        assert_equal(saved, cls.from_pretrained(source, subfolder="a/shards", **options))
        assert_equal(saved, cls.from_pretrained(source, subfolder="a/variant", variant="other", **options))


@every_model
def test_a_model_knows_what_it_was_loaded_from_and_the_global_generator_is_left_alone(hub, tmp_path, cls):
    MAKERS[cls]().push_to_hub(NAME)
    state = torch.get_rng_state()
    model = cls.from_pretrained(NAME, cache_dir=tmp_path)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.config["_name_or_path"] == NAME if cls is LatentDiT else model.name_or_path == NAME
    assert cls is LatentDiT or model.config.name_or_path == NAME


@every_model
def test_a_folder_of_the_hubs_cache_loads_though_its_files_are_links(hub, tmp_path, cls):
    pushed = MAKERS[cls]()
    pushed.push_to_hub(NAME)
    folder = snapshot_download(NAME, cache_dir=tmp_path)
    assert weights_of(tmp_path.__class__(folder)).is_symlink()
    assert_equal(pushed, cls.from_pretrained(folder))


@every_model
def test_neither_pickles_are_written_nor_read(tmp_path, cls):
    model = MAKERS[cls]()
    for act in (model.save_pretrained, model.push_to_hub):
        with pytest.raises(ValueError, match="pickle"):
            act(str(tmp_path / "x"), safe_serialization=False)
    with pytest.raises(ValueError, match="pickle"):
        cls.from_pretrained(tmp_path, use_safetensors=False)
    assert not (tmp_path / "x").exists()


@every_model
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused_by_name(tmp_path, cls, value):
    MAKERS[cls]().save_pretrained(tmp_path)
    change_weights(tmp_path, lambda tensors: max(tensors.values(), key=torch.numel).view(-1)[7:8].fill_(value))
    with pytest.raises(OSError, match=f"{tmp_path}.*weight '.*' holds NaN"):
        cls.from_pretrained(tmp_path)


def test_weights_too_large_for_the_wanted_dtype_are_refused(tmp_path):
    model = tiny_llada()
    model.lm_head.weight.data[0, 0] = 1e6
    model.save_pretrained(tmp_path)
    assert LLaDAForMaskedDiffusion.from_pretrained(tmp_path).lm_head.weight[0, 0] == 1e6
    with pytest.raises(OSError, match=r"lm_head.weight.*torch\.float16"):
        LLaDAForMaskedDiffusion.from_pretrained(tmp_path, dtype=torch.float16)


def test_weights_that_stay_on_disk_are_checked_too(tmp_path):
    model = tiny_llada()
    layers = dict.fromkeys(("model.embed_tokens", "model.layers", "model.norm", "model.rotary_emb"), "cpu")
    options = {"device_map": {**layers, "lm_head": "disk"}, "offload_folder": str(tmp_path / "offloaded")}
    model.save_pretrained(tmp_path)
    loaded = LLaDAForMaskedDiffusion.from_pretrained(tmp_path, **options)
    assert loaded.lm_head.weight.is_meta
    model.lm_head.weight.data[3, 1] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(OSError, match="holds NaN"):
        LLaDAForMaskedDiffusion.from_pretrained(tmp_path, **options)


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.float8_e4m3fn, torch.complex64]
)
def test_every_place_of_a_tensor_is_looked_at(dtype):
    for place in range(0, 70, 23):
        module = torch.nn.Module()
        module.register_buffer("x", torch.ones(7, 10).to(dtype))
        module.register_buffer("count", torch.zeros((), dtype=torch.long))
        module.register_buffer("nothing", torch.ones(0).to(dtype))
        check_finite("here", module, [])
        values = torch.ones(70)
        values[place] = float("nan")
        module.x = values.view(7, 10).to(dtype)
        with pytest.raises(OSError, match="'x' holds NaN"):
            check_finite("here", module, [])


@pytest.mark.parametrize("cls", CONFIGURATIONS, ids=lambda cls: cls.__name__)
def test_a_configuration_is_never_made_up_nor_taken_from_another_model(tmp_path, cls):
    with pytest.raises(OSError, match=r"has no file named config\.json"):
        cls.from_pretrained(tmp_path)
    BertConfig().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=f"holds a 'bert', not a '{cls.model_type}'"):
        cls.from_pretrained(tmp_path)


@pytest.mark.parametrize("cls", [TextLatentAutoencoder, ThoughtVAE, LaDiRForReasoning], ids=lambda cls: cls.__name__)
def test_a_language_model_to_build_on_has_to_be_whole_too(tmp_path, cls):
    make = tiny_bart if cls is TextLatentAutoencoder else tiny_lm
    build = cls.from_seq2seq if make is tiny_bart else cls.from_causal_lm
    make().save_pretrained(tmp_path)
    build(str(tmp_path), **({"num_attention_heads": 2} if make is tiny_bart else {}))
    change_weights(tmp_path, lambda tensors: tensors.pop(sorted(tensors)[1]))
    with pytest.raises(OSError, match="1 missing weights"):
        build(str(tmp_path))
    torch.save(make().state_dict(), tmp_path / "pytorch_model.bin")
    weights_of(tmp_path).unlink()
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        build(str(tmp_path))


def test_code_of_a_repository_is_not_run_by_request_either(tmp_path):
    tiny_lm().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_complete(AutoModelForCausalLM, tmp_path, trust_remote_code=True)
    for options in ({"trust_remote_code": True}, {"custom_pipeline": "x"}):
        with pytest.raises(ValueError, match=next(iter(options))):
            LatentReasoningPipeline.from_pretrained(tmp_path, **options)


def test_a_pipeline_around_a_model_of_transformers_has_to_be_whole_too(tmp_path):
    tokenizer = tiny_tokenizer()
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = BertForMaskedLM(BertConfig(vocab_size=len(tokenizer), **sizes))
    MaskedDiffusionPipeline(model, MaskedDiffusionScheduler(), tokenizer).save_pretrained(tmp_path)
    loaded = MaskedDiffusionPipeline.from_pretrained(tmp_path, dtype=torch.bfloat16)
    assert loaded.model.dtype is torch.bfloat16
    assert_equal(model, MaskedDiffusionPipeline.from_pretrained(tmp_path).model)
    for change, message in (
        (lambda tensors: tensors["bert.embeddings.LayerNorm.weight"].fill_(float("nan")), "holds NaN"),
        (lambda tensors: tensors.pop("bert.embeddings.LayerNorm.weight"), "1 missing weights"),
    ):
        change_weights(tmp_path / "model", change)
        with pytest.raises(OSError, match=message):
            MaskedDiffusionPipeline.from_pretrained(tmp_path)


def test_parts_that_are_given_are_neither_loaded_nor_looked_for(hub, tmp_path):
    pushed = tiny_pipeline()
    pushed.push_to_hub(NAME)
    for name in [name for name in hub.repositories[NAME].files if name.startswith("denoiser/")]:
        del hub.repositories[NAME].files[name]
    other = tiny_denoiser(seed=5)
    pulled = LatentReasoningPipeline.from_pretrained(NAME, denoiser=other, cache_dir=tmp_path)
    assert pulled.denoiser is other
    assert pulled.config["_name_or_path"] == NAME
    assert_equal(pushed.autoencoder, pulled.autoencoder)


def test_adapters_come_from_safetensors_alone_and_are_numbers(hub, tmp_path):
    peft = pytest.importorskip("peft")
    config = peft.LoraConfig(r=2, target_modules=["q_proj"], init_lora_weights=False)
    adapted = peft.get_peft_model(tiny_llada(), config)
    adapted.save_pretrained(tmp_path / "adapters")
    adapted.push_to_hub(NAME)
    for source, options in ((tmp_path / "adapters", {}), (NAME, {"cache_dir": tmp_path / "cache"})):
        assert_equal(adapted, load_adapters(tiny_llada(), source, **options))
    change_weights(tmp_path / "adapters", lambda tensors: next(iter(tensors.values())).fill_(float("nan")))
    with pytest.raises(OSError, match="holds NaN"):
        load_adapters(tiny_llada(), tmp_path / "adapters")
    weights_of(tmp_path / "adapters").unlink()
    bait = Bait(tmp_path / "marker", tmp_path)
    (tmp_path / "adapters/adapter_model.bin").write_bytes(bait.pickled)
    with pytest.raises(OSError, match="adapters are read from safetensors only"):
        load_adapters(tiny_llada(), tmp_path / "adapters")
    with pytest.raises(OSError, match=r"holds adapters|no file named model"):
        LLaDAForMaskedDiffusion.from_pretrained(tmp_path / "adapters")
    assert not bait.marker.exists()
