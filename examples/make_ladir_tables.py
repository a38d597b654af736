"""Turn the files of `run_ladir_study.py` into what the card of a latent reasoner says: arms, controls, sweeps, verdicts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from make_d1_tables import spread

from ldlm_hf.evaluation import write_results
from ldlm_hf.plots import plot_accuracy
from ldlm_hf.tasks import get_task
from ldlm_hf.training import read_recipe


RECIPES = Path(__file__).parent / "recipes" / "ladir"
STUDIES = {  # folder: title and recipe
    "countdown_2_to_4": ("Two, three or four numbers", "countdown_2_to_4.yaml"),
    "countdown": ("Two or three numbers", "countdown_mixed.yaml"),
}
ARMS = {
    "autoregressive": "language model, writes its steps",
    "longer_autoregressive": "language model, more steps",
    "masked_diffusion": "masked diffusion model, as many steps as that",
    "stage_1": "latent reasoner, stage 1",
    "more_stage_1": "and more of stage 1",
    "stage_2": "and stage 2 instead",
    "longer_stage_1": "stage 1 for longer, from the top of its schedule again",
    "autoregressive_again": "language model again, which those below start from",
    "coarse": "latent reasoner, stage 1, on coarse latents",
    "context": "latent reasoner, stage 1, on coarser latents, read with the question",
    "context_longer_stage_1": "stage 1 for longer, on coarser latents, read with the question",
    "blank": "control: stage 1 on latents that hold nothing",
}
COMPARISONS = (  # which arm is compared with which
    *(("stage_1", other) for other in ("autoregressive", "longer_autoregressive", "masked_diffusion", "blank")),
    *(("longer_stage_1", other) for other in ("autoregressive", "longer_autoregressive")),
    ("coarse", "autoregressive_again"),
    *(("context", other) for other in ("autoregressive_again", "blank")),
    ("context_longer_stage_1", "autoregressive_again"),
    ("blank", "autoregressive_again"),
)
SWEEPS = {  # title, what is varied, and what is not, where it is not as in the pipeline's defaults
    "num_inference_steps": ("Denoising steps", "steps a block", ""),
    "initial_noise_scale": ("Initial noise", "standard deviations", ""),
    "num_trajectories": ("Trajectories", "of each problem", ""),
    "guidance_scale": ("Guidance", "scale", ""),
    "diversity_scale": (
        "Repulsion between the trajectories of a problem, and its controls",
        "what, and how strong",
        "problems of the most numbers only, as many blocks as those take; ",
    ),
    "given_steps": (
        "True steps in place of the first ones",
        "steps given",
        "problems of the most numbers only, as many blocks as those take; ",
    ),
}
VARIANTS = {  # of stage 1 and its autoencoder: what differs
    "wider": "latents of twice the size",
    "readout": "latents of twice the size, and a readout of the equation trained along",
    "sample": "predicts the clean latents",
    "flow": "predicts the velocity (paper)",
    "v_prediction": "predicts v",
    "epsilon": "predicts the noise",
    "latent_noise_0": "predicts the clean latents, no noise on the autoencoder's",
    "latent_noise_0.7": "predicts the clean latents, noise of 0.7 on the autoencoder's",
    "latent_noise_1": "predicts the clean latents, noise of 1.0 on the autoencoder's",
    "latent_noise_1.5": "predicts the clean latents, noise of 1.5 on the autoencoder's",
    "wide_noise_1": "latents of twice the size, noise of 1.0 on them",
    "substitution": "predicts the clean latents, three in ten tokens of the autoencoder's input replaced (paper)",
}
CONTENTS = {  # of latents: whose, and the arm or variant that reasons in them
    "plain": ("as in the first table", "stage_1"),
    "wider": ("latents of twice the size", "wider"),
    "readout": ("latents of twice the size, and a readout", "readout"),
    "coarse": ("coarse latents", "coarse"),
    "latent_noise_1.5": ("noise of 1.5 on them", "latent_noise_1.5"),
    "context": ("coarser latents, read with the question", "context"),
}
PASSES = (1, 8, 32)
SEEDS = 3  # of a row that says nothing of them
MARGIN = 2.0  # standard errors of a difference that is called one


def hand_out_latents(folder: Path, card: Path) -> None:
    """Write the studies in a folder into the results of a card, and draw their sweeps over denoising steps."""
    if not (card / "results").is_dir():
        return
    studies = {name: study for name in STUDIES if (study := study_of(folder / name))}
    speed = folder / "speed.json"
    own = {"ladir_speed": json.loads(speed.read_text())["ladir_speed"]} if speed.exists() else {}
    figures = {}
    for name, study in studies.items():
        if "num_inference_steps" in study["sweeps"]:
            path = f"figures/steps_{name}.png"
            (card / "figures").mkdir(exist_ok=True)
            plot_accuracy(steps_curve(study["sweeps"]["num_inference_steps"]), card / path)
            title = f"{study['title']}: one trajectory's accuracy, and the share of solutions found by all"
            figures[f"{title}, against denoising steps"] = path
    write_results(card / "results" / "study.json", {"ladir_studies": studies, "figures": figures, **own})


def study_of(folder: Path) -> dict | None:
    """Return what a card says of a study, whose name its folder has, if there is one."""
    title, recipe = STUDIES[folder.name]
    arms = {arm: results for arm in ARMS if (results := read(folder, arm))}
    if not arms:
        return None
    first = next(iter(arms.values()))[0]["sampled"]
    table = {arm: row_of(arm, results) for arm, results in arms.items()}
    sweeps = {name: sweep_of(name, results) for name in SWEEPS if (results := read(folder, name))}
    contents = [f"content_{name}" for name in CONTENTS]
    commands = [result["command"] for name in (*ARMS, *SWEEPS, *VARIANTS, *contents) for result in read(folder, name)]
    variants = {"stage_1": "as in the first table", **VARIANTS}
    variants = {name: variant_of(what, results) for name, what in variants.items() if (results := read(folder, name))}
    return {
        "title": title,
        "arms": table,
        "ks": [str(k) for k in PASSES if f"pass@{k}" in first],
        "counts": sorted(first["by_count"]),
        "sweeps": sweeps,
        "variants": list(variants.values()) if len(variants) > 1 else [],
        "contents": [
            content_of(what, arm, path)
            for name, (what, arm) in CONTENTS.items()
            for path in sorted(folder.glob(f"content_{name}-[0-9]*.json"))
        ],
        "comparisons": comparisons(table),
        "verdicts": verdicts(table, sweeps),
        "num_problems": first["num_problems"],
        "kinds": kinds_of(recipe, first["num_problems"]),
        "num_samples": first["num_samples"],
        "existing_solutions": first["existing_solutions"],
        "num_inference_steps": arms["stage_1"][0]["sampled"]["settings"]["num_inference_steps"],
        "tried": {
            "temperatures": tried(arms["autoregressive"]),
            "noises": tried(arms["stage_1"]),
            "drawn": any(row["drawn"] for row in table.values()),
            "careful": {arm: careful_of(results) for arm, results in arms.items()},
            "guidance": "guidance_scale" in arms["stage_1"][0]["precise"].get("settings", {}),
        },
        "commands": list(dict.fromkeys(commands)),
    }


def kinds_of(recipe: str, num_problems: int) -> dict[str, int]:
    """Return how many of a study's problems are of each kind."""
    values = read_recipe(RECIPES / recipe)
    task = get_task(values["task"], **values["task_arguments"])
    return dict(sorted(Counter(map(task.kind, task.to_dataset("test", num_problems)["prompt"])).items()))


