"""The pairs that a configuration names: what a run trains on and what it validates on."""

from pathlib import Path

import numpy as np

from model_export.batches import MixedBatches, PatchPairs, PhotoCrops, Source
from model_export.config import SourceConfig, TrainConfig
from model_export.pairs import PairPaths, PairsError, dped_patches, match_folders, named


def open_pairs(config: SourceConfig, data: Path, without: frozenset[Path] = frozenset()) -> list[PairPaths]:
    """List the pairs of one source.

    Args:
        config: which.
        data: the folder that its paths are relative to.
        without: phone pictures (resolved) that are not to be among them, and don't count towards its limit.

    Raises:
        PairsError: as `pairs.match_folders`.
    """
    root = data / config.root
    if config.kind == "dped":
        found = dped_patches(root, config.camera, config.split)
    else:
        found = match_folders(root / config.phone, root / config.target)
    found = named(found, frozenset(config.leave_out))[0]
    if without:  # resolving the paths of 160000 pairs takes seconds
        found = [pair for pair in found if pair.phone.resolve() not in without]
    if 0 < config.limit < len(found):
        # DPED's patches lie in the order of the photos that they are cut from: the first thousand show only a few
        drawn = np.random.default_rng(0).permutation(len(found))[: config.limit]
        found = [found[index] for index in sorted(drawn)]
    return found


def open_data(config: TrainConfig, data: Path) -> tuple[MixedBatches, list[PairPaths]]:
    """Open what a run trains on and what it validates on; no validation pair is trained on.

    Raises:
        PairsError: a folder or file can't be used.
    """
    held_back = frozenset(config.validation_names)
    validation = open_pairs(config.validation, data)
    if held_back:
        validation = named(validation, held_back)[1]
    seen = frozenset(pair.phone.resolve() for pair in validation)
    sources: list[Source] = []
    for source in config.sources:
        pairs = open_pairs(source, data, seen)
        if not pairs:
            raise PairsError(f"nothing is left to train on in {data / source.root / source.phone}")
        if source.kind == "photos":
            sources.append(PhotoCrops(pairs, source.grid, source.lone))
        else:
            sources.append(PatchPairs(pairs, source.policy, source.smallest))
    shares = [source.share for source in config.sources]
    return MixedBatches(sources, shares, config.batch, config.seed), validation
