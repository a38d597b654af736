"""The script of cost against work: it runs, its page is written from its JSON alone, and its arithmetic is right."""

import json

import measure_scaling
import pytest
import scaling_page
import torch
from scaling_costs import (
    Assumptions,
    Work,
    count_work,
    knee,
    linear_from,
    linear_work,
    llada_work,
    million_on_cpu,
    million_on_gpu,
    value_at_limit,
)

from ldlm_hf import LatentDiT
from ldlm_hf.ldlm.cost import count_flops
from tests.llada.tiny_llada import tiny_masked_pipeline
from tests.tiny import tiny_pipeline


NAMES = ["masked", "latent"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("scaling")
    tiny_masked_pipeline().save_pretrained(place / "masked")
    tiny_pipeline().save_pretrained(place / "latent")
    threads = torch.get_num_threads()
    models = [str(place / name) for name in NAMES]
    measure_scaling.main(["--quick", "--rounds", "1", "--output", str(place / "results"), "--models", *models])
    torch.set_num_threads(threads)
    return place / "results"


@pytest.fixture(scope="module")
def results(folder):
    return json.loads((folder / "scaling.json").read_text())


def test_every_panel_has_its_points(results):
    scaling = results["scaling"]
    assert list(scaling["systems"]) == NAMES
    for name in NAMES:
        for panel in scaling_page.PANELS:
            line = [point for point in scaling["points"] if (point["system"], point["panel"]) == (name, panel)]
            assert len(line) == 2
            assert all(point["bytes"] > 0 and point["processor_seconds"] > 0 for point in line)
    latent = [p["value"] for p in scaling["points"] if (p["system"], p["panel"]) == ("latent", "length")]
    assert latent == [2, 4]  # the checkpoint has four


def test_a_million_costs_a_million_times_one(results):
    cores, costs = results["scaling"]["machine"]["cores"], results["costs"]
    prices = costs["assumptions"]
    for name in NAMES:
        system, cost = results["scaling"]["systems"][name], costs["million"][name]
        line = [p for p in results["scaling"]["points"] if (p["system"], p["panel"]) == (name, "processes")]
        alone, both = (p["processor_seconds"] / p["num_problems"] for p in line)
        slowed = system["seconds_with_all_cores"] / system["seconds_at_best"]
        assert slowed in (pytest.approx(both / alone), pytest.approx(1.0))  # 1 if one process gives more than two
        seconds = system["seconds_with_all_cores"] * 10**6 / cores
        assert cost["cpu"]["hours"] == pytest.approx(seconds / 3600)
        assert cost["cpu"]["usd"] == pytest.approx(seconds / 3600 * prices["usd_per_cpu_hour"])
        for each, hours, eighth, usd in zip(*(cost["gpu"][key] for key in list(cost["gpu"])[:4]), strict=True):
            assert hours == pytest.approx(each * 10**6 / 3600)
            assert (eighth, usd) == pytest.approx((hours / 8, hours * prices["usd_per_gpu_hour"]))


def test_other_prices_need_no_other_measurement(folder, results, tmp_path):
    page = (folder / "README.md").read_text()
    arguments = ["--from_json", str(folder / "scaling.json"), "--output", str(tmp_path)]
    measure_scaling.main([*arguments, "--usd_per_cpu_hour", "0.2"])
    again = json.loads((tmp_path / "scaling.json").read_text())
    assert again["scaling"] == results["scaling"]
    for name in NAMES:
        one, other = results["costs"]["million"][name]["cpu"], again["costs"]["million"][name]["cpu"]
        assert other["usd"] == pytest.approx(2 * one["usd"]) and other["hours"] == one["hours"]
    assert (tmp_path / "scaling.png").stat().st_size > 20_000
    changed = (tmp_path / "README.md").read_text()
    assert changed != page and all(f"`{name}`" in changed for name in NAMES)
    assert "| LLaDA-8B" in page and "None |" not in page and " nan" not in page


def test_work_of_a_denoiser_is_the_closed_form():
    denoiser = LatentDiT(latent_length=4, latent_dim=8, hidden_size=32, num_layers=3, num_attention_heads=2).eval()
    latents = torch.zeros(5, 4, 8)
    work = count_work(lambda: denoiser(latents, torch.zeros(5), latents), [denoiser])
    assert work.flops == count_flops(denoiser, 5)
    products = sum(weight.numel() for name, weight in denoiser.named_parameters() if "null" not in name)
    assert work.weight_bytes == pytest.approx(2 * products, rel=0.05)  # every weight is read once
    assert work.kernels > 3 * 6


def test_work_of_llada_is_the_closed_form():
    length, width, layers, vocabulary, inner = 10, 4096, 32, 126464, 12288
    weights = layers * (4 * width**2 + 3 * width * inner) + width * vocabulary
    assert llada_work(length).flops == 2 * length * weights + layers * 4 * length**2 * width


def test_work_grows_by_the_same_for_every_answer():
    assert linear_work(Work(10, 7, 5), Work(40, 10, 5), 4, 8) == Work(80, 14, 5)


def test_a_gpu_takes_as_long_as_what_binds_it():
    assumed = Assumptions(peak_flops=100.0, bandwidth=10.0, seconds_per_kernel=1.0, usd_per_gpu_hour=2.0)
    found = million_on_gpu(Work(flops=400, kernels=20, weight_bytes=150), 2, assumed)
    assert found["seconds_per_problem"] == [
        10.0,
        20.0,
    ]  # 400 / 40 = 10 and 15 are less than 20 kernels; 400 / 10 is more
    assert found["binds"] == ["kernels", "products"]
    assert million_on_gpu(Work(0, 0, 300), 1, assumed)["binds"] == ["weights", "weights"]
    assert million_on_cpu(7.2, 2, assumed)["hours"] == pytest.approx(1000.0)


def test_knees_and_ends_are_found():
    assert knee([1, 2, 4, 8], [10, 19, 30, 31]) == 4
    assert knee([1, 2, 4, 8], [10, 26, 30, 31]) == 2  # more than four fifths of 31
    assert knee([1, 2, 4, 8], [10, 19, 30, 60]) is None
    assert linear_from([1, 2, 4, 8], [1.0, 1.1, 2.2, 4.6]) == 2
    assert linear_from([1, 2], [1.0, 1.2]) is None
    assert value_at_limit([1, 2, 4], [5, 10, 20], 200) == pytest.approx(40)
    assert value_at_limit([1, 2, 4], [5, 10, 40], 160) == pytest.approx(8)  # by its last two points a square
    assert value_at_limit([1, 2], [5, 6], 100) is None
