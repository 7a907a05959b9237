"""What a model's answers mean: the loss, the metric, distillation, and how two answers compare; one task a file."""
