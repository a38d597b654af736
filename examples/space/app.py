"""A page to try the shipped checkpoints: watch an answer form, hold a vote, think many thoughts at once.

python examples/space/app.py                 # then open the address that it prints
python examples/space/app.py --port 7861 --checkpoints model_cards

The page is there before torch is imported; what is computed is in `answers.py`, `path_votes.py` and `trains_of_thought.py`.
Nothing leaves the machine: no analytics, no fonts or scripts from elsewhere.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from threading import Thread


os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when gradio is imported
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # all checkpoints are folders; a Space may set it otherwise

import gradio as gr  # noqa: E402
import settings as choices  # noqa: E402
from checkpoints import HERE, Checkpoint, find_checkpoints  # noqa: E402
from controls import compute, introduce, make_problem_box, make_result, make_seed, make_slider  # noqa: E402
from settings import Settings  # noqa: E402


TITLE = "Reasoning by diffusion"
WELCOME = f"""# {TITLE}
Small models that reason by removing noise: pick one, give it a problem, and watch how its answer comes about.
All of them were trained from scratch on CPU cores with `ldlm_hf`, and some are wrong now and then; every answer is checked.
"""
VOTES_INTRODUCTION = """**One model, many orders of writing, one vote (HEX).** Each path fills in the same grid with another block length or
seed, and so sees other tokens when it decides on the next. Below: who won, how many voted for what, and every single vote."""
SEARCH_INTRODUCTION = """**Many trains of thought at once, one is chosen (LaDiR).** From each noise comes another chain of thoughts; the task can check
what they lead to. Below: what every block of latents reads as, what each trajectory wrote, and which one was chosen."""
LARGEST_QUEUE = 32


def main(arguments: list[str] | None = None) -> None:
    """Serve the page."""
    args = make_parser().parse_args(arguments)
    found = find_checkpoints(args.checkpoints)
    page = make_page(found)
    page.launch(
        prevent_thread_lock=True,
        server_port=args.port,
        theme=make_theme(),
        css_paths=HERE / "style.css",
        footer_links=["gradio", "settings"],
        run_history=False,
        ssr_mode=False,
        share=False,
        max_file_size="1kb",
    )
    Thread(target=warm_up, args=(next(iter(found.values())),), daemon=True).start()
    page.block_thread()


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, help="of the server; by default the first free one from 7860 on")
    parser.add_argument("--checkpoints", type=Path, help="folder of saved pipelines; model_cards by default")
    return parser


def make_theme() -> gr.themes.Base:
    """Return the looks of the page, with fonts that come with gradio; its semi-bold ones lack most letters."""
    sans, mono = (gr.themes.LocalFont(name, weights=(400, 700)) for name in ("IBM Plex Sans", "IBM Plex Mono"))
    fonts = {"font": (sans, "system-ui", "sans-serif"), "font_mono": (mono, "ui-monospace", "monospace")}
    return gr.themes.Base(primary_hue="indigo", neutral_hue="slate", **fonts)


def make_page(found: dict[str, Checkpoint]) -> gr.Blocks:
    """Return the page over the checkpoints, with a queue: one computation at a time, and a limit to those who wait."""
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.Markdown(WELCOME, elem_id="welcome")
        with gr.Tab("Watch an answer form", id="watch"):
            make_watch_tab(found)
        voters = {name: checkpoint for name, checkpoint in found.items() if len(checkpoint.block_lengths) > 1}
        if voters:
            with gr.Tab("Vote over block orders", id="vote"):
                make_votes_tab(voters)
        thinkers = {name: checkpoint for name, checkpoint in found.items() if checkpoint.system == "thoughts"}
        if thinkers:
            with gr.Tab("Many trains of thought", id="search"):
                make_search_tab(thinkers)
    return page.queue(default_concurrency_limit=1, max_size=LARGEST_QUEUE, api_open=False)


def make_watch_tab(found: dict[str, Checkpoint]) -> None:
    """Lay out the tab in which an answer forms step by step."""
    first = next(iter(found.values()))
    with gr.Row():
        with gr.Column(scale=2, min_width=340):
            checkpoint, problem, examples = make_problem_box(found, "watch")
            button = gr.Button("Answer", variant="primary", elem_id="watch-answer")
            with gr.Accordion("How it is sampled", open=True):
                steps = make_slider(choices.STEPS[first.system], "watch-steps")
                with gr.Group(visible=first.system == "latent") as latent:
                    scheduler = gr.Dropdown(
                        list(choices.SCHEDULERS.items()), label="Scheduler", elem_id="watch-scheduler"
                    )
                with gr.Group(visible=first.system == "masked") as masked:
                    remasking = gr.Dropdown(
                        list(choices.REMASKING_RULES.items()), label="Filled in first", elem_id="watch-remasking"
                    )
                    temperature = make_slider(
                        choices.TEMPERATURE, "watch-temperature", "At 0 nothing is drawn, whatever the seed."
                    )
                with gr.Group(visible=first.system == "thoughts") as thoughts:
                    noise = make_slider(choices.NOISE, "watch-noise", "Standard deviation; less is more careful.")
                guidance = make_slider(choices.GUIDANCE, "watch-guidance", "Weight of the problem; 1 is none.")
                seed = make_seed("watch")
        with gr.Column(scale=5, min_width=480):
            summary = gr.Markdown(first.summary, elem_id="watch-introduction")
            result = make_result("watch")

    def choose(name: str) -> list:
        chosen = found[name]
        bound = choices.STEPS[chosen.system]
        slider = gr.Slider(minimum=bound.low, maximum=bound.high, value=bound.start, label=bound.title)
        groups = [gr.Group(visible=chosen.system == system) for system in ("latent", "masked", "thoughts")]
        return [*introduce(chosen), chosen.summary, slider, *groups, ""]

    changed = [problem, examples, summary, steps, latent, masked, thoughts, result]
    checkpoint.change(choose, checkpoint, changed, queue=False, show_progress="hidden", api_visibility="private")

    def run(name: str, text: str, steps: float, seed: float, guidance: float, scheduler: str, *others) -> str:
        from answers import answer
        from result_pages import answer_html

        remasking, temperature, noise = others
        wanted = Settings(steps, seed, guidance, scheduler, remasking, temperature, noise)
        return answer_html(answer(found[name], text, wanted))

    given = [checkpoint, problem, steps, seed, guidance, scheduler, remasking, temperature, noise]
    compute([button.click, problem.submit], run, given, result)


def make_votes_tab(found: dict[str, Checkpoint]) -> None:
    """Lay out the tab in which paths vote."""
    first = found.get("hex-voting", next(iter(found.values())))  # made for this: a single path of it is often wrong
    with gr.Row():
        with gr.Column(scale=2, min_width=340):
            checkpoint, problem, examples = make_problem_box(found, "vote", first)
            button = gr.Button("Hold the vote", variant="primary", elem_id="vote-answer")
            with gr.Accordion("Who votes", open=True):
                lengths = gr.CheckboxGroup(
                    list(first.block_lengths),
                    value=list(first.block_lengths),
                    label="Block lengths",
                    elem_id="vote-lengths",
                )
                num_seeds = make_slider(choices.NUM_SEEDS, "vote-seeds")
                temperature = make_slider(choices.VOTE_TEMPERATURE, "vote-temperature")
                ties = gr.Dropdown(list(choices.TIE_RULES.items()), label="A tie goes to")
                early = gr.Checkbox(False, label="Stop when the vote is decided", elem_id="vote-early")
                seed = make_seed("vote")
        with gr.Column(scale=5, min_width=480):
            gr.Markdown(VOTES_INTRODUCTION, elem_id="vote-introduction")
            result = make_result("vote")

    def choose(name: str) -> list:
        sizes = list(found[name].block_lengths)
        return [*introduce(found[name]), gr.CheckboxGroup(sizes, value=sizes), ""]

    changed = [problem, examples, lengths, result]
    checkpoint.change(choose, checkpoint, changed, queue=False, show_progress="hidden", api_visibility="private")

    def run(name: str, text: str, lengths: list[int], *others) -> str:
        from path_votes import hold_election
        from result_pages import election_html

        return election_html(hold_election(found[name], text, lengths, *others))

    given = [checkpoint, problem, lengths, num_seeds, temperature, ties, early, seed]
    compute([button.click, problem.submit], run, given, result)


def make_search_tab(found: dict[str, Checkpoint]) -> None:
    """Lay out the tab of many trajectories."""
    with gr.Row():
        with gr.Column(scale=2, min_width=340):
            checkpoint, problem, examples = make_problem_box(found, "search")
            button = gr.Button("Think", variant="primary", elem_id="search-answer")
            with gr.Accordion("How it thinks", open=True):
                number = make_slider(choices.NUM_TRAJECTORIES, "search-count")
                steps = make_slider(choices.SEARCH_STEPS, "search-steps")
                noise = make_slider(
                    choices.SEARCH_NOISE, "search-noise", "Standard deviation; more finds more, and errs more."
                )
                diversity = make_slider(
                    choices.DIVERSITY, "search-diversity", "How strongly trajectories repel each other."
                )
                select = gr.Radio(
                    list(choices.SELECTIONS.items()), value="verifier", label="Choose by", elem_id="search-select"
                )
                seed = make_seed("search")
        with gr.Column(scale=5, min_width=480):
            gr.Markdown(SEARCH_INTRODUCTION, elem_id="search-introduction")
            result = make_result("search")

    def choose(name: str) -> list:
        return [*introduce(found[name]), ""]

    changed = [problem, examples, result]
    checkpoint.change(choose, checkpoint, changed, queue=False, show_progress="hidden", api_visibility="private")

    def run(name: str, text: str, *others) -> str:
        from result_pages import search_html
        from trains_of_thought import search

        return search_html(search(found[name], text, *others))

    given = [checkpoint, problem, number, steps, noise, diversity, select, seed]
    compute([button.click, problem.submit], run, given, result)


def warm_up(checkpoint: Checkpoint) -> None:
    """Import and load, while the first visitor reads, what the first answer needs."""
    import result_pages  # noqa: F401
    from answers import answer, held_out_problem

    problem, _ = held_out_problem(checkpoint, 0)
    answer(checkpoint, problem, Settings(choices.STEPS[checkpoint.system].start))


if __name__ == "__main__":
    main()
