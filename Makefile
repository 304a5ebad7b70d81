# Names for the commands that README.md shows in full; no logic lives here.
.PHONY: dev check down purge lint test bench docs

ENV ?= dev
PLAY = .venv/bin/ansible-playbook -i inventories/$(ENV)

dev:
	./bootstrap.sh
	$(PLAY) playbooks/site.yml playbooks/self_check.yml

check:
	./bootstrap.sh
	$(PLAY) playbooks/site.yml --check --diff

down:
	$(PLAY) playbooks/down.yml

purge:
	$(PLAY) playbooks/purge.yml

lint:
	./bootstrap.sh test
	.venv/bin/pre-commit run --all-files

test:
	./bootstrap.sh test
	.venv/bin/ansible-playbook -i inventories/dev playbooks/test_images.yml
	.venv/bin/pytest -n 2

bench:
	./bootstrap.sh test
	.venv/bin/python bench/deploy.py

docs:
	.venv/bin/python docs/generate.py
