"""The decisions of a model (what can be removed), subnets, and applying one."""
