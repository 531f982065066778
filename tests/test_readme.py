"""What the README says is there; its commands and links are tested in e2e/test_docs.py."""

import re
from pathlib import Path

from model_export.config import load_config
from service.schemas import EnhanceOptions
from service.settings import Settings

PROJECT = Path(__file__).parents[1]
README = (PROJECT / "README.md").read_text()


def test_its_training_configuration_loads(tmp_path: Path) -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    (tmp_path / "my.toml").write_text(block)
    config = load_config(tmp_path / "my.toml")
    assert (config.architecture, config.batch, config.weights) == ("unet128", 10, {"l1": 100.0, "gan": 1.0})
    assert (config.learning_rate, config.betas) == (2e-4, (0.5, 0.999))


def test_its_settings_exist() -> None:
    named = {name.lower() for name in re.findall(r"PIX2DSLR_([A-Z_]+)", README)}
    assert named
    assert named <= Settings.model_fields.keys()


def test_it_lists_every_option_of_enhance() -> None:
    listed = set(re.findall(r"^\| `(\w+)` \|", README, re.MULTILINE))
    assert set(EnhanceOptions.model_fields) | {"reference"} <= listed
