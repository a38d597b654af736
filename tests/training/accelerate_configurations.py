"""What `accelerate launch` makes of the configurations in `examples/accelerate`, without launching anything."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from accelerate.commands.launch import _validate_launch_command, launch_command_parser
from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env


FOLDER = Path(__file__).parents[2] / "examples" / "accelerate"


def parsed(name: str) -> Namespace:
    """Return the options of a launch with a configuration."""
    args = launch_command_parser().parse_args(["--config_file", str(FOLDER / name), "script.py"])
    args.nondefault = []  # `accelerate launch` notes there what was given on the command line
    return _validate_launch_command(args)[0]


def environment(name: str) -> dict[str, str]:
    """Return the environment of the processes that it would start."""
    args = parsed(name)
    if args.use_deepspeed:
        args.deepspeed_fields_from_accelerate_config = ""
        return prepare_deepspeed_cmd_env(args)[1]
    return prepare_multi_gpu_env(args)
