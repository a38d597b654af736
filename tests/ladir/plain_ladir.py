"""The paper's sequences read plainly: one row, no packing, no cache, no padding, masks by loops."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from ldlm_hf.ladir.losses import predicted_velocity
from ldlm_hf.ladir.modeling_ladir import LaDiRForReasoning


def plain_states(model: LaDiRForReasoning, pieces: list[tuple[str, Tensor]]) -> Tensor:
    """Return the hidden states of a row of `question`, `block`, `noisy` and `answer` pieces, each `(length, width)`."""
    places = [(i, j, kind) for i, (kind, piece) in enumerate(pieces) for j in range(len(piece))]
    mask = torch.full((len(places), len(places)), torch.finfo(torch.float32).min)
    for row, (i, j, kind) in enumerate(places):
        for column, (other, place, _) in enumerate(places):
            if other < i or (other == i and (kind in ("block", "noisy") or place <= j)):
                mask[row, column] = 0.0
    positions, at = [], 0
    for kind, piece in pieces:
        length = len(piece) - (kind == "noisy")
        own = list(range(at, at + length))
        positions += [own[0], *own] if kind == "noisy" else own  # the timestep token takes no place
        at += length
    output = model.language_model.base_model(
        inputs_embeds=torch.cat([piece for _, piece in pieces])[None],
        attention_mask=mask[None, None],
        position_ids=torch.tensor([positions]),
        use_cache=False,
    )
    return output.last_hidden_state[0]


def question_piece(model: LaDiRForReasoning, ids: Tensor, dropped: bool = False) -> tuple[str, Tensor]:
    embeddings = model.language_model.get_input_embeddings()(ids)
    if dropped:
        kept = [i for i, token in enumerate(ids.tolist()) if token == model.config.bos_token_id]
        embeddings = torch.stack([embeddings[i] if i in kept else model.null_condition for i in range(len(ids))])
    return "question", embeddings


def clean_piece(model: LaDiRForReasoning, latents: Tensor) -> tuple[str, Tensor]:
    bot, eot = model.markers.weight[0], model.markers.weight[1]
    return "block", torch.cat([bot[None], model.latent_in(latents), eot[None]])


def noisy_piece(model: LaDiRForReasoning, latents: Tensor, t: Tensor) -> tuple[str, Tensor]:
    bot, eot = model.markers.weight[0], model.markers.weight[1]
    time = model.time_embedding(model.time_features(t[None] * 1000))
    return "noisy", torch.cat([bot[None], time, model.latent_in(latents), eot[None]])


def plain_prediction(model, question: tuple[str, Tensor], clean: list[Tensor], noised: Tensor, t: Tensor) -> Tensor:
    """Return the prediction for a block behind a question and clean blocks."""
    pieces = [question, *(clean_piece(model, latents) for latents in clean), noisy_piece(model, noised, t)]
    return model.latent_out(plain_states(model, pieces)[-len(noised) - 1 : -1])


def plain_losses(model, question, blocks: list[Tensor], answer: Tensor, times: Tensor, noise: Tensor):
    """Return the three losses of one problem; `times` is `(blocks, copies)`."""
    flow = []
    for b, block in enumerate(blocks):
        for c in range(times.shape[1]):
            t = times[b, c]
            noised = (1 - t) * block + t * noise[b, c]
            prediction = plain_prediction(model, question, blocks[:b], noised, t)
            wanted = {"flow": noise[b, c] - block, "sample": block, "epsilon": noise[b, c]}
            wanted["v_prediction"] = (1 - t) * noise[b, c] - t * block
            flow.append((prediction - wanted[model.config.prediction_type]).square().mean())
    stops = []
    for b in range(len(blocks)):
        pieces = [question, *(clean_piece(model, latents) for latents in blocks[: b + 1])]
        logits = model.stop_head(plain_states(model, pieces)[-1])
        stops.append(cross_entropy(logits[None], torch.tensor([int(b == len(blocks) - 1)])))
    tokens = model.language_model.get_input_embeddings()(answer)
    written = ("answer", torch.cat([model.markers.weight[2][None], tokens[:-1]]))
    states = plain_states(model, [question, *(clean_piece(model, latents) for latents in blocks), written])
    logits = model.language_model.get_output_embeddings()(states[-len(answer) :])
    flow_loss = torch.stack(flow).mean() if flow else torch.tensor(0.0)
    return flow_loss, cross_entropy(logits, answer), torch.stack(stops).mean()


def plain_rollout(model, question, noise: Tensor, num_steps: int) -> list[Tensor]:
    """Return blocks generated from `(blocks, length, dim)` noise, one full pass a step."""
    blocks: list[Tensor] = []
    for latents in noise:
        for step in range(num_steps):
            t = torch.tensor(1 - step / num_steps)
            prediction = plain_prediction(model, question, blocks, latents, t)
            latents = latents - predicted_velocity(prediction, latents, t, model.config.prediction_type) / num_steps
        blocks.append(latents)
    return blocks
