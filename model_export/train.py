"""The training loop: alternating pix2pix steps, a moving average of the weights, checkpoints that hold everything."""

import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model_export import losses
from model_export.adversaries import Adversary
from model_export.batches import MixedBatches, Strips
from model_export.checkpoints import is_of, load_own, write_checkpoint
from model_export.config import ConfigError, TrainConfig
from model_export.engine import Across, open_engine, prepare, random_states, set_random_state
from model_export.networks import PatchDiscriminator, UNetGenerator
from model_export.pairs import PairPaths, Sample
from model_export.scoring import PairScore, means, score_pairs, to_tensor

Validated = Callable[[int, list[PairScore]], None]


class Trainer:
    """One run: networks, optimisers, schedule and progress, all of it in its checkpoint.

    Where several processes train together, each has a Trainer and calls the same methods in the same order; they
    share each batch, and the main one validates, reports and writes.

    Attributes:
        steps: how many the run takes in all.
        step: how many it has taken.
        history: one entry a validation: `step`, the mean of each `loss/NAME` since the one before, `psnr`, `ssim`,
            `learning_rate` and `rate`, the tiles a second.
        generator, averaged: the network that is trained and the moving average of its weights.
    """

    def __init__(self, config: TrainConfig, batches: MixedBatches, device: str = "cpu", data: Path = Path()) -> None:
        """Start a run.

        Args:
            config: what decides it.
            batches: what it learns from.
            device: see `engine.open_engine`.
            data: the folder that `config.content_weights` is relative to.

        Raises:
            ConfigError: the device can't do what the configuration asks for.
        """
        self.engine = open_engine(device, config.precision)
        if config.batch < self.engine.num_processes:
            raise ConfigError(f"batch: {config.batch} tiles can't be shared by {self.engine.num_processes} processes")
        torch.manual_seed(config.seed)
        self.config = config
        self.steps = config.epochs * batches.epoch if config.epochs else config.steps or 0
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}
        self._batches = batches
        self._device = self.engine.device
        self._across = Across(self.engine)
        self.generator = UNetGenerator(config.architecture)
        self._forward = prepare(self.generator, self.engine)
        self.averaged = UNetGenerator(config.architecture).to(self._device).requires_grad_(False)
        self.averaged.load_state_dict(self.generator.state_dict())
        width, weights = config.discriminator_width, config.weights
        self._conditional = Adversary(6, width, config.gan_loss, self.engine) if weights.get("gan") else None
        # DPED's is trained by cross-entropy, on grey pictures: colour is the colour term's business
        self._texture = Adversary(1, width, "bce", self.engine) if weights.get("texture") else None
        self._features = _content_network(config, data).to(self._device) if weights.get("content") else None
        self._adam = torch.optim.Adam(self.generator.parameters(), config.learning_rate, config.betas)
        self._optimizer = self.engine.prepare_optimizer(self._adam)
        self._schedule = torch.optim.lr_scheduler.LambdaLR(self._adam, self._rate)
        if self.engine.process_index:  # dropout of its own
            torch.manual_seed(config.seed + self.engine.process_index)

    @property
    def discriminator(self) -> PatchDiscriminator | None:
        """The conditional discriminator, where `gan` has a weight."""
        return self._conditional.network if self._conditional else None

    @property
    def texture_discriminator(self) -> PatchDiscriminator | None:
        """The discriminator of grey pictures, where `texture` has a weight."""
        return self._texture.network if self._texture else None

    def _rate(self, step: int) -> float:
        if self.config.schedule == "constant":
            return 1.0
        rise = 0.15 * self.steps
        if step < rise:
            return 0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / rise))
        return 0.5 * (1 + math.cos(math.pi * min(1.0, (step - rise) / (self.steps - rise)))) + 1e-4

    def run(
        self,
        validation: Sequence[PairPaths],
        checkpoint: Path,
        report: Callable[[dict[str, float]], None],
        validated: Validated | None = None,
    ) -> None:
        """Train to the configured number of steps, writing `checkpoint` at each validation and between them.

        Args:
            validation: patch pairs to score.
            checkpoint: where the state goes; a file that exists is replaced whole, never half-written.
            report: is given each step's losses, with `psnr` and `ssim` in the steps that validated.
            validated: is given the step and every pair's score at each validation, before the checkpoint is written.
        """
        since = time.perf_counter()
        for batch, strips in self._prefetch():
            rate = self._adam.param_groups[0]["lr"]
            values = self._train_step(batch, strips)
            for name, value in values.items():
                self._sums[name] = self._sums.get(name, 0.0) + value
            last = self.step == self.steps
            validates = last or self.step % self.config.validate_every == 0
            if validates or self.step % self.config.checkpoint_every == 0:
                self._sums["seconds"] = self._sums.get("seconds", 0.0) + time.perf_counter() - since
                if validates:
                    values |= self._validate(validation, rate, validated)
                self.save(checkpoint)
                since = time.perf_counter()
            if self.engine.is_main_process:
                report({"step": self.step, **values})

    def _validate(self, validation: Sequence[PairPaths], rate: float, validated: Validated | None) -> dict[str, float]:
        seconds = self._sums.pop("seconds")
        since = self.step - (int(self.history[-1]["step"]) if self.history else 0)
        entry = {"step": self.step, **{name: total / since for name, total in self._sums.items()}}
        self._sums = {}
        scores: dict[str, float] = {}
        if self.engine.is_main_process:
            pairs = score_pairs(self.averaged, validation, self.config.validation.policy)
            if validated is None:  # the pictures of a few thousand pairs are not to be kept for no one
                mean_psnr, mean_ssim = means([(pair.psnr, pair.ssim) for pair in pairs])
            else:
                kept = list(pairs)
                mean_psnr, mean_ssim = means([(pair.psnr, pair.ssim) for pair in kept])
            scores = {"psnr": mean_psnr, "ssim": mean_ssim}
        entry |= {**scores, "learning_rate": rate, "rate": since * self.config.batch / seconds}
        self.history.append(entry)
        if validated is not None and self.engine.is_main_process:
            validated(self.step, kept)
        self.engine.wait_for_everyone()
        return scores

    def _prefetch(self) -> Iterator[tuple[Sample, Strips | None]]:
        """Yield this process's part of each batch to come, prepared while the one before is trained on."""
        first, every = self.engine.process_index, self.engine.num_processes
        config = self.config

        def load(number: int) -> tuple[Sample, Strips | None]:
            sample, strips = self._batches.part(number, first, every), None
            if config.weights.get("consistency"):
                count, shift = config.consistency_strips, config.consistency_shift
                strips = self._batches.strips(number, count, shift, first, every)
            return sample, strips

        with ThreadPoolExecutor(1, thread_name_prefix="batches") as pool:
            upcoming = pool.submit(load, self.step)
            for number in range(self.step, self.steps):
                batch = upcoming.result()
                if number + 1 < self.steps:
                    upcoming = pool.submit(load, number + 1)
                yield batch

    def _train_step(self, batch: Sample, strips: Strips | None) -> dict[str, float]:
        picture, target, context = (to_tensor(x, self._device) for x in (batch.tile, batch.target, batch.context))
        mask = torch.from_numpy(batch.mask).to(self._device)[:, None]
        terms: dict[str, Tensor] = {}
        told: dict[str, Tensor] = {}  # what is only reported
        if strips is None:
            output = self._forward(picture, context).float()
        else:
            # one pass for all: a second one through the same weights would cost more than its tiles
            left, right = (to_tensor(strips.tiles[:, side], self._device) for side in (0, 1))
            around = to_tensor(strips.contexts, self._device)
            both = self._forward(torch.cat([picture, left, right]), torch.cat([context, around, around])).float()
            output, left, right = both.split([len(picture), len(left), len(right)])
            terms["consistency"] = losses.consistency(left, right, self.config.consistency_shift, self._across)
        if self.step >= self.config.gan_from:
            self._adversarial(picture, output, target, mask, terms, told)
        for name, loss in losses.PIXELWISE.items():
            if self.config.weights.get(name):
                terms[name] = loss(output, target, mask, self._across)
        if self._features is not None:
            with self.engine.autocast():
                terms["content"] = losses.content(self._features, output, target, mask, self._across)
        total = torch.zeros((), device=self._device)
        for name, term in terms.items():
            total = total + self.config.weights[name] * term
        self._optimizer.zero_grad(set_to_none=True)
        self.engine.backward(total)
        if self.config.clip:
            self.engine.unscale_gradients(self._optimizer)
            torch.nn.utils.clip_grad_norm_(self.generator.parameters(), self.config.clip)
        self._optimizer.step()
        self._schedule.step()
        self.step += 1
        self._average()
        told |= {f"loss/{name}": term.detach() for name, term in terms.items()}
        # read at once: each reading waits for the GPU
        values = self._across(torch.stack(list(told.values()))).tolist()
        return dict(zip(told, values, strict=True))

    def _adversarial(
        self,
        picture: Tensor,
        output: Tensor,
        target: Tensor,
        mask: Tensor,
        terms: dict[str, Tensor],
        told: dict[str, Tensor],
    ) -> None:
        """One step of each discriminator, and what the generator pays for its answer."""
        # outside the mask both are the target: padding is nothing to be told apart by
        answer = losses.inside_or(output, target, mask)
        if self._conditional is not None:
            told["loss/discriminator"] = self._conditional.learn((picture, answer), (picture, target))
            terms["gan"] = self._conditional.fooled((picture, answer))
        if self._texture is not None:
            grey = losses.grey(answer)
            told["loss/texture_discriminator"] = self._texture.learn((grey,), (losses.grey(target),))
            terms["texture"] = self._texture.fooled((grey,))

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
            "generator_adam": self._adam,
            "discriminator": self.discriminator,
            "discriminator_adam": self._conditional and self._conditional.adam,
            "texture": self.texture_discriminator,
            "texture_adam": self._texture and self._texture.adam,
            "schedule": self._schedule,
            "scaler": self.engine.scaler,
        }
        return {name: part for name, part in parts.items() if part is not None}

    def save(self, path: Path) -> None:
        """Write the whole state to `path`; the file is replaced at once."""
        states = random_states(self.engine)
        if self.engine.is_main_process:
            write_checkpoint(
                path,
                {
                    "config": json.dumps(dataclasses.asdict(self.config)),
                    "step": self.step,
                    "history": self.history,
                    "sums": self._sums,
                    "random": states,
                    **{name: part.state_dict() for name, part in self._modules().items()},
                },
            )
        self.engine.wait_for_everyone()

    def resume(self, path: Path) -> None:
        """Go on from a checkpoint of the same configuration.

        Raises:
            ConfigError: the checkpoint is of another configuration, or can't be read.
        """
        state = load_own(path)
        if not is_of(state, self.config):
            raise ConfigError(f"{path} was made with another configuration; train into another folder")
        try:
            for name, part in self._modules().items():
                part.load_state_dict(state[name])
        except (KeyError, RuntimeError) as error:
            raise ConfigError(f"{path} holds other networks than this version's: {error}".splitlines()[0]) from error
        self.step = state["step"]
        self.history = state["history"]
        self._sums = state.get("sums", {})
        random = state["random"]  # one process's alone in older ones
        set_random_state(self.engine, random if isinstance(random, list) else [{"cpu": random}])

    def start_from(self, path: Path) -> None:
        """Begin with the averaged generator of another run, and with its discriminators where they fit.

        Raises:
            ConfigError: the checkpoint can't be read, or its generator is of another architecture.
        """
        state = load_own(path)
        try:
            self.generator.load_state_dict(state["averaged"])
            self.averaged.load_state_dict(state["averaged"])
        except (KeyError, RuntimeError) as error:
            raise ConfigError(f"{path} holds no generator of the architecture {self.config.architecture}") from error
        for name, network in (("discriminator", self.discriminator), ("texture", self.texture_discriminator)):
            if network is not None and _fits(network, state.get(name, {})):
                network.load_state_dict(state[name])


def _fits(network: torch.nn.Module, weights: dict[str, Tensor]) -> bool:
    own = {name: value.shape for name, value in network.state_dict().items()}
    return own == {name: value.shape for name, value in weights.items()}


def _content_network(config: TrainConfig, data: Path) -> torch.nn.Module:
    # only here: EfficientNet's packages are needed for this term alone
    from model_export.features import WeightsUnusable, content_network

    weights = data / config.content_weights if config.content_weights else None
    try:
        return content_network(config.content_network, weights)
    except WeightsUnusable as error:
        raise ConfigError(f"content_weights: {error}") from error
