"""What users of diffusers expect of any pipeline; a room's test class inherits this and says how to make its own."""

from __future__ import annotations

import pytest
import torch


class PipelineContract:
    """Subclasses give `make_pipeline`, `prompts`, `arguments` and `read`."""

    prompts: list[str]
    arguments: dict = {}
    changeable = "latents"  # what a callback may change
    dtype = torch.float32  # of what `read` returns, whatever the weights are
    required_parameters = {
        "prompt",
        "num_inference_steps",
        "generator",
        "output_type",
        "return_dict",
        "callback_on_step_end",
    }

    def make_pipeline(self):
        raise NotImplementedError

    def read(self, output) -> torch.Tensor:
        """Return the tensor of an output that comparisons are made on."""
        raise NotImplementedError

    def generators(self, first: int = 0, count: int | None = None) -> list[torch.Generator]:
        count = len(self.prompts) if count is None else count
        return [torch.Generator().manual_seed(seed) for seed in range(first, first + count)]

    def run(self, pipeline, **changes):
        return pipeline(**{"prompt": self.prompts, "generator": self.generators(), **self.arguments, **changes})

    def test_the_call_has_the_parameters_that_users_know(self):
        import inspect

        assert self.required_parameters <= set(inspect.signature(self.make_pipeline().__call__).parameters)

    def test_saving_and_loading_keeps_the_output_bit_by_bit(self, tmp_path):
        pipeline = self.make_pipeline()
        expected = self.read(self.run(pipeline))
        pipeline.save_pretrained(tmp_path)
        loaded = type(pipeline).from_pretrained(tmp_path)
        loaded.set_progress_bar_config(disable=True)
        assert torch.equal(self.read(self.run(loaded)), expected)

    def test_a_batch_equals_its_singles(self):
        pipeline = self.make_pipeline()
        batch = self.run(pipeline)
        for i, prompt in enumerate(self.prompts):
            single = self.run(pipeline, prompt=prompt, generator=self.generators(i, 1))
            torch.testing.assert_close(self.read(single)[0], self.read(batch)[i], atol=1e-4, rtol=1e-4)
            assert single.texts[0] == batch.texts[i]

    def test_the_same_generators_give_the_same_output(self):
        pipeline = self.make_pipeline()
        assert torch.equal(self.read(self.run(pipeline)), self.read(self.run(pipeline)))

    def test_dict_equals_tuple(self):
        pipeline = self.make_pipeline()
        output, values = self.run(pipeline), self.run(pipeline, return_dict=False)
        assert len(values) == len(output.__dataclass_fields__)
        assert values[list(output.__dataclass_fields__).index("texts")] == output.texts
        assert any(isinstance(v, torch.Tensor) and torch.equal(v, self.read(output)) for v in values)

    def test_components_rebuild_the_pipeline(self):
        pipeline = self.make_pipeline()
        rebuilt = type(pipeline)(
            **pipeline.components, **{"task": pipeline.config.task} if "task" in pipeline.config else {}
        )
        rebuilt.set_progress_bar_config(disable=True)
        assert torch.equal(self.read(self.run(rebuilt)), self.read(self.run(pipeline)))

    def test_callbacks_see_every_step_and_exactly_what_they_asked_for(self):
        pipeline, seen = self.make_pipeline(), []

        def callback(pipe, step, timestep, tensors):
            seen.append((step, int(timestep), set(tensors)))
            return {}

        names = pipeline._callback_tensor_inputs
        self.run(pipeline, callback_on_step_end=callback, callback_on_step_end_tensor_inputs=names)
        assert [step for step, _, _ in seen] == list(range(pipeline.num_timesteps))
        assert [timestep for _, timestep, _ in seen] == [int(t) for t in pipeline.scheduler.timesteps]
        assert all(given == set(names) for _, _, given in seen)

    def test_callbacks_can_change_what_is_denoised(self):
        pipeline = self.make_pipeline()

        def callback(pipe, step, timestep, tensors):
            return {self.changeable: torch.zeros_like(tensors[self.changeable])}

        assert self.read(self.run(pipeline, callback_on_step_end=callback)).abs().max() == 0

    def test_a_callback_that_asks_for_something_unknown_is_refused(self):
        with pytest.raises(ValueError, match="callback_on_step_end_tensor_inputs"):
            self.run(self.make_pipeline(), callback_on_step_end_tensor_inputs=["weights"])

    def test_other_weights_keep_the_dtype_of_the_output(self):
        pipeline = self.make_pipeline().to(torch.bfloat16)
        output = self.run(pipeline)
        assert self.read(output).dtype == self.dtype
        assert self.read(output).isfinite().all()

    def test_the_weights_of_a_loaded_pipeline_can_be_bfloat16(self, tmp_path):
        pipeline = self.make_pipeline()
        pipeline.save_pretrained(tmp_path)
        loaded = type(pipeline).from_pretrained(tmp_path, dtype=torch.bfloat16)
        loaded.set_progress_bar_config(disable=True)
        assert self.read(self.run(loaded)).isfinite().all()

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("num_inference_steps", 0),
            ("num_inference_steps", -3),
            ("num_inference_steps", 100_000),
            ("num_inference_steps", 2.5),
            ("num_inference_steps", True),
            ("output_type", "pil"),
            ("generator", []),
            ("prompt", []),
            ("prompt", ""),
            ("prompt", "   \n"),
            ("prompt", None),
            ("prompt", 7),
            ("prompt", ["1+2+3", None]),
        ],
    )
    def test_wrong_arguments_are_refused_by_name(self, argument, value):
        with pytest.raises(ValueError, match=argument):
            self.run(self.make_pipeline(), **{argument: value})
