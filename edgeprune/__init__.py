"""EdgePrune: prune vision models to a latency measured on the device, and prove the exported file there."""
