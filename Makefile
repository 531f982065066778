# Every target works from a fresh clone with nothing but Python 3.11 or newer and make.
PYTHON ?= python3
PORT ?= 8000
HOST ?= 127.0.0.1
DATA ?= data
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check
# Nothing is installed whose hash is not in requirements/, and the project itself without asking for anything. Wheels alone,
# since what builds others would be fetched without a hash.
PINNED := $(PIP) --require-hashes --only-binary :all:
PINNED_TEST := $(PINNED) --no-binary pyvips --no-build-isolation
OURS := $(PIP) --no-index --no-deps --no-build-isolation --editable .

MINUTES ?= 10

.PHONY: serve test lint format fuzz audit bench model model-iphone model-blackberry model-sony image sbom lock clean

serve: .venv/.serve
	$(BIN)/pix2dslr serve --host $(HOST) --port $(PORT)

# the browser tests take a Chromium where there is one, try to fetch one where there is none, or say how
test: lint
	-$(BIN)/python -m tests.browser.chromium
	$(BIN)/python -m pytest

lint: .venv/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: .venv/.test
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# what it finds is kept in .fuzz, each with the command that runs it again
fuzz: .venv/.test
	$(BIN)/python -m tests.fuzz --minutes $(MINUTES)

# of what other systems need too. It fails where the advisories can't be asked for, rather than pass without them
audit: .venv/.test
	$(PINNED) --requirement requirements/audit.txt
	for set in build tools audit sbom cpu cuda ray test torch; do \
	    sed -e '/^-r/d' -e 's/ ; [^\]*//' requirements/$$set.txt > .venv/audit.txt && \
	    $(BIN)/pip-audit --strict --require-hashes --disable-pip --requirement .venv/audit.txt || exit; done
	$(BIN)/ruff check --select S .

bench: .venv/.test
	$(BIN)/python -m benchmarks

# Trains the shipped generators (the configurations `ship`); see "Train on DPED" in README.md for the data.
# Each step goes on where it was stopped. RUNS holds their checkpoints and reports.
EXPORT := $(BIN)/pix2dslr-export
SHIP := model_export/configs/ship
RUNS ?= runs

model: model-iphone model-blackberry model-sony

$(RUNS)/iphone-distil/report.html: .venv/.test
	$(EXPORT) train $(SHIP)/iphone-distil.toml --data $(DATA) --out $(RUNS)/iphone-distil

model-iphone: $(RUNS)/iphone-distil/report.html
	$(EXPORT) train $(SHIP)/iphone.toml --data $(DATA) --out $(RUNS)/iphone --start-from $(RUNS)/iphone-distil/checkpoint.pt
	$(EXPORT) export $(RUNS)/iphone/checkpoint.pt service/models/iphone.onnx --tiles $(DATA)/dped/pairs/iphone/iphone \
	    --strength 0.95 --phone $(DATA)/dped/pairs/iphone/iphone --dslr $(DATA)/dped/pairs/iphone/canon --names model_export/configs/iphone-validation.txt

# The photos that are left out of training are what the generator is validated on.
HELD_PHONE = $(shell cat model_export/configs/iphone-photos.txt)
HELD_GOOD := casa-mila singaporean-cityscape
TEACH = $(EXPORT) distil $(DATA)/dped/published/dped_$*.onnx

model-blackberry model-sony: model-%: $(RUNS)/iphone-distil/report.html
	$(TEACH) $(DATA)/dped/photos/iphone $(DATA)/distilled/$*/iphone --tiles 50 $(HELD_PHONE:%=--without %)
	$(TEACH) $(DATA)/photos-cc0 $(DATA)/distilled/$*/cc0 --tiles 20 --shots 4 $(HELD_GOOD:%=--without %)
	$(TEACH) $(DATA)/bsds500/photos $(DATA)/distilled/$*/bsds --tiles 0 --every 4
	$(TEACH) $(DATA)/dped/photos/iphone $(DATA)/distilled/$*/held --tiles 20 $(HELD_PHONE:%=--only %)
	$(TEACH) $(DATA)/photos-cc0 $(DATA)/distilled/$*/held --tiles 10 --shots 2 $(HELD_GOOD:%=--only %)
	$(EXPORT) train $(SHIP)/$*.toml --data $(DATA) --out $(RUNS)/$* --start-from $(RUNS)/iphone-distil/checkpoint.pt
	$(EXPORT) export $(RUNS)/$*/checkpoint.pt service/models/$*.onnx --tiles $(DATA)/dped/pairs/iphone/iphone

image:
	docker compose build --build-arg REVISION=$$(git rev-parse HEAD)

# what the image holds: CycloneDX, made while it was built
sbom: image
	docker run --rm pix2dslr:cpu cat /opt/venv/share/sbom/pix2dslr.cdx.json > pix2dslr.cdx.json

# requirements/ anew, after a change of pyproject.toml; UPGRADE=--upgrade for newer versions
lock: .venv/.test
	$(PINNED) --requirement requirements/audit.txt
	$(BIN)/python -m deploy.lock $(UPGRADE)

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .fuzz

.venv/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; name one with PYTHON=")'
	$(PYTHON) -m venv .venv

.venv/.serve: .venv/bin/python pyproject.toml requirements/cpu.txt requirements/build.txt
	$(PINNED) --requirement requirements/cpu.txt --requirement requirements/build.txt
	$(OURS)
	@touch $@

# torch's build for the CPU where an index has it (PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS), else the default one
.venv/.test: .venv/bin/python pyproject.toml $(wildcard requirements/*.txt)
	$(PINNED) --requirement requirements/build.txt --requirement requirements/tools.txt
	$(PINNED_TEST) --requirement requirements/torch-cpu.txt || $(PINNED_TEST) --requirement requirements/torch.txt
	$(OURS)
	@touch $@ .venv/.serve
