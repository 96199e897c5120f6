"""Speed against the limits and the peers: each figure is a ratio from one interleaved run (docs/benchmarks.md)."""
