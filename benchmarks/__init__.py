"""What dedupstore costs, measured: kernels, whole verbs, and other programs beside it."""
