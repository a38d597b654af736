"""Answers, elections and searches as HTML; `player.js` makes the steps of an answer move."""

from __future__ import annotations

from html import escape

from answers import Answer, Frame
from path_votes import Election
from pictures import (
    bars,
    canvas,
    canvas_line,
    heat_map,
    is_grid,
    mark,
    marked,
    solved_board,
    spaced,
    table,
    verdict_panel,
)
from trains_of_thought import Search, Trajectory


ESTIMATE = "What the model takes the clean text to be"
LEFT = {"latent": "noise", "masked": "masks", "thoughts": "noise"}
GIVEN = "<p>Digits that the problem gives are <b>bold</b>: the model has to write them, too.</p>"
LEGEND = (
    '<div class="legend"><p>What this step filled in is <span class="new">highlighted</span>.</p>{given}'
    '<p>What differs from the solution is <span class="wrong">underlined</span>.</p></div>'
)
READINGS = {"latent": "What the latents read as", "thoughts": "What this block reads as"}
RULES = {"verifier": "chosen by the task's check", "majority": "by majority", "first": "the first alone"}


def answer_html(answer: Answer) -> str:
    """Return an answer: whether it is right, its steps one by one, and all of them as a table."""
    last = len(answer.frames) - 1
    goals = _goals(answer)
    frames = "".join(
        f'<div class="frame" data-frame="{number}" {"hidden" * (number < last)}>{_frame(answer, frame, goal)}</div>'
        for number, (frame, goal) in enumerate(zip(answer.frames, goals, strict=True))
    )
    strip = "".join(
        f'<button type="button" data-frame="{number}" title="{escape(frame.label)}">{heat_map(frame.latents, frame.label)}</button>'
        for number, frame in enumerate(answer.frames)
        if frame.latents is not None
    )
    labels = "".join(
        f'<span data-frame="{number}" {"hidden" * (number < last)}><b>{escape(frame.label)}</b>, {escape(frame.noise)}</span>'
        for number, frame in enumerate(answer.frames)
    )
    return (
        f'<div class="result">{verdict_panel(answer.answer, answer.verdict, _note(answer))}'
        f'<section class="player" data-last="{last}"><div class="controls">'
        '<button type="button" class="play" aria-label="Play the steps">▶ Play</button>'
        f'<input type="range" min="0" max="{last}" value="{last}" aria-label="Denoising step">'
        f'<div class="labels">{labels}</div></div><div class="stage">{frames}</div>'
        f"{strip and f'<div class=strip>{strip}</div>'}</section>{_steps(answer, goals)}</div>"
    )


def election_html(election: Election) -> str:
    """Return an election: the winner, how many voted for what, and every vote."""
    tie = " The first places were tied; the rule for ties decided." if election.is_tied else ""
    note = f"{len(election.votes)} of {election.num_paths} paths voted, in {election.num_passes} forward passes.{tie}"
    grid = ""
    if election.winner is not None and is_grid(election.winner) and is_grid(election.problem):
        right = election.winner if election.verdict.is_correct else election.verdict.right_answer
        grid = solved_board(election.problem, election.winner, right)
    counts = [(item.answer, item.num_votes, item.is_right, item.is_winner) for item in election.candidates]
    rows = [
        (
            f'class="{"chosen" if vote.is_for_winner else ""}"',
            (
                str(vote.block_length),
                str(vote.seed),
                f"<code>{escape(spaced(vote.answer)) if vote.answer else 'abstains'}</code>",
                mark(vote.is_right),
                "◀ won" if vote.is_for_winner else "",
                "" if vote.num_passes is None else str(vote.num_passes),
            ),
        )
        for vote in election.votes
    ]
    headers = ("block length", "seed", "answer", "right", "won", "forward passes")
    return (
        f'<div class="result">{verdict_panel(election.winner, election.verdict, note)}'
        f'<div class="beside">{grid}{bars(counts, "Votes for each answer", "won")}</div>{table(headers, rows, "votes")}</div>'
    )


