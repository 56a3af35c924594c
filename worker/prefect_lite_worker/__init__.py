"""The worker: executes runs of tasks for a broker."""
