"""Advantages, ratios, divergence and means over tokens, against closed forms."""

import pytest
import torch

from ldlm_hf.d1.losses import aggregate, clipped_loss, group_advantages, is_clipped, k3_divergence, log_ratio


def test_advantages_are_rewards_less_the_mean_of_their_group():
    rewards = torch.tensor([1.0, 0.0, 2.0, 5.0, 5.0, 2.0])
    torch.testing.assert_close(group_advantages(rewards, 3), torch.tensor([0.0, -1.0, 1.0, 1.0, 1.0, -2.0]))
    scaled = group_advantages(rewards, 3, "group")
    torch.testing.assert_close(scaled[:3], torch.tensor([0.0, -1.0, 1.0]) / 1.0001)
    torch.testing.assert_close(scaled[3:], torch.tensor([1.0, 1.0, -2.0]) / (3**0.5 + 1e-4))
    batch = group_advantages(rewards, 3, "batch")
    torch.testing.assert_close(batch, torch.tensor([0.0, -1.0, 1.0, 1.0, 1.0, -2.0]) / (rewards.std() + 1e-4))


def test_what_is_worse_than_its_group_can_weigh_less_or_nothing():
    rewards = torch.tensor([1.0, 0.0, 0.0, 5.0, 5.0, 5.0])
    torch.testing.assert_close(
        group_advantages(rewards, 3, negative_weight=0.5)[:3], torch.tensor([2.0, -0.5, -0.5]) / 3
    )
    assert group_advantages(rewards, 3, negative_weight=0.0).tolist() == pytest.approx([2 / 3, 0, 0, 0, 0, 0])


def test_without_a_baseline_the_advantage_is_the_reward_in_a_group_of_equals_too():
    rewards = torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 1.0])
    assert group_advantages(rewards, 3, baseline="none").tolist() == rewards.tolist()
    with pytest.raises(ValueError, match="advantage_baseline"):
        group_advantages(rewards, 3, baseline="batch")


@pytest.mark.parametrize("scaling", ["none", "group", "batch"])
def test_a_group_of_equals_has_no_advantage_at_all(scaling):
    rewards = torch.tensor([0.1] * 3 + [0.1, 0.2, 0.4])  # the mean of three times 0.1 is not 0.1 in float32
    advantages = group_advantages(rewards, 3, scaling)
    assert advantages[:3].tolist() == [0.0, 0.0, 0.0]
    assert (advantages[3:] != 0).all()


@pytest.mark.parametrize(("rewards", "size"), [(torch.zeros(5), 2), (torch.zeros(4), 1), (torch.zeros(2, 2), 2)])
def test_rewards_that_are_no_groups_are_refused(rewards, size):
    with pytest.raises(ValueError, match="groups"):
        group_advantages(rewards, size)


def test_the_ratio_counts_until_it_is_clipped_on_the_side_of_the_advantage():
    ratios = torch.tensor([[0.5, 0.9, 1.2, 1.6]]).repeat(3, 1).log().requires_grad_()
    advantages = torch.tensor([2.0, -1.0, 0.0])
    losses = clipped_loss(ratios, advantages, 0.2, 0.3)
    expected = [[-1.0, -1.8, -2.4, -2.6], [0.8, 0.9, 1.2, 1.6], [0.0] * 4]
    torch.testing.assert_close(losses, torch.tensor(expected))
    losses.sum().backward()
    low, high = is_clipped(ratios, advantages, 0.2, 0.3)
    assert low.tolist() == [[False] * 4, [True, False, False, False], [False] * 4]
    assert high.tolist() == [[False, False, False, True], [False] * 4, [False] * 4]
    assert ((ratios.grad == 0) == (low | high | (advantages == 0)[:, None])).all()


def test_ratios_in_half_precision_are_clipped_as_in_single():
    ratios, advantages = torch.tensor([[0.5, 1.1, 12.0]], dtype=torch.float16), torch.tensor([-1.0])
    for epsilon_high in (0.3, 1e30):
        losses = clipped_loss(ratios, advantages, 0.2, epsilon_high)
        torch.testing.assert_close(losses, clipped_loss(ratios.float(), advantages, 0.2, epsilon_high))
        assert losses.dtype is torch.float32
    assert losses[0, 2] == ratios[0, 2].float().exp()  # 162,755, which half precision does not hold


def test_a_sequences_ratio_is_the_geometric_mean_of_those_of_its_tokens():
    torch.manual_seed(0)
    some, others, mask = torch.randn(2, 4), torch.randn(2, 4), torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]).bool()
    found = log_ratio(some, others, mask, "sequence").exp()
    for row, count in enumerate((3, 2)):
        ratios = (some - others)[row, :count].exp()
        torch.testing.assert_close(found[row, 0], ratios.prod() ** (1 / count))
    torch.testing.assert_close(log_ratio(some, others, mask), some - others)


def test_k3_is_the_divergence_on_average_and_never_negative():
    policy, reference = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.2, 0.3, 0.5])
    values = k3_divergence((reference / policy).log())
    assert (values >= 0).all()
    torch.testing.assert_close((policy * values).sum(), (policy * (policy / reference).log()).sum())
    assert k3_divergence(torch.zeros(3)).tolist() == [0.0] * 3


def test_means_over_tokens_and_over_sequences():
    losses = torch.tensor([[1.0, 2.0, 9.0], [6.0, 9.0, 9.0]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert aggregate(losses, mask, "bnpo").item() == 3.0
    assert aggregate(losses, mask, "grpo").item() == (1.5 + 6) / 2
    assert aggregate(losses, mask, "dr_grpo", max_length=3).item() == 9 / 6
    assert aggregate(losses, mask, "dapo", num_tokens=6).item() == 1.5
    with pytest.raises(ValueError, match="loss_type"):
        aggregate(losses, mask, "mean")
