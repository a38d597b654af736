"""How good the reasoning chains are: equal to the reference, step by step, and consistent in themselves."""

import datasets
import evaluate

from ldlm_hf.tasks import TASKS


DESCRIPTION = "Accuracy and consistency of the chains that reasoners write beside their answers."
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): what was written for each problem, answer and chain.
    references (`list[str]`): the target texts.
    task (`str`): name of the task, which says what a valid chain is; "addition" by default.
Returns:
    exact_match (`float`): share of texts equal to their reference but for white space.
    step_accuracy (`float`): share of the reference steps that stand at their place.
    consistency (`float`): share of chains in which each step follows from the one before and the last is the answer.
Examples:
    >>> metric = load_metric("chain_accuracy")
    >>> metric.compute(predictions=["6 3+3 6", "5 4+2 6"], references=["6 3+3 6", "5 4+1 5"], task="addition")
    {'exact_match': 0.5, 'step_accuracy': 0.5, 'consistency': 0.5}
"""


class ChainAccuracy(evaluate.Metric):
    """Accuracy and consistency of written chains."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(self, predictions, references, task="addition"):
        if task not in TASKS:
            raise ValueError(f"`task` has to be one of {sorted(TASKS)}, but is {task!r}.")
        reader = TASKS[task]()
        pairs = list(zip(predictions, references, strict=True))
        reports = [reader.check_chain(text, target) for text, target in pairs]
        return {
            "exact_match": sum(text.split() == target.split() for text, target in pairs) / len(pairs),
            "step_accuracy": sum(r.num_correct_steps for r in reports) / sum(r.num_steps for r in reports),
            "consistency": sum(report.is_consistent for report in reports) / len(reports),
        }
