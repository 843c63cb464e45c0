"""Shipped test tools: conformance suites (`constraints`, `saliencies`, `solvers`), brute-force oracles, tiny nets."""
