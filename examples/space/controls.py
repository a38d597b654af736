"""Parts that the tabs of the page share: a problem with its examples, settings, results, and what goes wrong as a message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import gradio as gr
import settings as choices
from checkpoints import HERE, Checkpoint
from settings import Bound


PROBLEM_HINT = "Type a problem, or choose an example"
RUNS = count()
LOG = logging.getLogger("ldlm_hf.space")


def make_problem_box(
    found: dict[str, Checkpoint], tab: str, first: Checkpoint | None = None
) -> tuple[gr.Dropdown, gr.Textbox, gr.Dataset]:
    """Return the choice of a checkpoint, the problem, and the examples, with a button for another problem."""
    first = first or next(iter(found.values()))
    titles = [(checkpoint.title, name) for name, checkpoint in found.items()]
    checkpoint = gr.Dropdown(
        titles, value=first.name, label="Checkpoint", filterable=False, elem_id=f"{tab}-checkpoint"
    )
    introduction = first.introduction
    problem = gr.Textbox(
        next(iter(introduction.examples), ""),
        label="Problem",
        info=introduction.question,
        placeholder=PROBLEM_HINT,
        max_length=choices.MOST_CHARACTERS,
        lines=1,
        elem_id=f"{tab}-problem",
    )
    examples = gr.Dataset(
        components=[gr.Textbox(render=False)],
        samples=[[example] for example in introduction.examples],
        label="Examples, none of them in the training",
        elem_id=f"{tab}-examples",
    )
    another = gr.Button("Another held-out problem", size="sm", elem_id=f"{tab}-another")
    number = gr.State(0)

    def draw(name: str, shown: str, number: int) -> tuple[str, int]:
        with messages():
            from answers import held_out_problem

            drawn, place = held_out_problem(found[name], number, other_than=shown)
            return drawn, place + 1

    examples.click(
        lambda row: row[0], examples, problem, queue=False, show_progress="hidden", api_visibility="private"
    )
    another.click(draw, [checkpoint, problem, number], [problem, number], api_visibility="private")
    return checkpoint, problem, examples


def introduce(checkpoint: Checkpoint) -> tuple[gr.Textbox, gr.Dataset]:
    """Return the changes that another checkpoint makes to the problem box and the examples."""
    introduction = checkpoint.introduction
    start, samples = next(iter(introduction.examples), ""), [[example] for example in introduction.examples]
    return gr.Textbox(value=start, info=introduction.question), gr.Dataset(samples=samples)


def make_slider(bound: Bound, name: str, info: str | None = None) -> gr.Slider:
    """Return a slider over the range of a setting."""
    step = 1 if bound.is_whole else 0.1
    return gr.Slider(bound.low, bound.high, bound.start, step=step, label=bound.title, info=info, elem_id=name)


def make_seed(tab: str) -> gr.Number:
    """Return the field for the seed."""
    info = "The same seed gives the same result."
    return gr.Number(choices.SEED.start, label=choices.SEED.title, info=info, precision=0, elem_id=f"{tab}-seed")


def make_result(tab: str) -> gr.HTML:
    """Return the place of a result, in which `player.js` moves the steps."""
    script = (HERE / "player.js").read_text()
    return gr.HTML(js_on_load=script, elem_id=f"{tab}-result", min_height=320)


def compute(triggers: list, function: Callable[..., str], inputs: list, output: gr.HTML) -> None:
    """Run a function where any of the triggers fires; all that compute stand in one line."""

    def run(*values) -> str:
        with messages():
            # A result that is the same again would not be drawn again, and a visitor would think that nothing happened.
            return f'{function(*values)}<span class="run" data-run="{next(RUNS)}" hidden></span>'

    gr.on(triggers, run, inputs, output, concurrency_id="models", api_visibility="private")


@contextmanager
def messages() -> Iterator[None]:
    """Show what goes wrong as a message: what a visitor can change in the words of the check, all else without details."""
    try:
        yield
    except ValueError as error:
        text = str(error).replace("`prompt`", "The problem").replace("`", "")
        raise gr.Error(text, print_exception=False) from None
    except Exception:
        LOG.exception("an answer failed")
        text = "Something went wrong on the server; its log has the details."
        raise gr.Error(text, print_exception=False) from None