def steps_curve(sweep: dict) -> list[dict]:
    """Return the points of a sweep over denoising steps as `plot_accuracy` takes them."""
    return [
        {
            "num_inference_steps": int(point["value"]),
            "answer_accuracy": point[figure],
            "num_problems": sweep["num_problems"],
            "scheduler": label,
        }
        for figure, label in (("pass_1", "pass@1"), ("share", "share of all solutions found"))
        for point in sweep["points"]
    ]


def read(folder: Path, name: str) -> list[dict]:
    """Return the results of an arm or sweep, one for each seed."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob(f"{name}-[0-9]*.json"))]


def tried(results: list[dict]) -> list[float]:
    """Return the temperatures or noises that an arm was tried with on validation problems."""
    return sorted({float(value) for result in results for value in result["validation"]})


def careful_of(results: list[dict]) -> str | None:
    """Return what was chosen for one answer of a reasoner in each seed, such as "noise 0.15, 5 steps"."""
    chosen = [result["precise"].get("settings", {}) for result in results]
    if "initial_noise_scale" not in chosen[0]:
        return None
    guidances = [f", guidance {one['guidance_scale']:g}" if "guidance_scale" in one else "" for one in chosen]
    return "; ".join(
        f"noise {one['initial_noise_scale']:g}, {one['num_inference_steps']} steps{guidance}"
        for one, guidance in zip(chosen, guidances, strict=True)
    )


def row_of(arm: str, results: list[dict]) -> dict:
    """Return what a table says of an arm: means and standard errors over its seeds."""
    sampled = [result["sampled"] for result in results]
    row = {
        "name": ARMS[arm] + ("" if len(results) == SEEDS else f", seeds: {len(results)}"),
        "seeds": len(results),
        "precise": spread([result["precise"]["pass@1"] for result in results]),
        "passes": {str(k): spread([one[f"pass@{k}"] for one in sampled]) for k in PASSES if f"pass@{k}" in sampled[0]},
        "majority": spread([one["majority"] for one in sampled]) if "majority" in sampled[0] else None,
        "share": spread([one["share_of_solutions"] for one in sampled]),
        "unique_texts": spread([one["unique_texts"] for one in sampled]),
        "by_count": {count: spread([one["by_count"][count] for one in sampled]) for count in sampled[0]["by_count"]},
        "seconds": sum(one["seconds"] for one in sampled) / len(sampled),
        "parameters": {name: stage["parameters"] for name, stage in results[0]["training"].items()},
        "training": [
            {"steps": stage["steps"], "batch_size": stage["batch_size"]} for stage in results[0]["training"].values()
        ],
        "least_seconds": min(sum(stage["seconds"] for stage in one["training"].values()) for one in results),
        "settings": [
            one.get("settings", {"temperature": r["summary"].get("temperature")})
            for one, r in zip(sampled, results, strict=True)
        ],
        "stop_accuracy": spread([one["stop_accuracy"] for one in sampled]) if "stop_accuracy" in sampled[0] else None,
        "drawn": drawn_of(results),
        "given": None,
        "thoughts": None,
        "reconstruction": [one["training"].get("vae", {}).get("exact_reconstruction") for one in results],
    }
    if "given_latents" in results[0]:
        names = results[0]["given_latents"]
        row["given"] = {name: spread([result["given_latents"][name] for result in results]) for name in names}
        names = sampled[0]["thoughts"]
        row["thoughts"] = {name: spread([one["thoughts"][name] for one in sampled]) for name in names}
    return row


def drawn_of(results: list[dict]) -> dict | None:
    """Return what an arm finds where its answers are drawn at a temperature, or `None` if a seed was not measured so."""
    if not all("drawn" in result for result in results):
        return None
    drawn = [result["drawn"] for result in results]
    chosen = [one["settings"] for one in drawn]
    return {
        "passes": {str(k): spread([one[f"pass@{k}"] for one in drawn]) for k in PASSES if f"pass@{k}" in drawn[0]},
        "share": spread([one["share_of_solutions"] for one in drawn]),
        "settings": "; ".join(
            f"noise {one['initial_noise_scale']:g}, temperature {one['temperature']:g}" for one in chosen
        ),
    }


def sweep_of(name: str, results: list[dict]) -> dict:
    """Return the points of a sweep, means over the seeds."""
    title, what, fixed = SWEEPS[name]
    points, first = [], next(iter(results[0]["points"].values()))["sampled"]
    for value, point in results[0]["points"].items():
        found = [result["points"][value]["sampled"] for result in results]
        most = max(
            (figure for figure in point["sampled"] if figure.startswith("pass@")), key=lambda figure: int(figure[5:])
        )
        own = {"pass_1": "pass@1", "any": most, "share": "share_of_solutions"}
        means = {key: sum(one[figure] for one in found) / len(found) for key, figure in own.items()}
        points.append({"value": value.replace("_", " "), **means})
    if name != "num_inference_steps" and "num_inference_steps" in first["settings"]:
        fixed += f"{first['settings']['num_inference_steps']} steps; "
    sizes = {"num_problems": first["num_problems"], "seeds": len(results)}
    if name != "num_trajectories":
        sizes["num_samples"] = first["num_samples"]
    return {"title": title, "what": what, "arm": ARMS[results[0]["arm"]], "fixed": fixed, "points": points, **sizes}


def variant_of(what: str, results: list[dict]) -> dict:
    """Return what a variant of stage 1 reaches, and how well its autoencoder reads its own latents, means over the seeds."""
    sampled, vae = [result["sampled"] for result in results], [result["training"]["vae"] for result in results]
    most = max(k for k in PASSES if f"pass@{k}" in sampled[0])
    figures = {
        "precise": [result["precise"]["pass@1"] for result in results],
        "any": [one[f"pass@{most}"] for one in sampled],
        "share": [one["share_of_solutions"] for one in sampled],
        "reconstruction": [one["exact_reconstruction"] for one in vae],
        "noisy_reconstruction": [one["exact_reconstruction_noise_0.5"] for one in vae],
    }
    (steps,) = {result["training"]["reasoner"]["steps"] for result in results}  # seeds of other lengths have no mean
    means = {name: sum(each) / len(each) for name, each in figures.items()}
    return {"what": what, "seeds": len(results), "steps": steps, **means}


def content_of(what: str, arm: str, path: Path) -> dict:
    """Return what probes read in the latents of one autoencoder, and what the reasoner of the same seed finds with them."""
    result, seed = json.loads(path.read_text()), path.stem.rpartition("-")[2]
    shares, reasoner = result["shares"], path.with_name(f"{arm}-{seed}.json")
    symbols = {symbol: {kind: share[symbol] for kind, share in shares.items()} for symbol in shares["linear"]}
    row = {"what": what, "seed": seed, "symbols": symbols, "equations": result["equations"], "steps": None}
    if reasoner.exists():
        found = json.loads(reasoner.read_text())
        row |= {"steps": found["training"]["reasoner"]["steps"], "any": found["sampled"][f"pass@{max(PASSES)}"]}
    return row


def comparisons(arms: dict[str, dict]) -> list[dict]:
    """Return how pairs of arms compare: careful, and by what many samples find, with answers that are drawn where that was measured."""
    rows = []
    for own, other in COMPARISONS:
        if own in arms and other in arms:
            one, two = arms[own], arms[other]
            wide, against = (
                one["drawn"] or one,
                two["drawn"] or two,
            )  # a language model's answers are drawn in any case
            most = max(one["passes"], key=int)
            figures = {
                "precise": compare(one["precise"], two["precise"]),
                "most": compare(wide["passes"][most], against["passes"][most]),
                "share": compare(wide["share"], against["share"]),
            }
            rows.append({"one": ARMS[own], "other": ARMS[other], **figures})
    return rows


def verdicts(arms: dict[str, dict], sweeps: dict[str, dict]) -> dict[str, str]:
    """Return what the tables say of each claim of the paper."""
    latent, start = arms["stage_1"], arms["autoregressive"]
    most = max(latent["passes"], key=int)
    found = {
        "diversity": f"pass@{most} {compare(latent['passes'][most], start['passes'][most])}, and of all solutions "
        f"{compare(latent['share'], start['share'])}: stage 1 against the language model that it starts from",
        "precision": f"{compare(latent['precise'], start['precise'])}: careful, against the same",
        "thoughts": "not measured",
        "rollout": "not run",
        "repulsion": "not measured",
        "steps": "not measured",
    }
    if "blank" in arms:
        found["thoughts"] = (
            f"{compare(latent['precise'], arms['blank']['precise'])}: careful, stage 1 against the control"
        )
    if "stage_2" in arms and "more_stage_1" in arms:
        found["rollout"] = (
            f"{compare(arms['stage_2']['precise'], arms['more_stage_1']['precise'])}: careful, against as "
        )
        found["rollout"] += "long a training of stage 1"
    if "num_inference_steps" in sweeps:
        points = sweeps["num_inference_steps"]["points"]
        least, last = points[0], points[-1]
        found["steps"] = "; ".join(
            f"{name} {'yes' if last[figure] > least[figure] else 'no'}, from {100 * least[figure]:.1f} % to {100 * last[figure]:.1f} %"
            for name, figure in (("one trajectory:", "pass_1"), ("the share of solutions found:", "share"))
        )
        found["steps"] += f" (from {least['value']} to {last['value']} steps, initial noise 1)"
    if "diversity_scale" in sweeps:
        found["repulsion"] = repulsion_verdict(sweeps["diversity_scale"])
    return found


def repulsion_verdict(sweep: dict) -> str:
    """Return what repulsion and each of its controls finds at its best strength."""
    best: dict[str, tuple[float, str]] = {}
    for point in sweep["points"]:
        name, _, strength = point["value"].rpartition(" ")
        if float(strength):
            best[name] = max(best.get(name, (0.0, "")), (point["share"], strength))
    none = next(point["share"] for point in sweep["points"] if not float(point["value"].rpartition(" ")[2]))
    others = [none, *(share for name, (share, _) in best.items() if name != "repulsion")]
    verdict = "yes" if best["repulsion"][0] > max(others) else "no"
    shown = ", ".join(f"{name} {100 * share:.1f} % (at {strength})" for name, (share, strength) in best.items())
    seeds = "one seed" if sweep["seeds"] == 1 else f"{sweep['seeds']} seeds"
    return (
        f"{verdict}: of all solutions without any {100 * none:.1f} %, and at the strength that is best on these problems "
        f"{shown}; {seeds}, the sum over the other trajectories, in every step"
    )


def compare(one: dict, other: dict) -> str:
    """Return how far apart two means are, and whether that is more than chance would have it."""
    text = f"{100 * one['mean']:.1f} % against {100 * other['mean']:.1f} %"
    if None in (one["standard_error"], other["standard_error"]):
        return f"{text} (one seed)"
    gap = one["mean"] - other["mean"]
    error = (one["standard_error"] ** 2 + other["standard_error"] ** 2) ** 0.5
    return f"{text} ({'yes' if gap > MARGIN * error else 'worse' if gap < -MARGIN * error else 'no difference shown'})"
