"""Where the problems of a training come from: a task, a data set of the Hub or a file."""

from __future__ import annotations

from datasets import Dataset, load_dataset

from ..tasks import Task


def load_problems(
    task: Task | None, dataset: str | None = None, train_size: int | None = None, seed: int = 0
) -> tuple[Dataset, Dataset]:
    """Return the training and the validation problems; the test split is never touched in training.

    Args:
        task ([`Task`], *optional*): makes them, unless a data set is named.
        dataset (`str`, *optional*): Hub id, with the splits `train` and `validation`, or a JSONL file, of which every
            twentieth row is held out.
        train_size (`int`, *optional*): how many training problems of the task; by default every distinct one.
        seed (`int`, *optional*, defaults to 0): of the order of the task's problems.
    """
    if dataset is None:
        return task.to_dataset("train", train_size, seed=seed), task.to_dataset("validation", seed=seed)
    if not dataset.endswith((".json", ".jsonl")):
        splits = load_dataset(dataset)
        return splits["train"], splits["validation"]
    rows = load_dataset("json", data_files=dataset, split="train")
    heldout = set(range(0, len(rows), 20))
    return rows.select([i for i in range(len(rows)) if i not in heldout]), rows.select(sorted(heldout))
