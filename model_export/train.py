"""The training loop: alternating pix2pix steps, a moving average of the weights, checkpoints that hold everything."""

import dataclasses
import json
import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from model_export import losses
from model_export.config import ConfigError, SourceConfig, TrainConfig
from model_export.networks import Generator, PatchDiscriminator, UNetGenerator
from model_export.pairs import (
    MixedBatches,
    PairPaths,
    PairsError,
    PatchPairs,
    PhotoCrops,
    Policy,
    Sample,
    Source,
    centred,
    dped_patches,
    match_folders,
    named,
    patch_sample,
)
from service.quality import psnr, ssim

CHECKPOINT_VERSION = 1


def open_pairs(config: SourceConfig, data: Path) -> list[PairPaths]:
    """List the pairs of one source.

    Raises:
        PairsError: as `pairs.match_folders`.
    """
    root = data / config.root
    if config.kind == "dped":
        found = dped_patches(root, config.camera)
    else:
        found = match_folders(root / config.phone, root / config.target)
    return named(found, frozenset(config.leave_out))[0]


def open_data(config: TrainConfig, data: Path) -> tuple[MixedBatches, list[PairPaths]]:
    """Open what a run trains on and what it validates on; no validation pair is trained on.

    Raises:
        PairsError: a folder or file can't be used.
    """
    held_back = frozenset(config.validation_names)
    validation = open_pairs(config.validation, data)
    if held_back:
        validation = named(validation, held_back)[1]
    seen = {pair.phone.resolve() for pair in validation}
    sources: list[Source] = []
    for source in config.sources:
        pairs = [pair for pair in open_pairs(source, data) if pair.phone.resolve() not in seen]
        if not pairs:
            raise PairsError(f"nothing is left to train on in {data / source.root / source.phone}")
        if source.kind == "photos":
            sources.append(PhotoCrops(pairs, source.grid, source.lone))
        else:
            sources.append(PatchPairs(pairs, source.policy))
    shares = [source.share for source in config.sources]
    return MixedBatches(sources, shares, config.batch, config.seed), validation


def to_tensor(pixels: npt.NDArray[np.uint8], device: torch.device | str = "cpu") -> Tensor:
    """Turn uint8 (N, H, W, 3) into float32 (N, 3, H, W) in 0..1."""
    tensor = torch.from_numpy(np.ascontiguousarray(pixels)).to(device)
    return tensor.permute(0, 3, 1, 2).float().div(255).contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def score(generator: Generator, pairs: Sequence[PairPaths], policy: Policy = "reflect") -> tuple[float, float]:
    """Mean PSNR (dB) and SSIM of a generator's 8-bit outputs over patch pairs, each placed as the service places it.

    Raises:
        PairsError: a pair can't be read or is larger than a tile.
    """
    device = next(generator.parameters()).device
    was_training = generator.training
    generator.eval()
    scores = []
    for pair in pairs:
        phone, target = pair.load()
        height, width = phone.shape[:2]
        top, left = centred(height), centred(width)
        sample = patch_sample(phone, target, policy, top, left)
        output = generator(to_tensor(sample.tile[None], device), to_tensor(sample.context[None], device))
        pixels = output.clamp(0, 1)[0].permute(1, 2, 0).mul(255).round().byte().cpu().numpy()
        if policy == "reflect":
            here = np.s_[top : top + height, left : left + width]
            scores.append((psnr(pixels[here], target), ssim(pixels[here], target)))
        else:
            scores.append((psnr(pixels, sample.target), ssim(pixels, sample.target)))
    generator.train(was_training)
    mean_psnr, mean_ssim = np.mean(scores, axis=0)
    return float(mean_psnr), float(mean_ssim)


