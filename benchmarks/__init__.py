"""Speed against the limits and the peers: every figure is a ratio measured in one interleaved run (docs/benchmarks.md)."""
