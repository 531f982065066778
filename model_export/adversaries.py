"""A discriminator with its optimiser: the other half of an adversarial loss."""

from collections.abc import Sequence

import torch
from accelerate import Accelerator
from torch import Tensor

from model_export import losses
from model_export.config import GanLoss
from model_export.engine import Across, prepare
from model_export.networks import PatchDiscriminator


class Adversary:
    """Learns to tell a generator's answers from DSLR pictures, and says how well an answer passes.

    Its Adam has the paper's rate and betas whatever the generator's are.

    Attributes:
        network: the discriminator.
        adam: its optimiser.
    """

    def __init__(self, channels: int, width: int, kind: GanLoss, engine: Accelerator) -> None:
        self.network = PatchDiscriminator(width, channels)
        self._forward = prepare(self.network, engine)
        self.adam = torch.optim.Adam(self.network.parameters(), 2e-4, (0.5, 0.999))
        self._optimizer = engine.prepare_optimizer(self.adam)
        self._kind: GanLoss = kind
        self._engine = engine
        self._across = Across(engine)

    def learn(self, fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
        """Take one step on what the network is given with a generator's answer and with the DSLR's.

        Args:
            fake, real: batches (N, C, 128, 128), 0..1, of `channels` together.

        Returns:
            The loss before the step, without a gradient.
        """
        on_fake, on_real = self._forward(*(part.detach() for part in fake)), self._forward(*real)
        loss = 0.5 * (
            losses.gan(on_fake.float(), False, self._kind, self._across)
            + losses.gan(on_real.float(), True, self._kind, self._across)
        )
        self._optimizer.zero_grad(set_to_none=True)
        self._engine.backward(loss)
        self._optimizer.step()
        return loss.detach()

    def fooled(self, fake: Sequence[Tensor]) -> Tensor:
        """What the generator pays for its answer; the gradient reaches the answer alone."""
        # not through the wrapper: it would wait for gradients of weights that get none here
        self.network.requires_grad_(False)
        logits = self.network(*fake)
        self.network.requires_grad_(True)
        return losses.fooling(logits.float(), self._kind, self._across)