class Trainer:
    """One run: networks, optimisers, schedule and progress, all of it in its checkpoint."""

    def __init__(self, config: TrainConfig, batches: MixedBatches, device: torch.device | str = "cpu") -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._batches = batches
        self._device = torch.device(device)
        self.generator = UNetGenerator(config.architecture).to(self._device)
        self.generator.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.averaged = UNetGenerator(config.architecture).to(self._device).requires_grad_(False)
        self.averaged.load_state_dict(self.generator.state_dict())
        self.discriminator = PatchDiscriminator().to(self._device) if config.weights.get("gan") else None
        self._generator_adam = torch.optim.Adam(self.generator.parameters(), config.learning_rate, config.betas)
        self._discriminator_adam = (
            torch.optim.Adam(self.discriminator.parameters(), 2e-4, (0.5, 0.999)) if self.discriminator else None
        )
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._generator_adam, self._rate)

    def _rate(self, step: int) -> float:
        if self.config.schedule == "constant":
            return 1.0
        rise = 0.15 * self.config.steps
        if step < rise:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / (self.config.steps - rise)))) + 1e-4

    def run(
        self, validation: Sequence[PairPaths], checkpoint: Path, report: Callable[[dict[str, float]], None]
    ) -> None:
        """Train to the configured number of steps, writing `checkpoint` at each validation.

        Args:
            validation: patch pairs to score.
            checkpoint: where the state goes; a file that exists is replaced whole, never half-written.
            report: is given each step's losses, with `psnr` and `ssim` in the steps that validated.
        """
        sums: dict[str, float] = {}
        for batch in self._prefetch():
            values = self._train_step(batch)
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value
            if self.step % self.config.validate_every == 0 or self.step == self.config.steps:
                mean_psnr, mean_ssim = score(self.averaged, validation, self.config.validation.policy)
                since = self.step - (int(self.history[-1]["step"]) if self.history else 0)
                means = {name: total / since for name, total in sums.items()}
                self.history.append({"step": self.step, **means, "psnr": mean_psnr, "ssim": mean_ssim})
                sums.clear()
                self.save(checkpoint)
                values |= {"psnr": mean_psnr, "ssim": mean_ssim}
            report({"step": self.step, **values})

    def _prefetch(self) -> Iterator[Sample]:
        """Yield the batches from the current step on, each prepared while the one before is trained on."""
        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            upcoming = pool.submit(self._batches.__getitem__, self.step)
            for number in range(self.step, self.config.steps):
                batch = upcoming.result()
                if number + 1 < self.config.steps:
                    upcoming = pool.submit(self._batches.__getitem__, number + 1)
                yield batch

    def _train_step(self, batch: Sample) -> dict[str, float]:
        picture, target, context = (to_tensor(x, self._device) for x in (batch.tile, batch.target, batch.context))
        mask = torch.from_numpy(batch.mask).to(self._device)[:, None]
        weights = self.config.weights
        with self._autocast():
            output = self.generator(picture, context)
        output = output.float()
        values: dict[str, float] = {}
        total = torch.zeros((), device=self._device)
        adversarial = self.discriminator is not None and self.step >= self.config.gan_from
        if adversarial:
            values["loss/discriminator"] = self._discriminator_step(picture, output.detach(), target)
            assert self.discriminator is not None
            self.discriminator.requires_grad_(False)
            with self._autocast():
                logits = self.discriminator(picture, output)
            self.discriminator.requires_grad_(True)
            fooled = losses.gan(logits.float(), real=True)
            total = total + weights["gan"] * fooled
            values["loss/gan"] = float(fooled.detach())
        for name, loss in (("l1", losses.l1), ("ssim", losses.ssim)):
            if weights.get(name):
                value = loss(output, target, mask)
                total = total + weights[name] * value
                values[f"loss/{name}"] = float(value.detach())
        self._generator_adam.zero_grad(set_to_none=True)
        total.backward()  # type: ignore[no-untyped-call]
        self._generator_adam.step()
        self._schedule.step()
        self.step += 1
        self._average()
        return values

    def _discriminator_step(self, picture: Tensor, output: Tensor, target: Tensor) -> float:
        assert self.discriminator is not None
        assert self._discriminator_adam is not None
        with self._autocast():
            fake, real = self.discriminator(picture, output), self.discriminator(picture, target)
        loss = 0.5 * (losses.gan(fake.float(), real=False) + losses.gan(real.float(), real=True))
        self._discriminator_adam.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self._discriminator_adam.step()
        return float(loss.detach())

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self._device.type, torch.bfloat16, enabled=self.config.precision == "bfloat16")

    @torch.no_grad()
    def _average(self) -> None:
        # young averages follow faster, or the random start would linger in them
        keep = min(self.config.average, self.step / (self.step + 10))
        for mean, now in zip(self.averaged.state_dict().values(), self.generator.state_dict().values(), strict=True):
            if mean.dtype.is_floating_point:
                mean.lerp_(now, 1 - keep)
            else:
                mean.copy_(now)

    def _modules(self) -> dict[str, Any]:
        parts = {
            "generator": self.generator,
            "averaged": self.averaged,
            "discriminator": self.discriminator,
            "generator_adam": self._generator_adam,
            "discriminator_adam": self._discriminator_adam,
            "schedule": self._schedule,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, path: Path) -> None:
        """Write the whole state to `path`; the file is replaced at once."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {
            "pix2dslr": CHECKPOINT_VERSION,
            "config": json.dumps(dataclasses.asdict(self.config)),
            "step": self.step,
            "history": self.history,
            "random": torch.get_rng_state(),
            **{name: part.state_dict() for name, part in self._modules().items()},
        }
        partial = path.with_name(path.name + ".partial")
        torch.save(state, partial)
        partial.replace(path)

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration.

        Raises:
            ConfigError: the checkpoint is of another configuration, or can't be read.
        """
        state = load_checkpoint(path)
        if state.get("pix2dslr") != CHECKPOINT_VERSION:
            raise ConfigError(f"{path} is no checkpoint of this version of pix2dslr")
        if state["config"] != json.dumps(dataclasses.asdict(self.config)):
            raise ConfigError(f"{path} was made with another configuration; train into another folder")
        self.step = state["step"]
        self.history = state["history"]
        torch.set_rng_state(state["random"])
        for name, part in self._modules().items():
            part.load_state_dict(state[name])


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint's state without running any code that it may hold.

    Raises:
        ConfigError: the file can't be read.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many types, pickle's among them
        raise ConfigError(f"{path} can't be read as a torch checkpoint: {error}".splitlines()[0]) from error
    if not isinstance(state, dict):
        raise ConfigError(f"{path} holds no state dict")
    return state
