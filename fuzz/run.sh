#!/bin/sh
# Runs every target for some seconds (60 unless told otherwise), from the corpus that the tests run too. What it finds it writes to
# fuzz/artifacts; what is worth keeping goes to tests/corpus by hand. `fuzz/run.sh 600 ack_decode` runs one for longer.
set -eu
cd "$(dirname "$0")/.."
seconds=${1:-60}
[ $# -gt 0 ] && shift
targets=${*:-$(ls fuzz/fuzz_targets | sed 's/\.rs$//')}
for target in $targets; do
    echo "== $target"
    mkdir -p "fuzz/corpus/$target"
    # A body may need 64 times its input; one allocation beyond 16 MiB is a length that was believed.
    cargo +nightly fuzz run "$target" "fuzz/corpus/$target" "tests/corpus/$target" -- \
        -max_total_time="$seconds" -max_len=4096 -malloc_limit_mb=16 -rss_limit_mb=1024 -timeout=5 -print_final_stats=1
done
