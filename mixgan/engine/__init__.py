"""What both training loops share: Accelerator, run folder, exact checkpoints, progress, metrics log, command line."""