def search_html(search: Search) -> str:
    """Return a search: the chosen answer, how often each was given, and every trajectory."""
    found = sum(trajectory.is_right for trajectory in search.trajectories)
    rules = "; ".join(f"{RULES[rule]}: {'right' if right else 'wrong'}" for rule, right in search.by_rule.items())
    note = f"{found} of {len(search.trajectories)} trajectories are right; {rules}."
    chosen = search.chosen.text
    counts = [(text, count, right, text == chosen) for text, count, right in search.counts]
    most = max(len(trajectory.thoughts) for trajectory in search.trajectories)
    rows = [
        (f'class="{"chosen" if trajectory.is_chosen else ""}"', _trajectory_cells(number, trajectory, most))
        for number, trajectory in enumerate(search.trajectories, start=1)
    ]
    headers = ("#", *(f"block {number}" for number in range(1, most + 1)), "stopped", "wrote", "right", "chosen")
    return (
        f'<div class="result">{verdict_panel(chosen, search.verdict, note)}'
        f"{bars(counts, 'How often each answer was written', 'chosen')}{table(headers, rows, 'trajectories')}</div>"
    )


def _frame(answer: Answer, frame: Frame, goal: str) -> str:
    if frame.cells:
        has_grid = is_grid(answer.problem)
        return canvas(frame.cells, has_grid) + LEGEND.format(given=GIVEN if has_grid else "")
    thoughts = "".join(f"<li>{marked(text, text)}</li>" for text in frame.before)
    before = f'<p>Finished blocks</p><ol class="thoughts">{thoughts}</ol>' if thoughts else ""
    rows, columns = frame.latents.shape
    return (
        f"<figure>{heat_map(frame.latents, 'latents ' + frame.label)}<figcaption>{rows} latent vectors of {columns}, "
        f'<span class="below">below</span> and <span class="above">above</span> zero</figcaption></figure>'
        f'<div class="readings">{before}<p>{READINGS[answer.system]} {mark(frame.is_right)}</p>'
        f'<div class="big">{marked(frame.reading, goal)}</div>'
        f"{f'<p>{ESTIMATE}</p><div>{marked(frame.estimate, goal)}</div>' if frame.estimate is not None else ''}</div>"
    )


def _goals(answer: Answer) -> list[str]:
    """Return what each frame becomes: the last reading, of its own block where there are several."""
    ends = {len(frame.before): frame.reading for frame in answer.frames}
    return [ends[len(frame.before)] for frame in answer.frames]


def _note(answer: Answer) -> str:
    if answer.system != "thoughts":
        return ""
    final = answer.frames[-1]
    return f"It thought {' → '.join((*final.before, final.reading))} and wrote {answer.text}."


def _steps(answer: Answer, goals: list[str]) -> str:
    rows = []
    for number, (frame, goal) in enumerate(zip(answer.frames, goals, strict=True)):
        texts = [canvas_line(frame.cells, is_grid(answer.problem))] if frame.cells else [marked(frame.reading, goal)]
        if not frame.cells:
            texts.append("" if frame.estimate is None else marked(frame.estimate, goal))
        cells = (escape(frame.label), escape(frame.noise), *texts, mark(frame.is_right))
        rows.append((f'data-frame="{number}" class="{"current" * (number == len(goals) - 1)}"', cells))
    columns = ("the canvas",) if answer.frames[0].cells else ("reads as", "the model's estimate")
    judged = "true" if answer.system == "thoughts" else "right"
    return table(("step", LEFT[answer.system], *columns, judged), rows, "steps")


def _trajectory_cells(number: int, trajectory: Trajectory, most: int) -> tuple[str, ...]:
    blocks = [f"<code>{escape(thought.text)}</code> {mark(thought.is_true)}" for thought in trajectory.thoughts]
    count = len(blocks)
    stop = f"after {count} block{'s' * (count != 1)}{', the most' if trajectory.reached_limit else ''}"
    return (
        str(number),
        *blocks,
        *[""] * (most - count),
        stop,
        f"<code>{escape(trajectory.text)}</code>",
        mark(trajectory.is_right),
        "◀ chosen" if trajectory.is_chosen else "",
    )
