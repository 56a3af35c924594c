"""The regression guard: counts what the hot functions do and compares it with a stored baseline.

python -m benchmarks.guard check
python -m benchmarks.guard update --reason "what was changed and why it costs this"
"""
