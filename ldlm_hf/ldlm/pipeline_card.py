"""The model card that goes to the Hub with a pipeline that has none of its own."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import ModelCard, ModelCardData


def card_of_pipeline(repo_id: str, origin: str | None, task: str | None) -> ModelCard:
    """Return the card in the folder `origin` that a pipeline was loaded from, or a short one for `repo_id`."""
    if origin and (Path(origin) / "README.md").is_file():
        return ModelCard.load(Path(origin) / "README.md")
    data = ModelCardData(
        library_name="ldlm_hf", pipeline_tag="text-generation", tags=["latent-diffusion", "reasoning"]
    )
    trained_on = f" on the task `{task}`" if task else ""
    return ModelCard(
        f"---\n{data.to_yaml()}\n---\n\n# {repo_id.split('/')[-1]}\n\n"
        f"A latent-diffusion reasoner{trained_on}.\n\n```python\nfrom ldlm_hf import LatentReasoningPipeline\n\n"
        f'pipe = LatentReasoningPipeline.from_pretrained("{repo_id}")\n```\n'
    )
