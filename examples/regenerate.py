"""Make the client's models from the service's own OpenAPI document: python examples/regenerate.py.

Needs the extras `test` and `lint`. tests/e2e/test_client.py fails where what lies here is not what the document gives.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from service.app import create_app
from service.settings import Settings

MODELS: Final = Path(__file__).parent / "client" / "pix2dslr_client" / "models.py"
_COMMAND: Final = [sys.executable, "-m", "datamodel_code_generator", "--input-file-type", "openapi"]
_STYLE: Final = [
    *("--output-model-type", "pydantic_v2.BaseModel", "--enum-field-as-literal", "all"),
    *("--target-python-version", "3.11", "--use-annotated", "--use-schema-description", "--disable-timestamp"),
    *("--use-double-quotes", "--strict-nullable", "--no-formatters"),
    *("--custom-file-header", '"""Made by examples/regenerate.py from the OpenAPI document; not to be edited."""'),
]


def models() -> str:
    """Return the module of the service as it is here, in the style of the repository.

    Raises:
        subprocess.CalledProcessError: the generator or ruff failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        document, made = Path(folder) / "openapi.json", Path(folder) / "models.py"
        document.write_text(json.dumps(create_app(Settings()).openapi()))
        subprocess.run([*_COMMAND, "--input", str(document), "--output", str(made), *_STYLE], check=True)
        text = made.read_text()
    for step in (["check", "--quiet", "--fix", "--exit-zero"], ["format"]):
        # named as the file that it becomes, so that the repository's settings apply
        command = [sys.executable, "-m", "ruff", *step, "--stdin-filename", str(MODELS), "-"]
        text = subprocess.run(command, input=text, capture_output=True, text=True, check=True).stdout
    return text


if __name__ == "__main__":
    MODELS.write_text(models())
