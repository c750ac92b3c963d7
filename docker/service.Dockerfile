# The API: no torch, no diffusers, no CUDA.
FROM python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b AS build
WORKDIR /src
COPY constraints.txt ./
COPY pyproject.toml README.md LICENSE ./
COPY alignment_core alignment_core
COPY attune attune
COPY demo/__init__.py demo/__init__.py
COPY service service
COPY worker worker
# with byte code: the user below cannot write it, and every process would compile the packages anew
RUN python -m venv /opt/attune \
    && /opt/attune/bin/pip install --no-cache-dir -c constraints.txt '.[service,tracing]' \
    && /opt/attune/bin/python -c "import importlib.util as u, sys; sys.exit(any(u.find_spec(n) for n in ('torch', 'diffusers', 'transformers')))"

FROM python:3.11.16-slim-bookworm@sha256:a36c24f9cbdf4fd0f52d67f0823eeac19c2028c637cecc392d97f980d4fec56b
RUN useradd --uid 10001 --user-group --create-home attune \
    && install -d -o attune -g attune /var/lib/attune
COPY --from=build /opt/attune /opt/attune
ENV PATH=/opt/attune/bin:$PATH PYTHONUNBUFFERED=1 ATTUNE_DATA_DIR=/var/lib/attune
USER attune
WORKDIR /var/lib/attune
VOLUME /var/lib/attune
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8000/readyz', timeout=4)"]
CMD ["uvicorn", "--factory", "service.main:app", "--host", "0.0.0.0", "--port", "8000", "--proxy-headers", "--timeout-graceful-shutdown", "10"]
