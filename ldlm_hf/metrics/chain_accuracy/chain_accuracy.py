"""How good the reasoning chains are: equal to the reference, step by step, and consistent in themselves."""

import datasets
import evaluate

from ldlm_hf.metrics.scores import chain_scores


DESCRIPTION = "Accuracy and consistency of the chains that reasoners write beside their answers."
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): what was written for each problem, answer and chain.
    references (`list[str]`): the target texts.
    task (`str` or `Task`): the task or its name, which says what a valid chain is; "addition" by default.
    prompts, verdicts: not read, but may be given, since `evaluate.combine` hands every metric what any of them needs.
Returns:
    exact_match (`float`): share of texts equal to their reference but for white space.
    step_accuracy (`float`): share of the reference steps that stand at their place.
    consistency (`float`): share of chains in which each step follows from the one before and the last is the answer.
    invalid_output_rate (`float`): share of texts without a valid answer.
Examples:
    >>> from ldlm_hf.metrics import load_metric
    >>> metric = load_metric("chain_accuracy")
    >>> metric.compute(predictions=["6 3+3 6", "5 4+2 6"], references=["6 3+3 6", "5 4+1 5"], task="addition")
    {'exact_match': 0.5, 'step_accuracy': 0.5, 'consistency': 0.5, 'invalid_output_rate': 0.0}
"""


class ChainAccuracy(evaluate.Metric):
    """Accuracy and consistency of written chains."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(self, predictions, references, task="addition", prompts=None, verdicts=None):
        return chain_scores(predictions, references, task)
