"""Methods score units; the allocator turns scores, costs and a target into a plan."""
