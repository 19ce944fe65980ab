"""On-device, batched image operations; the one place that wraps Kornia."""
