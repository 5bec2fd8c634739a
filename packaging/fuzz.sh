#!/usr/bin/env bash
# Fuzzes every parser, and the atServer's session as a whole, guided by coverage.
#
#   packaging/fuzz.sh SECONDS [TARGET …]      without a target: all of them, one after the other
#
# Works with the stable toolchain: the instrumentation is an LLVM pass, the engine is libFuzzer, compiled from
# source by a C++ compiler. What is found lies in target/fuzz/found; what is learned stays in target/fuzz/corpus.
set -euo pipefail
cd "$(dirname "$0")/.."

seconds=${1:?seconds per target}
shift
host=$(rustc -vV | sed -n 's/^host: //p')
export RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
# With --target the flags do not reach build scripts, which could not be linked.
cargo build --release --manifest-path tests/fuzz/Cargo.toml --target "$host" --target-dir target/fuzz
bin=target/fuzz/$host/release
SEEDS=target/fuzz/seeds "$bin/seeds" -runs=1 2>/dev/null

if [ $# = 0 ]; then
    for seeds in target/fuzz/seeds/*/; do
        set -- "$@" "$(basename "$seeds")"
    done
fi
for target; do
    printf -- '-- %s\n' "$target"
    mkdir -p "target/fuzz/corpus/$target" target/fuzz/found
    # Slow machines and sanitised seeds: a single input may take 10 s before it counts as a hang.
    if ! "$bin/$target" -max_total_time="$seconds" -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
        -dict=tests/fuzz/words.dict -artifact_prefix="target/fuzz/found/$target-" -print_final_stats=1 \
        "target/fuzz/corpus/$target" "target/fuzz/seeds/$target" >"target/fuzz/$target.log" 2>&1; then
        tail -n 40 "target/fuzz/$target.log"
        exit 1
    fi
    grep -E '^stat::(number_of_executed_units|average_exec_per_sec)' "target/fuzz/$target.log"
done
