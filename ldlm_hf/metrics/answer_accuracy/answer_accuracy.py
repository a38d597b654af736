"""Share of the problems whose answer is right, and share of the outputs that hold no valid answer."""

import datasets
import evaluate

from ldlm_hf.metrics.scores import answer_scores


DESCRIPTION = "Accuracy of the answers that reasoners write, read from their texts as the task prescribes."
INPUTS_DESCRIPTION = """
Args:
    predictions (`list[str]`): what was written for each problem, answer and chain.
    references (`list[str]`): the target texts.
    task (`str` or `Task`): the task or its name, which says how an answer is read; "addition" by default.
    prompts (`list[str]`, *optional*): the problems; needed for tasks whose problems have several right answers.
    verdicts (`list[bool]`, *optional*): whether each is right, where that was judged before; in place of `prompts`.
Returns:
    answer_accuracy (`float`): share of right answers.
    invalid_rate (`float`): share of texts without a valid answer.
    num_problems (`int`): number of problems.
Examples:
    >>> from ldlm_hf.metrics import load_metric
    >>> metric = load_metric("answer_accuracy")
    >>> metric.compute(predictions=["6 3+3 6", "x"], references=["6 3+3 6", "5 4+1 5"], task="addition")
    {'answer_accuracy': 0.5, 'invalid_rate': 0.5, 'num_problems': 2}
"""


class AnswerAccuracy(evaluate.Metric):
    """Accuracy of the answers in written texts."""

    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string"), "references": datasets.Value("string")})
        return evaluate.MetricInfo(
            description=DESCRIPTION, citation="", inputs_description=INPUTS_DESCRIPTION, features=features
        )

    def _compute(self, predictions, references, task="addition", prompts=None, verdicts=None):
        return answer_scores(predictions, references, task, prompts, verdicts)
