"""Devices, processes and precision of a training: Hugging Face Accelerate, and what it leaves to its users.

One process trains as it is; `accelerate launch --multi_gpu --num_processes 2 -m model_export train ...` trains with
two, each on its own GPU. On CPUs it is `torchrun --nproc_per_node 2 -m model_export train ... --device cpu`, since
Accelerate's launcher starts one process there whatever it is told, unless MPI is installed. Processes share each
batch, so a run's curve does not depend on how many there are, but for dropout (`unet128`), which each draws for itself.
"""

import warnings
from typing import Any, Final, Literal

import torch
import torch.distributed as dist
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, gather_object
from torch import Tensor, nn

from model_export.config import ConfigError

Precision = Literal["float32", "bfloat16", "float16"]

_MIXED: Final = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}


def open_engine(device: str, precision: Precision) -> Accelerator:
    """Join the processes that train together, or start alone.

    Args:
        device: `auto`, which takes a GPU where there is one, `cpu` or `cuda`.
        precision: of the networks' arithmetic.

    Raises:
        ConfigError: there is no such device, or it can't compute in this precision.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device: {device} is none of auto, cpu and cuda")
    if device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device: torch finds no GPU")
    # buffers are batch norm's, which `share_batch_norms` keeps equal; sending them again between a discriminator's two
    # forward passes would change in place what its backward pass needs
    handlers = [DistributedDataParallelKwargs(broadcast_buffers=False)]
    # without a GPU and unless told so, Accelerate would let each of several processes train alone
    cpu = device == "cpu" or (not torch.cuda.is_available() and dist.is_torchelastic_launched())
    try:
        engine = Accelerator(cpu=cpu, mixed_precision=_MIXED[precision], kwargs_handlers=handlers)
    except ValueError as error:
        raise ConfigError(f"precision: {precision} can't be used here: {error}") from error
    if precision == "float16" and engine.device.type == "cpu":  # it would run, without the scaling of the gradients
        raise ConfigError("precision: float16 needs a GPU; a CPU has bfloat16")
    return engine


def prepare(network: nn.Module, engine: Accelerator) -> nn.Module:
    """Ready a network for training: move it, share its batch norms, wrap it so that processes average its gradients.

    Returns:
        What to call where gradients reach the network's own weights; `network` itself stays usable and is changed.
    """
    network.to(engine.device)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    if engine.num_processes > 1:
        share_batch_norms(network, engine.device)
    with warnings.catch_warnings():
        # torch 2.13 has a new name for `broadcast_buffers`, which older ones and Accelerate do not know
        warnings.simplefilter("ignore", FutureWarning)
        prepared: nn.Module = engine.prepare_model(network)
    return prepared


def share_batch_norms(network: nn.Module, device: torch.device) -> None:
    """Make batch norm normalise by the whole batch, wherever its parts lie; names and weights stay.

    torch's own does it on GPUs alone.
    """
    if device.type == "cuda":
        nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(parent, name, SharedBatchNorm.of(child))


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the parts of a batch that several CPU processes hold."""

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SharedBatchNorm":
        """Take over the parameters and statistics of `norm`."""
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        shared.weight, shared.bias = norm.weight, norm.bias
        shared.running_mean, shared.running_var = norm.running_mean, norm.running_var
        shared.num_batches_tracked = norm.num_batches_tracked
        return shared.train(norm.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise (N, C, H, W), each process its own N."""
        if not self.training:
            return super().forward(x)
        values = x.float()
        count = _sum(values.new_tensor([values.numel() / self.num_features]))
        mean = _sum(values.sum((0, 2, 3))) / count
        variance = _sum(((values - mean[:, None, None]) ** 2).sum((0, 2, 3))) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)
            self.num_batches_tracked += 1
        scale = self.weight * (variance + self.eps).rsqrt()
        normed: Tensor = values * scale[:, None, None] + (self.bias - mean * scale)[:, None, None]
        return normed.to(x.dtype)


class _Sum(torch.autograd.Function):
    """The sum over all processes; what each of them makes of it is counted in its gradient."""

    @staticmethod
    def forward(ctx: Any, part: Tensor) -> Tensor:  # noqa: ARG004
        total = part.contiguous().clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


def _sum(part: Tensor) -> Tensor:
    total: Tensor = _Sum.apply(part)  # type: ignore[no-untyped-call]
    return total


class Across:
    """Turns a number that each process has into its mean over them; for counts and for values to report."""

    def __init__(self, engine: Accelerator) -> None:
        self._engine = engine

    def __call__(self, value: Tensor) -> Tensor:
        """Average without a gradient; a process that is alone gets `value` itself."""
        if self._engine.num_processes == 1:
            return value
        mean: Tensor = self._engine.reduce(value.detach(), "mean")
        return mean


def random_states(engine: Accelerator) -> list[dict[str, Tensor]]:
    """Each process's random state, for all processes to call at once."""
    state = {"cpu": torch.get_rng_state()}
    if engine.device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(engine.device)
    return list(gather_object([state]))


def set_random_state(engine: Accelerator, states: list[dict[str, Tensor]]) -> None:
    """Take this process's random state out of `states`; one that joined since keeps its own."""
    if engine.process_index < len(states):
        state = states[engine.process_index]
        torch.set_rng_state(state["cpu"])
        if "cuda" in state and engine.device.type == "cuda":
            torch.cuda.set_rng_state(state["cuda"], engine.device)
