"""How near a picture is to its reference, before and after it is enhanced; what POST /evaluate and the shell share."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from service.alignment import align
from service.caller import NOBODY, Caller
from service.codec import Header, as_srgb
from service.pipeline import Outcome, Pipeline, Ticket, measured
from service.quality import colour_difference, psnr, require_same_size, seam_index, ssim
from service.schemas import Alignment, EvaluateOptions, Evaluation, Gain, Scores
from service.telemetry import Stopwatch

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Comparison:
    """A picture measured against its reference.

    Attributes:
        outcome: what became of the picture, with its source.
        before, after, reference: uint8 (h, w, 3), RGB: the part of each that was measured.
        scores: the answer.
    """

    outcome: Outcome
    before: Image
    after: Image
    reference: Image
    scores: Evaluation


def admit(
    pipeline: Pipeline,
    image: bytes,
    reference: bytes,
    options: EvaluateOptions,
    caller: Caller = NOBODY,
) -> tuple[Ticket, Header]:
    """Give a picture its place, before it and its reference are decoded.

    Args:
        pipeline: what enhances it.
        image, reference: the whole files.
        options: how.
        caller: as `Pipeline.admit`.

    Returns:
        the picture's ticket, and the header of the reference.

    Raises:
        SizesDiffer: the files differ in size and are not to be aligned.
        Exception: whatever `Pipeline.admit` raises.
    """
    header = pipeline.read_header(reference, caller)
    own = pipeline.read_header(image, caller)
    if not options.align:
        require_same_size(own, header)
    ticket = pipeline.admit(
        image, options.camera, options.overlap, caller=caller, header=own, strength=options.strength
    )
    return measured(ticket, header), header


def compare(
    pipeline: Pipeline,
    ticket: Ticket,
    reference: bytes,
    header: Header,
    options: EvaluateOptions,
    watch: Stopwatch,
    progress: Callable[[int, int], None] = lambda *_: None,
) -> Comparison:
    """Enhance a picture and measure it, before and after, against its reference.

    Args:
        pipeline: what enhances it.
        ticket: its place.
        reference: the whole file.
        header: what that says of itself.
        options: how.
        watch: gets the seconds of each stage.
        progress: as `Pipeline.enhance`.

    Raises:
        NotAligned, BarelyOverlaps: as `align`.
        TooSmall: as `ssim`.
        Cancelled: the caller gave up.
        Exception: whatever `Pipeline.enhance` raises.
    """
    outcome = pipeline.enhance(ticket, watch, options.strength, progress, keep_source=True)
    assert outcome.source is not None
    before = as_srgb(outcome.source)
    after = as_srgb(outcome.enhancement.picture)
    check = ticket.caller.cancellation.check  # between steps that take seconds for large pictures
    check()
    with watch.stage("quality"):
        seams = seam_index(before, after, outcome.enhancement.layout)
        truth = as_srgb(pipeline.decode(reference, header, ticket.caller))
        alignment = None
        if options.align:
            aligned = align(before, truth)
            truth = aligned.reference
            check()
            height, width = truth.shape[:2]
            here = np.s_[aligned.top : aligned.top + height, aligned.left : aligned.left + width]
            before, after = before[here], after[here]
            alignment = Alignment(
                inliers=aligned.inliers, left=aligned.left, top=aligned.top, width=width, height=height
            )
        first = _scores(before, truth)
        check()
        scores = first, _scores(after, truth)
    return Comparison(outcome, before, after, truth, _answer(outcome, scores, seams, alignment, watch))


def _answer(
    outcome: Outcome,
    scores: tuple[Scores, Scores],
    seams: float | None,
    alignment: Alignment | None,
    watch: Stopwatch,
) -> Evaluation:
    before, after = scores
    height, width = outcome.enhancement.picture.pixels.shape[:2]
    return Evaluation(
        camera=outcome.camera,
        device=outcome.generator.device,
        width=width,
        height=height,
        tiles=outcome.enhancement.tiles,
        input=before,
        output=after,
        gain=Gain(
            psnr=None if before.psnr is None or after.psnr is None else after.psnr - before.psnr,
            ssim=after.ssim - before.ssim,
            colour_difference=after.colour_difference - before.colour_difference,
        ),
        seam_index=seams,
        alignment=alignment,
        timings=dict(watch.seconds),
    )


def _scores(picture: Image, reference: Image) -> Scores:
    ratio = psnr(picture, reference)
    return Scores(
        psnr=ratio if np.isfinite(ratio) else None,
        ssim=ssim(picture, reference),
        colour_difference=colour_difference(picture, reference),
    )


def side_by_side(*pictures: Image) -> Image:
    """Lay pictures (H, W, 3) of one size next to each other, 8 white pixels apart."""
    gap = np.full((pictures[0].shape[0], 8, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    return np.concatenate(parts, axis=1)
