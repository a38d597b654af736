"""The shipped reasoner at work: held-out problems, how an answer comes about, and how many steps it needs.

python examples/run_demo.py
python examples/run_demo.py --model user/name --num_problems 2000 --output_dir demo_output
"""

from __future__ import annotations

import argparse
from pathlib import Path

from diffusers import DDIMScheduler
from tqdm.auto import tqdm

from ldlm_hf import LatentReasoningPipeline, get_task
from ldlm_hf.evaluation import decoding_trajectory, evaluate_pipeline, summarize, write_results
from ldlm_hf.plots import plot_accuracy, plot_decoding_trajectory


EXAMPLE = "3+5+2+4+7"
STEP_COUNTS = (1, 2, 3, 5, 10, 20)


def main(arguments: list[str] | None = None) -> None:
    """Answer, measure and draw."""
    args = make_parser().parse_args(arguments)
    args.output_dir.mkdir(parents=True, exist_ok=True)
    pipeline = LatentReasoningPipeline.from_pretrained(args.model)
    pipeline.set_progress_bar_config(disable=True)
    task = get_task(pipeline.config.task)
    test = task.to_dataset("test", args.num_problems)

    records = evaluate_pipeline(pipeline, test, num_inference_steps=20)
    print(f"\n{'question':14} {'answer':>6}  chain")
    for record in records[:10]:
        chain = " → ".join(record.text.split()[1:])
        print(
            f"{record.prompt:14} {record.predicted_answer or '?':>6}  {chain}{'' if record.is_correct else '   (wrong)'}"
        )
    summary = summarize(records, pipeline.config.task)
    print(
        f"\n{summary['answer_accuracy']:.2%} of {len(records)} held-out problems answered correctly with 20 denoising steps"
    )

    trajectory = decoding_trajectory(pipeline, EXAMPLE)
    plot_decoding_trajectory(trajectory, args.output_dir / "trajectory.png", EXAMPLE)
    curve = accuracy_against_steps(pipeline, task.to_dataset("test", min(500, args.num_problems)))
    plot_accuracy(curve, args.output_dir / "accuracy_against_steps.png")
    write_results(args.output_dir / "demo.json", {"evaluation": summary, "steps_curve": curve})
    print(f"figures: {args.output_dir / 'trajectory.png'}, {args.output_dir / 'accuracy_against_steps.png'}")


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="model_cards/ldlm-addition", help="folder or Hub id of a pipeline")
    parser.add_argument("--num_problems", type=int, default=1000, help="held-out problems to answer")
    parser.add_argument("--output_dir", type=Path, default=Path("demo_output"), help="folder of the figures")
    return parser


def accuracy_against_steps(pipeline: LatentReasoningPipeline, problems) -> list[dict]:
    """Return the accuracy at each number of deterministic denoising steps."""
    scheduler = pipeline.scheduler
    pipeline.scheduler = DDIMScheduler.from_config(scheduler.config)
    curve = []
    for count in tqdm(STEP_COUNTS, desc="accuracy against steps"):
        records = evaluate_pipeline(pipeline, problems, num_inference_steps=count, show_progress=False)
        accuracy = sum(record.is_correct for record in records) / len(records)
        point = {"scheduler": "DDIMScheduler", "num_inference_steps": count, "answer_accuracy": accuracy}
        curve.append({**point, "num_problems": len(records)})
    pipeline.scheduler = scheduler
    return curve


if __name__ == "__main__":
    main()
