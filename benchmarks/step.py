"""Levers of the training step: each is compared with the default step, in turns, each in its own process.

With one thread CPU time is compared, because other programs hardly change it; with more threads, wall time.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from multiprocessing import get_context
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from benchmarks.machine import choose_clock, measure_matmul_gflops, measure_rate, save_results
from parfocal.engine.device import build_fabric, to_channels_last
from parfocal.models import resnet
from parfocal.models.classifier import Classifier, build_classifier
from parfocal.recipe import Recipe, load_recipe
from parfocal.training.benchmark import compute_gflop_per_image
from parfocal.training.step import Batch, Learner, build_learner, train_step

Step = Callable[[], object]

step: Step
images_per_step: int


@dataclass(frozen=True)
class Lever:
    """One change to try: how the step is built, its batch size, and the environment of its process."""

    build: Callable[[str, int], Step]
    batch_size: int = 32
    environment: dict[str, str] = field(default_factory=dict)


def _recipe(model: str, **changes: Any) -> Recipe:
    return load_recipe("leukemia-adam", model=model, learning_rate=0.001, **{"optimizer": "sgd", **changes})


def _random_batch(size: int) -> Batch:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (size, 224, 224, 3), dtype=torch.uint8, generator=generator)
    return Batch(pixels, torch.randint(0, 2, (size,), generator=generator))


def _new_classifier(recipe: Recipe) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(recipe.network, ("normal", "blast"))


def _build_learner(model: str, **changes: Any) -> Learner:
    recipe = _recipe(model, **changes)
    return build_learner(build_fabric(recipe.training.precision), _new_classifier(recipe), recipe)


def default_step(
    model: str,
    size: int,
    change: Callable[[Classifier], None] | None = None,
    settings: dict[str, Any] | None = None,
    **changes: Any,
) -> Step:
    """Return the training step of the trainer, with a changed network and further settings of the optimizer."""
    learner, batch = _build_learner(model, **changes), _random_batch(size)
    if change:
        change(learner.classifier)
    for group in learner.optimizer.param_groups:
        group.update(settings or {})
    return lambda: train_step(learner, [batch], 0.001)


def return_freed_memory(model: str, size: int) -> Step:
    """Use the default memory settings of the C library."""
    with patch("parfocal.engine.device.keep_freed_memory"):
        return default_step(model, size)


def larger_blocks(model: str, size: int) -> Step:
    """Request memory from the kernel in blocks of 1 GB."""
    with patch("parfocal.engine.device._TOP_PAD_BYTES", 2**30):
        return default_step(model, size)


def flush_denormals(model: str, size: int) -> Step:
    """Flush denormal numbers to zero."""
    torch.set_flush_denormal(True)
    return default_step(model, size)


def fast_math(model: str, size: int) -> Step:
    """Keep everything in float32 and let oneDNN compute in bf16."""
    torch.backends.mkldnn.conv.fp32_precision = "bf16"  # type: ignore[attr-defined]
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"  # type: ignore[attr-defined]
    return default_step(model, size, precision="float32")


def bf16_weights(model: str, size: int) -> Step:
    """Keep the weights in bf16, with float32 master weights for the optimizer, instead of autocast's copies."""
    classifier, batch = to_channels_last(_new_classifier(_recipe(model))).train(), _random_batch(size)
    for module in classifier.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)
    weights = list(classifier.parameters())
    masters = [weight.detach().float().clone() for weight in weights]
    optimizer = torch.optim.SGD(masters, 0.001, momentum=0.9)

    def run() -> None:
        classifier.zero_grad(set_to_none=True)
        logits = classifier.network(classifier.normalize(batch.pixels).bfloat16())
        nn.functional.cross_entropy(logits.float(), batch.labels).backward()
        for weight, master in zip(weights, masters, strict=True):
            assert weight.grad is not None
            master.grad = weight.grad.float()
        optimizer.step()
        with torch.no_grad():
            for weight, master in zip(weights, masters, strict=True):
                weight.copy_(master)

    return run


def optimizer_in_backward(model: str, size: int) -> Step:
    """Update each weight as soon as its gradient is computed, while both are still in the cache."""
    learner, batch = _build_learner(model), _random_batch(size)
    optimizers = {weight: torch.optim.SGD([weight], 0.001, momentum=0.9) for weight in learner.classifier.parameters()}

    def update(weight: Tensor) -> None:
        optimizers[weight].step()  # type: ignore[index]
        weight.grad = None

    for weight in optimizers:
        weight.register_post_accumulate_grad_hook(update)
    return lambda: learner.fabric.backward(nn.functional.cross_entropy(learner.network(batch.pixels), batch.labels))


def micro_batches(model: str, size: int) -> Step:
    """Split a batch into four micro-batches, whose buffers fit in the cache, and update the weights once."""
    learner, batches = _build_learner(model), _random_batch(size).split(4)
    return lambda: train_step(learner, batches, 0.001)


