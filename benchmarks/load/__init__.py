"""What `benchmarks/service.py` asks of a service: requests, lists, points and large files, each beside what it could cost at best."""
