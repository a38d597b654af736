"""Loading weights completely or not at all.

The libraries fill weights that a checkpoint lacks with fresh random ones and warn; a model that answers at random is a
silent wrong answer, so here it is an error. Only safetensors are read, never a pickle.
"""

from __future__ import annotations


def complete_loading_kwargs(kwargs: dict) -> dict:
    """Return `from_pretrained` keywords that refuse pickled weights and report what was missing.

    Raises:
        ValueError: if the caller asks for pickled weights.
    """
    if kwargs.get("use_safetensors") is False:
        raise ValueError("`use_safetensors=False` would read a pickle; only safetensors are loaded.")
    return {**kwargs, "use_safetensors": True, "output_loading_info": True}


def check_complete(name: str, source: object, info: dict) -> None:
    """Raise `OSError` if the loading `info` of a checkpoint says that weights were missing or of another shape."""
    missing, mismatched = sorted(info["missing_keys"]), sorted(map(str, info["mismatched_keys"]))
    if missing or mismatched:
        wrong = [f"{len(missing)} missing weights such as {missing[:3]}"] if missing else []
        wrong += [f"{len(mismatched)} weights of another shape such as {mismatched[:3]}"] if mismatched else []
        raise OSError(
            f"The checkpoint {str(source)!r} is no complete {name}: {' and '.join(wrong)}. Download it again."
        )