def compile_network(model: str, size: int) -> Step:
    """Compile the whole network."""
    learner, batch = _build_learner(model), _random_batch(size)
    learner.network = torch.compile(learner.network)  # type: ignore[assignment]
    return lambda: train_step(learner, [batch], 0.001)


def pool_before_relu(classifier: Classifier) -> None:
    """Pool before the first ReLU instead of after it: the same result, with a quarter of the memory accesses."""
    network = classifier.network

    def features(x: Tensor) -> Tensor:
        x = network.relu(network.maxpool(network.bn1(network.conv1(x))))
        for name in network.stage_names:
            x = network.get_submodule(name)(x)
        return x

    network.forward_features = features


def pool_channels_first(classifier: Classifier) -> None:
    """Pool with channels first, the default memory format of PyTorch."""
    pool = classifier.network.maxpool

    def forward(x: Tensor) -> Tensor:
        return nn.functional.max_pool2d(x.contiguous(), 3, 2, 1).contiguous(memory_format=torch.channels_last)

    pool.forward = forward  # type: ignore[assignment]


def relu_out_of_place(classifier: Classifier) -> None:
    """Use ReLU out of place."""
    for module in classifier.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False


def pad_stem(classifier: Classifier) -> None:
    """Give the first convolution a fourth channel of zeros, because bf16 instructions take channels in pairs."""
    network, normalize = classifier.network, classifier.normalize
    weight = nn.functional.pad(network.conv1.weight.detach(), (0, 0, 0, 0, 0, 1))
    network.conv1.weight = nn.Parameter(weight.contiguous(memory_format=torch.channels_last))
    classifier.normalize = lambda pixels: nn.functional.pad(normalize(pixels), (0, 0, 0, 0, 0, 1))


