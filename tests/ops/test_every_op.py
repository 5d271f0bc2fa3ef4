"""Properties of every op: its fake gives a GPU's shapes, and a GPU gives the CPU's result."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from ecamp.ops import _library
from tests.ops.samples import Sample, run, samples

SAMPLES = samples()
NAMES = sorted(SAMPLES)
ON_GPU = [
    name for name in NAMES if name != "insert_text"
]  # that one is the data path's, on the host
gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU; none is here")
FLOATS = [torch.float32, torch.bfloat16, torch.float16]
BUDGET = {torch.float32: 1e-4, torch.bfloat16: 3e-2, torch.float16: 4e-3}


class Seen(TorchDispatchMode):
    """Names of our ops that are called under it."""

    def __init__(self) -> None:
        super().__init__()
        self.ops: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "ecamp":
            self.ops.append(func._schema.name.removeprefix("ecamp::"))
        return func(*args, **kwargs or {})


def test_the_samples_reach_every_op() -> None:
    named = {op for sample in SAMPLES.values() for op in sample.ops}
    assert named == set(_library.OPS)


@pytest.mark.parametrize("name", NAMES)
def test_a_gallery_reads_only_the_named_samples(name: str) -> None:
    with Seen() as seen:
        run(SAMPLES[name], "cpu")
    assert set(seen.ops) <= set(SAMPLES[name].ops)
    assert SAMPLES[name].ops[0] in seen.ops


@pytest.mark.skipif(
    not torch.backends.cuda.is_built(), reason="a torch built for the CPU makes no fake GPU tensors"
)
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ON_GPU)
def test_fakes_give_a_gpus_shapes_types_and_device(name: str, dtype: torch.dtype) -> None:
    sample = SAMPLES[name]
    real, real_grads = run(sample, "cpu", dtype)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
        fake = sample.call(
            **{k: v.to("cuda", dtype) for k, v in sample.inputs.items()},
            **{k: v.to("cuda") for k, v in sample.others.items()},
        )
    assert fake.device.type == "cuda"
    # The autograd engine wants a real GPU behind a fake one; a meta tensor needs none.
    out, grads = run(sample, "meta", dtype)
    for got, expected in [(fake, real), (out, real), *((grads[k], real_grads[k]) for k in grads)]:
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)


@gpu
@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("name", ON_GPU)
def test_a_gpu_computes_what_the_cpu_computes(name: str, dtype: torch.dtype) -> None:
    out, grads = run(SAMPLES[name], "cuda", dtype)
    expected, expected_grads = run(SAMPLES[name], "cpu", dtype)
    if not grads:  # masks, weights, indices: bit for bit
        assert torch.equal(out.cpu(), expected)
        return
    for got, wanted in [(out, expected), *((grads[k], expected_grads[k]) for k in grads)]:
        scale = max(1.0, wanted.float().abs().max().item())
        assert (got.cpu().float() - wanted.float()).abs().max().item() <= BUDGET[dtype] * scale


def _on_gpu(sample: Sample) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    return (
        {name: value.cuda() for name, value in sample.inputs.items()},
        {name: value.cuda() for name, value in sample.others.items()},
    )


@gpu
@pytest.mark.parametrize("name", ON_GPU)
def test_no_op_waits_for_the_gpu(name: str) -> None:
    sample = SAMPLES[name]
    inputs, others = _on_gpu(sample)
    for value in inputs.values():
        value.requires_grad_()
    sample.call(**inputs, **others)  # libraries set themselves up
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        out = sample.call(**inputs, **others)
        if inputs:
            torch.autograd.grad(out.float().sum(), list(inputs.values()))
    finally:
        torch.cuda.set_sync_debug_mode("default")


@gpu
@pytest.mark.parametrize("name", ON_GPU)
def test_an_op_is_captured_in_a_graph_and_replayed(name: str) -> None:
    sample = SAMPLES[name]
    inputs, others = _on_gpu(sample)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):  # a side stream, too
        expected = sample.call(**inputs, **others)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = sample.call(**inputs, **others)
    out.zero_()
    graph.replay()
    torch.cuda.synchronize()
    assert torch.equal(out, expected)
