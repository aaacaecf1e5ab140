# Plinth. `make up` stands the local stack up and proves it; `make test` runs every test.
STACK ?= local
PLINTH := .venv/bin/plinth

.PHONY: help bootstrap up down status test test-unit test-real lint bench compare lock schema docs monitoring charts protos

help:
	@echo 'make up [STACK=local]   install what is missing, stand the stack up, prove it'
	@echo 'make status             is it well?'
	@echo 'make down               stop it; the data stays'
	@echo 'make test               lint, types, every test'
	@echo 'make test-unit          the fast tests: tests/unit without those that are marked slow'
	@echo 'make test-real          each real part where it is there: Qdrant, plain pulumi, the docker plugin, a cluster'
	@echo 'make bench              measure: seconds to ready, p95, recall, backups, jobs of the gateway'
	@echo 'make compare            measure beside Chroma, pgvector and Milvus Lite'
	@echo 'make lock               pin the Python packages anew'
	@echo 'make monitoring         write the rules and dashboards that are generated'
	@echo 'make charts             write what is generated in the charts'
	@echo 'make protos             generate the Python of proto/, as an installation does'
	@echo 'make schema             write the settings'"'"' JSON schema'
	@echo 'make docs               write docs/settings.md and docs/cli.md'

bootstrap:
	@scripts/bootstrap

up: bootstrap
	@$(PLINTH) up $(STACK)

down:
	@$(PLINTH) down $(STACK) --yes

status:
	@$(PLINTH) status $(STACK)

lint: plinth/vectors/v1/vectors_pb2.py
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/mypy
	@.venv/bin/lint-imports --no-cache

test: bootstrap lint
	@scripts/test

test-unit: plinth/vectors/v1/vectors_pb2.py
	@.venv/bin/pytest -q -m 'not slow' tests/unit

test-real: bootstrap
	@scripts/test tests/real

bench: bootstrap
	@.venv/bin/python scripts/bench
	@.venv/bin/python scripts/bench-backup
	@.venv/bin/python scripts/bench-gateway

compare: bootstrap
	@scripts/compare

schema:
	@$(PLINTH) schema > stacks/settings.schema.json

docs: schema
	@.venv/bin/python -m tools.documents

monitoring:
	@.venv/bin/python -m plinth.monitoring
	@.venv/bin/python scripts/charts.py

charts:
	@.venv/bin/python scripts/charts.py

protos plinth/vectors/v1/vectors_pb2.py: setup.py proto/plinth/vectors/v1/vectors.proto
	@.venv/bin/python setup.py -q protos

lock:
	@uv pip compile pyproject.toml --group dev --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements.lock
	@uv pip compile containers/plinth/requirements.txt --constraint requirements.lock --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file containers/plinth/requirements.lock
	@echo 'uv==0.13.9' | uv pip compile - --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements-uv.lock
	@uv pip compile --no-config requirements-compare.txt --python-version 3.11 --generate-hashes \
	  --no-emit-index-url --no-header --no-annotate --quiet --output-file requirements-compare.lock
