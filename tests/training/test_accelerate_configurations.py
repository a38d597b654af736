"""The configurations in `examples/accelerate`: what the launcher makes of them, and the plugins that come of that."""

import os
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DeepSpeedPlugin, DistributedType, FullyShardedDataParallelPlugin
from accelerate.utils.fsdp_utils import fsdp2_prepare_auto_wrap_policy
from torch.distributed.fsdp import StateDictType

from ldlm_hf.training import ReproducibleTrainingArguments
from tests.ladir.tiny_ladir import tiny_lm, tiny_reasoner
from tests.llada.tiny_training import small_llada
from tests.training.accelerate_configurations import FOLDER, environment, parsed


FILES = sorted(path.name for path in FOLDER.glob("*.yaml"))
TYPES = {
    "multi_cpu.yaml": DistributedType.MULTI_GPU,  # see there
    "multi_gpu.yaml": DistributedType.MULTI_GPU,
    "fsdp.yaml": DistributedType.FSDP,
    "deepspeed_zero2.yaml": DistributedType.DEEPSPEED,
    "deepspeed_zero3.yaml": DistributedType.DEEPSPEED,
}


def under(name: str, monkeypatch, **changes: str) -> None:
    """Set the environment that the processes of a launch have, and no accelerate settings of our own beside."""
    for key in [key for key in os.environ if key.startswith(("ACCELERATE_", "FSDP_"))]:
        monkeypatch.delenv(key)
    for key, value in {**environment(name), **changes}.items():
        monkeypatch.setenv(key, value)


def test_every_file_is_listed():
    assert FILES == sorted(TYPES)


@pytest.mark.parametrize("name", FILES)
def test_the_launcher_reads_every_setting(name):
    given = yaml.safe_load((FOLDER / name).read_text())
    config = load_config_from_file(str(FOLDER / name))  # refuses keys that it does not know
    assert config.distributed_type == TYPES[name]
    args = parsed(name)
    assert args.num_processes == given["num_processes"] >= 2
    assert args.mixed_precision == given["mixed_precision"]
    for section in ("fsdp_config", "deepspeed_config"):
        for key, value in given.get(section, {}).items():
            assert getattr(args, key) == value, key  # of sections it takes any key, so a slip would go unnoticed
    used = (args.use_deepspeed, args.use_fsdp, args.multi_gpu)
    assert used == tuple(TYPES[name] == kind for kind in ("DEEPSPEED", "FSDP", "MULTI_GPU"))


@pytest.mark.parametrize("name", FILES)
def test_training_arguments_take_the_precision_over(name, monkeypatch, tmp_path):
    under(name, monkeypatch, ACCELERATE_USE_DEEPSPEED="false", ACCELERATE_USE_FSDP="false")
    args = ReproducibleTrainingArguments(str(tmp_path), use_cpu=True)
    assert args.mixed_precision == ("no" if name == "multi_cpu.yaml" else "bf16")


@pytest.mark.parametrize("make", [small_llada, tiny_reasoner, tiny_lm])
def test_fsdp_shards_every_layer_of_our_models(make, monkeypatch):
    under("fsdp.yaml", monkeypatch)
    plugin, model = FullyShardedDataParallelPlugin(), make()
    assert plugin.fsdp_version == 2
    assert plugin.reshard_after_forward is True
    assert plugin.state_dict_type == StateDictType.FULL_STATE_DICT
    assert not plugin.cpu_ram_efficient_loading
    plugin.set_auto_wrap_policy(model)
    is_unit = fsdp2_prepare_auto_wrap_policy(plugin, model)
    units = [name for name, module in model.named_modules() if is_unit(module)]
    assert len(units) == 2
    assert all(name.split(".")[-2:] == ["layers", str(number)] for number, name in enumerate(units))


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_leaves_batches_and_clipping_to_the_training_arguments(stage, monkeypatch):
    under(f"deepspeed_zero{stage}.yaml", monkeypatch)
    plugin = DeepSpeedPlugin()
    plugin.set_mixed_precision("bf16")
    config = plugin.deepspeed_config
    assert plugin.zero_stage == config["zero_optimization"]["stage"] == stage
    for name in ("train_batch_size", "gradient_accumulation_steps", "gradient_clipping"):
        assert config[name] == "auto"
    assert config["zero_optimization"]["offload_optimizer"]["device"] == "none"
    assert config["zero_optimization"]["stage3_gather_16bit_weights_on_model_save"] is (stage == 3)
    assert config["bf16"]["enabled"] is True
    assert plugin.zero3_init_flag is False


@pytest.mark.parametrize("stage", [2, 3])
def test_deepspeed_itself_takes_the_values(stage, monkeypatch):
    config_module = pytest.importorskip("deepspeed.runtime.config")
    under(f"deepspeed_zero{stage}.yaml", monkeypatch)
    config = DeepSpeedPlugin().deepspeed_config
    numbers = {"train_batch_size": 8, "train_micro_batch_size_per_gpu": 8, "gradient_accumulation_steps": 1}
    read = config_module.DeepSpeedConfig({**config, **numbers, "gradient_clipping": 1.0, "steps_per_print": 1})
    assert read.zero_config.stage == stage


def test_the_readme_names_every_file():
    text = Path(FOLDER / "README.md").read_text()
    assert all(f"`{name}`" in text for name in FILES)