def compile_norms(classifier: Classifier) -> None:
    """Compile batch norm and ReLU into one pass over memory, and nothing else."""

    @torch.compile(dynamic=False)
    def fused(x: Tensor, mean: Tensor, variance: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return nn.functional.relu(nn.functional.batch_norm(x, mean, variance, weight, bias, True, 0.1, 1e-5))

    def forward(block: resnet.BasicBlock, x: Tensor) -> Tensor:
        norm = block.bn1
        assert norm.running_mean is not None
        assert norm.running_var is not None
        out = fused(block.conv1(x), norm.running_mean, norm.running_var, norm.weight, norm.bias)
        out = block.bn2(block.conv2(out))
        out += x if block.downsample is None else block.downsample(x)
        return block.relu(out)

    for module in classifier.modules():
        if isinstance(module, resnet.BasicBlock):
            module.forward = forward.__get__(module)


def channels_first(classifier: Classifier) -> None:
    """Use channels first, the default memory format of PyTorch, for weights and pixels."""
    classifier.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    normalize = classifier.normalize
    classifier.normalize = lambda pixels: normalize(pixels).contiguous()


LEVERS: dict[str, Lever] = {
    "as it is, again": Lever(default_step),
    "memory handed back": Lever(return_freed_memory),
    "memory in blocks of 1 GB": Lever(larger_blocks),
    "huge pages": Lever(default_step, environment={"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}),
    "huge pages, PyTorch's": Lever(default_step, environment={"THP_MEM_ALLOC_ENABLE": "1"}),
    "one arena": Lever(default_step, environment={"MALLOC_ARENA_MAX": "1"}),
    "denormals flushed": Lever(flush_denormals),
    "SGD fused": Lever(lambda model, size: default_step(model, size, settings={"fused": True})),
    "SGD foreach": Lever(lambda model, size: default_step(model, size, settings={"foreach": True})),
    "Adam": Lever(lambda model, size: default_step(model, size, optimizer="adam")),
    "Adam fused": Lever(lambda model, size: default_step(model, size, settings={"fused": True}, optimizer="adam")),
    "SGD in the backward pass": Lever(optimizer_in_backward),
    "bf16 weights, float32 masters": Lever(bf16_weights),
    "float32, oneDNN in bf16": Lever(fast_math),
    "float32": Lever(lambda model, size: default_step(model, size, precision="float32")),
    "float32, channels first": Lever(
        lambda model, size: default_step(model, size, channels_first, precision="float32")
    ),
    "channels first": Lever(lambda model, size: default_step(model, size, channels_first)),
    "ReLU not in place": Lever(lambda model, size: default_step(model, size, relu_out_of_place)),
    "pooling channels first": Lever(lambda model, size: default_step(model, size, pool_channels_first)),
    "pooling before ReLU": Lever(lambda model, size: default_step(model, size, pool_before_relu)),
    "stem of four channels": Lever(lambda model, size: default_step(model, size, pad_stem)),
    "norm and ReLU compiled": Lever(lambda model, size: default_step(model, size, compile_norms)),
    "compiled": Lever(compile_network),
    "four batches of 8": Lever(micro_batches),
    "batch 8": Lever(default_step, 8),
    "batch 16": Lever(default_step, 16),
    "batch 64": Lever(default_step, 64),
    "batch 128": Lever(default_step, 128),
}
# These levers need several threads, and are compared in wall time.
THREAD_LEVERS: dict[str, Lever] = {
    "as it is, again": Lever(default_step),
    "threads bound to cores": Lever(default_step, environment={"OMP_PROC_BIND": "close", "OMP_PLACES": "cores"}),
    "threads that spin": Lever(default_step, environment={"OMP_WAIT_POLICY": "active"}),
    "threads that sleep": Lever(default_step, environment={"OMP_WAIT_POLICY": "passive"}),
    "huge pages": LEVERS["huge pages"],
    "memory handed back": LEVERS["memory handed back"],
}


class Worker:
    """A process that takes steps with one lever."""

    def __init__(self, lever: Lever, name: str, model: str, threads: int) -> None:
        with patch.dict(os.environ, lever.environment):
            self.process = ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            self.first_step_seconds = self.process.submit(_build_step, name, model, threads).result()

    def measure_seconds(self) -> float:
        """Take one step and return its seconds per image."""
        return self.process.submit(_measure_step).result()

    def measure_matmul(self) -> float:
        """Return the speed of matrix multiplication in bf16, in GFLOP/s."""
        return self.process.submit(measure_matmul_gflops, torch.bfloat16).result()

    def profile_operations(self) -> dict[str, float]:
        """Return the share of each operation in the time of a step, if it is at least 1 %."""
        return self.process.submit(_profile_operations).result()

    def close(self) -> None:
        """End the process."""
        self.process.shutdown()


def _build_step(name: str, model: str, threads: int) -> float:
    """Build the step and take it twice; return the seconds of the first, in which compilers work."""
    global step, images_per_step
    torch.set_num_threads(threads)
    lever = {**LEVERS, **THREAD_LEVERS}.get(name, Lever(default_step))
    step, images_per_step = lever.build(model, lever.batch_size), lever.batch_size
    started = time.perf_counter()
    step()
    first_step_seconds = time.perf_counter() - started
    step()
    return first_step_seconds


def _measure_step() -> float:
    def run() -> int:
        step()
        return images_per_step

    return 1 / measure_rate(run, choose_clock())


def _profile_operations() -> dict[str, float]:
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        step()
    spent = {event.key: event.self_cpu_time_total for event in profiler.key_averages()}
    shares = {name: round(microseconds / sum(spent.values()), 3) for name, microseconds in spent.items()}
    return {name: share for name, share in sorted(shares.items(), key=lambda item: -item[1]) if share >= 0.01}


def compare(names: list[str], model: str, n_threads: int, n_rounds: int) -> dict[str, Any]:
    """Measure each lever in turns with the default step, and compare that with the speed of matrix multiplication."""
    levers: dict[str, Any] = {}
    base = Worker(Lever(default_step), "", model, n_threads)
    recipe = _recipe(model)
    work = compute_gflop_per_image(_new_classifier(recipe), recipe)
    rates = [(work / base.measure_seconds(), base.measure_matmul()) for _ in range(n_rounds)]
    shares = base.profile_operations()
    for name in names:
        worker = Worker({**LEVERS, **THREAD_LEVERS}[name], name, model, n_threads)
        pairs = [(base.measure_seconds(), worker.measure_seconds()) for _ in range(n_rounds)]
        worker.close()
        ratios = sorted(without / with_it for without, with_it in pairs)
        levers[name] = {
            "as_it_is": round(1 / statistics.median(without for without, _ in pairs), 2),
            "with_it": round(1 / statistics.median(with_it for _, with_it in pairs), 2),
            "ratio": round(statistics.median(ratios), 3),
            "lowest": round(ratios[0], 3),
            "highest": round(ratios[-1], 3),
            "first_step_seconds": round(worker.first_step_seconds, 1),
        }
        print(f"{name:32} {levers[name]}", flush=True)
    base.close()
    return {
        "gflops_of_the_step": round(statistics.median(step for step, _ in rates), 1),
        "gflops_of_bf16_matrices": round(statistics.median(matrices for _, matrices in rates), 1),
        "shares": shares,
        "levers": levers,
    }


def main() -> None:
    """Measure and save the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--threads", type=int, default=1, help="more than one measures wall time")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--levers", nargs="*", help="only these levers")
    parser.add_argument("--name", default="step-cpu", help="name of the file in results/")
    arguments = parser.parse_args()
    # Compilers cache their results. An empty cache shows what the first step costs.
    with tempfile.TemporaryDirectory() as cache, patch.dict(os.environ, {"TORCHINDUCTOR_CACHE_DIR": cache}):
        names = arguments.levers or list(LEVERS if arguments.threads == 1 else THREAD_LEVERS)
        results = compare(names, arguments.model, arguments.threads, arguments.rounds)
    clock = "CPU time of one thread" if arguments.threads == 1 else "wall time"
    results = {"model": arguments.model, "threads_used": arguments.threads, "images_per_second_of": clock, **results}
    save_results(arguments.name, results)


if __name__ == "__main__":
    main()
