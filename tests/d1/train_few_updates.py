"""A few updates of a small policy, by as many processes as start this, for `test_two_processes.py`: FOLDER ROWS-PER-PROCESS."""

import sys

from safetensors.torch import save_file

from tests.d1.tiny_d1 import make_trainer, policy, prompts


def main(folder: str, batch_size: int) -> None:
    """Train and write the weights and what was logged down."""
    plain = {"optim": "sgd", "learning_rate": 0.05, "max_grad_norm": 0.0, "seed": 5}
    plan = {"per_device_train_batch_size": batch_size, "steps_per_generation": 2, "num_iterations": 2, "max_steps": 5}
    trainer = make_trainer(folder, policy(), dataset=prompts(ragged=True), **plain, **plan)
    trainer.train()
    if trainer.args.process_index == 0:
        save_file(
            {name: value.contiguous() for name, value in trainer.model.state_dict().items()},
            f"{folder}/weights.safetensors",
        )
        trainer.state.save_to_json(f"{folder}/state.json")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
