"""Training PEFT adapters: only they are trained, saved, averaged and resumed, and they merge into a plain model."""

import copy

import pytest
import torch
from safetensors.torch import load_file

from ldlm_hf import LLaDAForMaskedDiffusion
from ldlm_hf.training.checkpoints import load_weights
from tests.llada.tiny_training import Stop, make_trainer, small_llada


peft = pytest.importorskip("peft")


def adapted(seed: int = 0, adapters: dict | None = None, **fields):
    """Return a model with LoRA on queries, keys and values (d1's fine-tuning), under the given names."""
    model = small_llada()
    torch.manual_seed(seed)
    settings = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "k_proj", "v_proj"], "lora_dropout": 0.05}
    config = peft.LoraConfig(**{**settings, **fields})
    return peft.get_peft_model(model, config)


def trained(model) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone() for name, parameter in model.named_parameters() if parameter.requires_grad
    }


@pytest.mark.parametrize("fields", [{}, {"modules_to_save": ["lm_head"]}])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_a_killed_run_resumes_to_the_same_bits_from_adapters_alone(tmp_path, fields, ema_decay):
    settings = {"ema_decay": ema_decay, "learning_rate": 1e-2, "logits_chunk_size": 9}
    straight = make_trainer(tmp_path / "straight", adapted(**fields), **settings)
    straight.train()
    with pytest.raises(KeyboardInterrupt):
        make_trainer(tmp_path / "killed", adapted(**fields), callbacks=[Stop(5)], **settings).train()
    resumed = make_trainer(tmp_path / "killed", adapted(seed=7, **fields), **settings)
    resumed.train(resume_from_checkpoint=True)
    expected, found = trained(straight.model), trained(resumed.model)
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    if ema_decay is not None:
        pairs = zip(straight.ema.average.shadow_params, resumed.ema.average.shadow_params, strict=True)
        assert all(torch.equal(*pair) for pair in pairs)
        assert len(straight.ema.average.shadow_params) == len(expected)  # not the weights beneath
    saved = load_file(tmp_path / "killed" / "checkpoint-3" / "adapter_model.safetensors")
    assert len(saved) == len(expected)
    assert not (tmp_path / "killed" / "checkpoint-3" / "model.safetensors").exists()


def test_only_the_adapters_learn_and_they_merge_into_a_model_that_gives_the_same_logits(tmp_path):
    model = adapted(lora_dropout=0.0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = make_trainer(tmp_path, model, max_steps=20, learning_rate=1e-2, ema_decay=0.5)
    trainer.train()
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {name for name in before if "lora_" in name}
    with trainer.ema.applied():
        expected = model.eval()(input_ids=torch.arange(5, 12)[None]).logits
    trainer.save_final(tmp_path / "final")
    loaded = peft.PeftModel.from_pretrained(small_llada(), tmp_path / "final")
    loaded.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = LLaDAForMaskedDiffusion.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(merged(input_ids=torch.arange(5, 12)[None]).logits, expected, atol=1e-5, rtol=1e-4)
    assert (tmp_path / "final" / "tokenizer.json").exists()


def test_gradient_checkpointing_reaches_the_adapters(tmp_path):
    results, calls = [], []
    for checkpointing in (False, True):
        settings = {"max_steps": 2, "optim": "sgd", "learning_rate": 1.0, "gradient_checkpointing": checkpointing}
        trainer = make_trainer(tmp_path / str(checkpointing), adapted(lora_dropout=0.0), **settings)
        layer = trainer.model.get_base_model().model.layers[0]
        layer.mlp.register_forward_pre_hook(lambda *args, which=checkpointing: calls.append(which))
        before = trained(trainer.model)
        trainer.train()
        results.append(trained(trainer.model))
    assert (calls.count(False), calls.count(True)) == (2, 4)
    for name, plain in results[0].items():
        assert not torch.equal(plain, before[name])
        torch.testing.assert_close(results[1][name], plain, atol=1e-6, rtol=1e-5)


def test_several_adapters_are_loaded_each_and_missing_ones_are_refused(tmp_path):
    model = adapted()
    model.add_adapter("other", copy.deepcopy(model.peft_config["default"]))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1.0)
    expected = {name: value.clone() for name, value in model.state_dict().items() if "lora_" in name}
    model.save_pretrained(tmp_path / "both")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(0.0)
    load_weights(model, tmp_path / "both")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in expected.items())
    (tmp_path / "both" / "other" / "adapter_model.safetensors").unlink()
    with pytest.raises(OSError, match="other"):
        load_weights(model, tmp_path / "both")
    narrow = adapted(target_modules=["q_proj"])
    narrow.save_pretrained(tmp_path / "narrow")
    with pytest.raises(OSError, match="lacks 8 weights"):
        load_weights(adapted(), tmp_path / "narrow")


def test_learned_prompts_are_refused(tmp_path):
    config = peft.PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    with pytest.raises(ValueError, match="learned prompts"):
        make_trainer(tmp_path, peft.get_peft_model(small_llada(), config))
