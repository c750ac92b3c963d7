"""What `benchmarks/service.py` and `benchmarks/pages.py` ask of a service: pages, requests, lists, points and large files, each beside what it could cost at best."""
