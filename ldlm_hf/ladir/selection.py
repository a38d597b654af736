"""Which of several trajectories gives a prompt's answer: the first, the majority's, or one that a verifier accepts."""

from __future__ import annotations

from collections.abc import Callable

from ..arguments import check_integer, check_option, checked
from ..tasks import Task
from ..voting import majority_vote, verified_vote


SELECTIONS = ("first", "majority", "verifier")
Verifier = Callable[[str, str], bool]


@checked
def choose_trajectories(
    texts: list[str],
    answers: list[str | None],
    prompts: list[str],
    num_trajectories: int,
    select: str,
    verifier: Verifier | None = None,
) -> list[int]:
    """Return, for each prompt, the row of the trajectory that stands for it.

    Args:
        texts (`list[str]`): what each row wrote, `num_trajectories` of them for each prompt.
        answers (`list[str | None]`): the answer in each of them.
        prompts (`list[str]`): the prompts.
        num_trajectories (`int`): trajectories of each prompt.
        select (`str`): `"first"`; `"majority"`, the first that gives the most frequent answer; or `"verifier"`, the
            first accepted one that gives the most frequent of the accepted answers, or of all where none is accepted.
        verifier (`Callable[[str, str], bool]`, *optional*): takes a text and its prompt; needed for `"verifier"`.

    Raises:
        ValueError: for another `select`, a missing verifier, or texts that are not as many for each prompt.
    """
    check_integer("num_trajectories", num_trajectories)
    check_option("select", select, SELECTIONS)
    if not len(texts) == len(answers) == len(prompts) * num_trajectories:
        raise ValueError(
            f"`texts` and `answers` have to hold `num_trajectories` {num_trajectories} for each of {len(prompts)} `prompts`, but "
            f"hold {len(texts)} and {len(answers)}."
        )
    if select == "verifier" and verifier is None:
        raise ValueError("`select` is 'verifier', but `verifier` is None; give one.")
    rows = []
    for number, prompt in enumerate(prompts):
        start = number * num_trajectories
        given = answers[start : start + num_trajectories]
        accepted = [True] * len(given)
        if select == "verifier":
            accepted = [verifier(text, prompt) for text in texts[start : start + num_trajectories]]
        if select == "first":
            rows.append(start)
        elif any(accepted):
            vote = verified_vote(given, accepted)
            places = [i for i, verdict in enumerate(accepted) if verdict and given[i] == vote]
            rows.append(start + (places[0] if places else accepted.index(True)))
        else:
            rows.append(start + given.index(majority_vote(given)))
    return rows


def task_verifier(task: Task | None) -> Verifier | None:
    """Return the check of a task with many right answers, which needs no reference answer; else `None`."""
    if task is None or not task.has_several_right_answers:
        return None
    return lambda text, prompt: task.is_correct(text, prompt, "")
