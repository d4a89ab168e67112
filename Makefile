# make demo    builds tarndb and shows the main job on TPC-H data (SF=1 for more)
# make test    every test: Rust, C, Python, and other engines on our tables
# make check   format, lints, layers, file sizes
# make bench   TPC-H beside plain Parquet and DuckDB (BENCH_SF=1 unless given), commits beside PyIceberg, planning and scans
#              with deletes beside both, a metadata index of BENCH_OBJECTS objects
#
# make seeds   SEEDS random histories of a bucket of each of three kinds, of which the tests run a few: nearly an hour
#
# make fuzz    cargo fuzz, FUZZ_SECONDS for each target (TARGETS): needs cargo-fuzz and a C++ compiler, and is no part of the tests,
#              which run the same targets on the same seeds for a moment
#
# LTO=1 builds as what ships is built, with link-time optimisation, which takes half an hour: for figures that are quoted.

SF ?= 0.1
BENCH_SF ?= 1
BENCH_OBJECTS ?= 10000000
FUZZ_SECONDS ?= 60
SEEDS ?= 334
TARGETS ?= metadata_json manifest_list manifest deletion_vector rows_of_value parquet_footer name_mapping object_event
TARGET := $(or $(CARGO_TARGET_DIR),$(HOME)/.cache/tarndb-target)
WORK := $(TARGET)/tarndb
VENV := $(WORK)/venv
DEMO_VENV := $(WORK)/demo-venv
ifdef LTO
export CARGO_TARGET_DIR := $(TARGET)/lto
SHELL_PROFILE := release
else
export CARGO_TARGET_DIR := $(TARGET)
SHELL_PROFILE := bench
# maturin cannot take the profile `bench` (cargo rustc understands it as "the benchmarks"), so the release profile is given
# its settings, and both share one build.
wheel: export CARGO_PROFILE_RELEASE_LTO := false
wheel: export CARGO_PROFILE_RELEASE_CODEGEN_UNITS := 16
endif

.PHONY: demo test test-rust test-python check bench seeds fuzz wheel shell

demo: shell wheel $(VENV)/.ready
	rm -rf $(DEMO_VENV)
	python3 -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install -q $(WORK)/wheels/tarndb-*.whl -r python/requirements-peers.txt
	python3 demo/run.py --shell $(CARGO_TARGET_DIR)/release/tarndb --python $(DEMO_VENV)/bin/python \
	  --tpchgen $(VENV)/bin/tpchgen-cli --scale $(SF) --folder $(WORK)/demo

shell:
	cargo build --locked --profile $(SHELL_PROFILE) --workspace --bin tarndb

wheel: $(VENV)/.ready
	rm -rf $(WORK)/wheels
	cd python && $(VENV)/bin/maturin build -q --locked --release --out $(WORK)/wheels

test: test-rust test-python

test-rust:
	if command -v cargo-nextest >/dev/null; then cargo nextest run --locked --workspace; \
	else cargo test --locked --workspace --lib --bins --tests; fi
	cargo test --locked --workspace --doc

test-python: wheel
	$(VENV)/bin/pip install -q --force-reinstall --no-deps $(WORK)/wheels/tarndb-*.whl
	cd python && $(VENV)/bin/python -m pytest -q tests

check:
	cargo fmt --all --check
	cargo clippy --locked --workspace --all-targets -- -D warnings
	scripts/check-layers.sh
	scripts/check-file-size.sh

bench: wheel $(VENV)/.ready
	rm -rf $(DEMO_VENV)
	python3 -m venv $(DEMO_VENV)
	$(DEMO_VENV)/bin/pip install -q $(WORK)/wheels/tarndb-*.whl -r python/requirements-peers.txt
	$(DEMO_VENV)/bin/python benches/compare/tpch.py --tpchgen $(VENV)/bin/tpchgen-cli --scale $(BENCH_SF) --folder $(WORK)/bench
	$(DEMO_VENV)/bin/python benches/compare/commits.py --folder $(WORK)/bench-commits
	$(DEMO_VENV)/bin/python benches/compare/planning.py --folder $(WORK)/bench
	$(DEMO_VENV)/bin/python benches/compare/deletes.py --folder $(WORK)/bench
	$(DEMO_VENV)/bin/python benches/compare/metadata_index.py --objects $(BENCH_OBJECTS) --folder $(WORK)/bench
	$(DEMO_VENV)/bin/python benches/compare/metadata_index.py --objects $(BENCH_OBJECTS) --tagged --only=events --folder $(WORK)/bench
	$(DEMO_VENV)/bin/python benches/compare/metadata_index.py --objects $(BENCH_OBJECTS) --tagged --only=lookups --folder $(WORK)/bench
	$(DEMO_VENV)/bin/python benches/compare/metadata_index.py --objects 1000000 --only=webhook --folder $(WORK)/bench

seeds: export TARNDB_SEEDS := $(SEEDS)
seeds:
	cargo test --locked --profile $(SHELL_PROFILE) --workspace --test integration -- bucket_model

fuzz: export CARGO_TARGET_DIR := $(TARGET)/fuzz
fuzz:
	mkdir -p $(WORK)/fuzz/states
	tar --zstd -xf core/tests/corpus/tables.tar.zst -C $(WORK)/fuzz/states
	python3 fuzz/seeds.py $(WORK)/fuzz/states $(WORK)/fuzz/corpus
	for target in $(TARGETS); do \
	  cargo fuzz run --sanitizer none $$target $(WORK)/fuzz/corpus/$$target -- \
	    -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=2048 -malloc_limit_mb=1024 -timeout=10 -print_final_stats=1 || exit 1; \
	done

$(VENV)/.ready: python/requirements-dev.txt python/requirements-peers.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/pip install -q -r python/requirements-dev.txt -r python/requirements-peers.txt
	touch $@
