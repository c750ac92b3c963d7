"""The faults of `benchmarks/faults.py`: a deployment whose every process can be reached, what befalls it, and what is seen of a job meanwhile."""
